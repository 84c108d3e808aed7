//! What a search weighed: its part of `result.json`.

use crate::evaluate::Figures;
use crate::provenance::{ModelRecord, SearchRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One search. Candidates are called by the search and their place in the space: `best.417`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSummary {
    pub space: String,
    /// The model that the space is cut from.
    pub parent: ModelRecord,
    /// Axes of the space with their values, ascending.
    pub axes: BTreeMap<String, Vec<usize>>,
    /// Combinations of the axes' values; those of them that are models; those of these that meet every requirement.
    pub points: u64,
    pub models: u64,
    pub feasible: u64,
    /// As the recipe has them.
    pub require: Vec<String>,
    /// Of every candidate and control that was scored.
    pub candidates: BTreeMap<String, CandidateRecord>,
    pub rungs: Vec<RungRecord>,
    /// Among the best of the last rung, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ties: Vec<TieRecord>,
    pub chosen: String,
    /// By what the control is called.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub controls: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    pub model: ModelRecord,
    /// The sizes of the space's axes.
    pub axes: BTreeMap<String, usize>,
    /// Layers of the parent that survive, where depth is an axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RungRecord {
    /// As the recipe writes it.
    pub by: String,
    /// The greatest score comes first.
    pub descending: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Optimizer updates that candidates had behind them, and the tokens that these saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The parent's score, where nothing is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<f64>,
    pub scores: BTreeMap<String, ScoreRecord>,
    /// The best one first.
    pub kept: Vec<String>,
    /// Candidates that no other one beats in both score and parameters, from the fewest parameters on.
    pub front: Vec<String>,
    /// Speeds that were not measured of every candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<FitRecord>,
    /// Spearman's, with the scores of the same candidates in the rung before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
}

/// A model of the device's speed, fitted to measurements of some candidates. Errors are relative, of each of them as
/// predicted from the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitRecord {
    pub quantity: String,
    pub measured: usize,
    pub mean_error: f64,
    pub worst_error: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// Absent where the candidate failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Why it has no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TieRecord {
    pub by: String,
    pub within: f64,
    /// Of the candidates that could not be told apart so far.
    pub values: BTreeMap<String, f64>,
}

impl SearchSummary {
    pub(super) fn record(&self, name: &str) -> SearchRecord {
        let last = self.rungs.last();
        SearchRecord {
            name: name.to_string(),
            space: self.space.clone(),
            points: self.points,
            feasible: self.feasible,
            require: self.require.clone(),
            rungs: self.rungs.iter().map(RungRecord::line).collect(),
            chosen: self.chosen.clone(),
            score: last.and_then(|rung| rung.scores.get(&self.chosen)?.score),
        }
    }

    pub(super) fn told(&self) -> String {
        let axes = self.candidates.get(&self.chosen).map(|candidate| {
            candidate.axes.iter().map(|(axis, size)| format!("{axis} {size}")).collect::<Vec<_>>().join(", ")
        });
        let score =
            self.rungs.last().and_then(|rung| Some((&rung.by, rung.scores.get(&self.chosen)?.score?)));
        let score = score.map(|(by, score)| format!(", {by} {score:.4}")).unwrap_or_default();
        format!("{} of {} candidates: {}{score}", self.chosen, self.feasible, axes.unwrap_or_default())
    }
}

impl RungRecord {
    fn line(&self) -> String {
        let clause = |word: &str, what: &Option<String>| {
            what.as_ref().map(|what| format!(" {word} {what}")).unwrap_or_default()
        };
        let tokens = self.tokens.map(|tokens| format!(" for {tokens} tokens")).unwrap_or_default();
        let (on, after) = (clause("on", &self.on), clause("after", &self.after));
        format!("{}{on}{after}{tokens}: {} scored, {} kept", self.by, self.scores.len(), self.kept.len())
    }
}
