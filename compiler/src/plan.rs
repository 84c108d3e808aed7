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
mod stage;
mod svg;
mod text;
mod verify;

pub use estimate::{Estimate, FITTED, RungEstimate};
pub use json::{Group, InputRecord, NodeRecord};
pub use shapes::{Bounds, Points, Shape, Shapes};
pub use stage::{
    Calibrate, Cut, CutAxis, Evaluation, Export, Needs, Request, Score, Search, Sensitivity, Source, Stage,
    Training, leaves_out,
};
pub use svg::draw;
pub use verify::VerifyError;

use crate::hir::Weights;
use minic_grammar::Span;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use petgraph::{Direction, Incoming, Outgoing};
use std::collections::{BTreeSet, VecDeque};

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

    /// The stage that reads the data of a declared name for `id`. Data that several tokenizers read are several
    /// stages, named after the second tokenizer's model, too.
    pub fn samples_of(&self, id: NodeIndex, data: &str) -> Option<NodeIndex> {
        let sources = self.sources(id, Value::Samples);
        let own = |from: &&NodeIndex| self.graph[**from].answers_to(data);
        let second = |from: &&NodeIndex| {
            let node = &self.graph[**from];
            let of = |name: &String| name.split_once('.').is_some_and(|(declared, _)| declared == data);
            std::iter::once(&node.name).chain(&node.aliases).any(of)
        };
        sources.iter().find(own).or_else(|| sources.iter().find(second)).copied()
    }

    /// Somebody reads the weights of the checkpoint that this stage opens: not those who draw their own, or take
    /// its tokenizer.
    pub fn reads_weights(&self, id: NodeIndex) -> bool {
        self.outputs(id).into_iter().any(|(reader, value)| match (value, &self.graph[reader].stage) {
            (Value::Tokenizer, _) => false,
            (Value::Model, Stage::Train(training) | Stage::Distill(training)) => {
                training.weights == Weights::Own
            }
            _ => true,
        })
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
}

fn extend_new<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

/// Two plans are the same if they print the same.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod shapes_tests;
#[cfg(test)]
mod tests;
