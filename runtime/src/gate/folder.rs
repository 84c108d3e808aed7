//! What was written, read back.

use super::{FolderProof, GateError};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::source::{Slice, WeightSource};
use minic_compiler::dim::Dim;
use minic_compiler::model::{DType, ModelDesc};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Elements of a tensor that a thread compares at once.
const PIECE: usize = 1 << 20;

/// Proves a written folder against its source: config.json describes the planned model, the files hold its
/// weight table and nothing else (both checked by opening it), the counts agree, and every tensor is, bit for
/// bit, the source's tensor rounded to `dtype`. All threads compare; each holds some MiB.
pub fn prove_folder(
    folder: &Path,
    source: &WeightSource,
    dtype: Option<DType>,
) -> Result<FolderProof, GateError> {
    let made = Checkpoint::open(folder).map_err(GateError::Folder)?;
    same_model(folder, made.desc(), source.desc())?;
    let mut params = 0;
    let mut tensors = Vec::new();
    for (weight, planned) in made.desc().weights().into_iter().zip(source.desc().weights()) {
        params += weight.len() as u64;
        let slice = source.slice(&planned.name)?;
        let dtype = dtype.unwrap_or(slice.dtype());
        tensors.push(Tensor { folder, made: &made, name: weight.name, slice, dtype });
    }
    let planned = source.desc().params();
    if params != planned {
        let made = format!("{} holds {params}", folder.display());
        return Err(GateError::Params { made, planned });
    }
    tensors.iter().try_for_each(Tensor::same_shape)?;
    let rows = |tensor| Tensor::rows(tensor).map(move |rows| (tensor, rows));
    let pieces: Vec<(&Tensor, Range<usize>)> = tensors.iter().flat_map(rows).collect();
    let compare = |buffers: &mut Buffers, (tensor, rows): &(&Tensor, Range<usize>)| {
        tensor.compare(rows.clone(), buffers)
    };
    // The first one in the order of the table, whichever thread saw one first.
    match pieces.par_iter().map_init(Buffers::default, compare).find_first(Result::is_err) {
        Some(Err(error)) => Err(error),
        Some(Ok(())) | None => Ok(FolderProof { params, tensors: tensors.len(), private: () }),
    }
}

/// A tensor of the folder and what it should be.
struct Tensor<'a> {
    folder: &'a Path,
    made: &'a Checkpoint,
    /// In the folder.
    name: String,
    slice: Slice<'a>,
    dtype: DType,
}

impl Tensor<'_> {
    fn same_shape(&self) -> Result<(), GateError> {
        let (dtype, shape) = (self.made.dtype(&self.name), self.made.shape(&self.name));
        let (dtype, shape) = (dtype.map_err(GateError::Folder)?, shape.map_err(GateError::Folder)?);
        if dtype != self.dtype {
            return self.fail(format!("its dtype is {}, planned is {}", dtype.name(), self.dtype.name()));
        }
        if shape != self.slice.shape() {
            return self.fail(format!("its shape is {shape:?}, planned is {:?}", self.slice.shape()));
        }
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.slice.pieces(0..self.slice.rows(), PIECE)
    }

    fn compare(&self, rows: Range<usize>, buffers: &mut Buffers) -> Result<(), GateError> {
        let Buffers { found, planned } = buffers;
        planned.clear();
        self.slice.read(rows.clone(), planned)?;
        if self.slice.dtype() != self.dtype {
            *planned = rounded(self.slice.dtype(), planned, self.dtype);
        }
        self.made.read_rows(&self.name, rows.clone(), found).map_err(GateError::Folder)?;
        if found != planned {
            return self.fail(format!("its bytes differ in rows {rows:?}"));
        }
        match convert::first_non_finite(self.dtype, found) {
            Some((at, value)) => {
                let index = rows.start * self.slice.row_len() + at;
                self.fail(format!("it holds {value} at element {index}"))
            }
            None => Ok(()),
        }
    }

    fn fail(&self, reason: String) -> Result<(), GateError> {
        Err(GateError::Weight { folder: self.folder.into(), name: self.name.clone(), reason })
    }
}

/// Bytes of some rows, as they are and as they should be.
#[derive(Default)]
struct Buffers {
    found: Vec<u8>,
    planned: Vec<u8>,
}

/// Bytes of one dtype in another.
fn rounded(from: DType, bytes: &[u8], to: DType) -> Vec<u8> {
    let (mut values, mut out) = (Vec::new(), Vec::new());
    convert::decode(from, bytes, &mut values);
    convert::encode(to, &values, &mut out);
    out
}

/// The model that a folder's config.json describes is the planned one.
fn same_model(folder: &Path, made: &ModelDesc, planned: &ModelDesc) -> Result<(), GateError> {
    let differ = |what: &str, found: String, planned: String| {
        Err(GateError::Config { folder: folder.into(), what: what.into(), found, planned })
    };
    for dim in Dim::ALL {
        if made.dim(*dim) != planned.dim(*dim) {
            let text = |d: Option<usize>| d.map_or("absent".into(), |n| n.to_string());
            return differ(dim.name(), text(made.dim(*dim)), text(planned.dim(*dim)));
        }
    }
    if made.pattern() != planned.pattern() {
        return differ("the pattern of layers", made.pattern(), planned.pattern());
    }
    let constants = |d: &ModelDesc| {
        format!("family {} eps {} dt {:?} biases {:?} tied {}", d.family, d.eps, d.dt, d.biases, d.tied)
    };
    if constants(made) != constants(planned) {
        return differ("the model", constants(made), constants(planned));
    }
    Ok(())
}
