//! A loss between two streams at every position, and beside it its gradient by x, scaled, in f64:
//! mean((x - y)^2) with 2 (x - y) / E, and 1 - cos(x, y) with (cos x / |x| - y / |y|) / |x|.
//! A row of zeros has no direction: its cosine is 0, and so is the gradient.

mod shader;

use super::math::{dot, sum, wide};
use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::{Op, StreamLoss};

pub const KERNEL: Kernel = Kernel {
    name: "stream_loss",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::KERNEL,
};

fn constants(op: &Op) -> (StreamLoss, f64) {
    match op {
        Op::StreamLoss { loss, scale } => (*loss, *scale),
        _ => panic!("bug: `{}` is no stream_loss", op.name()),
    }
}

fn cpu(call: Call) {
    let (loss, scale) = constants(call.op);
    let (x, y) = (call.f32(0), call.f32(1));
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    let (x, y) = (x.row(first + i), y.row(first + i));
                    let (dx, value) = out.row(i).split_at_mut(x.len());
                    let (loss, by_x, by_y) = position(loss, x, y);
                    value[0] = loss as f32;
                    let (by_x, by_y) = (scale * by_x, scale * by_y);
                    for ((dx, x), y) in dx.iter_mut().zip(x).zip(y) {
                        *dx = (by_x * f64::from(*x) - by_y * f64::from(*y)) as f32;
                    }
                }
            },
        )
    });
}

/// The loss, and a and b of its gradient a x - b y. Two streams are nearly alike, so that this difference needs
/// f64.
#[inline(always)]
fn position(loss: StreamLoss, x: &[f32], y: &[f32]) -> (f64, f64, f64) {
    match loss {
        StreamLoss::Mse => {
            let width = x.len() as f64;
            let difference = |x: f32, y: f32| f64::from(x) - f64::from(y);
            let squares = sum(x, y, |x, y| difference(x, y) * difference(x, y));
            (squares / width, 2.0 / width, 2.0 / width)
        }
        StreamLoss::Cosine => {
            let (xy, xx, yy) = (dot(x, y), dot(x, x), dot(y, y));
            let lengths = (xx * yy).sqrt();
            if lengths == 0.0 {
                return (1.0, 0.0, 0.0);
            }
            (1.0 - xy / lengths, xy / lengths / xx, 1.0 / lengths)
        }
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (loss, scale) = constants(op);
    let mut out = Vec::new();
    for t in 0..operands[0].rows() {
        let (x, y) = (operands[0].row(t), operands[1].row(t));
        let width = x.len() as f64;
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (x_length, y_length) = (product(x, x).sqrt(), product(y, y).sqrt());
        let none = x_length == 0.0 || y_length == 0.0;
        let cosine = if none { 0.0 } else { product(x, y) / (x_length * y_length) };
        let dx = |(x, y): (&f64, &f64)| match loss {
            StreamLoss::Mse => scale * 2.0 * (x - y) / width,
            StreamLoss::Cosine if none => 0.0,
            StreamLoss::Cosine => scale * (cosine * x / x_length - y / y_length) / x_length,
        };
        out.extend(x.iter().zip(y).map(dx));
        out.push(match loss {
            StreamLoss::Mse => x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / width,
            StreamLoss::Cosine => 1.0 - cosine,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::differences::{assert_near, differences, drawn};
    use super::*;

    #[test]
    fn gradients_are_slopes_of_the_losses() {
        let (l, width, scale) = (3, 5, 0.25);
        let operands = [drawn(1, l, width), drawn(2, l, width)];
        // Of a row, the loss alone counts.
        let row = [vec![0.0; width], vec![scale]].concat();
        let weights = Exact::F64 { data: row.repeat(l), rows: l, cols: width + 1 };
        for loss in [StreamLoss::Mse, StreamLoss::Cosine] {
            let op = Op::StreamLoss { loss, scale };
            let value = reference(&op, &operands);
            let gradient: Vec<f64> =
                value.chunks(width + 1).flat_map(|row| row[..width].iter().copied()).collect();
            assert_near(&gradient, &differences(&KERNEL, &op, &operands, 0, &weights));
        }
    }
}
