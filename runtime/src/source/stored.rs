//! What cuts keep of a stored tensor, read by rows.

use super::SourceError;
use super::gather::{self, Kept};
use crate::checkpoint::CheckpointError;
use crate::convert;
use crate::safetensors::Reader;
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

/// Rows and elements of rows of a stored tensor. However many cuts chose them, each element is one stored
/// element.
pub struct Stored<'a> {
    file: &'a Reader,
    /// Its name in the file.
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Stored rows, ascending; `None`: all.
    rows: Option<Vec<usize>>,
    /// Elements of a stored row, ascending; `None`: all.
    columns: Option<Vec<usize>>,
    /// Bytes of a stored row.
    stored_row: usize,
}

impl<'a> Stored<'a> {
    /// `None` where the file has no such tensor of a dtype that minic computes with.
    pub(super) fn new(file: &'a Reader, name: &str, kept: &Kept) -> Option<Stored<'a>> {
        let tensor = file.tensor(name)?;
        let dtype = tensor.element.dtype()?;
        let kept_of = |axis: usize| kept.get(axis).and_then(Option::as_ref);
        let shape = tensor.shape.iter().enumerate().map(|(i, &n)| kept_of(i).map_or(n, Vec::len)).collect();
        let inner = tensor.shape.get(1..).unwrap_or_default();
        let any = (1..tensor.shape.len()).any(|axis| kept_of(axis).is_some());
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
        let (rows, name) = (kept_of(0).cloned(), name.to_string());
        Some(Stored { file, name, dtype, shape, rows, columns, stored_row: tensor.row_bytes() })
    }

    /// As it lies in the file.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Appends the bytes of rows `rows`, in [`Stored::dtype`]. Holds some MiB beside them.
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
            self.file.read_rows(&self.name, first..last + 1, stored).map_err(CheckpointError::from)?;
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
    pub(super) fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), SourceError> {
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
            let (file, name) = (self.file.path().to_path_buf(), self.name.clone());
            return Err(SourceError::NotFinite { file, name, index, value });
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
