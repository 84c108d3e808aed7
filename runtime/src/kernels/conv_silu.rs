//! silu of the causal depthwise convolution, zero left pad: y = silu(s),
//! s[t, c] = b[c] + sum_k w[c, 0, k] x[t - (K-1) + k, c]; and in reverse,
//! ds = dy silu'(s), dx[t, c] = sum_k w[c, 0, k] ds[t + (K-1) - k, c], and
//! dw[c, 0, k] += sum_t ds[t, c] x[t - (K-1) + k, c] in f64. The bias has the column sums of ds.

mod shader;

use super::math::{silu, silu_and_slope, wide};
use super::parallel::{by_rows, row_block, scratch_size, with_scratch};
use super::sums::{position_sums, position_sums_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;
use std::ops::Range;

pub const KERNEL: Kernel = Kernel {
    name: "conv_silu",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 2e-6,
    shaders: shader::KERNEL,
};

pub const STEP: Kernel = Kernel {
    name: "conv_step",
    version: 1,
    cpu: step,
    reference: step_reference,
    scratch,
    tolerance: 2e-6,
    shaders: shader::STEP,
};

pub const SILU_GRAD: Kernel = Kernel {
    name: "silu_grad",
    version: 1,
    cpu: silu_grad,
    reference: silu_grad_reference,
    scratch,
    tolerance: 2e-6,
    shaders: shader::SILU_GRAD,
};

pub const CONV_GRAD: Kernel = Kernel {
    name: "conv_grad",
    version: 1,
    cpu: conv_grad,
    reference: conv_grad_reference,
    scratch,
    tolerance: 1e-6,
    shaders: shader::CONV_GRAD,
};

pub const WEIGHT_GRAD: Kernel = Kernel {
    name: "conv_weight_grad",
    version: 1,
    cpu: weight_grad,
    reference: weight_grad_reference,
    scratch: weight_grad_scratch,
    tolerance: 1e-6,
    shaders: shader::WEIGHT_GRAD,
};

/// Taps of the kernel, and whether there is a bias.
fn constants(op: &Op) -> (usize, bool) {
    match op {
        Op::ConvSilu { kernel, bias } | Op::ConvStep { kernel, bias } | Op::SiluGrad { kernel, bias } => {
            (*kernel, *bias)
        }
        Op::ConvGrad { kernel } | Op::ConvWeightGrad { kernel } => (*kernel, false),
        _ => panic!("bug: `{}` is no convolution", op.name()),
    }
}

fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    scratch_size(constants(op).0 * operands.first().map_or(0, |x| x.1))
}

fn cpu(call: Call) {
    let (kernel, has_bias) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    by_tap(call.out_f32(), weight, kernel, |first, taps, out| {
        convolve(
            #[inline(always)]
            |i, k| behind(x, kernel, first + i, k),
            taps,
            bias,
            out,
            #[inline(always)]
            |_, s| {
                for s in s {
                    *s = silu(*s);
                }
            },
        );
    });
}

/// The row that position t reads by its tap k.
#[inline(always)]
fn behind<'a>(x: View<'a>, kernel: usize, t: usize, k: usize) -> Option<&'a [f32]> {
    (t + k + 1).checked_sub(kernel).map(|t| x.row(t))
}

/// Rows are sequences at one position, and what they read is in their rings of K rows.
fn step(call: Call) {
    let (kernel, has_bias) = constants(call.op);
    let (ring, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    let position = call.at(2 + usize::from(has_bias))[1];
    by_tap(call.out_f32(), weight, kernel, |first, taps, out| {
        convolve(
            #[inline(always)]
            |i, k| {
                let t = (position + k + 1).checked_sub(kernel)?;
                Some(ring.row((first + i) * kernel + t % kernel))
            },
            taps,
            bias,
            out,
            #[inline(always)]
            |_, s| {
                for s in s {
                    *s = silu(*s);
                }
            },
        );
    });
}

/// Calls `work(first row, taps [K, C], rows)` for blocks of rows. A block lays the weights out anew, tap by tap,
/// so that the channels of a tap are next to each other, and has many rows, so that this costs little.
fn by_tap(out: ViewMut, weight: View, kernel: usize, work: impl Fn(usize, &[f32], ViewMut) + Sync) {
    let channels = out.cols();
    let block = row_block(channels).max(16 * kernel);
    by_rows(out, block, |first, out| {
        with_scratch(kernel * channels, |taps| {
            for c in 0..channels {
                for k in 0..kernel {
                    taps[k * channels + c] = weight.row(c)[k];
                }
            }
            work(first, taps, out);
        });
    });
}

/// Rows of s, each passed through finish(row's number, row); taps [K, C]. `read` gives what tap k of a row reads.
fn convolve<'a>(
    read: impl Fn(usize, usize) -> Option<&'a [f32]>,
    taps: &[f32],
    bias: Option<&[f32]>,
    mut out: ViewMut,
    finish: impl Fn(usize, &mut [f32]),
) {
    let channels = out.cols();
    wide(
        #[inline(always)]
        || {
            for i in 0..out.rows() {
                let out = out.row(i);
                match bias {
                    Some(bias) => out.copy_from_slice(bias),
                    None => out.fill(0.0),
                }
                for (k, taps) in taps.chunks_exact(channels).enumerate() {
                    let Some(x) = read(i, k) else { continue };
                    for ((y, x), w) in out.iter_mut().zip(x).zip(taps) {
                        *y += x * w;
                    }
                }
                finish(i, out);
            }
        },
    )
}

fn silu_grad(call: Call) {
    let (kernel, has_bias) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    let dy = call.f32(2 + usize::from(has_bias));
    by_tap(call.out_f32(), weight, kernel, |first, taps, out| {
        convolve(
            #[inline(always)]
            |i, k| behind(x, kernel, first + i, k),
            taps,
            bias,
            out,
            #[inline(always)]
            |i, s| {
                for (s, dy) in s.iter_mut().zip(dy.row(first + i)) {
                    *s = dy * silu_and_slope(*s).1;
                }
            },
        );
    });
}

fn conv_grad(call: Call) {
    let (kernel, _) = constants(call.op);
    let (ds, weight) = (call.f32(0), call.f32(1));
    by_tap(call.out_f32(), weight, kernel, |first, taps, out| spread(ds, first, taps, out));
}

/// Rows `first..` of dx; taps [K, C].
fn spread(ds: View, first: usize, taps: &[f32], mut out: ViewMut) {
    let (channels, kernel) = (ds.cols(), taps.len() / ds.cols().max(1));
    wide(
        #[inline(always)]
        || {
            for i in 0..out.rows() {
                let (t, out) = (first + i, out.row(i));
                out.fill(0.0);
                // Position t + ahead read x[t] by its tap K-1 - ahead.
                for ahead in 0..kernel.min(ds.rows() - t) {
                    let taps = &taps[(kernel - 1 - ahead) * channels..(kernel - ahead) * channels];
                    for ((dx, ds), w) in out.iter_mut().zip(ds.row(t + ahead)).zip(taps) {
                        *dx += ds * w;
                    }
                }
            }
        },
    )
}

fn weight_grad_scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let sums = |&(positions, channels): &(usize, usize)| {
        position_sums_scratch(positions, constants(op).0 * channels)
    };
    operands.first().map_or(0, sums)
}

fn weight_grad(mut call: Call) {
    let (kernel, _) = constants(call.op);
    let (x, ds) = (call.f32(0), call.f32(1));
    let sums = position_sums(x.rows(), kernel * x.cols(), |positions, sums| {
        add_products(x, ds, positions, sums);
    });
    let mut gradient = call.changed();
    for c in 0..x.cols() {
        for (k, gradient) in gradient.row(c).iter_mut().enumerate() {
            *gradient += sums[k * x.cols() + c] as f32;
        }
    }
}

/// sums[k, c] += ds[t, c] x[t - (K-1) + k, c] over the positions t.
fn add_products(x: View, ds: View, positions: Range<usize>, sums: &mut [f64]) {
    let (channels, kernel) = (x.cols(), sums.len() / x.cols().max(1));
    wide(
        #[inline(always)]
        || {
            for t in positions {
                let ds = ds.row(t);
                for k in (kernel - 1).saturating_sub(t)..kernel {
                    let x = x.row(t + k + 1 - kernel);
                    for ((sum, ds), x) in sums[k * channels..].iter_mut().zip(ds).zip(x) {
                        *sum += f64::from(ds * x);
                    }
                }
            }
        },
    )
}

/// s, from the operands that begin with x, weight and the bias.
fn reference_sums(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (kernel, has_bias) = constants(op);
    let (x, weight) = (&operands[0], operands[1].data());
    let mut out = Vec::new();
    for t in 0..x.rows() {
        for c in 0..x.cols() {
            let taps = (0..kernel).filter(|k| t + k + 1 >= kernel);
            let sum: f64 = taps.map(|k| weight[c * kernel + k] * x.row(t + k + 1 - kernel)[c]).sum();
            out.push(sum + if has_bias { operands[2].data()[c] } else { 0.0 });
        }
    }
    out
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    reference_sums(op, operands).into_iter().map(|s| s / (1.0 + (-s).exp())).collect()
}

/// The sequences as they would be if nothing but their last rows had ever been, in order.
fn step_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let ((kernel, has_bias), ring) = (constants(op), &operands[0]);
    let position = operands[2 + usize::from(has_bias)].at()[1];
    let mut out = Vec::new();
    for sequence in 0..ring.rows() / kernel {
        let rows = position.saturating_sub(kernel - 1)..=position;
        let data: Vec<f64> =
            rows.clone().flat_map(|t| ring.row(sequence * kernel + t % kernel)).copied().collect();
        let x = Exact::F64 { data, rows: rows.count(), cols: ring.cols() };
        let operands: Vec<Exact> = std::iter::once(x).chain(operands[1..].iter().cloned()).collect();
        let whole = reference(&Op::ConvSilu { kernel, bias: has_bias }, &operands);
        out.extend(&whole[whole.len() - ring.cols()..]);
    }
    out
}

fn silu_grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let dy = operands[operands.len() - 1].data();
    let sigmoid = |s: f64| 1.0 / (1.0 + (-s).exp());
    let slope = |s: f64| sigmoid(s) * (1.0 + s * (1.0 - sigmoid(s)));
    reference_sums(op, operands).into_iter().zip(dy).map(|(s, dy)| dy * slope(s)).collect()
}

fn conv_grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (kernel, _) = constants(op);
    let (ds, weight) = (&operands[0], operands[1].data());
    let mut out = Vec::new();
    for t in 0..ds.rows() {
        for c in 0..ds.cols() {
            let taps = (0..kernel).filter(|k| t + (kernel - 1) - k < ds.rows());
            out.push(taps.map(|k| weight[c * kernel + k] * ds.row(t + (kernel - 1) - k)[c]).sum());
        }
    }
    out
}

fn weight_grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (kernel, _) = constants(op);
    let (x, ds) = (&operands[0], &operands[1]);
    let mut gradient = operands[2].data().to_vec();
    for (i, gradient) in gradient.iter_mut().enumerate() {
        let (c, k) = (i / kernel, i % kernel);
        let positions = (0..x.rows()).filter(|t| t + k + 1 >= kernel);
        *gradient += positions.map(|t| ds.row(t)[c] * x.row(t + k + 1 - kernel)[c]).sum::<f64>();
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::super::tests::differences::{assert_near, differences, drawn, zeros};
    use super::*;

    #[test]
    fn gradients_are_slopes() {
        let (l, channels, kernel) = (6, 3, 4);
        let (x, weight, bias) = (drawn(1, l, channels), drawn(2, channels, kernel), drawn(3, 1, channels));
        let dy = drawn(4, l, channels);
        let operands = [x.clone(), weight.clone(), bias.clone()];
        let of =
            |operand| differences(&KERNEL, &Op::ConvSilu { kernel, bias: true }, &operands, operand, &dy);

        let operands = [x.clone(), weight.clone(), bias.clone(), dy.clone()];
        let data = silu_grad_reference(&Op::SiluGrad { kernel, bias: true }, &operands);
        let sum = |c: usize| data.iter().skip(c).step_by(channels).sum::<f64>();
        assert_near(&(0..channels).map(sum).collect::<Vec<_>>(), &of(2));
        let ds = Exact::F64 { data, rows: l, cols: channels };
        assert_near(&conv_grad_reference(&Op::ConvGrad { kernel }, &[ds.clone(), weight.clone()]), &of(0));
        let operands = [x.clone(), ds, zeros(channels, kernel)];
        assert_near(&weight_grad_reference(&Op::ConvWeightGrad { kernel }, &operands), &of(1));
    }
}
