//! Matrices side by side.

mod shader;

use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, View, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "concat",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 0.0,
    shaders: shader::KERNEL,
};

fn cpu(call: Call) {
    let parts: Vec<View> = (0..call.args.len()).map(|i| call.f32(i)).collect();
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        for r in 0..out.rows() {
            let mut rest = out.row(r);
            for part in &parts {
                let (here, after) = rest.split_at_mut(part.cols());
                here.copy_from_slice(part.row(first + r));
                rest = after;
            }
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let rows = operands.first().map_or(0, Exact::rows);
    (0..rows).flat_map(|r| operands.iter().flat_map(move |part| part.row(r).to_vec())).collect()
}
