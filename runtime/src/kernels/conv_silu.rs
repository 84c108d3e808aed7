//! silu of the causal depthwise convolution, zero left pad:
//! y[t, c] = silu(b[c] + sum_k w[c, 0, k] x[t - (K-1) + k, c]).

use super::math::{silu, wide};
use super::parallel::{by_rows, row_block, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel { name: "conv_silu", version: 1, cpu, reference, scratch, tolerance: 2e-6 };

fn constants(op: &Op) -> (usize, bool) {
    match op {
        Op::ConvSilu { kernel, bias } => (*kernel, *bias),
        _ => panic!("bug: `{}` is no conv_silu", op.name()),
    }
}

fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    scratch_size(constants(op).0 * operands.first().map_or(0, |x| x.1))
}

fn cpu(call: Call) {
    let (kernel, has_bias) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    let out = call.out_f32();
    // A block lays the weights out anew, tap by tap, so that the channels of a tap are next to each other.
    let block = row_block(out.cols()).max(4 * kernel);
    by_rows(out, block, |first, out| {
        with_scratch(kernel * x.cols(), |taps| {
            for c in 0..x.cols() {
                for k in 0..kernel {
                    taps[k * x.cols() + c] = weight.row(c)[k];
                }
            }
            convolve(x, first, taps, bias, out);
        });
    });
}

/// Rows `first..` of the convolution; taps [K, C].
fn convolve(x: View, first: usize, taps: &[f32], bias: Option<&[f32]>, mut out: ViewMut) {
    let kernel = taps.len() / x.cols().max(1);
    wide(
        #[inline(always)]
        || {
            for i in 0..out.rows() {
                let (t, out) = (first + i, out.row(i));
                match bias {
                    Some(bias) => out.copy_from_slice(bias),
                    None => out.fill(0.0),
                }
                for k in (kernel - 1).saturating_sub(t)..kernel {
                    let (x, taps) = (x.row(t + k + 1 - kernel), &taps[k * x.cols()..(k + 1) * x.cols()]);
                    for ((y, x), w) in out.iter_mut().zip(x).zip(taps) {
                        *y += x * w;
                    }
                }
                for y in out {
                    *y = silu(*y);
                }
            }
        },
    )
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (kernel, has_bias) = constants(op);
    let (x, weight) = (&operands[0], operands[1].data());
    let mut out = Vec::new();
    for t in 0..x.rows() {
        for c in 0..x.cols() {
            let taps = (0..kernel).filter(|k| t + k + 1 >= kernel);
            let sum: f64 = taps.map(|k| weight[c * kernel + k] * x.row(t + k + 1 - kernel)[c]).sum();
            let y = sum + if has_bias { operands[2].data()[c] } else { 0.0 };
            out.push(y / (1.0 + (-y).exp()));
        }
    }
    out
}
