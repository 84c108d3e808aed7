//! Rows that are remembered: row i, of sequence at[0] + i / T at position t = at[1] + i mod T, is put into row t mod R of
//! its sequence's ring; of more than R rows of a sequence, the last R.

mod shader;

use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "keep",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 0.0,
    shaders: shader::KERNEL,
};

/// T and R.
fn constants(op: &Op) -> (usize, usize) {
    match op {
        Op::Keep { positions, window } => (*positions, *window),
        _ => panic!("bug: `{}` keeps nothing", op.name()),
    }
}

/// Where row i goes, if it is among the last of its sequence.
fn place(op: &Op, [sequence, position]: [usize; 2], i: usize) -> Option<usize> {
    let (positions, window) = constants(op);
    let t = i % positions;
    (t + window >= positions).then(|| (sequence + i / positions) * window + (position + t) % window)
}

fn cpu(mut call: Call) {
    let (op, x, at) = (call.op, call.f32(0), call.at(1));
    let mut ring = call.changed();
    for i in 0..x.rows() {
        if let Some(row) = place(op, at, i) {
            ring.row(row).copy_from_slice(x.row(i));
        }
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (x, at, ring) = (&operands[0], operands[1].at(), &operands[2]);
    let mut out = ring.data().to_vec();
    for i in 0..x.rows() {
        if let Some(row) = place(op, at, i) {
            out[row * ring.cols()..(row + 1) * ring.cols()].copy_from_slice(x.row(i));
        }
    }
    out
}
