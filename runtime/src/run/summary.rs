//! What a run made: the content of `result.json`.

use super::ranking::AxisRanking;
use super::search::SearchSummary;
use super::sensitivity::SensitivitySummary;
use super::shard::Waiting;
use crate::error::{IoError, Kind};
use crate::evaluate::Figures;
use crate::gate::FolderProof;
use crate::input;
use crate::provenance::{DataRecord, ModelRecord, Parent, RepairRecord, Step};
use crate::train::Trained;
use minic_compiler::cost::{self, SEQUENCE};
use minic_compiler::model::ModelDesc;
use minic_compiler::plan::{Evaluation, NodeRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the document's layout.
pub const FORMAT: u32 = 1;

/// Everything that is told of a run: the report is made of it alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub format: u32,
    pub run: RunRecord,
    /// The stages, in the order of the run.
    pub plan: Vec<NodeRecord>,
    /// Checkpoints and data that went in.
    pub parents: Vec<Parent>,
    pub data: Vec<DataRecord>,
    /// By declared name.
    pub models: BTreeMap<String, ModelRecord>,
    /// By the model's name.
    pub costs: BTreeMap<String, CostRecord>,
    /// By stage: what was kept, in the numbering of the model before the cut, and the proof.
    pub cuts: BTreeMap<String, Step>,
    /// By stage of a cut: what its axes were ranked by, in the same numbering.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rankings: BTreeMap<String, Vec<AxisRanking>>,
    /// By stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repairs: BTreeMap<String, RepairRecord>,
    /// By stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trainings: BTreeMap<String, Trained>,
    /// By stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub searches: BTreeMap<String, SearchSummary>,
    /// By stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensitivities: BTreeMap<String, SensitivitySummary>,
    /// By stage.
    pub evaluations: BTreeMap<String, EvaluationSummary>,
    /// By stage.
    pub exports: BTreeMap<String, ExportSummary>,
    /// By stage, of cuts and exports: how long the proof took. It is no part of what a folder records.
    pub proof_seconds: BTreeMap<String, f64>,
    /// By stage, of exports that were written: how long the weights took.
    pub write_seconds: BTreeMap<String, f64>,
    /// By stage, of trainings whose record is in the run folder: how long all updates took.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub update_seconds: BTreeMap<String, f64>,
    /// By stage, what it took.
    pub stages: BTreeMap<String, StageSummary>,
    /// Of a shared run: the stages that it could not do, in the order of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Waiting>,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageSummary {
    pub seconds: f64,
    /// It was in the store already.
    pub cached: bool,
    /// Bytes that its passes were planned to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u64>,
    /// The largest resident size of the process meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvaluationSummary {
    pub model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    pub data: String,
    pub figures: Figures,
    /// Of the model that it is compared with, on the same data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_figures: Option<Figures>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportSummary {
    pub model: String,
    pub folder: PathBuf,
    pub bytes: u64,
    pub proof: ProofRecord,
    /// The folder was there already and holds exactly this.
    pub unchanged: bool,
}

/// What a [`FolderProof`] found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProofRecord {
    pub params: u64,
    pub tensors: usize,
}

impl From<&FolderProof> for ProofRecord {
    fn from(proof: &FolderProof) -> ProofRecord {
        ProofRecord { params: proof.params, tensors: proof.tensors }
    }
}

/// Who ran what, where and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of minic.
    pub minic: String,
    /// The recipe's file as it was given, and its text.
    pub recipe: String,
    pub text: String,
    /// `--set` arguments, as written.
    pub overrides: Vec<String>,
    pub device: String,
    pub threads: usize,
    /// Milliseconds since 1970.
    pub started: u64,
    /// What the checker warned of.
    pub lints: Vec<LintRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LintRecord {
    pub code: String,
    pub severity: String,
    pub message: String,
    /// The recipe, or a file that it uses.
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub help: Option<String>,
}

/// What a model costs where it is deployed, computed from its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostRecord {
    /// Bytes of the weights in bf16.
    pub weights: u64,
    /// Bytes that it remembers of one sequence of so many tokens: keys, values and states.
    pub state: u64,
    pub sequence: usize,
    /// Floating-point operations of the forward pass of a token, the mean over such a sequence.
    pub flops: u64,
}

impl CostRecord {
    fn of(desc: &ModelDesc) -> CostRecord {
        let weights = cost::memory(desc, 0, SEQUENCE);
        let state = cost::memory(desc, 1, SEQUENCE).saturating_sub(weights);
        CostRecord { weights, state, sequence: SEQUENCE, flops: cost::flops_per_token(desc, SEQUENCE) }
    }
}

/// Why a file is no result of a run.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl ResultError {
    pub fn kind(&self) -> Kind {
        match self {
            ResultError::Io(e) => e.kind(),
            ResultError::Invalid { .. } => Kind::Input,
        }
    }
}

/// The version by itself: another one has other fields.
#[derive(Deserialize)]
struct Version {
    format: Option<u32>,
}

impl Summary {
    /// A run's `result.json`.
    pub fn read(path: &Path) -> Result<Summary, ResultError> {
        let bytes = input::read(path, input::PROVENANCE)?;
        let invalid = |reason: String| ResultError::Invalid { path: path.to_path_buf(), reason };
        let version: Version = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        match version.format {
            Some(FORMAT) => serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string())),
            Some(other) => {
                Err(invalid(format!("is of format {other}; this version of minic reads {FORMAT}")))
            }
            None => Err(invalid("has no `format`: an older version of minic wrote it".into())),
        }
    }

    /// A model that is made, under the name that the recipe gives it.
    pub(super) fn model(&mut self, name: &str, desc: &ModelDesc) {
        self.models.insert(name.into(), ModelRecord::of(desc));
        self.costs.insert(name.into(), CostRecord::of(desc));
    }

    /// Searches and sensitivities as SVG documents, by their names.
    pub fn pictures(&self) -> BTreeMap<String, String> {
        let searches = self.searches.iter().map(|(name, search)| (name.clone(), search.chart(name).svg()));
        let others = self.sensitivities.iter().map(|(name, one)| (name.clone(), one.chart(name).svg()));
        searches.chain(others).collect()
    }

    /// What stages inside of another one made.
    pub(super) fn absorb(&mut self, other: Summary) {
        self.models.extend(other.models);
        self.costs.extend(other.costs);
        self.cuts.extend(other.cuts);
        self.rankings.extend(other.rankings);
        self.repairs.extend(other.repairs);
        self.trainings.extend(other.trainings);
        self.proof_seconds.extend(other.proof_seconds);
        self.update_seconds.extend(other.update_seconds);
    }

    pub(super) fn evaluation(
        &mut self,
        evaluation: &Evaluation,
        figures: &Figures,
        against: Option<&Figures>,
    ) {
        let summary = EvaluationSummary {
            model: evaluation.model.clone(),
            against: evaluation.against.clone(),
            data: evaluation.data.clone(),
            figures: figures.clone(),
            against_figures: against.cloned(),
        };
        self.evaluations.insert(evaluation.name.clone(), summary);
    }
}
