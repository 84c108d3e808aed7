//! One tensor of a weight source, read by rows.

use super::SourceError;
use super::rotation::Turned;
use super::stored::Stored;
use crate::convert;
use crate::kernels::parallel::with_buffer;
use minic_compiler::model::DType;
use rayon::prelude::*;
use std::ops::Range;

/// Elements that a thread reads at once.
const PIECE: usize = 1 << 20;

/// One tensor of a weight source: stored elements, or values that are computed of them.
pub struct Slice<'a> {
    dtype: DType,
    shape: Vec<usize>,
    values: Values<'a>,
    /// What the values are multiplied by.
    factor: f64,
}

pub(super) enum Values<'a> {
    Stored(Stored<'a>),
    /// So many.
    Ones(usize),
    /// Computed row by row.
    Turned(Box<Turned<'a>>),
    /// Computed already.
    Whole {
        shape: Vec<usize>,
        values: Vec<f32>,
    },
}

impl Values<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Values::Stored(stored) => stored.shape().to_vec(),
            Values::Ones(n) => vec![*n],
            Values::Turned(turned) => vec![turned.input.rows(), turned.directions.count()],
            Values::Whole { shape, .. } => shape.clone(),
        }
    }
}

impl<'a> Slice<'a> {
    pub(super) fn new(dtype: DType, values: Values<'a>, factor: f64) -> Slice<'a> {
        Slice { dtype, shape: values.shape(), values, factor }
    }

    /// The dtype in which the tensor is stored at the bottom of the source, whatever became of its values.
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

    /// The stored elements that the tensor consists of, bit for bit; `None` where its values are computed.
    pub fn stored(&self) -> Option<&Stored<'a>> {
        match &self.values {
            Values::Stored(stored) if self.factor == 1.0 => Some(stored),
            _ => None,
        }
    }

    /// Appends the bytes of rows `rows` in `dtype`: copied where they are stored so, and else the values, which
    /// are rounded only here.
    pub fn read_as(&self, rows: Range<usize>, dtype: DType, out: &mut Vec<u8>) -> Result<(), SourceError> {
        match self.stored() {
            Some(stored) if stored.dtype() == dtype => stored.read(rows, out),
            _ => with_buffer(rows.len() * self.row_len(), |values| {
                self.read_f32(rows, values)?;
                convert::encode(dtype, values, out);
                Ok(())
            }),
        }
    }

    /// The values of rows `rows` into `out`, which has as many elements. The same bits however rows are cut into
    /// ranges. Stored NaN and infinity are errors. One thread reads, and waits for no other.
    pub fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), SourceError> {
        match &self.values {
            Values::Stored(stored) => stored.read_f32(rows, out)?,
            Values::Ones(_) => out.fill(1.0),
            Values::Turned(turned) => turned.read_f32(rows, out)?,
            Values::Whole { values, .. } => {
                out.copy_from_slice(&values[rows.start * self.row_len()..rows.end * self.row_len()]);
            }
        }
        scale(out, self.factor);
        Ok(())
    }

    /// The same, by all threads, which hold some MiB each beside the result.
    pub fn read_rows_f32(&self, rows: Range<usize>) -> Result<Vec<f32>, SourceError> {
        let row = self.row_len().max(1);
        let step = (PIECE / row).max(1);
        let mut values = vec![0.0; rows.len() * self.row_len()];
        let read = |(i, out): (usize, &mut [f32])| {
            let begin = rows.start + i * step;
            self.read_f32(begin..rows.end.min(begin + step), out)
        };
        let done: Vec<_> = values.par_chunks_mut(step * row).enumerate().map(read).collect();
        done.into_iter().collect::<Result<(), _>>()?;
        Ok(values)
    }

    /// All values. Those that are there already are not copied.
    pub fn into_f32(self) -> Result<Vec<f32>, SourceError> {
        match self.values {
            Values::Whole { mut values, .. } => {
                scale(&mut values, self.factor);
                Ok(values)
            }
            _ => self.read_rows_f32(0..self.rows()),
        }
    }
}

fn scale(values: &mut [f32], factor: f64) {
    if factor != 1.0 {
        values.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
}
