//! x / sqrt(sum(x^2) / active + eps) * weight, row by row; and in reverse, over all E channels, with
//! r = 1 / sqrt(sum(x^2) / E + eps),
//! dx = r weight dy - r^3 / E sum(weight dy x) x and dweight += sum over positions of r x dy.
//! Sums are in f64.

mod shader;

use super::math::{dot, dot3, wide};
use super::parallel::{by_rows, row_block};
use super::sums::{add_sums, position_sums, position_sums_scratch};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "rms_norm",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::KERNEL,
};

pub const GRAD: Kernel = Kernel {
    name: "rms_norm_grad",
    version: 1,
    cpu: grad,
    reference: grad_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::GRAD,
};

pub const WEIGHT_GRAD: Kernel = Kernel {
    name: "rms_norm_weight_grad",
    version: 1,
    cpu: weight_grad,
    reference: weight_grad_reference,
    scratch: weight_grad_scratch,
    tolerance: 1e-6,
    shaders: shader::WEIGHT_GRAD,
};

fn constants(op: &Op) -> (f64, f64) {
    match op {
        Op::RmsNorm { eps, active } => (*eps, *active as f64),
        _ => panic!("bug: `{}` is no rms_norm", op.name()),
    }
}

fn cpu(call: Call) {
    let (eps, active) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1).row(0));
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    let x = x.row(first + i);
                    let scale = (dot(x, x) / active + eps).sqrt().recip() as f32;
                    for ((y, x), w) in out.row(i).iter_mut().zip(x).zip(weight) {
                        *y = x * scale * w;
                    }
                }
            },
        )
    });
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (eps, active) = constants(op);
    let (x, weight) = (&operands[0], operands[1].data());
    let normed = |r: usize| {
        let squares: f64 = x.row(r).iter().map(|x| x * x).sum();
        x.row(r).iter().zip(weight).map(move |(x, w)| x / (squares / active + eps).sqrt() * w)
    };
    (0..x.rows()).flat_map(normed).collect()
}

fn grad_constants(op: &Op) -> (f64, bool) {
    match op {
        Op::RmsNormGrad { eps, onto } => (*eps, *onto),
        _ => panic!("bug: `{}` is no rms_norm_grad", op.name()),
    }
}

fn grad(call: Call) {
    let (eps, onto) = grad_constants(call.op);
    let (x, weight, dy) = (call.f32(0), call.f32(1).row(0), call.f32(2));
    let out = call.out_f32();
    let (block, width) = (row_block(out.cols()), out.cols() as f64);
    by_rows(out, block, |first, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    let (x, dy) = (x.row(first + i), dy.row(first + i));
                    let r = (dot(x, x) / width + eps).sqrt().recip();
                    let along = (r.powi(3) / width * dot3(weight, dy, x)) as f32;
                    let r = r as f32;
                    for (((d, x), dy), w) in out.row(i).iter_mut().zip(x).zip(dy).zip(weight) {
                        let dx = r * (w * dy) - along * x;
                        *d = if onto { *d + dx } else { dx };
                    }
                }
            },
        )
    });
}

fn grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (eps, onto) = grad_constants(op);
    let (x, weight, dy) = (&operands[0], operands[1].data(), &operands[2]);
    let mut out = Vec::new();
    for t in 0..x.rows() {
        let (x, dy, width) = (x.row(t), dy.row(t), x.cols());
        let rms = (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + eps).sqrt();
        let along: f64 = (0..width).map(|c| weight[c] * dy[c] * x[c] / rms).sum::<f64>() / width as f64;
        for c in 0..width {
            let d = if onto { operands[3].row(t)[c] } else { 0.0 };
            out.push(d + (weight[c] * dy[c] - x[c] / rms * along) / rms);
        }
    }
    out
}

fn weight_grad_eps(op: &Op) -> f64 {
    match op {
        Op::RmsNormWeightGrad { eps } => *eps,
        _ => panic!("bug: `{}` is no rms_norm_weight_grad", op.name()),
    }
}

fn weight_grad_scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.first().map_or(0, |&(positions, width)| position_sums_scratch(positions, width))
}

fn weight_grad(mut call: Call) {
    let eps = weight_grad_eps(call.op);
    let (x, dy) = (call.f32(0), call.f32(1));
    let width = x.cols() as f64;
    let sums = position_sums(x.rows(), x.cols(), |positions, sums| {
        wide(
            #[inline(always)]
            || {
                for t in positions {
                    let (x, dy) = (x.row(t), dy.row(t));
                    let r = (dot(x, x) / width + eps).sqrt().recip() as f32;
                    for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                        *sum += f64::from(x * r * dy);
                    }
                }
            },
        )
    });
    add_sums(call.changed().row(0), &sums);
}

fn weight_grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let eps = weight_grad_eps(op);
    let (x, dy) = (&operands[0], &operands[1]);
    let mut gradient = operands[2].data().to_vec();
    for t in 0..x.rows() {
        let squares: f64 = x.row(t).iter().map(|x| x * x).sum();
        for (c, gradient) in gradient.iter_mut().enumerate() {
            *gradient += dy.row(t)[c] * x.row(t)[c] / (squares / x.cols() as f64 + eps).sqrt();
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::super::tests::differences::{assert_near, differences, drawn, zeros};
    use super::*;

    #[test]
    fn gradients_are_slopes() {
        let (l, width, eps) = (4, 6, 1e-2);
        let [x, weight, dy, d] =
            [(1, l), (2, 1), (3, l), (4, l)].map(|(seed, rows)| drawn(seed, rows, width));
        let op = Op::RmsNorm { eps, active: width };
        let of = |operand| differences(&KERNEL, &op, &[x.clone(), weight.clone()], operand, &dy);

        let operands = [x.clone(), weight.clone(), dy.clone(), d.clone()];
        let dx = grad_reference(&Op::RmsNormGrad { eps, onto: false }, &operands[..3]);
        assert_near(&dx, &of(0));
        let sum: Vec<f64> = dx.iter().zip(d.data()).map(|(dx, d)| d + dx).collect();
        assert_near(&grad_reference(&Op::RmsNormGrad { eps, onto: true }, &operands), &sum);
        let operands = [x.clone(), dy.clone(), zeros(1, width)];
        assert_near(&weight_grad_reference(&Op::RmsNormWeightGrad { eps }, &operands), &of(1));
    }
}
