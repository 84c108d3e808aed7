//! The residual stream in another orthogonal basis: the same function of other weights.
//!
//! Q [E, E] takes a stream x to x Q. A norm's root of mean square is the same in every orthogonal basis, but its
//! weight is not, so that goes into the matrices that read what it gives:
//!
//! | tensor | becomes |
//! |---|---|
//! | a norm of the stream, n | 1 |
//! | a matrix that reads the stream through it, W [.., E] | W diag(n) Q |
//! | the embedding, W [V, E] | W Q |
//! | a matrix that writes to the stream, W [E, ..], and its bias | Q^T W |

use super::SourceError;
use super::slice::Slice;
use crate::convert;
use crate::kernels::parallel::{with_buffer, with_scratch};
use crate::kernels::product::{Factor, product, product_space, products};
use crate::kernels::{View, ViewMut};
use minic_compiler::dim::{Dim, Extent};
use minic_compiler::model::{ModelDesc, Role};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// An orthogonal basis of the residual stream.
pub struct Rotation {
    width: usize,
    /// Row-major [width, width]; its columns are the directions.
    basis: Vec<f32>,
}

impl Rotation {
    /// `None` where `basis` is not a square matrix of that width. Whether it is orthogonal, the gate proves.
    pub fn new(width: usize, basis: Vec<f32>) -> Option<Rotation> {
        (width.checked_mul(width) == Some(basis.len())).then_some(Rotation { width, basis })
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn basis(&self) -> &[f32] {
        &self.basis
    }

    /// Rows of streams, row-major: x -> x Q.
    pub fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let (width, n) = (self.width, rows.len() / self.width.max(1));
        let mut out = vec![0.0; n * width];
        let [x, q] = [View::new(rows, n, width, width), View::new(&self.basis, width, width, width)];
        let out_view = ViewMut::new(&mut out, n, width, width);
        products(Factor::of(x), Factor::of(q), out_view, false, |_, _, _| {});
        out
    }

    /// BLAKE3 of the basis, hexadecimal.
    pub fn digest(&self) -> String {
        blake3::hash(&convert::f32_bytes(&self.basis)).to_hex().to_string()
    }
}

/// What a tensor has to do with the stream.
pub(super) enum Part {
    Norm,
    /// Its rows are multiplied by streams, which the norm of that name gives if there is one.
    Reads {
        norm: Option<String>,
    },
    /// Its rows are added to the channels of the stream.
    Writes,
}

/// Every tensor of a model that has to do with its stream.
pub(super) fn parts(desc: &ModelDesc) -> BTreeMap<String, Part> {
    let weights = desc.weights();
    let stream = |extent: Option<&Extent>| {
        extent.is_some_and(|e| e.parts.iter().any(|part| part.has(Dim::HiddenSize)))
    };
    let norm = |layer: Option<usize>| {
        let found = weights.iter().find(|w| w.role == Role::Norm && w.layer == layer);
        found.map(|w| w.name.clone())
    };
    let mut parts = BTreeMap::new();
    for weight in &weights {
        let part = match weight.role {
            Role::Norm => Part::Norm,
            Role::Embedding => Part::Reads { norm: None },
            _ if stream(weight.shape.get(1)) => Part::Reads { norm: norm(weight.layer) },
            _ if stream(weight.shape.first()) => Part::Writes,
            _ => continue,
        };
        parts.insert(weight.name.clone(), part);
    }
    parts
}

/// Some columns of a basis, [width, count]: the directions that a cut keeps.
pub(super) struct Directions<'a> {
    data: Cow<'a, [f32]>,
    width: usize,
    count: usize,
    stride: usize,
}

impl<'a> Directions<'a> {
    /// `None`: all.
    pub fn new(rotation: &'a Rotation, kept: Option<Vec<usize>>) -> Directions<'a> {
        let (width, basis) = (rotation.width, rotation.basis.as_slice());
        let kept = kept.unwrap_or_else(|| (0..width).collect());
        let (count, first) = (kept.len(), kept.first().copied().unwrap_or(0));
        // Mostly the leading ones are kept, which need no copy.
        if kept.iter().zip(first..).all(|(&k, i)| k == i) {
            return Directions { data: Cow::Borrowed(&basis[first..]), width, count, stride: width };
        }
        let rows = basis.chunks(width.max(1));
        let data = rows.flat_map(|row| kept.iter().map(|&k| row[k])).collect();
        Directions { data: Cow::Owned(data), width, count, stride: count }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    fn view(&self) -> View<'_> {
        View::new(&self.data, self.width, self.count, self.stride)
    }
}

/// Columns of a product that one thread makes at once.
const COLS: usize = 256;

/// W diag(n) Q, whose rows are computed when they are read.
pub(super) struct Turned<'a> {
    pub input: Slice<'a>,
    pub norm: Option<Vec<f32>>,
    pub directions: Directions<'a>,
}

impl Turned<'_> {
    pub fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), SourceError> {
        let (n, width, count) = (rows.len(), self.directions.width, self.directions.count);
        with_buffer(n * width, |values| {
            self.input.read_f32(rows, values)?;
            for row in values.chunks_mut(width.max(1)) {
                let norm = self.norm.iter().flatten();
                row.iter_mut().zip(norm).for_each(|(value, norm)| *value *= norm);
            }
            let a = Factor::of(View::new(values, n, width, width));
            let q = Factor::of(self.directions.view());
            for (_, col, c) in ViewMut::new(out, n, count, count).blocks(n, COLS) {
                let q = q.block(0, width, col, c.cols());
                with_scratch(product_space(width, c.cols()), |space| product(a, q, c, false, space));
            }
            Ok(())
        })
    }
}

/// Rows of W that are held beside the result.
const ROWS: usize = 768;

/// Q^T W [count, ..], all of it, because every row of it is made of all rows of W.
pub(super) fn written(directions: &Directions, w: &Slice) -> Result<Vec<f32>, SourceError> {
    let Directions { width, count, .. } = *directions;
    let cols = w.row_len();
    let mut out = vec![0.0; count * cols];
    for first in (0..width).step_by(ROWS) {
        let rows = ROWS.min(width - first);
        let w = w.read_rows_f32(first..first + rows)?;
        let q = Factor::transposed(directions.view().block(first, rows, 0, count));
        let w = Factor::of(View::new(&w, rows, cols, cols));
        products(q, w, ViewMut::new(&mut out, count, cols, cols), first > 0, |_, _, _| {});
    }
    Ok(out)
}
