//! RMSNorm and its gradients, one workgroup a position.

use super::super::Shaders;
use super::{constants, grad_constants, weight_grad_eps};
use crate::shader::common::{TOTAL, column, column_sums, rowwise};
use crate::shader::{Call, Plan, Source, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 2e-6 };
pub const GRAD: Shaders = Shaders { version: 1, plan: grad, tolerance: 5e-6 };
pub const WEIGHT_GRAD: Shaders = Shaders { version: 1, plan: weight_grad, tolerance: 5e-6 };

/// `root`, 1 / rms(x) of row r.
const ROOT: &str = "
    var squares = 0.0;
    for (var c = lane; c < p.cols; c += 64u) { squares += x(r, c) * x(r, c); }
    let root = 1.0 / sqrt(total(squares, lane) / p.width + p.eps);";

fn parameters(cols: usize, active: f64, eps: f64) -> impl Fn(Source) -> Source {
    move |source| source.u32("cols", cols).f32("width", active).f32("eps", eps).with(TOTAL)
}

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((eps, active), [x, weight]) = (constants(call.op), [&call.args[0], &call.args[1]]);
    let body = "
    for (var c = lane; c < p.cols; c += 64u) { set_out(r, c, x(r, c) * root * weight(0u, c)); }";
    let of = parameters(x.cols, active, eps);
    rowwise(plan, "rms_norm", call.out, &[("x", x)], &[("weight", weight)], of, &format!("{ROOT}{body}"))
}

fn grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((eps, onto), [x, weight, dy]) =
        (grad_constants(call.op), [&call.args[0], &call.args[1], &call.args[2]]);
    let mut rows = vec![("x", x), ("dy", dy)];
    rows.extend(onto.then(|| ("d", &call.args[3])));
    let before = if onto { "d(r, c) + " } else { "" };
    let body = format!(
        "{ROOT}
    var along = 0.0;
    for (var c = lane; c < p.cols; c += 64u) {{ along += weight(0u, c) * dy(r, c) * x(r, c); }}
    let slope = root * root * root / p.width * total(along, lane);
    for (var c = lane; c < p.cols; c += 64u) {{
        set_out(r, c, {before}(root * (weight(0u, c) * dy(r, c)) - slope * x(r, c)));
    }}"
    );
    let of = parameters(x.cols, x.cols as f64, eps);
    rowwise(plan, "rms_norm_grad", call.out, &rows, &[("weight", weight)], of, &body)
}

fn weight_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (eps, [x, dy, gradient]) = (weight_grad_eps(call.op), [&call.args[0], &call.args[1], &call.args[2]]);
    let roots = column(plan, x.rows);
    let body = format!("{ROOT}\n    if (lane == 0u) {{ set_out(r, 0u, root); }}");
    rowwise(plan, "rms_norm_roots", &roots, &[("x", x)], &[], parameters(x.cols, x.cols as f64, eps), &body)?;
    let term = "x(r, c) * root(r, 0u) * dy(r, c)";
    let operands = [("x", x), ("dy", dy), ("root", &roots)];
    column_sums(plan, "rms_norm_weight_grad", gradient, &operands, |source| source, term)
}
