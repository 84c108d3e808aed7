//! v = y * silu(z); each group of v divided by sqrt(sum(v^2) / active + eps), times weight. In reverse, over the
//! whole width W of a group, with r = 1 / sqrt(sum(v^2) / W + eps) and dn the gradient of what comes out,
//! dv = r weight dn - r^3 / W sum(weight dn v) v, dy = dv silu(z), dz = dv y silu'(z), and
//! dweight += sum over positions of r v dn. Sums are in f64.

mod shader;

use super::math::{dot, dot3, silu, silu_and_slope, wide};
use super::parallel::{by_rows, row_block, scratch_size, with_scratch};
use super::sums::{add_sums, position_sums, position_sums_scratch};
use super::{Call, Exact, Kernel, View, ViewMut, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "gated_norm",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 2e-6,
    shaders: shader::KERNEL,
};

pub const GRAD: Kernel = Kernel {
    name: "gated_norm_grad",
    version: 1,
    cpu: grad,
    reference: grad_reference,
    scratch: grad_scratch,
    tolerance: 2e-6,
    shaders: shader::GRAD,
};

pub const WEIGHT_GRAD: Kernel = Kernel {
    name: "gated_norm_weight_grad",
    version: 1,
    cpu: weight_grad,
    reference: weight_grad_reference,
    scratch: weight_grad_scratch,
    tolerance: 2e-6,
    shaders: shader::WEIGHT_GRAD,
};

fn constants(op: &Op) -> (usize, f64, f64) {
    match op {
        Op::GatedNorm { groups, eps, active } => (*groups, *eps, *active as f64),
        _ => panic!("bug: `{}` is no gated_norm", op.name()),
    }
}

fn cpu(call: Call) {
    let (groups, eps, active) = constants(call.op);
    let (y, z, weight) = (call.f32(0), call.f32(1), call.f32(2).row(0));
    let width = y.cols() / groups;
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    let (y, z, out) = (y.row(first + i), z.row(first + i), out.row(i));
                    for ((v, y), z) in out.iter_mut().zip(y).zip(z) {
                        *v = y * silu(*z);
                    }
                    for (v, w) in out.chunks_exact_mut(width).zip(weight.chunks_exact(width)) {
                        let scale = (dot(v, v) / active + eps).sqrt().recip() as f32;
                        for (v, w) in v.iter_mut().zip(w) {
                            *v = *v * scale * w;
                        }
                    }
                }
            },
        )
    });
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (groups, eps, active) = constants(op);
    let (y, z, weight) = (&operands[0], &operands[1], operands[2].data());
    let width = y.cols() / groups;
    let mut out = Vec::new();
    for r in 0..y.rows() {
        let v: Vec<f64> = y.row(r).iter().zip(z.row(r)).map(|(y, z)| y * z / (1.0 + (-z).exp())).collect();
        for (c, x) in v.iter().enumerate() {
            let group = &v[c / width * width..(c / width + 1) * width];
            let squares: f64 = group.iter().map(|v| v * v).sum();
            out.push(x / (squares / active + eps).sqrt() * weight[c]);
        }
    }
    out
}

fn grad_constants(op: &Op) -> (usize, f64) {
    match op {
        Op::GatedNormGrad { groups, eps } | Op::GatedNormWeightGrad { groups, eps } => (*groups, *eps),
        _ => panic!("bug: `{}` is no gradient of gated_norm", op.name()),
    }
}

fn grad_scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    scratch_size(operands.first().map_or(0, |y| y.1))
}

fn grad(call: Call) {
    let (groups, eps) = grad_constants(call.op);
    let [y, z, weight, dn] = [0, 1, 2, 3].map(|i| call.f32(i));
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, out| {
        let operands = [y, z, dn].map(|of| of.block(first, out.rows(), 0, of.cols()));
        with_scratch(y.cols(), |v| grad_rows(operands, weight.row(0), y.cols() / groups, eps, v, out));
    });
}

/// Every row twice: v and its slopes by y and z, which wait in `out`; then dv, by which they are multiplied.
fn grad_rows([y, z, dn]: [View; 3], weight: &[f32], width: usize, eps: f64, v: &mut [f32], mut out: ViewMut) {
    wide(
        #[inline(always)]
        || {
            for i in 0..out.rows() {
                let (y, z, dn) = (y.row(i), z.row(i), dn.row(i));
                let (dy, dz) = out.row(i).split_at_mut(y.len());
                for ((((dy, dz), v), y), z) in dy.iter_mut().zip(dz.iter_mut()).zip(&mut *v).zip(y).zip(z) {
                    let (silu, slope) = silu_and_slope(*z);
                    (*v, *dy, *dz) = (y * silu, silu, y * slope);
                }
                for c in (0..y.len()).step_by(width) {
                    let group = c..c + width;
                    let (v, w, dn) = (&v[group.clone()], &weight[group.clone()], &dn[group.clone()]);
                    let r = (dot(v, v) / width as f64 + eps).sqrt().recip();
                    let along = (r.powi(3) / width as f64 * dot3(w, dn, v)) as f32;
                    let r = r as f32;
                    let slopes = dy[group.clone()].iter_mut().zip(&mut dz[group]);
                    for ((((dy, dz), v), w), dn) in slopes.zip(v).zip(w).zip(dn) {
                        let dv = r * (w * dn) - along * v;
                        *dy *= dv;
                        *dz *= dv;
                    }
                }
            }
        },
    )
}

fn grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (groups, eps) = grad_constants(op);
    let [y, z, weight, dn] = [0, 1, 2, 3].map(|i| &operands[i]);
    let width = y.cols() / groups;
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let mut out = Vec::new();
    for t in 0..y.rows() {
        let (y, z, dn, weight) = (y.row(t), z.row(t), dn.row(t), weight.data());
        let v = |c: usize| y[c] * z[c] * sigmoid(z[c]);
        let dv = |c: usize| {
            let group = || c / width * width..(c / width + 1) * width;
            let rms = (group().map(|c| v(c) * v(c)).sum::<f64>() / width as f64 + eps).sqrt();
            let along = group().map(|c| weight[c] * dn[c] * v(c) / rms).sum::<f64>() / width as f64;
            (weight[c] * dn[c] - v(c) / rms * along) / rms
        };
        out.extend((0..y.len()).map(|c| dv(c) * z[c] * sigmoid(z[c])));
        let slope = |z: f64| sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)));
        out.extend((0..y.len()).map(|c| dv(c) * y[c] * slope(z[c])));
    }
    out
}

fn weight_grad_scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    let sums = |&(positions, width): &(usize, usize)| position_sums_scratch(positions, width);
    operands.first().map_or(0, |y| scratch_size(y.1) + sums(y))
}

fn weight_grad(mut call: Call) {
    let (groups, eps) = grad_constants(call.op);
    let [y, z, dn] = [0, 1, 2].map(|i| call.f32(i));
    let width = y.cols() / groups;
    let sums = position_sums(y.rows(), y.cols(), |positions, sums| {
        let operands = [y, z, dn].map(|of| of.block(positions.start, positions.len(), 0, of.cols()));
        with_scratch(y.cols(), |v| weight_grad_rows(operands, width, eps, v, sums));
    });
    add_sums(call.changed().row(0), &sums);
}

fn weight_grad_rows([y, z, dn]: [View; 3], width: usize, eps: f64, v: &mut [f32], sums: &mut [f64]) {
    wide(
        #[inline(always)]
        || {
            for i in 0..y.rows() {
                let (y, z, dn) = (y.row(i), z.row(i), dn.row(i));
                for ((v, y), z) in v.iter_mut().zip(y).zip(z) {
                    *v = y * silu(*z);
                }
                let groups = v.chunks_exact(width).zip(dn.chunks_exact(width));
                for ((v, dn), sums) in groups.zip(sums.chunks_exact_mut(width)) {
                    let r = (dot(v, v) / width as f64 + eps).sqrt().recip() as f32;
                    for ((sum, v), dn) in sums.iter_mut().zip(v).zip(dn) {
                        *sum += f64::from(v * r * dn);
                    }
                }
            }
        },
    )
}

fn weight_grad_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (groups, eps) = grad_constants(op);
    let [y, z, dn] = [0, 1, 2].map(|i| &operands[i]);
    let width = y.cols() / groups;
    let mut gradient = operands[3].data().to_vec();
    for t in 0..y.rows() {
        let v: Vec<f64> = y.row(t).iter().zip(z.row(t)).map(|(y, z)| y * z / (1.0 + (-z).exp())).collect();
        for (c, gradient) in gradient.iter_mut().enumerate() {
            let group = &v[c / width * width..(c / width + 1) * width];
            let squares: f64 = group.iter().map(|v| v * v).sum();
            *gradient += dn.row(t)[c] * v[c] / (squares / width as f64 + eps).sqrt();
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
        let (l, groups, width, eps) = (4, 2, 3, 1e-2);
        let cols = groups * width;
        let [y, z, dn] = [1, 2, 3].map(|seed| drawn(seed, l, cols));
        let weight = drawn(4, 1, cols);
        let op = Op::GatedNorm { groups, eps, active: width };
        let operands = [y.clone(), z.clone(), weight.clone()];
        let [dy, dz, dweight] = [0, 1, 2].map(|operand| differences(&KERNEL, &op, &operands, operand, &dn));

        let rows = dy.chunks(cols).zip(dz.chunks(cols));
        let beside: Vec<f64> = rows.flat_map(|(dy, dz)| [dy, dz].concat()).collect();
        let operands = [y.clone(), z.clone(), weight, dn.clone()];
        assert_near(&grad_reference(&Op::GatedNormGrad { groups, eps }, &operands), &beside);
        let operands = [y, z, dn, zeros(1, cols)];
        assert_near(&weight_grad_reference(&Op::GatedNormWeightGrad { groups, eps }, &operands), &dweight);
    }
}
