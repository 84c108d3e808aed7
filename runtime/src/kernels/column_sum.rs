//! gradient += the sum of the rows: the gradient of what is added to every position.

mod shader;

use super::parallel::by_blocks;
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "column_sum",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::KERNEL,
};

/// Columns to a task, and to a run of f64 sums.
const COLS: usize = 64;

fn cpu(mut call: Call) {
    let x = call.f32(0);
    by_blocks(call.changed(), 1, COLS, |_, c, mut gradient| {
        let gradient = gradient.row(0);
        let mut sums = [0.0f64; COLS];
        for r in 0..x.rows() {
            for (sum, x) in sums.iter_mut().zip(&x.row(r)[c..c + gradient.len()]) {
                *sum += f64::from(*x);
            }
        }
        for (g, sum) in gradient.iter_mut().zip(sums) {
            *g += sum as f32;
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (x, gradient) = (&operands[0], operands[1].data());
    let sum = |c: usize| (0..x.rows()).map(|r| x.row(r)[c]).sum::<f64>();
    gradient.iter().enumerate().map(|(c, g)| g + sum(c)).collect()
}
