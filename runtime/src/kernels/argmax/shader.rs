//! One workgroup a row: the largest element, then the first column that has it.

use super::super::Shaders;
use crate::shader::common::{LANES, MOST, rowwise};
use crate::shader::{Call, Plan, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 0.0 };

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let x = &call.args[0];
    let parameters =
        |source: crate::shader::Source| source.u32("cols", x.cols).f32("nan", f64::NAN).with(MOST);
    let body = format!(
        "    var largest = -3.4e38;
    for (var c = lane; c < p.cols; c += {LANES}u) {{ largest = max(largest, x(r, c)); }}
    largest = most(largest, lane);
    var first = -3.4e38;
    for (var c = lane; c < p.cols; c += {LANES}u) {{
        if (x(r, c) == largest) {{ first = max(first, -f32(c)); }}
    }}
    first = most(first, lane);
    if (lane == 0u) {{ set_out(r, 0u, select(-first, p.nan, first < -3.0e38)); }}"
    );
    rowwise(plan, "argmax", call.out, &[("x", x)], &[], parameters, &body)
}
