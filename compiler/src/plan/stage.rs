//! The stages of a plan, each with the data that its run needs.

use super::{extend_new, text};
use crate::axes::{Axis, Tap};
use crate::forward::Gather;
use crate::hir::{self, LayerMetric, Measure, RepairKind};
use crate::metrics::Program;
use crate::model::DType;
use std::fmt;
use std::sync::Arc;

/// A step of the plan. What it works on comes along its edges, see [`verify`].
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Opens a checkpoint, or reads data.
    Load(Source),
    /// One pass over the samples for everything that is asked of one model on one set of data.
    Calibrate(Calibrate),
    /// From partials, weights, or nothing at all to one score per member of an axis.
    Score(Score),
    /// The residual stream in the basis of its principal directions.
    Rotate,
    /// Ranks the members of every axis and keeps the best.
    Cut(Cut),
    /// Changes of values that make up for a cut, in the order in which they stand in the recipe.
    Repair(Vec<RepairKind>),
    Search(Box<Search>),
    Sensitivity(Box<Sensitivity>),
    Train(Training),
    Distill(Training),
    /// One or more declared evaluations that share forward passes over the same samples.
    Evaluate(Vec<Evaluation>),
    Export(Export),
    /// `result.json` and `report.html`.
    Report,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Checkpoint {
        /// As written: a path relative to the recipe's folder, or `hf://org/name@revision`.
        path: String,
        dt_floor: Option<f64>,
    },
    /// Its span is left empty: equal data are one stage, wherever they were declared.
    Data(hir::Data),
}

/// Everything that is gathered in one pass of a model over samples. Layer metrics on logits take one more,
/// partial pass for every layer that is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibrate {
    /// Without repeats, in the order in which they were first asked for. Each is accumulated at every block
    /// that has the tap.
    pub requests: Vec<Request>,
    pub layers: Vec<LayerMetric>,
    /// The covariance of the residual stream, for `pca`.
    pub covariance: bool,
    /// Evaluations of the model itself on the same samples.
    pub evaluations: Vec<Evaluation>,
}

impl Calibrate {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.layers.is_empty() && !self.covariance && self.evaluations.is_empty()
    }

    /// As the builder of the calibration's graph takes it.
    pub fn gather(&self) -> Gather {
        Gather {
            metrics: self.requests.iter().map(|r| (r.tap.name, r.program.clone())).collect(),
            layers: self.layers.clone(),
            covariance: self.covariance,
            loss: !self.evaluations.is_empty(),
            ..Gather::default()
        }
    }

    /// Some of it is computed by leaving out one layer at a time: `kld` and `mse`, not `cosine`.
    pub fn leaves_out(&self) -> bool {
        self.layers.iter().any(|m| leaves_out(*m))
    }

    /// Adds what `other` asks for and this does not yet.
    pub fn absorb(&mut self, other: &Calibrate) {
        extend_new(&mut self.requests, &other.requests);
        extend_new(&mut self.layers, &other.layers);
        extend_new(&mut self.evaluations, &other.evaluations);
        self.covariance |= other.covariance;
    }
}

/// Block influence compares a block's input with its output; the others compare logits with and without it.
pub fn leaves_out(metric: LayerMetric) -> bool {
    match metric {
        LayerMetric::Kld | LayerMetric::Mse => true,
        LayerMetric::Cosine => false,
    }
}

/// A declared metric at a tap.
#[derive(Clone, Debug)]
pub struct Request {
    pub metric: String,
    pub program: Arc<Program>,
    pub tap: &'static Tap,
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.metric == other.metric && self.tap.name == other.tap.name && self.program == other.program
    }
}

/// How one axis is scored.
#[derive(Clone, Debug)]
pub struct Score {
    pub axis: &'static Axis,
    pub score: hir::Score,
    /// The program of the declared metric at the bottom of `score`, if there is one.
    pub program: Option<Arc<Program>>,
    pub tap: Option<&'static Tap>,
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.axis.name == other.axis.name
            && self.score == other.score
            && self.program == other.program
            && self.tap.map(|t| t.name) == other.tap.map(|t| t.name)
    }
}

/// What a score must be given.
#[derive(Clone, Debug, PartialEq)]
pub enum Needs {
    /// Activations at a tap.
    Request(Request),
    /// A layer metric over a calibration.
    Layer(LayerMetric),
    /// Passes of its own: one layer is removed, the rest is scored again.
    Iterative(LayerMetric),
    /// Passes of its own, one for every depth that is asked for: each block of neighbouring layers is left out.
    Contiguous(LayerMetric),
    /// A pass of its own over samples: what the blocks' last matrices read.
    Residual,
    /// The covariance of the residual stream.
    Covariance,
    /// Weights alone, or a seed.
    Nothing,
}

impl Score {
    pub fn needs(&self) -> Needs {
        self.needs_of(&self.score)
    }

    fn needs_of(&self, score: &hir::Score) -> Needs {
        match score {
            hir::Score::Metric(metric) => match (&self.program, self.tap) {
                (Some(program), Some(tap)) if program.uses_x() => {
                    Needs::Request(Request { metric: metric.clone(), program: program.clone(), tap })
                }
                _ => Needs::Nothing,
            },
            hir::Score::Layer(metric) => Needs::Layer(*metric),
            hir::Score::Iterative(metric) => Needs::Iterative(*metric),
            hir::Score::Contiguous(metric) => Needs::Contiguous(*metric),
            hir::Score::Residual { .. } => Needs::Residual,
            hir::Score::Random { .. } => Needs::Nothing,
            hir::Score::Reverse(inner) => self.needs_of(inner),
            hir::Score::Pca => Needs::Covariance,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// In the order of [`crate::axes::AXES`], which is the order of the cuts.
    pub axes: Vec<CutAxis>,
    pub constraints: hir::Constraints,
    /// It is a baseline that ranks in another way than its axes say.
    pub control: Option<hir::Control>,
}

#[derive(Clone, Debug)]
pub struct CutAxis {
    pub axis: &'static Axis,
    /// Members that are kept.
    pub size: usize,
    /// The leading directions of a rotated stream are kept; otherwise those of the greatest score.
    pub leading: bool,
}

impl PartialEq for CutAxis {
    fn eq(&self, other: &Self) -> bool {
        self.axis.name == other.axis.name && self.size == other.size && self.leading == other.leading
    }
}

/// A search with everything that its rungs refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub search: hir::Search,
    pub space: hir::Prune,
    /// Schedules of short distillations, by name.
    pub schedules: Vec<(String, hir::Schedule)>,
}

/// The axes of a space, each by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    pub sensitivity: hir::Sensitivity,
    pub space: hir::Prune,
}

/// A distillation, or training without a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    pub name: String,
    /// Names of the schedule and of the data that phases use unless they name their own.
    pub schedule_name: String,
    pub data: String,
    pub schedule: hir::Schedule,
    pub weights: hir::Weights,
    pub heldout: Option<hir::Heldout>,
}

/// One `evaluate` line.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The stage's name before any fusion: `evaluate half`. Figures are reported under it.
    pub name: String,
    pub model: String,
    pub against: Option<String>,
    pub data: String,
    pub measures: Vec<Measure>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    pub model: String,
    /// As written; relative ones are relative to `--out`.
    pub to: String,
    /// `None`: the source's.
    pub dtype: Option<DType>,
    /// Largest shard in bytes; `None`: one file.
    pub shard: Option<u64>,
}

impl Stage {
    /// The word for its kind: `load`, `calibrate`, ..
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Load(_) => "load",
            Stage::Calibrate(_) => "calibrate",
            Stage::Score(_) => "score",
            Stage::Rotate => "rotate",
            Stage::Cut(_) => "cut",
            Stage::Repair(_) => "repair",
            Stage::Search(_) => "search",
            Stage::Sensitivity(_) => "sensitivity",
            Stage::Train(_) => "train",
            Stage::Distill(_) => "distill",
            Stage::Evaluate(_) => "evaluate",
            Stage::Export(_) => "export",
            Stage::Report => "report",
        }
    }

    /// What it does, in one line, without the word for its kind.
    pub fn detail(&self) -> String {
        text::detail(self)
    }

    /// It takes gradient steps, so that nothing should wait for it that need not.
    pub fn is_long(&self) -> bool {
        matches!(self, Stage::Search(_) | Stage::Train(_) | Stage::Distill(_))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&text::stage(self))
    }
}
