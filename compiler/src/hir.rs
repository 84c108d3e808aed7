//! The checked recipe: names resolved, units applied, models described.
//!
//! Declarations keep the order in which they were written. A name is unique among all declarations.

mod print;

use crate::axes::{Axis, Scope, Tap};
use crate::losses::Term;
use crate::metrics::Program;
use crate::model::{DType, LayerKind, ModelDesc};
use crate::targets::Given;
use indexmap::IndexMap;
use minic_grammar::Span;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    pub params: IndexMap<String, Param>,
    pub models: IndexMap<String, Model>,
    pub data: IndexMap<String, Data>,
    pub metrics: IndexMap<String, Metric>,
    pub prunes: IndexMap<String, Prune>,
    pub searches: IndexMap<String, Search>,
    pub schedules: IndexMap<String, Schedule>,
    /// `distill` and `train`.
    pub distills: IndexMap<String, Distill>,
    pub sensitivities: IndexMap<String, Sensitivity>,
    pub evaluations: Vec<Evaluation>,
    pub deployments: Vec<Deployment>,
    pub exports: Vec<Export>,
}

/// The value in force, after `--set`.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub value: Value,
    pub span: Span,
}

/// A typed constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Count(u64),
    Float(f64),
    Bytes(u64),
    Fraction(f64),
    Seconds(f64),
    Updates(u64),
    Bool(bool),
    String(String),
    List(Vec<Value>),
}

/// `model NAME { checkpoint = .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// As written: a path relative to the recipe's folder, or `hf://org/name@revision`.
    pub checkpoint: String,
    /// Overrides the lower clamp of Mamba's dt.
    pub dt_floor: Option<f64>,
    /// Read from config.json, `dt_floor` applied; absent when there is no config.json at hand.
    pub desc: Option<ModelDesc>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// One source of weight 1 for plain `files`.
    pub mix: Vec<Source>,
    pub sequence: usize,
    /// `None`: every window of the files.
    pub samples: Option<usize>,
    pub seed: u64,
    pub epochs: f64,
    /// The field of JSONL or Parquet rows that holds a text or a list of token ids.
    pub field: Option<String>,
    /// The field of an answer: each row is a question, a sample by itself.
    pub answer: Option<String>,
    /// A tokenizer.json other than the model's.
    pub tokenizer: Option<String>,
    /// How many rows of a file may be unreadable; `None`: few.
    pub bad_rows: Option<BadRows>,
    pub span: Span,
}

/// The most rows of one file that may be left out because they cannot be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BadRows {
    /// Of the rows of the file, 0 to 1.
    Share(f64),
    Count(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Paths and globs, relative to the recipe's folder.
    pub files: Vec<String>,
    /// Normalised: the weights of a mix sum to 1.
    pub weight: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub program: Arc<Program>,
    pub span: Span,
}

/// A space of architectures; a model where every axis has one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Prune {
    /// The model that is cut: a name in any of models, prunes, searches, distills.
    pub from: String,
    pub calibrate: Option<String>,
    /// In the order of [`crate::axes::AXES`].
    pub axes: Vec<AxisCut>,
    pub constraints: Constraints,
    pub repairs: Vec<Repair>,
    pub span: Span,
}

impl Prune {
    /// Every axis has one value.
    pub fn is_model(&self) -> bool {
        self.axes.iter().all(|a| a.values.len() == 1)
    }

    /// The axis of depth, where it is cut.
    pub fn depth(&self) -> Option<&AxisCut> {
        self.axes.iter().find(|axis| axis.axis.scope == Scope::Depth)
    }

    /// The numbers of layers to choose from, ascending; empty where depth is not cut.
    pub fn depths(&self) -> &[usize] {
        self.depth().map_or(&[], |axis| &axis.values)
    }
}

#[derive(Clone, Debug)]
pub struct AxisCut {
    pub axis: &'static Axis,
    /// Sizes to be kept, ascending, without repeats.
    pub values: Vec<usize>,
    pub score: Score,
    /// Absent for depth, `pca` and controls that look at nothing.
    pub tap: Option<&'static Tap>,
    pub span: Span,
}

impl PartialEq for AxisCut {
    fn eq(&self, other: &Self) -> bool {
        let tap = |t: &AxisCut| t.tap.map(|t| t.name);
        self.axis.name == other.axis.name
            && self.values == other.values
            && self.score == other.score
            && tap(self) == tap(other)
    }
}

/// How the members of an axis are ranked, the greatest score kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// A declared metric at the axis's tap.
    Metric(String),
    /// Depth: what the model loses without one layer, `kld`, `mse`, `cosine`.
    Layer(LayerMetric),
    /// Depth: the least important layer removed, the others scored again, and so on.
    Iterative(LayerMetric),
    /// Depth: one block of neighbouring layers goes, that without which the model changes least.
    Contiguous(LayerMetric),
    Random {
        seed: u64,
    },
    /// The member goes whose loss the others make up for best where the matrix that writes the block's output is
    /// refitted, and so on.
    Residual {
        /// A share of the mean of the diagonal.
        damping: f64,
    },
    Reverse(Box<Score>),
    /// `hidden_size by pca`
    Pca,
}

impl Score {
    /// It looks at nothing.
    pub fn is_random(&self) -> bool {
        match self {
            Score::Random { .. } => true,
            Score::Reverse(inner) => inner.is_random(),
            _ => false,
        }
    }

    /// One block of neighbouring layers goes.
    pub fn takes_a_block(&self) -> bool {
        match self {
            Score::Contiguous(_) => true,
            Score::Reverse(inner) => inner.takes_a_block(),
            _ => false,
        }
    }
}

/// A name of [`crate::metrics::LAYER_METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerMetric {
    /// Forward KL of the logits, model against model without the layer.
    Kld,
    /// Mean squared difference of the logits.
    Mse,
    /// 1 - cos(input, output) of the block.
    Cosine,
}

/// The groups that a prune stands under, put together. Structural constraints of the family always hold
/// and are not listed here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Names of the groups, as listed.
    pub groups: Vec<String>,
    /// `mamba_head_dim per mamba_num_heads`: every head keeps its own channels.
    pub channels_per_head: bool,
    /// Axis name to factor.
    pub multiple_of: BTreeMap<String, usize>,
    /// Layers never dropped, in the parent's numbering.
    pub protect: BTreeSet<usize>,
    /// Exactly so many layers of a kind survive.
    pub keep: BTreeMap<LayerKind, usize>,
    /// `order mamba_num_heads before mamba_head_dim`: heads first (the default is channels first).
    pub heads_before_channels: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    pub kind: RepairKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RepairKind {
    /// Scale of RMSNorm weights by (old/new)^power; `None`: fitted.
    Norms {
        power: Option<f64>,
    },
    LeastSquares {
        damping: f64,
        sequential: bool,
    },
}

impl RepairKind {
    /// It looks at the calibration set.
    pub fn reads_data(&self) -> bool {
        !matches!(self, RepairKind::Norms { power: Some(_) })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub space: String,
    pub require: Vec<Require>,
    pub rungs: Vec<Rung>,
    /// In the order in which they decide: the first one among those that the last rung cannot tell apart, the
    /// next among those that the first leaves.
    pub ties: Vec<Tie>,
    pub controls: Vec<Control>,
    /// How candidates are trained, where a rung asks for it.
    pub training: Option<RungTraining>,
    pub span: Span,
}

/// `lo <= quantity <= hi`; open ends are infinite. Bytes for memory, counts for the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Require {
    pub quantity: Quantity,
    pub lo: f64,
    pub hi: f64,
    pub span: Span,
}

/// Something that a candidate has.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    Params,
    ActiveParams,
    /// Parameters without embeddings and head.
    BodyParams,
    /// Operations of the forward pass of a sequence: those of prefill.
    Flops {
        sequence: usize,
    },
    /// Operations of one more token after a context of so many.
    DecodeFlops {
        context: usize,
    },
    /// bf16 weights and [`Quantity::Cache`].
    Memory {
        batch: usize,
        sequence: usize,
    },
    /// What a deployment remembers of `batch` sequences: keys and values, SSM and convolution states.
    Cache {
        batch: usize,
        sequence: usize,
    },
    /// The largest values that a forward pass holds at once beside weights and states, in bf16.
    Activations {
        batch: usize,
        sequence: usize,
    },
    /// Rules that the candidate breaks, for each of which the loader would refuse it: `require deployable`.
    Refusals {
        /// A name of [`crate::targets::TARGETS`].
        target: &'static str,
        given: Given,
    },
    /// Seconds until the first token, measured on the device.
    Latency {
        input: usize,
        batch: usize,
    },
    /// Tokens written per second by all sequences together, measured on the device.
    Throughput {
        input: usize,
        output: usize,
        batch: usize,
    },
    /// Measured on data: `loss`, `perplexity`, `top1`, `kl`, `accuracy`.
    Measured(Measure),
}

impl Quantity {
    /// The greater, the better.
    pub fn rises(&self) -> bool {
        match self {
            Quantity::Throughput { .. } => true,
            Quantity::Measured(measure) => matches!(measure, Measure::Top1 | Measure::Accuracy),
            Quantity::Params
            | Quantity::ActiveParams
            | Quantity::BodyParams
            | Quantity::Flops { .. }
            | Quantity::DecodeFlops { .. }
            | Quantity::Memory { .. }
            | Quantity::Cache { .. }
            | Quantity::Activations { .. }
            | Quantity::Refusals { .. }
            | Quantity::Latency { .. } => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    Loss,
    Perplexity,
    Top1,
    Kl,
    /// Share of questions that are answered.
    Accuracy,
}

impl Measure {
    pub const ALL: &[Measure] =
        &[Measure::Loss, Measure::Perplexity, Measure::Top1, Measure::Kl, Measure::Accuracy];

    pub fn name(self) -> &'static str {
        match self {
            Measure::Loss => "loss",
            Measure::Perplexity => "perplexity",
            Measure::Top1 => "top1",
            Measure::Kl => "kl",
            Measure::Accuracy => "accuracy",
        }
    }

    pub fn doc(self) -> &'static str {
        match self {
            Measure::Loss => "cross-entropy, the mean over all predicted positions, in nats per token",
            Measure::Perplexity => "e to the power of the loss",
            Measure::Top1 => "share of predicted positions at which the most likely token is the right one",
            Measure::Kl => {
                "KL divergence from the distributions of the other model, the mean over all positions"
            }
            Measure::Accuracy => "share of questions whose answer's tokens are all the most likely ones",
        }
    }
}

/// What candidates are ranked by, the least first: one quantity, or a weighted sum, in which each quantity is
/// divided by that of the model that the space is cut from.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pub terms: Vec<(f64, Quantity)>,
}

impl Objective {
    pub fn of(quantity: Quantity) -> Objective {
        Objective { terms: vec![(1.0, quantity)] }
    }

    /// The greatest value comes first where nothing else is said.
    pub fn rises(&self) -> bool {
        self.alone().is_some_and(Quantity::rises)
    }

    /// The quantity itself, where it stands alone.
    pub fn alone(&self) -> Option<&Quantity> {
        match self.terms.as_slice() {
            [(weight, quantity)] if *weight == 1.0 => Some(quantity),
            _ => None,
        }
    }
}

/// How the candidates of a search are trained: as the model that is distilled from its winner.
#[derive(Clone, Debug, PartialEq)]
pub struct RungTraining {
    /// `None`: no loss of the schedules looks at one.
    pub teacher: Option<String>,
    /// Where a schedule's phases name none.
    pub data: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    pub by: Objective,
    pub descending: bool,
    pub on: Option<String>,
    pub after: Option<String>,
    pub tokens: Option<u64>,
    pub keep: usize,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tie {
    pub within: f64,
    pub by: Quantity,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    Random { seed: u64 },
    Reverse,
    GroupUnaware,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// At least one; a schedule without `phase` blocks has one, named after the schedule.
    pub phases: Vec<Phase>,
    pub span: Span,
}

/// The settings in force during one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub loss: Vec<LossTerm>,
    pub optimizer: Optimizer,
    pub rate: Rate,
    /// Sequences per optimizer update.
    pub batch: usize,
    /// batch x sequence over all updates.
    pub tokens: u64,
    /// `None`: the data's.
    pub sequence: Option<usize>,
    /// `None`: the distillation's data.
    pub data: Option<String>,
    pub span: Span,
}

impl Phase {
    /// Tokens of a window, where the data's windows have `data` tokens.
    pub fn window(&self, data: usize) -> usize {
        self.sequence.unwrap_or(data)
    }

    /// Optimizer updates, on data whose windows have `data` tokens; a last partial one is not made.
    pub fn updates(&self, data: usize) -> u64 {
        self.tokens / (self.batch as u64 * self.window(data) as u64).max(1)
    }

    /// Tokens that all updates see.
    pub fn trained(&self, data: usize) -> u64 {
        self.updates(data) * self.batch as u64 * self.window(data) as u64
    }
}

/// `weight * name(arguments)`; names are of [`crate::losses::LOSSES`].
#[derive(Clone, Debug, PartialEq)]
pub struct LossTerm {
    pub weight: f64,
    pub loss: &'static str,
    pub arguments: BTreeMap<String, Value>,
    /// What it computes, as the arguments say.
    pub term: Term,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Global gradient norm.
    pub clip: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// `cosine`, `linear`, `constant`, `wsd`
    pub shape: &'static str,
    pub peak: f64,
    pub floor: f64,
    /// Updates.
    pub warmup: u64,
    /// Updates of the final decay, `wsd` only.
    pub decay: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Distill {
    pub from: String,
    /// Absent for `train`.
    pub teacher: Option<String>,
    pub data: String,
    pub schedule: String,
    pub weights: Weights,
    pub heldout: Option<Heldout>,
    pub span: Span,
}

/// What a training begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Those of the model that it starts from.
    #[default]
    Own,
    /// Drawn as the family draws them ([`crate::init`]); of the model only its shape, config and tokenizer.
    Random { seed: u64 },
}

/// Evaluations while a model is trained: before the first update, after the last, and between.
#[derive(Clone, Debug, PartialEq)]
pub struct Heldout {
    pub data: String,
    /// Tokens of training from one evaluation to the next, at least one.
    pub every: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub model: String,
    pub against: Option<String>,
    pub on: String,
    pub measures: Vec<Measure>,
    pub span: Span,
}

/// Every axis of a space by itself: what each of its sizes does, everything else as in the model that the space is cut
/// from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// A name in prunes; its axes may have one value each.
    pub space: String,
    /// What measured quantities are measured on.
    pub on: String,
    /// At least one, without repeats.
    pub quantities: Vec<Quantity>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub model: String,
    /// Names of [`crate::targets::TARGETS`] with their arguments.
    pub targets: Vec<(&'static str, BTreeMap<String, Value>)>,
    pub span: Span,
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
    pub span: Span,
}

/// What a model's name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    Model(&'a Model),
    Prune(&'a Prune),
    Search(&'a Search),
    Distill(&'a Distill),
}

impl Recipe {
    pub fn origin(&self, name: &str) -> Option<Origin<'_>> {
        let model = self.models.get(name).map(Origin::Model);
        let prune = || self.prunes.get(name).map(Origin::Prune);
        let search = || self.searches.get(name).map(Origin::Search);
        let distill = || self.distills.get(name).map(Origin::Distill);
        model.or_else(prune).or_else(search).or_else(distill)
    }

    /// Puts every kind of declaration in the order in which it was written.
    pub(crate) fn sort(&mut self) {
        self.params.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.models.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.data.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.metrics.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.prunes.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.searches.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.schedules.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.distills.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.sensitivities.sort_by(|_, a, _, b| a.span.cmp(&b.span));
        self.evaluations.sort_by_key(|e| e.span);
        self.deployments.sort_by_key(|d| d.span);
        self.exports.sort_by_key(|e| e.span);
    }
}
