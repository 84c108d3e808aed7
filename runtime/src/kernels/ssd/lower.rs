//! Products with the lower triangular matrices of a chunk, [tokens, tokens], block by block of [`ROWS`]. Blocks
//! above the diagonal's are neither computed nor read.

use crate::kernels::gemm::{Panels, multiply, multiply_transposed};
use crate::kernels::{View, ViewMut};

/// Rows and columns of a block.
pub const ROWS: usize = 32;

fn blocks(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tokens).step_by(ROWS).map(move |start| (start, ROWS.min(tokens - start)))
}

/// lower = a b
pub fn lower_of(a: View, b: Panels, mut lower: ViewMut) {
    for (start, rows) in blocks(lower.rows()) {
        multiply(a.block(start, rows, 0, a.cols()), b, lower.block(start, rows, 0, start + rows), false);
    }
}

/// c = lower b, or c += lower b
pub fn lower_times(lower: View, b: Panels, mut c: ViewMut, accumulate: bool) {
    let cols = c.cols();
    for (start, rows) in blocks(lower.rows()) {
        let lower = lower.block(start, rows, 0, start + rows);
        multiply(lower, b, c.block(start, rows, 0, cols), accumulate);
    }
}

/// c = lower^T b, or c += lower^T b
pub fn lower_transposed_times(lower: View, b: Panels, mut c: ViewMut, accumulate: bool) {
    let (tokens, cols) = (lower.rows(), c.cols());
    for (start, rows) in blocks(tokens) {
        let depth = tokens - start;
        let lower = lower.block(start, depth, start, rows);
        multiply_transposed(lower, b.rows(start, depth), c.block(start, rows, 0, cols), accumulate);
    }
}
