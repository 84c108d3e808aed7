//! A weight source: a checkpoint and an ordered list of transforms, read by rows of tensors.
//!
//! Candidates, staged cuts and exports are all weight sources; nothing is changed in place.

mod gather;
mod slice;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::device::Weights;
use crate::error::Kind;
use minic_compiler::cut::{CutError, CutPlan};
use minic_compiler::model::{DType, ModelDesc, Weight};
use minic_compiler::schedule::Schedule;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use slice::Slice;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the cut does not fit its model: {0}")]
    Cut(#[from] CutError),
    #[error("no weight `{0}`")]
    Unknown(String),
    #[error("{}: weight `{name}` holds {value} at element {index}", file.display())]
    NotFinite { file: PathBuf, name: String, index: usize, value: f32 },
}

impl SourceError {
    pub fn kind(&self) -> Kind {
        match self {
            SourceError::Checkpoint(e) => e.kind(),
            SourceError::NotFinite { .. } => Kind::Input,
            SourceError::Cut(_) | SourceError::Unknown(_) => Kind::Proof,
        }
    }
}

/// A model's weights, made when they are read.
#[derive(Clone)]
pub struct WeightSource {
    base: Arc<Checkpoint>,
    desc: ModelDesc,
    transforms: Vec<Arc<Transform>>,
}

/// One step from a model to the next.
enum Transform {
    Cut {
        plan: CutPlan,
        /// The model before, and its weight table.
        from: ModelDesc,
        /// Name after the cut -> the weight before it.
        before: BTreeMap<String, Weight>,
    },
}

/// A tensor in the bytes of its checkpoint's dtype.
pub struct Tensor {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl WeightSource {
    pub fn new(base: Arc<Checkpoint>) -> WeightSource {
        WeightSource { desc: base.desc().clone(), base, transforms: Vec::new() }
    }

    /// The same weights under another description, e.g. another floor of dt.
    pub fn with_desc(mut self, desc: ModelDesc) -> WeightSource {
        self.desc = desc;
        self
    }

    pub fn desc(&self) -> &ModelDesc {
        &self.desc
    }

    pub fn base(&self) -> &Arc<Checkpoint> {
        &self.base
    }

    /// The model that keeps what `plan` keeps: unchanged weights, gathered along named dimensions.
    pub fn cut(&self, plan: CutPlan) -> Result<WeightSource, SourceError> {
        plan.verify(&self.desc)?;
        let desc = self.desc.resized(&plan.sizes(&self.desc), &plan.layers);
        let before = before(&self.desc, &desc, &plan);
        let mut transforms = self.transforms.clone();
        transforms.push(Arc::new(Transform::Cut { plan, from: self.desc.clone(), before }));
        Ok(WeightSource { base: self.base.clone(), desc, transforms })
    }

    /// The cuts, the first one first, each in the numbering of the model before it.
    pub fn cuts(&self) -> impl Iterator<Item = (&CutPlan, &ModelDesc)> {
        self.transforms.iter().map(|t| match t.as_ref() {
            Transform::Cut { plan, from, .. } => (plan, from),
        })
    }

    /// A tensor, to be read by rows. Nothing is read yet.
    pub fn slice(&self, name: &str) -> Result<Slice<'_>, SourceError> {
        let (mut name, mut kept) = (name.to_string(), Vec::new());
        for transform in self.transforms.iter().rev() {
            let Transform::Cut { plan, before, .. } = transform.as_ref();
            let weight = before.get(&name).ok_or(SourceError::Unknown(name))?;
            kept = gather::compose(gather::kept(weight, plan), &kept);
            name = weight.name.clone();
        }
        Slice::new(&self.base, name, &kept)
    }

    /// A whole tensor as it is stored.
    pub fn read(&self, name: &str) -> Result<Tensor, SourceError> {
        let slice = self.slice(name)?;
        let mut bytes = Vec::new();
        slice.read(0..slice.rows(), &mut bytes)?;
        Ok(Tensor { dtype: slice.dtype(), shape: slice.shape().to_vec(), bytes })
    }

    /// The dtype that a tensor is stored in at the bottom of the source.
    pub fn dtype(&self, name: &str) -> Result<DType, SourceError> {
        Ok(self.slice(name)?.dtype())
    }

    /// A whole tensor, row-major. All threads read; the peak is the result and some MiB for each of them.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, SourceError> {
        let slice = self.slice(name)?;
        self.read_rows_f32(&slice, 0..slice.rows())
    }

    /// Some rows of a tensor, row-major.
    pub fn read_rows_f32(&self, slice: &Slice, rows: Range<usize>) -> Result<Vec<f32>, SourceError> {
        let row = slice.row_len().max(1);
        let step = (PIECE / row).max(1);
        let mut values = vec![0.0; rows.len() * slice.row_len()];
        let read = |(i, out): (usize, &mut [f32])| {
            let begin = rows.start + i * step;
            slice.read_f32(begin..rows.end.min(begin + step), out)
        };
        let done: Vec<_> = values.par_chunks_mut(step * row).enumerate().map(read).collect();
        done.into_iter().collect::<Result<(), _>>()?;
        Ok(values)
    }
}

/// Elements that a thread reads at once.
const PIECE: usize = 1 << 20;

/// Which weight of `from` each weight of `to` is made of: the same line of its layer's table.
fn before(from: &ModelDesc, to: &ModelDesc, plan: &CutPlan) -> BTreeMap<String, Weight> {
    let mut by_layer: BTreeMap<Option<usize>, Vec<Weight>> = BTreeMap::new();
    for weight in from.weights() {
        by_layer.entry(weight.layer).or_default().push(weight);
    }
    let mut position: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for weight in to.weights() {
        let index = position.entry(weight.layer).or_default();
        let layer = weight.layer.and_then(|l| plan.layers.get(l).copied());
        if let Some(source) = by_layer.get(&layer).and_then(|table| table.get(*index)) {
            out.insert(weight.name, source.clone());
        }
        *index += 1;
    }
    out
}

/// The weights that a schedule reads of one model, in f32.
pub fn bind(schedule: &Schedule, model: &WeightSource) -> Result<Weights, SourceError> {
    Weights::load(schedule.weights.keys().cloned(), |name| model.read_f32(name))
}

/// The weights that a schedule of several models reads: `half/lm_head.weight` of model `half`.
pub fn bind_scoped(schedule: &Schedule, models: &[(&str, &WeightSource)]) -> Result<Weights, SourceError> {
    Weights::load(schedule.weights.keys().cloned(), |name| {
        let (model, weight) = name.split_once('/').unwrap_or(("", name));
        match models.iter().find(|(n, _)| *n == model) {
            Some((_, source)) => source.read_f32(weight),
            None => Err(SourceError::Unknown(name.into())),
        }
    })
}
