//! The covariance of a normalised stream, in f64: sum + u^T u, u = x / sqrt(mean(x^2) + eps) row by row.

mod shader;

use super::{Call, Exact, Kernel};
use crate::linalg;
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel {
    name: "covariance",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-12,
    shaders: shader::KERNEL,
};

/// Rows that are held in f64 at once. A fixed number: it decides in which order products are added.
const ROWS: usize = 256;

fn constants(op: &Op) -> (f64, bool) {
    match op {
        Op::Covariance { eps, onto } => (*eps, *onto),
        _ => panic!("bug: `{}` is no covariance", op.name()),
    }
}

fn cpu(call: Call) {
    let (eps, onto) = constants(call.op);
    let x = call.f32(0);
    let out = call.out_f64();
    if !onto {
        out.fill(0.0);
    }
    let width = x.cols();
    let mut rows = vec![0.0; ROWS.min(x.rows()) * width];
    for first in (0..x.rows()).step_by(ROWS) {
        let rows = &mut rows[..ROWS.min(x.rows() - first) * width];
        rows.par_chunks_mut(width.max(1)).with_min_len(16).enumerate().for_each(|(r, u)| {
            u.iter_mut().zip(x.row(first + r)).for_each(|(u, x)| *u = f64::from(*x));
            let mean = u.iter().map(|u| u * u).sum::<f64>() / width as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            u.iter_mut().for_each(|u| *u *= scale);
        });
        linalg::add_gram(rows, width, out);
    }
}

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.first().map_or(0, |(rows, cols)| ROWS.min(*rows) * cols * size_of::<f64>())
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (eps, onto) = constants(op);
    let x = &operands[0];
    let n = x.cols();
    let mut sum = if onto { operands[1].data().to_vec() } else { vec![0.0; n * n] };
    for r in 0..x.rows() {
        let row = x.row(r);
        let square = row.iter().map(|x| x * x).sum::<f64>() / n as f64 + eps;
        for i in 0..n {
            (0..=i).for_each(|j| sum[i * n + j] += row[i] * row[j] / square);
        }
    }
    sum
}
