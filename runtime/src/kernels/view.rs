//! Row-major matrices with a stride from row to row.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// rows x cols, `stride` elements from row to row.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

/// Elements that a matrix spans, or a panic where the rows would overlap.
fn span(rows: usize, cols: usize, stride: usize) -> usize {
    assert!(rows <= 1 || stride >= cols, "bug: rows of {cols} elements, {stride} apart, overlap");
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols }
}

impl<'a> View<'a> {
    /// A matrix that begins at `data[0]`; `data` may reach past its end.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> View<'a> {
        View { data: &data[..span(rows, cols, stride)], rows, cols, stride }
    }

    /// A vector as one row.
    pub fn vector(data: &'a [f32]) -> View<'a> {
        View::new(data, 1, data.len(), data.len())
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    pub fn row(&self, r: usize) -> &'a [f32] {
        if self.cols == 0 {
            return &[];
        }
        &self.data[r * self.stride..r * self.stride + self.cols]
    }

    /// `rows` rows from row `r`, `cols` columns from column `c`.
    pub fn block(&self, r: usize, rows: usize, c: usize, cols: usize) -> View<'a> {
        assert!(r + rows <= self.rows && c + cols <= self.cols, "bug: a block outside its matrix");
        let start = (r * self.stride + c).min(self.data.len());
        View::new(&self.data[start..], rows, cols, self.stride)
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

/// A mutable matrix that can be cut into disjoint blocks, by rows and by columns.
pub struct ViewMut<'a> {
    start: NonNull<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a ViewMut is the only way to its elements for as long as it lives, as a `&mut [f32]` is.
unsafe impl Send for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// A matrix that begins at `data[0]`; `data` may reach past its end.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> ViewMut<'a> {
        let data = &mut data[..span(rows, cols, stride)];
        let start = NonNull::from(data).cast();
        ViewMut { start, rows, cols, stride, life: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    pub fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "bug: row {r} of {}", self.rows);
        if self.cols == 0 {
            return &mut [];
        }
        // SAFETY: row r lies within the elements that this view alone may touch, and the result borrows it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(r * self.stride), self.cols) }
    }

    fn at(&self, r: usize, rows: usize, c: usize, cols: usize) -> ViewMut<'a> {
        let empty = rows == 0 || cols == 0;
        // SAFETY: the offset of a block that is not empty lies within this view's span.
        let start = if empty { self.start } else { unsafe { self.start.add(r * self.stride + c) } };
        ViewMut { start, rows, cols, stride: self.stride, life: PhantomData }
    }

    /// Disjoint blocks of at most `rows` x `cols`, with the row and column at which each begins.
    pub fn blocks(self, rows: usize, cols: usize) -> Vec<(usize, usize, ViewMut<'a>)> {
        let (rows, cols) = (rows.max(1), cols.max(1));
        let starts =
            (0..self.rows).step_by(rows).flat_map(|r| (0..self.cols).step_by(cols).map(move |c| (r, c)));
        starts.map(|(r, c)| (r, c, self.at(r, rows.min(self.rows - r), c, cols.min(self.cols - c)))).collect()
    }

    /// Blocks of all rows, side by side, with the given numbers of columns.
    pub fn parts<const N: usize>(self, cols: [usize; N]) -> [ViewMut<'a>; N] {
        assert!(cols.iter().sum::<usize>() <= self.cols, "bug: parts outside their matrix");
        let mut start = 0;
        cols.map(|n| {
            start += n;
            self.at(0, self.rows, start - n, n)
        })
    }

    pub fn block(&mut self, r: usize, rows: usize, c: usize, cols: usize) -> ViewMut<'_> {
        assert!(r + rows <= self.rows && c + cols <= self.cols, "bug: a block outside its matrix");
        self.at(r, rows, c, cols)
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_and_cover() {
        let mut data = vec![0.0; 7 * 9];
        for (r, c, mut block) in ViewMut::new(&mut data, 7, 6, 9).blocks(3, 4) {
            for i in 0..block.rows() {
                block.row(i).iter_mut().for_each(|x| *x += 1.0 + (r + c) as f32);
            }
        }
        for r in 0..7 {
            for c in 0..9 {
                let expected = if c < 6 { 1.0 + (r / 3 * 3 + c / 4 * 4) as f32 } else { 0.0 };
                assert_eq!(data[r * 9 + c], expected);
            }
        }
    }

    #[test]
    fn parts_lie_side_by_side() {
        let mut data = vec![0.0; 3 * 7];
        let [mut a, b, mut c] = ViewMut::new(&mut data, 3, 6, 7).parts([2, 0, 3]);
        (0..3).for_each(|r| a.row(r).fill(1.0));
        (0..3).for_each(|r| c.row(r).fill(2.0));
        assert_eq!(b.cols(), 0);
        assert!(data.chunks(7).all(|row| row == [1.0, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0]));
    }

    #[test]
    fn a_part_is_a_block() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let part = View::new(&data, 3, 4, 4).block(1, 2, 1, 2);
        assert_eq!((part.row(0), part.row(1)), (&[5.0, 6.0][..], &[9.0, 10.0][..]));
    }
}
