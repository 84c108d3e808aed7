//! a + b, in place over a.

mod shader;

use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "add",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-7,
    shaders: shader::KERNEL,
};

fn cpu(call: Call) {
    let b = call.f32(0);
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        for i in 0..out.rows() {
            out.row(i).iter_mut().zip(b.row(first + i)).for_each(|(a, b)| *a += b);
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    operands[0].data().iter().zip(operands[1].data()).map(|(a, b)| a + b).collect()
}
