//! The plan: what a recipe does, as a DAG of stages with the values that flow between them.
//!
//! A recipe is lowered to one stage a step ([`crate::lower`]), then [`crate::passes`] drop what nobody needs
//! and fuse forward passes. The runtime executes the stages in [`Plan::order`]. Which layers survive a depth
//! cut, and what a search finds, are known only at run time: such a step stays one stage.

mod dot;
mod estimate;
#[cfg(test)]
pub(crate) mod fixture;
mod json;
mod mermaid;
mod shapes;
mod svg;
mod text;
mod verify;

pub use estimate::Estimate;
pub use shapes::{Bounds, Shape, Shapes, Variant};
pub use verify::VerifyError;

use crate::axes::{Axis, Tap};
use crate::forward::Gather;
use crate::hir::{self, LayerMetric, Measure, RepairKind};
use crate::metrics::Program;
use crate::model::DType;
use minic_grammar::Span;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use petgraph::{Direction, Incoming, Outgoing};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// What flows along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A weight source: the model that a stage works on.
    Model,
    /// A weight source that the model is compared with.
    Teacher,
    /// The tokenizer of a checkpoint, for data that names none of its own.
    Tokenizer,
    /// Windows of token ids.
    Samples,
    /// What a calibration accumulated: metrics at their taps, layer metrics, covariances.
    Partials,
    /// One score per member of an axis.
    Scores,
    /// Measured loss, perplexity, top1, kl.
    Figures,
    /// A published folder.
    Folder,
}

impl Value {
    pub fn name(self) -> &'static str {
        match self {
            Value::Model => "model",
            Value::Teacher => "teacher",
            Value::Tokenizer => "tokenizer",
            Value::Samples => "samples",
            Value::Partials => "partials",
            Value::Scores => "scores",
            Value::Figures => "figures",
            Value::Folder => "folder",
        }
    }
}

/// One stage of a plan, under a name that stays the same as long as the recipe says the same.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanNode {
    /// A declared name for what makes a declared thing without further steps (`parent`, `calibration`,
    /// `student`), `half.calibrate`, `half.score.hidden_size`, `half.cut`; `evaluate half`, `export half`.
    pub name: String,
    /// Names of the stages that were merged into this one.
    pub aliases: Vec<String>,
    /// The declared models that this stage completes.
    pub makes: Vec<String>,
    pub stage: Stage,
    /// The declaration that asked for it.
    pub span: Span,
}

impl PlanNode {
    pub fn new(name: impl Into<String>, stage: Stage, span: Span) -> PlanNode {
        PlanNode { name: name.into(), aliases: Vec::new(), makes: Vec::new(), stage, span }
    }

    /// It was asked for under this name, or completes the model of this name.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().chain(&self.makes).any(|n| n == name)
    }
}

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
            removed: Vec::new(),
            metrics: self.requests.iter().map(|r| (r.tap.name, r.program.clone())).collect(),
            layers: self.layers.clone(),
            loss: !self.evaluations.is_empty(),
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

fn extend_new<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
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

/// A distillation, or training without a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    pub name: String,
    /// Names of the schedule and of the data that phases use unless they name their own.
    pub schedule_name: String,
    pub data: String,
    pub schedule: hir::Schedule,
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

    /// This version of minic has what it takes to run it.
    pub fn is_supported(&self) -> bool {
        match self {
            Stage::Load(_)
            | Stage::Calibrate(_)
            | Stage::Score(_)
            | Stage::Cut(_)
            | Stage::Evaluate(_)
            | Stage::Export(_)
            | Stage::Report => true,
            Stage::Rotate | Stage::Repair(_) | Stage::Search(_) | Stage::Train(_) | Stage::Distill(_) => {
                false
            }
        }
    }

    /// It takes gradient steps, so that nothing should wait for it that need not.
    pub fn is_long(&self) -> bool {
        matches!(self, Stage::Search(_) | Stage::Train(_) | Stage::Distill(_))
    }
}

pub type StageId = NodeIndex;

/// A DAG of stages. Indices stay in the order of insertion, which lowering makes a topological one.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub graph: DiGraph<PlanNode, Value>,
}

impl Plan {
    pub fn add(&mut self, node: PlanNode) -> NodeIndex {
        self.graph.add_node(node)
    }

    /// An edge, once.
    pub fn connect(&mut self, from: NodeIndex, to: NodeIndex, value: Value) {
        if !self.graph.edges_connecting(from, to).any(|e| *e.weight() == value) {
            self.graph.add_edge(from, to, value);
        }
    }

    pub fn node(&self, id: NodeIndex) -> &PlanNode {
        &self.graph[id]
    }

    /// The stage that answers to a name: its own, one that was merged into it, or that of a model it makes.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        let own = |id: &NodeIndex| self.graph[*id].name == name;
        let answers = |id: &NodeIndex| self.graph[*id].answers_to(name);
        self.graph.node_indices().find(own).or_else(|| self.graph.node_indices().find(answers))
    }

    /// The stage that completes a declared model.
    pub fn maker(&self, model: &str) -> Option<NodeIndex> {
        self.graph.node_indices().find(|id| self.graph[*id].makes.iter().any(|m| m == model))
    }

    /// What comes in, ordered by the stage that it comes from.
    pub fn inputs(&self, id: NodeIndex) -> Vec<(NodeIndex, Value)> {
        self.neighbours(id, Incoming)
    }

    pub fn outputs(&self, id: NodeIndex) -> Vec<(NodeIndex, Value)> {
        self.neighbours(id, Outgoing)
    }

    fn neighbours(&self, id: NodeIndex, direction: Direction) -> Vec<(NodeIndex, Value)> {
        let edges = self.graph.edges_directed(id, direction);
        let mut out: Vec<_> = edges
            .map(|e| (if direction == Incoming { e.source() } else { e.target() }, *e.weight()))
            .collect();
        out.sort();
        out
    }

    /// The stages that send `value` to `id`.
    pub fn sources(&self, id: NodeIndex, value: Value) -> Vec<NodeIndex> {
        self.inputs(id).into_iter().filter(|(_, v)| *v == value).map(|(from, _)| from).collect()
    }

    /// The first stage that sends `value` to `id`.
    pub fn source(&self, id: NodeIndex, value: Value) -> Option<NodeIndex> {
        self.sources(id, value).first().copied()
    }

    /// Stages in the order in which they are run: always the first one that is ready, those that take
    /// gradient steps after all others. Stages on a cycle are left out.
    pub fn order(&self) -> Vec<NodeIndex> {
        let mut waits: Vec<usize> = self.graph.node_indices().map(|id| self.inputs(id).len()).collect();
        let rank = |id: NodeIndex| (self.graph[id].stage.is_long(), id);
        let mut ready: BTreeSet<_> =
            self.graph.node_indices().filter(|id| waits[id.index()] == 0).map(rank).collect();
        let mut order = Vec::new();
        while let Some((_, id)) = ready.pop_first() {
            order.push(id);
            for (to, _) in self.outputs(id) {
                waits[to.index()] -= 1;
                if waits[to.index()] == 0 {
                    ready.insert(rank(to));
                }
            }
        }
        order
    }

    /// Everything that `id` depends on, itself included.
    pub fn ancestors(&self, id: NodeIndex) -> BTreeSet<NodeIndex> {
        self.reachable(&[id], Incoming)
    }

    pub(crate) fn reachable(&self, from: &[NodeIndex], direction: Direction) -> BTreeSet<NodeIndex> {
        let mut seen: BTreeSet<NodeIndex> = from.iter().copied().collect();
        let mut queue: VecDeque<NodeIndex> = from.iter().copied().collect();
        while let Some(id) = queue.pop_front() {
            for (next, _) in self.neighbours(id, direction) {
                if seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        seen
    }

    /// The part of the plan that leads to the stage or model of this name; `None` if there is none.
    pub fn until(&self, name: &str) -> Option<Plan> {
        let target = self.find(name)?;
        let keep = self.ancestors(target);
        Some(self.restricted(&keep))
    }

    /// The stages in `keep` and the edges between them, in the same order.
    pub(crate) fn restricted(&self, keep: &BTreeSet<NodeIndex>) -> Plan {
        let node = |id: NodeIndex, n: &PlanNode| keep.contains(&id).then(|| n.clone());
        Plan { graph: self.graph.filter_map(node, |_, value| Some(*value)) }
    }

    /// Merges stages: `into[i]` is the stage that stage `i` becomes part of (itself where it stays). The
    /// edges of the merged stages go over to it; edges within a merged stage vanish.
    pub(crate) fn contracted(&self, into: &[NodeIndex]) -> Plan {
        let mut out = Plan::default();
        let mut place = vec![NodeIndex::end(); into.len()];
        for id in self.graph.node_indices().filter(|id| into[id.index()] == *id) {
            let mut node = self.graph[id].clone();
            let merged = self.graph.node_indices().filter(|m| *m != id && into[m.index()] == id);
            for other in merged.map(|m| &self.graph[m]) {
                extend_new(&mut node.aliases, std::slice::from_ref(&other.name));
                extend_new(&mut node.aliases, &other.aliases);
                extend_new(&mut node.makes, &other.makes);
            }
            place[id.index()] = out.add(node);
        }
        for edge in self.graph.edge_references() {
            let end = |id: NodeIndex| place[into[id.index()].index()];
            let (from, to) = (end(edge.source()), end(edge.target()));
            if from != to {
                out.connect(from, to, *edge.weight());
            }
        }
        out
    }

    /// The stages that this version cannot run, in the order of the run.
    pub fn unsupported(&self) -> Vec<&PlanNode> {
        self.order().into_iter().map(|id| self.node(id)).filter(|n| !n.stage.is_supported()).collect()
    }
}

/// Two plans are the same if they print the same.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&text::stage(self))
    }
}

#[cfg(test)]
mod shapes_tests;
#[cfg(test)]
mod tests;
