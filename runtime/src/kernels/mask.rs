//! x * mask, in place over x.

mod shader;

use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "mask",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-7,
    shaders: shader::KERNEL,
};

fn cpu(call: Call) {
    let mask = call.f32(0).row(0);
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |_, mut out| {
        for i in 0..out.rows() {
            out.row(i).iter_mut().zip(mask).for_each(|(x, m)| *x *= m);
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let mask = operands[1].data();
    operands[0].data().chunks(mask.len()).flat_map(|x| x.iter().zip(mask).map(|(x, m)| x * m)).collect()
}
