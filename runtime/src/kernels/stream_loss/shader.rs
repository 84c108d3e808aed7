//! Losses between two streams with their gradients, one workgroup a position. With the directions u = x / |x| and
//! v = y / |y|, that of the cosine is d - (d u) u over |x|, d = u - v: what is left of a difference of streams that
//! are nearly alike has its digits already.

use super::super::Shaders;
use super::super::cosine_distance::LENGTHS;
use super::constants;
use crate::shader::common::{TOTAL, rowwise};
use crate::shader::{Call, Plan, Source, Unfit};
use minic_compiler::graph::StreamLoss;

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 2e-6 };

const MSE: &str = "
    var squares = 0.0;
    for (var c = lane; c < p.cols; c += 64u) {
        let d = x(r, c) - y(r, c);
        squares += d * d;
        set_out(r, c, p.slope * d);
    }
    let loss = total(squares, lane) / f32(p.cols);";

const COSINE: &str = "
    var squares = 0.0;
    var along = 0.0;
    for (var c = lane; c < p.cols; c += 64u) {
        let d = x(r, c) * of_x - y(r, c) * of_y;
        squares += d * d;
        along += d * (x(r, c) * of_x);
    }
    squares = total(squares, lane);
    along = total(along, lane);
    for (var c = lane; c < p.cols; c += 64u) {
        let d = x(r, c) * of_x - y(r, c) * of_y;
        set_out(r, c, select(0.0, p.slope * of_x * (d - along * (x(r, c) * of_x)), directed));
    }
    let loss = select(1.0, 0.5 * squares, directed);";

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((loss, scale), [x, y]) = (constants(call.op), [&call.args[0], &call.args[1]]);
    let (text, slope) = match loss {
        StreamLoss::Mse => (MSE.to_string(), scale * 2.0 / x.cols as f64),
        StreamLoss::Cosine => (format!("{LENGTHS}{COSINE}"), scale),
    };
    let body = format!("{text}\n    if (lane == 0u) {{ set_out(r, p.cols, loss); }}");
    let parameters = |source: Source| source.u32("cols", x.cols).f32("slope", slope).with(TOTAL);
    rowwise(plan, "stream_loss", call.out, &[("x", x), ("y", y)], &[], parameters, &body)
}
