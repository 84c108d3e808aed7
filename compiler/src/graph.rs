//! The tensor graph: a DAG of operations over statically shaped values with named dimensions.
//!
//! One graph computes one sample (batch of one); the runtime runs samples side by side. Every node has one
//! value. Shapes are inferred when a node is added and derived again by [`Graph::verify`].

mod build;
mod infer;
mod loss;
mod op;
mod print;

pub use build::{Builder, Decoding, MaskInput, Masks, Phase};
pub use infer::ShapeError;
pub use loss::{HeadLoss, HeadTerm, StreamLoss, TopK, reads_teacher, targets_of};
pub use op::{Activation, Elem, Op};

use crate::dim::Extent;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

pub type ValueId = NodeIndex;

/// An operation and the shape of its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    pub shape: Vec<Extent>,
}

impl Node {
    pub fn len(&self) -> usize {
        self.shape.iter().map(Extent::size).product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.op.elem().bytes()
    }

    /// Rows and columns of a value seen as a matrix: the last extent is the columns.
    pub fn matrix(&self) -> (usize, usize) {
        let cols = self.shape.last().map_or(1, Extent::size);
        (self.len().checked_div(cols).unwrap_or(0), cols)
    }
}

/// The DAG; an edge's weight is the operand's position.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub dag: DiGraph<Node, usize>,
    /// Named results, in the order in which they were asked for.
    pub outputs: Vec<(String, ValueId)>,
    /// Nodes that are run for the leaf that they change ([`Op::changes`]).
    pub effects: Vec<ValueId>,
    /// Masks that the runtime binds before a run.
    pub masks: Vec<MaskInput>,
}

impl Graph {
    /// Operands of a node, in order.
    pub fn operands(&self, id: ValueId) -> Vec<ValueId> {
        let mut edges: Vec<(usize, ValueId)> = self
            .dag
            .edges_directed(id, petgraph::Direction::Incoming)
            .map(|e| (*e.weight(), e.source()))
            .collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, source)| source).collect()
    }

    pub fn node(&self, id: ValueId) -> &Node {
        &self.dag[id]
    }

    /// Nodes in the order in which they were built, which is a topological one: operands come first.
    pub fn order(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.dag.node_indices()
    }
}
