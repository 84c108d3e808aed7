//! What a cut keeps of a stored tensor, read by rows.

use super::{SourceError, gather};
use crate::checkpoint::Checkpoint;
use crate::convert;
use minic_compiler::model::DType;
use std::cell::RefCell;
use std::ops::Range;

/// Stored bytes that are read at once: more than a row only where rows lie close together.
const READ: usize = 2 << 20;
/// Stored bytes between two kept rows that are rather read than skipped.
const GAP: usize = 16 << 10;

thread_local! {
    // Kept from piece to piece: memory that is given back and asked for again costs a fault for every page.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One tensor of a weight source, as rows and elements of rows of a stored one. However many cuts made it,
/// each of its elements is one stored element.
pub struct Slice<'a> {
    base: &'a Checkpoint,
    /// Its name in the checkpoint.
    stored: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Stored rows, ascending; `None`: all.
    rows: Option<Vec<usize>>,
    /// Elements of a stored row, ascending; `None`: all.
    columns: Option<Vec<usize>>,
    /// Bytes of a stored row.
    stored_row: usize,
}

impl<'a> Slice<'a> {
    /// `kept` has for every axis of the stored tensor the indices that are kept, or `None` for all.
    pub(super) fn new(
        base: &'a Checkpoint,
        stored: String,
        kept: &[Option<Vec<usize>>],
    ) -> Result<Slice<'a>, SourceError> {
        let (dtype, before) = (base.dtype(&stored)?, base.shape(&stored)?);
        let kept_of = |axis: usize| kept.get(axis).and_then(Option::as_ref);
        let shape = before.iter().enumerate().map(|(i, &n)| kept_of(i).map_or(n, Vec::len)).collect();
        let inner = before.get(1..).unwrap_or_default();
        let any = (1..before.len()).any(|axis| kept_of(axis).is_some());
        let columns = any.then(|| {
            inner.iter().enumerate().fold(vec![0], |offsets, (i, &n)| {
                let all: Vec<usize>;
                let kept = match kept_of(i + 1) {
                    Some(kept) => kept,
                    None => {
                        all = (0..n).collect();
                        &all
                    }
                };
                let within = |offset: usize| kept.iter().map(move |&k| offset * n + k);
                offsets.into_iter().flat_map(within).collect()
            })
        });
        let stored_row = inner.iter().product::<usize>() * dtype.bytes();
        Ok(Slice { base, stored, dtype, shape, rows: kept_of(0).cloned(), columns, stored_row })
    }

    /// As stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// A vector has as many as elements; a scalar one.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements of a row.
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Rows `rows` in ranges of about `elements` elements, one row at least.
    pub fn pieces(&self, rows: Range<usize>, elements: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (elements / self.row_len().max(1)).max(1);
        rows.clone().step_by(step).map(move |at| at..rows.end.min(at + step))
    }

    /// Appends the bytes of rows `rows`, in [`Slice::dtype`]. Holds some MiB beside them.
    pub fn read(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), SourceError> {
        STORED.with_borrow_mut(|stored| self.read_by(stored, rows, out))
    }

    fn read_by(
        &self,
        stored: &mut Vec<u8>,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        out.reserve(rows.len() * self.row_len() * self.dtype.bytes());
        let mut at = rows.start;
        while at < rows.end {
            let end = self.reach(at, rows.end);
            let (first, last) = (self.stored_index(at), self.stored_index(end - 1));
            self.base.read_rows(&self.stored, first..last + 1, stored)?;
            for row in at..end {
                let begin = (self.stored_index(row) - first) * self.stored_row;
                // Within what was read: kept rows ascend.
                self.gather(&stored[begin..begin + self.stored_row], out);
            }
            at = end;
        }
        Ok(())
    }

    /// The values of rows `rows` into `out`, which has as many elements. NaN and infinity are errors.
    pub fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), SourceError> {
        BYTES.with_borrow_mut(|bytes| {
            bytes.clear();
            self.read(rows.clone(), bytes)?;
            self.decode(rows, bytes, out)
        })
    }

    fn decode(&self, rows: Range<usize>, bytes: &[u8], out: &mut [f32]) -> Result<(), SourceError> {
        if let Some((at, value)) = convert::first_non_finite(self.dtype, bytes) {
            let (row, column) = (rows.start + at / self.row_len().max(1), at % self.row_len().max(1));
            let column = self.columns.as_ref().map_or(column, |kept| kept[column]);
            let index = self.stored_index(row) * (self.stored_row / self.dtype.bytes()) + column;
            let file = self.base.file(&self.stored)?.to_path_buf();
            return Err(SourceError::NotFinite { file, name: self.stored.clone(), index, value });
        }
        convert::decode_to(self.dtype, bytes, out);
        Ok(())
    }

    fn stored_index(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |kept| kept[row])
    }

    /// Behind the last row that is read together with row `at`.
    fn reach(&self, at: usize, end: usize) -> usize {
        let first = self.stored_index(at);
        let mut next = at + 1;
        while next < end {
            let (before, now) = (self.stored_index(next - 1), self.stored_index(next));
            let far = (now - before - 1) * self.stored_row > GAP;
            if far || (now - first + 1) * self.stored_row > READ {
                break;
            }
            next += 1;
        }
        next
    }

    fn gather(&self, row: &[u8], out: &mut Vec<u8>) {
        match (&self.columns, self.dtype.bytes()) {
            (None, _) => out.extend_from_slice(row),
            (Some(columns), 2) => gather::pick::<2>(row, columns, out),
            (Some(columns), _) => gather::pick::<4>(row, columns, out),
        }
    }
}
