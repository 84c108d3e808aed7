//! Cutting work by shape, vector instructions, and the scratch of worker threads.

use super::ViewMut;
use rayon::prelude::*;
use std::cell::{Cell, RefCell};

/// Calls `work(first row, rows)` for blocks of `block` rows, side by side.
pub fn by_rows(out: ViewMut, block: usize, work: impl Fn(usize, ViewMut) + Sync) {
    let cols = out.cols();
    by_blocks(out, block, cols, |r, _, out| work(r, out));
}

/// Calls `work(first row, first column, block)` for every block, side by side.
pub fn by_blocks(out: ViewMut, rows: usize, cols: usize, work: impl Fn(usize, usize, ViewMut) + Sync) {
    for_each(out.blocks(rows, cols), |(r, c, out)| work(r, c, out));
}

/// Calls `work` for every task, side by side; a single task does without the pool.
pub fn for_each<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Sync) {
    if tasks.len() <= 1 {
        return tasks.into_iter().for_each(work);
    }
    tasks.into_par_iter().with_max_len(1).for_each(&work);
}

/// Rows to a block of elementwise work: about 16k elements, so that a block outweighs its start.
pub fn row_block(cols: usize) -> usize {
    (16384 / cols.max(1)).max(1)
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

const LINE: usize = 16;

/// Lends the thread's scratch, `len` elements aligned to a cache line; what they hold is left from before.
/// `work` must not wait for other work of the pool, which would find the scratch taken and allocate anew.
pub fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.take();
    if buffer.len() < len + LINE {
        // The old one goes first, so that both are never there.
        drop(buffer);
        buffer = vec![0.0; len + LINE];
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = work(&mut buffer[start..start + len]);
    SCRATCH.set(buffer);
    result
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// The largest buffer that a thread keeps: zeroing the pages of a larger one is little beside its use.
const KEPT: usize = 16 << 20;

/// Lends `len` elements, which hold what is left from before, to work that may wait for other work of the pool
/// meanwhile: that finds another buffer.
pub fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let kept = BUFFERS.with_borrow_mut(Vec::pop).filter(|buffer| buffer.len() >= len);
    let mut buffer = kept.unwrap_or_else(|| vec![0.0; len]);
    let result = work(&mut buffer[..len]);
    if buffer.len() <= KEPT {
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
    result
}

/// Bytes that [`with_scratch`] of `len` elements holds.
pub fn scratch_size(len: usize) -> usize {
    (len + LINE) * size_of::<f32>()
}
