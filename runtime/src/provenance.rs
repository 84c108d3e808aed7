//! provenance.json: what a folder was made from, what was kept, and how it was proved.
//!
//! It is the one document; the model card and `minic.lock.toml` are derived from it.

mod card;
mod lock;
mod step;
mod verify;

use crate::checkpoint::{self, CheckpointError};
use crate::error::{IoError, Kind};
use crate::evaluate::Figures;
use crate::input;
use crate::json;
use crate::publish::{PublishError, StagedFolder};
use crate::safetensors::{Reader, SafetensorsError};
use minic_compiler::dim::Dim;
use minic_compiler::model::ModelDesc;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use card::model_card;
pub use lock::lock_text;
pub use step::{AxisRecord, RepairRecord, RotationRecord, Step};
pub use verify::{Verified, verify};

pub const PROVENANCE_FILE: &str = "provenance.json";
pub const LOCK_FILE: &str = "minic.lock.toml";
pub const CARD_FILE: &str = "README.md";

/// The version of the document's layout.
pub const FORMAT: u32 = 1;

/// All digests are BLAKE3 in lower-case hexadecimal; all layers and indices are in the numbering of the model
/// before the step that names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    pub format: u32,
    /// Version of minic.
    pub minic: String,
    pub recipe: RecipeRecord,
    /// The name of the exported model in the recipe.
    pub model: String,
    pub parents: Vec<Parent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataRecord>,
    /// From the parent to the exported model.
    pub steps: Vec<Step>,
    /// Trainings and distillations on the way, which change weights and no shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trainings: Vec<TrainingRecord>,
    /// Searches whose winners it comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchRecord>,
    pub result: ModelRecord,
    /// Parameters by the family's formula, and as counted in the files.
    pub planned_params: u64,
    pub proved_params: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<EvaluationRecord>,
    /// Every file of the folder but this document and those derived from it.
    pub files: BTreeMap<String, FileRecord>,
    pub tensors: BTreeMap<String, TensorRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeRecord {
    /// File name.
    pub file: String,
    pub digest: String,
    /// `--set` overrides, as given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, String>,
}

/// A checkpoint that went in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// Its name in the recipe.
    pub name: String,
    /// As the recipe writes it; `hf://org/name` for one of the hub.
    pub checkpoint: String,
    /// The commit of one of the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Of all of its files; [`checkpoint::Digests`].
    pub digest: String,
    pub files: BTreeMap<String, String>,
    pub model: ModelRecord,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    pub family: String,
    pub params: u64,
    /// `M-M*-`
    pub pattern: String,
    pub dims: BTreeMap<Dim, usize>,
}

impl ModelRecord {
    pub fn of(desc: &ModelDesc) -> ModelRecord {
        ModelRecord {
            family: desc.family.to_string(),
            params: desc.params(),
            pattern: desc.pattern(),
            dims: desc.dims.clone(),
        }
    }
}

/// A `data` declaration that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    pub name: String,
    /// Of the tokens that were seen; [`crate::data::Samples::digest`].
    pub digest: String,
    pub sequence: usize,
    pub samples: usize,
    pub seed: u64,
    /// Rows that could not be read and were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_rows: u64,
    /// Path as read, to digest.
    pub files: BTreeMap<String, String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One training or distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// The name of the model that it makes, and of the one that it begins with.
    pub name: String,
    pub from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Cuts before it.
    pub after: usize,
    /// Digest of the trained weights in f32.
    pub weights: String,
    pub updates: u64,
    pub tokens: u64,
    /// The weighted loss of the last update.
    pub loss: f64,
    /// The last loss on held-out data, in nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout: Option<f64>,
    /// What computed it, and to what it rounded the factors of products.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
}

/// A search, and what it chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRecord {
    /// In the recipe, as that of the space.
    pub name: String,
    pub space: String,
    /// Points of the space, and those that met every requirement.
    pub points: u64,
    pub feasible: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    pub rungs: Vec<String>,
    /// The winner, by its place in the space, and its score in the last rung.
    pub chosen: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    pub model: String,
    /// The name of the data.
    pub on: String,
    pub figures: Figures,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    pub bytes: u64,
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// In the safetensors spelling.
    pub dtype: String,
    pub shape: Vec<usize>,
}

impl Provenance {
    /// Enters the files and the tensors of a folder as they are on the disk. Digests that are known from
    /// writing (file name to digest) are taken over, so that weights are not read again.
    pub fn record_folder(
        &mut self,
        folder: &Path,
        known: &BTreeMap<String, String>,
    ) -> Result<(), ProvenanceError> {
        let mut names = file_names(folder)?;
        names.retain(|name| !DERIVED.contains(&name.as_str()));
        let record = |name: &String| {
            let path = folder.join(name);
            let digest = known.get(name).map_or_else(|| checkpoint::digest_file(&path), |d| Ok(d.clone()))?;
            let bytes = std::fs::metadata(&path).map_err(IoError::at(&path, "read the size"))?.len();
            Ok((name.clone(), FileRecord { bytes, digest }))
        };
        self.files = names.par_iter().map(record).collect::<Result<_, IoError>>()?;
        self.tensors = tensors(folder, &names)?;
        self.proved_params =
            self.tensors.values().map(|t| t.shape.iter().map(|&n| n as u64).product::<u64>()).sum();
        Ok(())
    }

    /// Writes this document, the model card and the lock file.
    pub fn write(&self, staged: &StagedFolder) -> Result<(), PublishError> {
        staged.write(PROVENANCE_FILE, self.to_text().as_bytes())?;
        staged.write(CARD_FILE, model_card(self).as_bytes())?;
        staged.write(LOCK_FILE, lock_text(self).as_bytes())
    }

    /// Indented JSON with lists on one line.
    pub fn to_text(&self) -> String {
        json::to_text(self)
    }

    /// The document of a folder; its fields are of the right types, nothing more is checked.
    pub fn read(folder: &Path) -> Result<Provenance, ProvenanceError> {
        let path = folder.join(PROVENANCE_FILE);
        if folder.is_dir() && !input::exists(&path)? {
            return Err(ProvenanceError::Absent { folder: folder.to_path_buf() });
        }
        let text = input::read(&path, input::PROVENANCE)?;
        let invalid = |reason: String| ProvenanceError::Invalid { path: path.clone(), reason };
        // The version first: another one has other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(invalid(format!("is of format {format}; this version of minic reads {FORMAT}")));
            }
            None => return Err(invalid("has no `format`".into())),
        }
        serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))
    }
}

/// This document and what follows from it.
const DERIVED: &[&str] = &[PROVENANCE_FILE, CARD_FILE, LOCK_FILE];

/// The plain files of a folder, sorted.
fn file_names(folder: &Path) -> Result<Vec<String>, IoError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IoError::at(folder, "list"))? {
        let entry = entry.map_err(IoError::at(folder, "list"))?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

const WEIGHTS_EXTENSION: &str = ".safetensors";

fn tensors(folder: &Path, names: &[String]) -> Result<BTreeMap<String, TensorRecord>, SafetensorsError> {
    let mut tensors = BTreeMap::new();
    for name in names.iter().filter(|name| name.ends_with(WEIGHTS_EXTENSION)) {
        for (tensor, info) in Reader::open(&folder.join(name))?.tensors() {
            let record = TensorRecord { dtype: info.element.name().to_string(), shape: info.shape.clone() };
            tensors.insert(tensor.to_string(), record);
        }
    }
    Ok(tensors)
}

#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{}: has no {PROVENANCE_FILE}: it was not exported by minic", folder.display())]
    Absent { folder: PathBuf },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("{}: is not what its {PROVENANCE_FILE} says:{}", folder.display(), listed(faults))]
    Refuted { folder: PathBuf, faults: Vec<String> },
}

fn listed(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

impl ProvenanceError {
    pub fn kind(&self) -> Kind {
        match self {
            ProvenanceError::Io(e) => e.kind(),
            ProvenanceError::Safetensors(e) => e.kind(),
            ProvenanceError::Checkpoint(e) => e.kind(),
            ProvenanceError::Absent { .. } | ProvenanceError::Invalid { .. } => Kind::Input,
            ProvenanceError::Refuted { .. } => Kind::Proof,
        }
    }
}

#[cfg(test)]
mod tests;
