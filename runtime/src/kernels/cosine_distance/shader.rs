//! 1 - cos(x, y) = |u - v|^2 / 2 of the directions u = x / |x| and v = y / |y|: nearly equal streams leave that
//! many digits, where 1 - xy / |x| |y| leaves none.

use super::super::Shaders;
use crate::shader::common::{TOTAL, rowwise};
use crate::shader::{Call, Plan, Source, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 1e-6 };

/// `of_x` and `of_y`, 1 / |x| and 1 / |y| of row r, zero for a row of zeros; whether both are `directed`.
pub const LENGTHS: &str = "
    var xx = 0.0;
    var yy = 0.0;
    for (var c = lane; c < p.cols; c += 64u) {
        xx += x(r, c) * x(r, c);
        yy += y(r, c) * y(r, c);
    }
    xx = total(xx, lane);
    yy = total(yy, lane);
    let of_x = select(1.0 / sqrt(xx), 0.0, xx == 0.0);
    let of_y = select(1.0 / sqrt(yy), 0.0, yy == 0.0);
    let directed = xx != 0.0 && yy != 0.0;";

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [x, y] = [&call.args[0], &call.args[1]];
    let body = format!(
        "{LENGTHS}
    var squares = 0.0;
    for (var c = lane; c < p.cols; c += 64u) {{
        let apart = x(r, c) * of_x - y(r, c) * of_y;
        squares += apart * apart;
    }}
    let distance = select(1.0, 0.5 * total(squares, lane), directed);
    if (lane == 0u) {{ set_out(r, 0u, vec2(distance, 0.0)); }}"
    );
    let parameters = |source: Source| source.u32("cols", x.cols).with(TOTAL);
    rowwise(plan, "cosine_distance", call.out, &[("x", x), ("y", y)], &[], parameters, &body)
}
