//! The proof gate: what was made is what was planned, or nothing is published.
//!
//! A cut is proved by computing the same function twice: once with the cut weights, once with the whole
//! model, its activations multiplied by zeros and ones ([`crate::mask`]) and its norms divided by their
//! active width; a rotation by computing it with the rotated weights and with the whole model as it is. A folder
//! is proved by reading it back.

mod compare;
mod folder;

use crate::checkpoint::CheckpointError;
use crate::device::{Device, DeviceError};
use crate::error::Kind;
use crate::source::{Rotation, SourceError, WeightSource};
use compare::Pair;
use minic_compiler::cut::CutPlan;
use minic_compiler::graph::ShapeError;
use minic_compiler::schedule::ScheduleError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub use folder::prove_folder;

/// Largest difference of a logit, as a share of the largest logit.
pub const TOLERANCE: f64 = 1e-5;
/// Positions of each of the gate's samples, unless the model's memory asks for fewer.
pub const SEQUENCE: usize = 48;
const SAMPLES: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the cut changes nothing: {params} parameters before and after")]
    Unchanged { params: u64 },
    #[error("{made}, but {planned} parameters are planned")]
    Params { made: String, planned: u64 },
    #[error("{fault}: {place} differ by {difference:.3e}, {allowed:.3e} is allowed")]
    Difference { fault: &'static str, place: String, difference: f64, allowed: f64 },
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
            GateError::Device(e) => e.kind(),
            GateError::Folder(e) if e.kind() == Kind::World => Kind::World,
            _ => Kind::Proof,
        }
    }
}

/// How a cut or a rotation was proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutProof {
    /// `logits` of the whole models, or `blocks`: the embedding, every block and the head by themselves.
    pub compared: String,
    /// Largest difference between the two models, and the largest magnitude compared.
    pub difference: f64,
    pub magnitude: f64,
    pub tolerance: f64,
    pub positions: usize,
    /// Parameters before and after.
    pub params_before: u64,
    pub params_after: u64,
}

impl CutProof {
    /// The largest difference that is allowed.
    pub fn allowed(&self) -> f64 {
        self.tolerance * self.magnitude
    }

    pub fn holds(&self) -> bool {
        self.difference <= self.allowed()
    }

    /// The difference as a share of the largest magnitude.
    pub fn share(&self) -> f64 {
        self.difference / self.magnitude.max(f64::MIN_POSITIVE)
    }
}

/// How a folder was proved. Only [`prove_folder`] makes one, and only with one is a folder published.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::manual_non_exhaustive, reason = "no other module of this crate shall make one either")]
pub struct FolderProof {
    pub params: u64,
    pub tensors: usize,
    private: (),
}

/// Proves that `cut` computes what `whole`, masked by `plan`, computes. `budget` is in bytes: where both
/// models and their activations do not fit, their parts are compared one by one.
pub fn prove_cut(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
    budget: u64,
) -> Result<CutProof, GateError> {
    let changed = whole.desc().dims != cut.desc().dims || whole.desc().layers != cut.desc().layers;
    if !changed {
        return Err(GateError::Unchanged { params: whole.desc().params() });
    }
    prove(&Pair::cut(device, whole, cut, plan), budget)
}

/// Proves that `rotated`, `whole` with its stream in the basis of `rotation`, computes what `whole` computes.
/// `budget` is that of [`prove_cut`].
pub fn prove_rotation(
    device: &dyn Device,
    whole: &WeightSource,
    rotated: &WeightSource,
    rotation: &Rotation,
    budget: u64,
) -> Result<CutProof, GateError> {
    prove(&Pair::rotated(device, whole, rotated, rotation), budget)
}

fn prove(pair: &Pair, budget: u64) -> Result<CutProof, GateError> {
    let (params_before, params_after) = (pair.whole.desc().params(), pair.made.desc().params());
    let table: u64 = pair.made.desc().weights().iter().map(|w| w.len() as u64).sum();
    if table != params_after {
        let made = format!("the weight table holds {table}");
        return Err(GateError::Params { made, planned: params_after });
    }
    let fits = 4 * (params_before + params_after) <= budget;
    let compared = if fits { pair.logits()? } else { pair.blocks()? };
    let proof = CutProof {
        compared: if fits { "logits" } else { "blocks" }.into(),
        difference: compared.difference,
        magnitude: compared.magnitude,
        tolerance: TOLERANCE,
        positions: SEQUENCE * SAMPLES as usize,
        params_before,
        params_after,
    };
    if !proof.holds() {
        let (fault, place) = (pair.fault(), compared.place);
        let (difference, allowed) = (proof.difference, proof.allowed());
        return Err(GateError::Difference { fault, place, difference, allowed });
    }
    Ok(proof)
}

#[cfg(test)]
mod tests;
