//! 1 - cos(x, y), row by row, in f64. A row of zeros has no direction: its cosine is 0.

mod shader;

use super::math::{dot, wide};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub(super) use shader::LENGTHS;

pub const KERNEL: Kernel = Kernel {
    name: "cosine_distance",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-12,
    shaders: shader::KERNEL,
};

fn distance(xy: f64, xx: f64, yy: f64) -> f64 {
    let lengths = (xx * yy).sqrt();
    if lengths == 0.0 { 1.0 } else { 1.0 - xy / lengths }
}

fn cpu(call: Call) {
    let (x, y) = (call.f32(0), call.f32(1));
    let out = call.out_f64();
    out.par_iter_mut().with_min_len(16).enumerate().for_each(|(r, out)| {
        wide(
            #[inline(always)]
            || {
                let (x, y) = (x.row(r), y.row(r));
                *out = distance(dot(x, y), dot(x, x), dot(y, y));
            },
        )
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (x, y) = (&operands[0], &operands[1]);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let row =
        |r| distance(product(x.row(r), y.row(r)), product(x.row(r), x.row(r)), product(y.row(r), y.row(r)));
    (0..x.rows()).map(row).collect()
}
