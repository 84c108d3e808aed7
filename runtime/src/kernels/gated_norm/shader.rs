//! Gated norms and their gradients, one workgroup a group of a position.

use super::super::Shaders;
use super::{constants, grad_constants};
use crate::shader::common::{LANES, Operands, SIGMOID, TOTAL, by_rows, column_sums};
use crate::shader::{Call, Elem, Mat, Plan, Source, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 1e-6 };
pub const GRAD: Shaders = Shaders { version: 1, plan: grad, tolerance: 1e-6 };
pub const WEIGHT_GRAD: Shaders = Shaders { version: 1, plan: weight_grad, tolerance: 1e-6 };

const V: &str = "fn v(r: u32, c: u32) -> f32 { return y(r, c) * silu(z(r, c)); }";

/// `root`, 1 / rms(v) of a group, whose columns are `first..end` of row r.
const ROOT: &str = "
    let r = group / p.per_row;
    let first = group % p.per_row * p.width;
    let end = first + p.width;
    var squares = 0.0;
    for (var c = first + lane; c < end; c += 64u) { squares += v(r, c) * v(r, c); }
    let root = 1.0 / sqrt(total(squares, lane) / p.count + p.eps);";

struct Groups {
    groups: usize,
    width: usize,
    /// Channels of a group that count for its mean.
    active: f64,
    eps: f64,
}

impl Groups {
    fn of_grad(call: &Call) -> Groups {
        let (groups, eps) = grad_constants(call.op);
        let width = call.args[0].cols / groups;
        Groups { groups, width, active: width as f64, eps }
    }

    /// Runs the body behind [`ROOT`]. `operands` have the rows of `out`, y and z are among them.
    fn run(
        &self,
        plan: &mut Plan,
        name: &'static str,
        out: &Mat,
        operands: &[(&'static str, &Mat)],
        weight: Option<&Mat>,
        body: &str,
    ) -> Result<(), Unfit> {
        let vectors: Vec<(&'static str, &Mat)> =
            weight.map(|weight| ("weight", weight)).into_iter().collect();
        let of = Operands { rows: operands, vectors: &vectors, out: Some(out) };
        by_rows(plan, name, LANES, of, |source, rows| {
            let source = source
                .u32("per_row", self.groups)
                .u32("width", self.width)
                .f32("count", self.active)
                .f32("eps", self.eps)
                .shared("totals", "f32", LANES)
                .with(TOTAL)
                .with(SIGMOID)
                .with(V)
                .body(ROOT)
                .body(body);
            (source, rows * self.groups)
        })
    }
}

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((groups, eps, active), [y, z, weight]) =
        (constants(call.op), [&call.args[0], &call.args[1], &call.args[2]]);
    let body = "
    for (var c = first + lane; c < end; c += 64u) { set_out(r, c, v(r, c) * root * weight(0u, c)); }";
    let groups = Groups { groups, width: y.cols / groups, active, eps };
    groups.run(plan, "gated_norm", call.out, &[("y", y), ("z", z)], Some(weight), body)
}

fn grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [y, z, weight, dn] = [0, 1, 2, 3].map(|i| &call.args[i]);
    let body = "
    var along = 0.0;
    for (var c = first + lane; c < end; c += 64u) { along += weight(0u, c) * dn(r, c) * v(r, c); }
    let slope = root * root * root / p.count * total(along, lane);
    for (var c = first + lane; c < end; c += 64u) {
        let dv = root * (weight(0u, c) * dn(r, c)) - slope * v(r, c);
        set_out(r, c, dv * silu(z(r, c)));
        set_out(r, p.per_row * p.width + c, dv * y(r, c) * silu_slope(z(r, c)));
    }";
    let operands = [("y", y), ("z", z), ("dn", dn)];
    Groups::of_grad(&call).run(plan, "gated_norm_grad", call.out, &operands, Some(weight), body)
}

fn weight_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [y, z, dn, gradient] = [0, 1, 2, 3].map(|i| &call.args[i]);
    let groups = Groups::of_grad(&call);
    let roots = plan.scratch(Elem::F32, y.rows, groups.groups);
    let body = "    if (lane == 0u) { set_out(r, group % p.per_row, root); }";
    groups.run(plan, "gated_norm_roots", &roots, &[("y", y), ("z", z)], None, body)?;
    let parameters = |source: Source| source.u32("width", groups.width).with(SIGMOID).with(V);
    let operands = [("y", y), ("z", z), ("dn", dn), ("root", &roots)];
    let term = "v(r, c) * root(r, c / p.width) * dn(r, c)";
    column_sums(plan, "gated_norm_weight_grad", gradient, &operands, parameters, term)
}
