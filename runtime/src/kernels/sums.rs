//! Sums over positions in f64, as gradients of vectors are: blocks of positions side by side, and the sums of
//! the blocks in order.

use super::parallel::{for_each, row_block};
use std::ops::Range;

/// Most blocks, each of which holds its sums until all are added.
const BLOCKS: usize = 16;

/// Positions to a block.
fn block(positions: usize, cols: usize) -> usize {
    row_block(cols).max(positions.div_ceil(BLOCKS))
}

/// `cols` sums over the positions; `add(positions, sums)` adds what those of one block contribute.
pub fn position_sums(
    positions: usize,
    cols: usize,
    add: impl Fn(Range<usize>, &mut [f64]) + Sync,
) -> Vec<f64> {
    let block = block(positions, cols);
    let mut sums = vec![0.0f64; positions.div_ceil(block).max(1) * cols];
    for_each(sums.chunks_mut(cols.max(1)).enumerate().collect(), |(i, sums)| {
        add(i * block..positions.min((i + 1) * block), sums);
    });
    let (total, others) = sums.split_at_mut(cols);
    for other in others.chunks(cols.max(1)) {
        total.iter_mut().zip(other).for_each(|(total, sum)| *total += sum);
    }
    sums.truncate(cols);
    sums
}

/// Bytes that [`position_sums`] holds.
pub fn position_sums_scratch(positions: usize, cols: usize) -> usize {
    positions.div_ceil(block(positions, cols)).max(1) * cols * size_of::<f64>()
}

/// gradient += sums
pub fn add_sums(gradient: &mut [f32], sums: &[f64]) {
    gradient.iter_mut().zip(sums).for_each(|(gradient, sum)| *gradient += *sum as f32);
}
