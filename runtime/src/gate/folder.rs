//! What was written, read back.

use super::{FolderProof, GateError};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::publish;
use crate::safetensors::Entry;
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
    let weights = made.desc().weights();
    let (params, planned) = (weights.iter().map(|w| w.len() as u64).sum(), source.desc().params());
    if params != planned {
        let made = format!("{} holds {params}", folder.display());
        return Err(GateError::Params { made, planned });
    }
    let entries = source.entries(dtype)?;
    let mut names = weights.into_iter().map(|w| w.name);
    let tensor = |(entry, name)| Tensor { folder, made: &made, name, entry };
    let groups = publish::groups(&entries);
    let groups: Vec<Vec<Tensor>> =
        groups.into_iter().map(|group| group.iter().zip(names.by_ref()).map(tensor).collect()).collect();
    groups.iter().flatten().try_for_each(Tensor::same_shape)?;
    groups.iter().try_for_each(|group| compare(source, group))?;
    Ok(FolderProof { params, tensors: entries.len(), private: () })
}

/// Neighbours, by all threads.
fn compare(source: &WeightSource, group: &[Tensor]) -> Result<(), GateError> {
    let slices = group.iter().map(|tensor| source.slice(&tensor.entry.name));
    let slices = slices.collect::<Result<Vec<_>, _>>()?;
    let pieces =
        |(tensor, slice)| Slice::pieces(slice, 0..slice.rows(), PIECE).map(move |rows| (tensor, slice, rows));
    let pieces: Vec<(&Tensor, &Slice, Range<usize>)> = group.iter().zip(&slices).flat_map(pieces).collect();
    let compare = |buffers: &mut Buffers, (tensor, slice, rows): &(&Tensor, &Slice, Range<usize>)| {
        tensor.compare(slice, rows.clone(), buffers)
    };
    // The first one in the order of the table, whichever thread saw one first.
    match pieces.par_iter().map_init(Buffers::default, compare).find_first(Result::is_err) {
        Some(error) => error,
        None => Ok(()),
    }
}

/// A tensor of the folder and what it should be.
struct Tensor<'a> {
    folder: &'a Path,
    made: &'a Checkpoint,
    /// In the folder.
    name: String,
    /// As it is planned.
    entry: &'a Entry,
}

impl Tensor<'_> {
    fn same_shape(&self) -> Result<(), GateError> {
        let (dtype, shape) = (self.made.dtype(&self.name), self.made.shape(&self.name));
        let (dtype, shape) = (dtype.map_err(GateError::Folder)?, shape.map_err(GateError::Folder)?);
        let planned = self.entry;
        if dtype != planned.dtype {
            return self.fail(format!("its dtype is {}, planned is {}", dtype.name(), planned.dtype.name()));
        }
        if shape != planned.shape {
            return self.fail(format!("its shape is {shape:?}, planned is {:?}", planned.shape));
        }
        Ok(())
    }

    fn compare(&self, slice: &Slice, rows: Range<usize>, buffers: &mut Buffers) -> Result<(), GateError> {
        let Buffers { found, planned } = buffers;
        planned.clear();
        slice.read_as(rows.clone(), self.entry.dtype, planned)?;
        self.made.read_rows(&self.name, rows.clone(), found).map_err(GateError::Folder)?;
        if found != planned {
            return self.fail(format!("its bytes differ in rows {rows:?}"));
        }
        match convert::first_non_finite(self.entry.dtype, found) {
            Some((at, value)) => {
                let index = rows.start * slice.row_len() + at;
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
