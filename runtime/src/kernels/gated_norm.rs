//! v = y * silu(z); each group of v divided by sqrt(sum(v^2) / active + eps), times weight. The sum of squares
//! is in f64.

use super::math::{dot, silu, wide};
use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel =
    Kernel { name: "gated_norm", version: 1, cpu, reference, scratch: no_scratch, tolerance: 2e-6 };

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
