//! The proof gate: what was made is what was planned, or nothing is published.
//!
//! A cut is proved by computing the same function twice: once with the cut weights, once with the whole
//! model, its activations multiplied by zeros and ones ([`crate::mask`]) and its norms divided by their
//! active width. A folder is proved by reading it back.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::convert;
use crate::device::{Device, DeviceError};
use crate::error::Kind;
use crate::mask;
use crate::random::SplitMix64;
use crate::samples::Runner;
use crate::source::{self, SourceError, Tensor, WeightSource};
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, output};
use minic_compiler::graph::{Masks, ShapeError};
use minic_compiler::model::{DType, ModelDesc};
use minic_compiler::schedule::{self, ScheduleError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest difference of a logit, as a share of the largest logit.
pub const TOLERANCE: f64 = 1e-5;
/// Positions of each of the gate's samples, unless the model's memory asks for fewer.
const SEQUENCE: usize = 48;
const SAMPLES: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the cut changes nothing: {params} parameters before and after")]
    Unchanged { params: u64 },
    #[error("{made}, but {planned} parameters are planned")]
    Params { made: String, planned: u64 },
    #[error(
        "the cut model does not compute what the masked model computes: {place} differ by {difference:.3e}, {allowed:.3e} is allowed"
    )]
    Difference { place: String, difference: f64, allowed: f64 },
    #[error("{place} are not finite")]
    NotFinite { place: String },
    #[error("{}: {what} is {found}, planned is {planned}", folder.display())]
    Config { folder: PathBuf, what: String, found: String, planned: String },
    #[error("{}: weight `{name}` is not the planned cut of its source: {reason}", folder.display())]
    Weight { folder: PathBuf, name: String, reason: String },
    #[error("what was written cannot be read back: {0}")]
    Folder(CheckpointError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl GateError {
    pub fn kind(&self) -> Kind {
        match self {
            GateError::Source(e) => e.kind(),
            GateError::Folder(e) if e.kind() == Kind::World => Kind::World,
            _ => Kind::Proof,
        }
    }
}

/// How a cut was proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutProof {
    /// `logits` of the whole models, or `blocks`, one by one.
    pub compared: String,
    /// Largest difference between masked and cut, and the largest magnitude compared.
    pub difference: f64,
    pub magnitude: f64,
    pub tolerance: f64,
    pub positions: usize,
    /// Parameters before and after.
    pub params_before: u64,
    pub params_after: u64,
}

/// How a folder was proved. Only [`prove_folder`] makes one, and only with one is a folder published.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::manual_non_exhaustive, reason = "no other module of this crate shall make one either")]
pub struct FolderProof {
    pub params: u64,
    pub tensors: usize,
    private: (),
}

/// Proves that `cut` computes what `whole`, masked by `plan`, computes. `budget` is in bytes: where both
/// models and their activations do not fit, blocks are compared one by one.
pub fn prove_cut(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
    budget: u64,
) -> Result<CutProof, GateError> {
    let (params_before, params_after) = (whole.desc().params(), cut.desc().params());
    let changed = whole.desc().dims != cut.desc().dims || whole.desc().layers != cut.desc().layers;
    if !changed {
        return Err(GateError::Unchanged { params: params_before });
    }
    let table: u64 = cut.desc().weights().iter().map(|w| w.len() as u64).sum();
    if table != params_after {
        let made = format!("the weight table holds {table}");
        return Err(GateError::Params { made, planned: params_after });
    }
    let needed = 4 * (params_before + params_after);
    let compared = if needed <= budget {
        compare_logits(device, whole, cut, plan)?
    } else {
        compare_blocks(device, whole, cut, plan)?
    };
    let proof = CutProof {
        compared: if needed <= budget { "logits" } else { "blocks" }.into(),
        difference: compared.difference,
        magnitude: compared.magnitude,
        tolerance: TOLERANCE,
        positions: SEQUENCE * SAMPLES as usize,
        params_before,
        params_after,
    };
    let allowed = TOLERANCE * compared.magnitude;
    if compared.difference > allowed || compared.difference.is_nan() {
        let place = compared.place;
        return Err(GateError::Difference { place, difference: compared.difference, allowed });
    }
    Ok(proof)
}

/// The largest difference seen, where, and the largest magnitude there.
#[derive(Default)]
struct Compared {
    difference: f64,
    magnitude: f64,
    place: String,
}

impl Compared {
    /// Keeps the pair whose difference is the largest share of its magnitude.
    fn see(&mut self, place: &str, masked: &[f32], cut: &[f32]) -> Result<(), GateError> {
        if masked.iter().chain(cut).any(|v| !v.is_finite()) || masked.len() != cut.len() {
            return Err(GateError::NotFinite { place: place.into() });
        }
        let difference = masked.iter().zip(cut).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) as f64;
        let magnitude = masked.iter().map(|v| v.abs()).fold(0.0, f32::max) as f64;
        if self.place.is_empty() || difference * self.magnitude > self.difference * magnitude {
            *self = Compared { difference, magnitude, place: place.into() };
        }
        Ok(())
    }
}

fn compare_logits(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
) -> Result<Compared, GateError> {
    let masks = mask::masks(whole.desc(), plan);
    let mut masked = runner(device, forward::logits(whole.desc(), SEQUENCE, masks)?, whole, plan)?;
    let mut sliced = runner(device, forward::logits(cut.desc(), SEQUENCE, Masks::default())?, cut, plan)?;
    let vocab = whole.desc().size(Dim::VocabSize) as u64;
    let mut compared = Compared::default();
    for sample in 0..SAMPLES {
        let tokens = tokens(sample, vocab);
        let (a, b) = (masked.once(&tokens)?, sliced.once(&tokens)?);
        compared.see("logits", a[output::LOGITS].f32(), b[output::LOGITS].f32())?;
    }
    Ok(compared)
}

/// Block after block with one seeded stream each; memory holds one block of each model.
fn compare_blocks(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
) -> Result<Compared, GateError> {
    let hidden = whole.desc().size(Dim::HiddenSize);
    let all: Vec<usize> = (0..hidden).collect();
    let kept = plan.model.get(&Dim::HiddenSize).unwrap_or(&all);
    let masks = mask::masks(whole.desc(), plan);
    let mut compared = Compared::default();
    for (after, &before) in plan.layers.iter().enumerate() {
        let (full, narrow) = streams(before as u64, hidden, kept);
        let graph = forward::block(whole.desc(), before, SEQUENCE, masks.clone())?;
        let mut masked = runner(device, graph, whole, plan)?;
        let graph = forward::block(cut.desc(), after, SEQUENCE, Masks::default())?;
        let mut sliced = runner(device, graph, cut, plan)?;
        masked.set_input(output::STREAM, full);
        sliced.set_input(output::STREAM, narrow);
        let (a, b) = (masked.once(&[])?, sliced.once(&[])?);
        let masked_stream = columns(a[output::STREAM].f32(), hidden, kept);
        compared.see(&format!("streams after layer {before}"), &masked_stream, b[output::STREAM].f32())?;
    }
    Ok(compared)
}

fn runner(
    device: &dyn Device,
    graph: minic_compiler::graph::Graph,
    source: &WeightSource,
    plan: &CutPlan,
) -> Result<Runner, GateError> {
    let schedule = schedule::schedule(&graph)?;
    let weights = source::bind(&schedule, source)?;
    let inputs = mask::vectors(&schedule.masks, plan);
    Ok(Runner::new(device, schedule, weights, 1)?.with_inputs(inputs))
}

/// A stream of the whole width whose dropped channels are zero, and the same without them.
fn streams(seed: u64, hidden: usize, kept: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let mut random = SplitMix64::new(seed);
    let mut full = vec![0.0; SEQUENCE * hidden];
    for row in full.chunks_mut(hidden) {
        for &channel in kept {
            // Uniform in -1..1: the norm of the block scales it.
            row[channel] = (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        }
    }
    let narrow = columns(&full, hidden, kept);
    (full, narrow)
}

fn columns(data: &[f32], width: usize, kept: &[usize]) -> Vec<f32> {
    data.chunks(width).flat_map(|row| kept.iter().map(|&c| row[c])).collect()
}

fn tokens(sample: u64, vocab: u64) -> Vec<u32> {
    let mut random = SplitMix64::stream(1, sample);
    (0..SEQUENCE).map(|_| random.below(vocab.max(1)) as u32).collect()
}

/// Proves a written folder against its source: config.json describes the planned model, the files hold its
/// weight table and nothing else (both checked by opening it), the counts agree, and every tensor is, bit for
/// bit, the source's tensor rounded to `dtype`.
pub fn prove_folder(
    folder: &Path,
    source: &WeightSource,
    dtype: Option<DType>,
) -> Result<FolderProof, GateError> {
    let made = Checkpoint::open(folder).map_err(GateError::Folder)?;
    same_model(folder, made.desc(), source.desc())?;
    let planned = source.desc().params();
    let mut params = 0;
    let table = made.desc().weights();
    let sources: BTreeMap<String, String> = table
        .iter()
        .zip(source.desc().weights())
        .map(|(made, planned)| (made.name.clone(), planned.name))
        .collect();
    for weight in &table {
        let tensor = source.read(&sources[&weight.name])?;
        let dtype = dtype.unwrap_or(tensor.dtype);
        let fail = |reason: String| {
            Err(GateError::Weight { folder: folder.into(), name: weight.name.clone(), reason })
        };
        let found = made.dtype(&weight.name).map_err(GateError::Folder)?;
        if found != dtype {
            return fail(format!("its dtype is {}, planned is {}", found.name(), dtype.name()));
        }
        let mut bytes = Vec::new();
        made.read_bytes(&weight.name, &mut bytes).map_err(GateError::Folder)?;
        if bytes != rounded(tensor, dtype) {
            return fail("its bytes differ".into());
        }
        if let Some((index, value)) = convert::first_non_finite(dtype, &bytes) {
            return fail(format!("it holds {value} at element {index}"));
        }
        params += weight.len() as u64;
    }
    if params != planned {
        let made = format!("{} holds {params}", folder.display());
        return Err(GateError::Params { made, planned });
    }
    Ok(FolderProof { params, tensors: table.len(), private: () })
}

/// The bytes of a tensor in another dtype.
fn rounded(tensor: Tensor, dtype: DType) -> Vec<u8> {
    if tensor.dtype == dtype {
        return tensor.bytes;
    }
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    convert::decode(tensor.dtype, &tensor.bytes, &mut values);
    convert::encode(dtype, &values, &mut bytes);
    bytes
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

#[cfg(test)]
mod tests;
