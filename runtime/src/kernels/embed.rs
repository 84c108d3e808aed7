//! Rows of the embedding table. An id outside the table gives a row of NaN.

use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel =
    Kernel { name: "embed", version: 1, cpu, reference, scratch: no_scratch, tolerance: 0.0 };

fn cpu(call: Call) {
    let (tokens, table) = (call.tokens(0), call.f32(1));
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        for i in 0..out.rows() {
            let id = tokens[first + i] as usize;
            if id < table.rows() {
                out.row(i).copy_from_slice(table.row(id));
            } else {
                out.row(i).fill(f32::NAN);
            }
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let row = |&id: &u32| operands[1].row(id as usize).to_vec();
    operands[0].tokens().iter().flat_map(row).collect()
}
