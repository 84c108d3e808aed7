//! The tensor graph: a DAG of operations over statically shaped values with named dimensions.
//!
//! One graph computes one sample (batch of one); the runtime runs samples side by side. Every node has one
//! value. Shapes are inferred when a node is added and derived again by [`Graph::verify`].

mod build;
mod infer;
mod loss;
mod print;

pub use build::{Builder, MaskInput, Masks};
pub use infer::ShapeError;
pub use loss::{HeadLoss, HeadTerm, StreamLoss};

use crate::dim::Extent;
use crate::metrics::Program;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::sync::Arc;

pub type ValueId = NodeIndex;

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    U32,
    F32,
    /// Accumulators and losses.
    F64,
}

impl Elem {
    pub fn bytes(self) -> usize {
        match self {
            Elem::U32 | Elem::F32 => 4,
            Elem::F64 => 8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)^2
    Relu2,
    /// x * sigmoid(x)
    Silu,
}

/// An operation. Operands are listed in order; L is the sequence, shapes are row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The sample's token ids [L], u32.
    Tokens,
    /// A run-time f32 input: a mask, or the stream that a block starts from.
    Input { name: String },
    /// A parameter, by its name in the checkpoint.
    Weight { name: String },
    /// (tokens [L], table [V, E]) -> [L, E]
    Embed,
    /// (x [L, E], weight [E]) -> x / sqrt(sum(x^2) / active + eps) * weight. `active` is E, or the number
    /// of unmasked channels of a masked model.
    RmsNorm { eps: f64, active: usize },
    /// (x [L, I], weight [O, I], bias [O] if `bias`, residual [L, O] if `residual`)
    /// -> residual + x weight^T + bias
    Linear { bias: bool, residual: bool },
    /// (x [L, C]) -> the columns of one named part, or of a run of neighbours `x|B|C`; a view.
    Part { name: String },
    /// (x [L, C], weight [C, 1, K], bias [C] if `bias`) -> silu(causal depthwise convolution), zero left pad:
    /// y[t, c] = silu(b[c] + sum_k w[c, 0, k] x[t - (K-1) + k, c])
    ConvSilu { kernel: usize, bias: bool },
    /// State space duality scan (arXiv:2405.21060), head h uses group h / (heads / groups):
    /// (x [L, H*P], dt [L, H], B [L, G*N], C [L, G*N], dt_bias [H], A_log [H], D [H]) -> y [L, H*P]
    /// dt' = clamp(softplus(dt + dt_bias), lo, hi); S[t] = exp(-exp(A_log) dt') S[t-1] + dt' x B^T;
    /// y = S C + D x
    Ssd { heads: usize, head_dim: usize, groups: usize, state: usize, dt_lo: f64, dt_hi: f64 },
    /// (y [L, I], z [L, I], weight [I]) -> v = y * silu(z), each of the `groups` slices of v divided by
    /// sqrt(sum(v^2) / active + eps), times weight. `active` is the unmasked width of one group.
    GatedNorm { groups: usize, eps: f64, active: usize },
    /// (x [L, C]) -> elementwise.
    Activation(Activation),
    /// (q [L, heads*d], k [L, kv_heads*d], v [L, kv_heads*d]) -> causal softmax(q k^T / sqrt(d)) v; query
    /// head j reads key head j / (heads / kv_heads). No positions.
    Attention { heads: usize, kv_heads: usize, head_dim: usize },
    /// (a, b) of one shape.
    Add,
    /// (x [L, C], mask [C]) -> x * mask
    Mask,
    /// (hidden [L, E], head [V, E], tokens [L]) -> f64 [L-1, 2]: negative log-likelihood of token t+1 at
    /// position t in nats, and 1 where it is the most likely one. Logits are never whole.
    TokenLoss,
    /// (teacher hidden [L, E], teacher head [V, E], student hidden [L, E'], student head [V, E'])
    /// -> f64 [L, 2]: KL(teacher || student) in nats, mean over V of (teacher logit - student logit)^2.
    Divergence,
    /// (x [L, E], y [L, E]) -> f64 [L, 1]: 1 - cos(x, y), a block's influence.
    CosineDistance,
    /// (x [L, C]) -> f64 [program.slots(), C]: one sample's partial of a metric.
    Metric { program: Arc<Program> },
}

impl Op {
    /// The kernel that computes it; views and inputs have none.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens => "tokens",
            Op::Input { .. } => "input",
            Op::Weight { .. } => "weight",
            Op::Embed => "embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Linear { .. } => "linear",
            Op::Part { .. } => "part",
            Op::ConvSilu { .. } => "conv_silu",
            Op::Ssd { .. } => "ssd",
            Op::GatedNorm { .. } => "gated_norm",
            Op::Activation(Activation::Relu2) => "relu2",
            Op::Activation(Activation::Silu) => "silu",
            Op::Attention { .. } => "attention",
            Op::Add => "add",
            Op::Mask => "mask",
            Op::TokenLoss => "token_loss",
            Op::Divergence => "divergence",
            Op::CosineDistance => "cosine_distance",
            Op::Metric { .. } => "metric",
        }
    }

    /// Bound before a run rather than computed by it.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Tokens | Op::Input { .. } | Op::Weight { .. })
    }

    /// The operand whose buffer the value may take over. Such an operation updates its output in place: the
    /// output holds that operand when the kernel is called, and the kernel is not given it as an argument.
    pub fn in_place_operand(&self) -> Option<usize> {
        match self {
            Op::Activation(_) | Op::Mask | Op::Add => Some(0),
            Op::Linear { bias, residual: true } => Some(2 + usize::from(*bias)),
            _ => None,
        }
    }

    pub fn elem(&self) -> Elem {
        match self {
            Op::Tokens => Elem::U32,
            Op::TokenLoss | Op::Divergence | Op::CosineDistance | Op::Metric { .. } => Elem::F64,
            _ => Elem::F32,
        }
    }
}

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
