//! y = x weight^T (+ bias), or y += x weight^T (+ bias) onto a residual that is in y already.

use super::gemm::{DEPTH, Panels, multiply, panels_len};
use super::parallel::{by_blocks, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel { name: "linear", version: 1, cpu, reference, scratch, tolerance: 2e-5 };

/// Columns to a block: a piece of the weight that stays in the second-level cache while the rows pass.
const COLS: usize = 128;
/// Most rows to a block.
const ROWS: usize = 256;
/// Rows of x that stay in the second-level cache while the panels pass.
const STRIP: usize = 96;

fn constants(op: &Op) -> (bool, bool) {
    match op {
        Op::Linear { bias, residual } => (*bias, *residual),
        _ => panic!("bug: `{}` is no linear", op.name()),
    }
}

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.get(1).map_or(0, |&(cols, depth)| scratch_size(product_space(depth, cols.min(COLS))))
}

fn cpu(call: Call) {
    let (has_bias, residual) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    let out = call.out_f32();
    let rows = out.rows().div_ceil(out.rows().div_ceil(ROWS).max(1));
    by_blocks(out, rows, COLS, |r, c, mut out| {
        let (rows, cols) = (out.rows(), out.cols());
        if let Some(bias) = bias {
            for i in 0..rows {
                let start = out.row(i).iter_mut().zip(&bias[c..]);
                start.for_each(|(y, b)| *y = if residual { *y + b } else { *b });
            }
        }
        let x = x.block(r, rows, 0, x.cols());
        let weight = weight.block(c, cols, 0, x.cols());
        with_scratch(product_space(x.cols(), cols), |space| {
            product(x, weight, out, residual || has_bias, space)
        });
    });
}

/// Elements that [`product`] needs for a weight [cols, depth].
pub(super) fn product_space(depth: usize, cols: usize) -> usize {
    panels_len(depth.min(DEPTH), cols) + STRIP * depth.min(DEPTH)
}

/// out (+)= x w^T, by one thread; `space` has [`product_space`] elements.
pub(super) fn product(x: View, w: View, mut out: ViewMut, accumulate: bool, space: &mut [f32]) {
    let (rows, cols) = (out.rows(), out.cols());
    let (panels, strip) = space.split_at_mut(panels_len(x.cols().min(DEPTH), cols));
    for k in (0..x.cols()).step_by(DEPTH) {
        let depth = DEPTH.min(x.cols() - k);
        let panels = Panels::transpose(w.block(0, cols, k, depth), panels);
        for r in (0..rows).step_by(STRIP) {
            let n = STRIP.min(rows - r);
            for i in 0..n {
                strip[i * depth..(i + 1) * depth].copy_from_slice(&x.row(r + i)[k..k + depth]);
            }
            let x = View::new(strip, n, depth, depth);
            multiply(x, panels, out.block(r, n, 0, cols), accumulate || k > 0);
        }
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (has_bias, residual) = constants(op);
    let (x, weight) = (&operands[0], &operands[1]);
    let mut out = Vec::new();
    for r in 0..x.rows() {
        for c in 0..weight.rows() {
            let dot: f64 = x.row(r).iter().zip(weight.row(c)).map(|(x, w)| x * w).sum();
            let bias = if has_bias { operands[2].data()[c] } else { 0.0 };
            let residual = if residual { operands[2 + usize::from(has_bias)].row(r)[c] } else { 0.0 };
            out.push(dot + bias + residual);
        }
    }
    out
}
