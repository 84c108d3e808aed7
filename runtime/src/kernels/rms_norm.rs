//! x / sqrt(sum(x^2) / active + eps) * weight, row by row. The sum of squares is in f64.

use super::math::{dot, wide};
use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel =
    Kernel { name: "rms_norm", version: 1, cpu, reference, scratch: no_scratch, tolerance: 1e-6 };

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
