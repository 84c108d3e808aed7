//! Products of matrices of any depth, c (+)= a b, each factor as it lies or transposed.
//!
//! The inner dimension is cut into pieces of [`DEPTH`], added to c one after the other. A piece of b is laid out
//! in panels and a strip of a beside it, once for all rows and all columns of a block of c.

use super::gemm::{DEPTH, GROUP, PANEL, Panels, multiply, multiply_grouped, panels_len};
use super::parallel::{by_blocks, scratch_size, with_scratch};
use super::{View, ViewMut};

/// Most columns of c to a block: a piece of b that stays in the second-level cache while the rows pass.
const COLS: usize = 256;
/// Most rows of c to a block: as many as a piece of b is laid out for.
const ROWS: usize = 512;
/// Rows of a that stay in the second-level cache while the panels pass: whole groups.
const STRIP: usize = 96;

/// A factor of a product.
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    view: View<'a>,
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix as it lies.
    pub fn of(view: View<'a>) -> Factor<'a> {
        Factor { view, transposed: false }
    }

    pub fn transposed(view: View<'a>) -> Factor<'a> {
        Factor { view, transposed: true }
    }

    pub fn cols(&self) -> usize {
        if self.transposed { self.view.rows() } else { self.view.cols() }
    }

    /// `rows` rows from row `r`, `cols` columns from column `c`.
    pub fn block(&self, r: usize, rows: usize, c: usize, cols: usize) -> Factor<'a> {
        let view = match self.transposed {
            true => self.view.block(c, cols, r, rows),
            false => self.view.block(r, rows, c, cols),
        };
        Factor { view, ..*self }
    }
}

/// Rows and columns of the blocks into which a value is cut, all nearly of one size. A small value is cut into
/// smaller ones, so that there are some for every thread.
fn block_shape(rows: usize, cols: usize) -> (usize, usize) {
    let (most_rows, most_cols) =
        if rows * cols > 4 * ROWS * COLS { (ROWS, COLS) } else { (ROWS / 2, COLS / 2) };
    let even = |len: usize, most: usize, multiple: usize| {
        len.div_ceil(len.div_ceil(most).max(1)).next_multiple_of(multiple)
    };
    (even(rows, most_rows, GROUP), even(cols, most_cols, PANEL))
}

/// c (+)= a b by blocks, side by side, after `start(first row, first column, block)`; what a block holds then is
/// added to if `accumulate`, and else overwritten.
pub fn products(
    a: Factor,
    b: Factor,
    c: ViewMut,
    accumulate: bool,
    start: impl Fn(usize, usize, &mut ViewMut) + Sync,
) {
    let (rows, cols) = block_shape(c.rows(), c.cols());
    let depth = a.cols();
    by_blocks(c, rows, cols, |r, col, mut c| {
        start(r, col, &mut c);
        let a = a.block(r, c.rows(), 0, depth);
        let b = b.block(0, depth, col, c.cols());
        with_scratch(product_space(depth, c.cols()), |space| product(a, b, c, accumulate, space));
    });
}

/// Bytes that one thread needs for [`products`].
pub fn products_scratch(depth: usize, cols: usize) -> usize {
    scratch_size(product_space(depth, cols.min(COLS)))
}

/// Elements that [`product`] needs.
pub fn product_space(depth: usize, cols: usize) -> usize {
    let depth = depth.min(DEPTH);
    panels_len(depth, cols) + STRIP * depth
}

/// c (+)= a b, by one thread; `space` has [`product_space`] elements.
pub fn product(a: Factor, b: Factor, mut c: ViewMut, accumulate: bool, space: &mut [f32]) {
    let (rows, cols, inner) = (c.rows(), c.cols(), a.cols());
    let (panels, strip) = space.split_at_mut(panels_len(inner.min(DEPTH), cols));
    for k in (0..inner).step_by(DEPTH) {
        let depth = DEPTH.min(inner - k);
        let accumulate = accumulate || k > 0;
        let b = b.block(k, depth, 0, cols);
        let panels =
            if b.transposed { Panels::transpose(b.view, panels) } else { Panels::copy(b.view, panels) };
        for r in (0..rows).step_by(STRIP) {
            let n = STRIP.min(rows - r);
            let a = a.block(r, n, k, depth);
            let c = c.block(r, n, 0, cols);
            if a.transposed {
                group(a.view, strip);
                multiply_grouped(strip, panels, c, accumulate);
            } else {
                for i in 0..n {
                    strip[i * depth..(i + 1) * depth].copy_from_slice(a.view.row(i));
                }
                multiply(View::new(strip, n, depth, depth), panels, c, accumulate);
            }
        }
    }
}

/// Lays out a^T, from a [depth, rows], in groups: element [k, r] at (r / GROUP * depth + k) * GROUP + r % GROUP.
fn group(a: View, strip: &mut [f32]) {
    let depth = a.rows();
    for k in 0..depth {
        let (whole, rest) = a.row(k).as_chunks::<GROUP>();
        for (g, x) in whole.iter().enumerate() {
            let at = (g * depth + k) * GROUP;
            strip[at..at + GROUP].copy_from_slice(x);
        }
        let at = (whole.len() * depth + k) * GROUP;
        if !rest.is_empty() {
            strip[at..at + rest.len()].copy_from_slice(rest);
        }
    }
}
