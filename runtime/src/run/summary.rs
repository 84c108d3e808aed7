//! What a run made: the content of `result.json`.

use super::search::SearchSummary;
use super::sensitivity::SensitivitySummary;
use super::shard::Waiting;
use crate::evaluate::Figures;
use crate::gate::FolderProof;
use crate::provenance::{ModelRecord, RepairRecord, Step};
use crate::train::Trained;
use minic_compiler::plan::Evaluation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// By declared name.
    pub models: BTreeMap<String, ModelRecord>,
    /// By stage: what was kept, in the numbering of the model before the cut, and the proof.
    pub cuts: BTreeMap<String, Step>,
    /// By stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub repairs: BTreeMap<String, RepairRecord>,
    /// By stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub trainings: BTreeMap<String, Trained>,
    /// By stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub searches: BTreeMap<String, SearchSummary>,
    /// By stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sensitivities: BTreeMap<String, SensitivitySummary>,
    /// By stage.
    pub evaluations: BTreeMap<String, EvaluationSummary>,
    /// By stage.
    pub exports: BTreeMap<String, ExportSummary>,
    /// By stage, of cuts and exports: how long the proof took. It is no part of what a folder records.
    pub proof_seconds: BTreeMap<String, f64>,
    /// By stage, of exports that were written: how long the weights took.
    pub write_seconds: BTreeMap<String, f64>,
    /// By stage, what it took.
    pub stages: BTreeMap<String, StageSummary>,
    /// Of a shared run: the stages that it could not do, in the order of the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Waiting>,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct StageSummary {
    pub seconds: f64,
    /// It was in the store already.
    pub cached: bool,
    /// Bytes that its passes were planned to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<u64>,
    /// The largest resident size of the process meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct EvaluationSummary {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    pub data: String,
    pub figures: Figures,
    /// Of the model that it is compared with, on the same data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_figures: Option<Figures>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ExportSummary {
    pub model: String,
    pub folder: PathBuf,
    pub bytes: u64,
    pub proof: FolderProof,
    /// The folder was there already and holds exactly this.
    pub unchanged: bool,
}

impl Summary {
    /// Searches and sensitivities as SVG documents, by their names.
    pub fn pictures(&self) -> BTreeMap<String, String> {
        let searches = self.searches.iter().map(|(name, search)| (name.clone(), search.svg(name)));
        let others = self.sensitivities.iter().map(|(name, one)| (name.clone(), one.svg(name)));
        searches.chain(others).collect()
    }

    /// What stages inside of another one made.
    pub(super) fn absorb(&mut self, other: Summary) {
        self.models.extend(other.models);
        self.cuts.extend(other.cuts);
        self.repairs.extend(other.repairs);
        self.trainings.extend(other.trainings);
        self.proof_seconds.extend(other.proof_seconds);
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
