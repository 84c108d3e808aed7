//! A weight source: a checkpoint and an ordered list of transforms, read by rows of tensors.
//!
//! Candidates, staged cuts and exports are all weight sources; nothing is changed in place.

mod gather;
mod patch;
mod rotation;
mod slice;
mod stored;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::device::Weights;
use crate::error::Kind;
use crate::safetensors::Entry;
use gather::Kept;
use minic_compiler::cut::{CutError, CutPlan};
use minic_compiler::dim::Dim;
use minic_compiler::families::ConfigError;
use minic_compiler::model::{DType, ModelDesc, Weight};
use minic_compiler::schedule::Schedule;
use rotation::{Directions, Part, Turned};
use slice::Values;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use patch::Patch;
pub use rotation::Rotation;
pub use slice::Slice;
pub use stored::Stored;

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
    #[error("{}: its residual stream cannot be rotated: {reason}", folder.display())]
    Unturnable { folder: PathBuf, reason: ConfigError },
    #[error("a rotation of {found} channels does not fit a stream of {width}")]
    Width { found: usize, width: usize },
    #[error("{}: tensor `{name}` replaces none of the model's weights: {reason}", file.display())]
    Patch { file: PathBuf, name: String, reason: String },
}

impl SourceError {
    pub fn kind(&self) -> Kind {
        match self {
            SourceError::Checkpoint(e) => e.kind(),
            SourceError::NotFinite { .. } | SourceError::Unturnable { .. } => Kind::Input,
            SourceError::Cut(_)
            | SourceError::Unknown(_)
            | SourceError::Width { .. }
            | SourceError::Patch { .. } => Kind::Proof,
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
        from: Box<ModelDesc>,
        /// Name after the cut -> the weight before it.
        before: BTreeMap<String, Weight>,
    },
    /// The stream in another basis.
    Rotate {
        rotation: Arc<Rotation>,
        /// The tensors that become others.
        parts: BTreeMap<String, Part>,
    },
    /// Tensors by name, and what they are multiplied by.
    Scale(BTreeMap<String, f64>),
    Overwrite(Arc<Patch>),
}

/// A tensor in the bytes of the dtype that it has at the bottom of its source.
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
        let cut = self.then(Transform::Cut { plan, from: Box::new(self.desc.clone()), before });
        Ok(cut.with_desc(desc))
    }

    /// The model that computes the same with its stream in the basis of `rotation`.
    pub fn rotate(&self, rotation: Arc<Rotation>) -> Result<WeightSource, SourceError> {
        let folder = || self.base.folder().to_path_buf();
        let turnable = self.desc.family().rotatable(&self.desc);
        turnable.map_err(|reason| SourceError::Unturnable { folder: folder(), reason })?;
        let (found, width) = (rotation.width(), self.desc.size(Dim::HiddenSize));
        if found != width {
            return Err(SourceError::Width { found, width });
        }
        Ok(self.then(Transform::Rotate { rotation, parts: rotation::parts(&self.desc) }))
    }

    /// Some of its tensors are computed when they are read, and some of these held whole: [`WeightSource::slice`].
    pub fn is_rotated(&self) -> bool {
        self.transforms.iter().any(|t| matches!(t.as_ref(), Transform::Rotate { .. }))
    }

    /// The model some of whose tensors are multiplied by a number, by name. Names that it lacks change nothing.
    pub fn scale(&self, factors: BTreeMap<String, f64>) -> WeightSource {
        self.then(Transform::Scale(factors))
    }

    /// The model some of whose tensors are those of a file.
    pub fn overwrite(&self, patch: Arc<Patch>) -> Result<WeightSource, SourceError> {
        let table: BTreeMap<String, Vec<usize>> =
            self.desc.weights().into_iter().map(|w| (w.name.clone(), w.sizes())).collect();
        for (name, shape) in patch.shapes() {
            let reason = match table.get(name) {
                None => "it has none of that name".into(),
                Some(sizes) if sizes != shape => format!("its shape is {shape:?}, not {sizes:?}"),
                Some(_) => continue,
            };
            return Err(SourceError::Patch { file: patch.path().into(), name: name.into(), reason });
        }
        Ok(self.then(Transform::Overwrite(patch)))
    }

    fn then(&self, transform: Transform) -> WeightSource {
        let mut source = self.clone();
        source.transforms.push(Arc::new(transform));
        source
    }

    /// The cuts, the first one first, each in the numbering of the model before it.
    pub fn cuts(&self) -> impl Iterator<Item = (&CutPlan, &ModelDesc)> {
        self.transforms.iter().filter_map(|t| match t.as_ref() {
            Transform::Cut { plan, from, .. } => Some((plan, from.as_ref())),
            Transform::Rotate { .. } | Transform::Scale(_) | Transform::Overwrite(_) => None,
        })
    }

    /// A tensor, to be read by rows. Nothing is read yet of one that is stored. Of one that reads a rotated stream
    /// its norm is, and one that writes to it is computed whole, by all threads: 4 bytes an element.
    pub fn slice(&self, name: &str) -> Result<Slice<'_>, SourceError> {
        self.slice_after(self.transforms.len(), name.to_string(), Kept::new())
    }

    /// What is kept of a tensor of the model that the first `count` transforms make.
    fn slice_after(&self, count: usize, mut name: String, mut kept: Kept) -> Result<Slice<'_>, SourceError> {
        let (dtype, mut factor) = (self.dtype_after(count, &name)?, 1.0);
        for (at, transform) in self.transforms[..count].iter().enumerate().rev() {
            match transform.as_ref() {
                Transform::Cut { plan, before, .. } => {
                    let weight = before.get(&name).ok_or(SourceError::Unknown(name))?;
                    kept = gather::compose(gather::kept(weight, plan), &kept);
                    name = weight.name.clone();
                }
                Transform::Scale(factors) => factor *= factors.get(&name).copied().unwrap_or(1.0),
                Transform::Overwrite(patch) => {
                    if let Some(stored) = patch.stored(&name, &kept) {
                        return Ok(Slice::new(dtype, Values::Stored(stored), factor));
                    }
                }
                Transform::Rotate { rotation, parts } => {
                    if let Some(part) = parts.get(&name) {
                        return Ok(Slice::new(dtype, self.rotated(at, name, kept, rotation, part)?, factor));
                    }
                }
            }
        }
        let (file, stored) = self.base.place(&name)?;
        let stored = Stored::new(file, stored, &kept).ok_or(SourceError::Unknown(name))?;
        Ok(Slice::new(dtype, Values::Stored(stored), factor))
    }

    /// What a rotation, transform `at`, makes of a tensor that has to do with the stream.
    fn rotated<'a>(
        &'a self,
        at: usize,
        name: String,
        mut kept: Kept,
        rotation: &'a Rotation,
        part: &Part,
    ) -> Result<Values<'a>, SourceError> {
        let axis = usize::from(matches!(part, Part::Reads { .. }));
        let directions = Directions::new(rotation, kept.get_mut(axis).and_then(Option::take));
        match part {
            Part::Norm => Ok(Values::Ones(directions.count())),
            Part::Reads { norm } => {
                let input = self.slice_after(at, name, kept)?;
                let norm = match norm {
                    Some(norm) => Some(self.slice_after(at, norm.clone(), Kept::new())?.into_f32()?),
                    None => None,
                };
                Ok(Values::Turned(Box::new(Turned { input, norm, directions })))
            }
            Part::Writes => {
                let input = self.slice_after(at, name, kept)?;
                let values = rotation::written(&directions, &input)?;
                let shape = [&[directions.count()], &input.shape()[1..]].concat();
                Ok(Values::Whole { shape, values })
            }
        }
    }

    /// A whole tensor in the bytes of [`Slice::dtype`].
    pub fn read(&self, name: &str) -> Result<Tensor, SourceError> {
        let slice = self.slice(name)?;
        let (dtype, mut bytes) = (slice.dtype(), Vec::new());
        slice.read_as(0..slice.rows(), dtype, &mut bytes)?;
        Ok(Tensor { dtype, shape: slice.shape().to_vec(), bytes })
    }

    /// The dtype that a tensor is stored in at the bottom of the source.
    pub fn dtype(&self, name: &str) -> Result<DType, SourceError> {
        self.dtype_after(self.transforms.len(), name)
    }

    fn dtype_after(&self, count: usize, name: &str) -> Result<DType, SourceError> {
        let mut name = name;
        for transform in self.transforms[..count].iter().rev() {
            if let Transform::Cut { before, .. } = transform.as_ref() {
                name = &before.get(name).ok_or_else(|| SourceError::Unknown(name.into()))?.name;
            }
        }
        Ok(self.base.dtype(name)?)
    }

    /// The tensors of the model as they are written: in `dtype`, or each in its own.
    pub fn entries(&self, dtype: Option<DType>) -> Result<Vec<Entry>, SourceError> {
        let entry = |weight: Weight| {
            let dtype = dtype.map_or_else(|| self.dtype(&weight.name), Ok)?;
            Ok(Entry { shape: weight.sizes(), dtype, name: weight.name })
        };
        self.desc.weights().into_iter().map(entry).collect()
    }

    /// A whole tensor, row-major. All threads read; the peak is the result and some MiB for each of them.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, SourceError> {
        self.slice(name)?.into_f32()
    }
}

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

#[cfg(test)]
mod tests;
