//! Building a graph: one method an operation, masks and taps on the way.

use super::{Activation, Graph, Node, Op, ShapeError, ValueId};
use crate::dim::{Dim, Extent, Part, Sized};
use crate::metrics::Program;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Numbers of members that a masked model keeps, per dimension: for the model, and for single layers.
/// Which members they are is the runtime's to bind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Masks {
    pub model: BTreeMap<Dim, usize>,
    pub layers: BTreeMap<(usize, Dim), usize>,
    /// Layers whose branch is multiplied by zero.
    pub dropped: Vec<usize>,
}

impl Masks {
    fn kept(&self, layer: Option<usize>, dim: Dim) -> Option<usize> {
        let of_layer = layer.and_then(|l| self.layers.get(&(l, dim)));
        of_layer.or_else(|| self.model.get(&dim)).copied()
    }
}

/// An f32 vector of zeros and ones over a product of dimensions, to be bound by name.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskInput {
    pub name: String,
    pub layer: Option<usize>,
    pub factors: Vec<Sized>,
}

/// Decoding, which remembers of a sequence what its next token needs. Blocks are built as ever; what goes over positions
/// takes up what the positions before have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    pub phase: Phase,
    /// Sequences that are remembered side by side.
    pub sequences: usize,
    /// Positions of a sequence that attention can remember.
    pub capacity: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first tokens of one sequence: rows are its positions.
    Prefill,
    /// The next token of every sequence: rows are the sequences.
    Step,
}

/// Adds nodes to a graph. The first shape that does not fit is kept and told by [`Builder::finish`].
#[derive(Default)]
pub struct Builder {
    graph: Graph,
    masks: Masks,
    /// The block that is being built.
    pub layer: Option<usize>,
    /// Metrics to hang on taps, by the name of the tap.
    pub metrics: Vec<(&'static str, Arc<Program>)>,
    /// The tap whose value is the output [`crate::forward::output::READ`].
    pub shown: Option<&'static str>,
    /// Without it, a sample is all that there is.
    pub decoding: Option<Decoding>,
    leaves: BTreeMap<String, ValueId>,
    error: Option<ShapeError>,
    /// Put before the names of weights, so that two models can share a graph.
    pub scope: String,
}

impl Decoding {
    /// The name of the input that says where the rows of a run begin: a sequence and a position.
    pub const AT: &str = "at";
}

impl Builder {
    pub fn new() -> Builder {
        Builder::default()
    }

    /// A builder whose blocks remember.
    pub fn decoding(decoding: Decoding) -> Builder {
        Builder { decoding: Some(decoding), ..Builder::default() }
    }

    /// A builder whose blocks mask their activations.
    pub fn masked(masks: Masks) -> Builder {
        Builder { masks, ..Builder::default() }
    }

    pub fn finish(self) -> Result<Graph, ShapeError> {
        match self.error {
            Some(error) => Err(error),
            None => self.graph.verify().map(|()| self.graph),
        }
    }

    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.graph.outputs.push((name.into(), value));
    }

    pub fn extent(&self, value: ValueId) -> Option<&Extent> {
        self.graph.node(value).shape.last()
    }

    fn leaf(&mut self, key: String, op: Op, shape: Vec<Extent>) -> ValueId {
        if let Some(&id) = self.leaves.get(&key) {
            return id;
        }
        let id = self.graph.dag.add_node(Node { op, shape });
        self.leaves.insert(key, id);
        id
    }

    /// The graph as far as it is built.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The sum of the gradient of a weight of this graph.
    pub fn gradient(&mut self, weight: ValueId) -> ValueId {
        let Node { op, shape } = self.graph.node(weight).clone();
        let name = if let Op::Weight { name } = op { name } else { String::new() };
        self.leaf(format!("gradient {name}"), Op::Gradient { name: name.clone() }, shape)
    }

    /// Any operation over values of this graph.
    pub fn add_op(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        let nodes: Vec<&Node> = operands.iter().map(|&o| self.graph.node(o)).collect();
        let shape = op.infer(&nodes).unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            nodes.first().map(|n| n.shape.clone()).unwrap_or_default()
        });
        let changes = op.changes();
        let id = self.graph.dag.add_node(Node { op, shape });
        for (position, &operand) in operands.iter().enumerate() {
            self.graph.dag.add_edge(operand, id, position);
        }
        if changes {
            self.graph.effects.push(id);
        }
        id
    }

    pub fn tokens(&mut self, sequence: usize) -> ValueId {
        self.leaf("tokens".into(), Op::Tokens, vec![Extent::of(Dim::Sequence, sequence)])
    }

    pub fn input(&mut self, name: &str, shape: Vec<Extent>) -> ValueId {
        self.leaf(format!("input {name}"), Op::Input { name: name.into() }, shape)
    }

    /// A parameter; asked for twice, it is one node.
    pub fn weight(&mut self, name: &str, shape: Vec<Extent>) -> ValueId {
        let name = format!("{}{name}", self.scope);
        self.leaf(format!("weight {name}"), Op::Weight { name: name.clone() }, shape)
    }

    pub fn embed(&mut self, tokens: ValueId, table: ValueId) -> ValueId {
        let x = self.add_op(Op::Embed, &[tokens, table]);
        self.mask(x)
    }

    pub fn rms_norm(&mut self, x: ValueId, weight: ValueId, eps: f64) -> ValueId {
        let active = self.active(x, 1);
        self.add_op(Op::RmsNorm { eps, active }, &[x, weight])
    }

    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> ValueId {
        let operands: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
        let y = self.add_op(Op::Linear { bias: bias.is_some(), residual: false }, &operands);
        self.mask(y)
    }

    /// residual + x weight^T + bias. A dropped layer adds nothing to its stream.
    pub fn linear_onto(
        &mut self,
        residual: ValueId,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
    ) -> ValueId {
        let dropped = self.layer.is_some_and(|l| self.masks.dropped.contains(&l));
        if dropped || self.is_masked(residual) {
            let y = self.linear(x, weight, bias);
            let y = if dropped { self.mask_with("dropped", y) } else { y };
            return self.add_op(Op::Add, &[residual, y]);
        }
        let operands: Vec<ValueId> = [x, weight].into_iter().chain(bias).chain([residual]).collect();
        self.add_op(Op::Linear { bias: bias.is_some(), residual: true }, &operands)
    }

    pub fn part(&mut self, x: ValueId, name: &str) -> ValueId {
        self.add_op(Op::Part { name: name.into() }, &[x])
    }

    pub fn conv_silu(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        kernel: usize,
    ) -> ValueId {
        let ring = self.decoding.map(|decoding| (decoding.phase, self.keep("window", x, kernel)));
        let (weights, bias) = ([weight].into_iter().chain(bias), bias.is_some());
        if let Some((Phase::Step, ring)) = ring {
            let operands: Vec<ValueId> = [ring].into_iter().chain(weights).chain([self.at()]).collect();
            return self.add_op(Op::ConvStep { kernel, bias }, &operands);
        }
        let operands: Vec<ValueId> = [x].into_iter().chain(weights).collect();
        self.add_op(Op::ConvSilu { kernel, bias }, &operands)
    }

    /// Operands as [`Op::Ssd`] lists them.
    pub fn ssd(&mut self, scan: Op, operands: [ValueId; 7]) -> ValueId {
        let (mut op, mut operands) = (scan, operands.to_vec());
        if let (Some(decoding), Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi }) =
            (self.decoding, &op)
        {
            let (heads, head_dim, groups, state) = (*heads, *head_dim, *groups, *state);
            let (dt_lo, dt_hi) = (*dt_lo, *dt_hi);
            let factors =
                [(Dim::MambaNumHeads, heads), (Dim::SsmStateSize, state), (Dim::MambaHeadDim, head_dim)];
            let columns = Extent::concat(vec![Part::new("state", &factors)]);
            let states = self.state("state", vec![Extent::of(Dim::Sequence, decoding.sequences), columns]);
            op = match decoding.phase {
                Phase::Prefill => {
                    operands.push(self.at());
                    Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi }
                }
                Phase::Step => Op::SsdStep { heads, head_dim, groups, state, dt_lo, dt_hi },
            };
            operands.push(states);
        }
        let y = self.add_op(op, &operands);
        self.mask(y)
    }

    pub fn gated_norm(
        &mut self,
        y: ValueId,
        z: ValueId,
        weight: ValueId,
        groups: usize,
        eps: f64,
    ) -> ValueId {
        let active = self.active(y, groups);
        self.add_op(Op::GatedNorm { groups, eps, active }, &[y, z, weight])
    }

    pub fn activation(&mut self, x: ValueId, activation: Activation) -> ValueId {
        let y = self.add_op(Op::Activation(activation), &[x]);
        self.mask(y)
    }

    /// `op` as [`Op::Attention`].
    pub fn attention(&mut self, op: Op, q: ValueId, k: ValueId, v: ValueId) -> ValueId {
        let Some(Decoding { phase, capacity: window, .. }) = self.decoding else {
            return self.add_op(op, &[q, k, v]);
        };
        let rings = [("keys", k), ("values", v)].map(|(name, x)| self.keep(name, x, window));
        match op {
            Op::Attention { heads, kv_heads, head_dim } if phase == Phase::Step => {
                let operands = [q, rings[0], rings[1], self.at()];
                self.add_op(Op::AttentionStep { heads, kv_heads, head_dim, window }, &operands)
            }
            op => self.add_op(op, &[q, k, v]),
        }
    }

    /// Where the rows of a run begin: a sequence and a position.
    fn at(&mut self) -> ValueId {
        self.input(Decoding::AT, vec![Extent::of(Dim::One, 2)])
    }

    /// What this block remembers under a name.
    fn state(&mut self, name: &str, shape: Vec<Extent>) -> ValueId {
        let name = format!("{}{name}.{}", self.scope, self.layer.unwrap_or_default());
        self.leaf(format!("state {name}"), Op::State { name: name.clone() }, shape)
    }

    /// The rings of all sequences for the last `window` rows of x, with those of this run.
    fn keep(&mut self, name: &str, x: ValueId, window: usize) -> ValueId {
        let Some(Decoding { phase, sequences, .. }) = self.decoding else { return x };
        let positions = if phase == Phase::Prefill { self.graph.node(x).matrix().0 } else { 1 };
        let width = self.extent(x).cloned().unwrap_or_else(|| Extent::of(Dim::One, 0));
        let ring = self.state(name, vec![Extent::of(Dim::Sequence, sequences * window), width]);
        let at = self.at();
        self.add_op(Op::Keep { positions, window }, &[x, at, ring]);
        ring
    }

    pub fn token_loss(&mut self, hidden: ValueId, head: ValueId, tokens: ValueId) -> ValueId {
        self.add_op(Op::TokenLoss, &[hidden, head, tokens])
    }

    /// KL(teacher || student) and squared difference of the logits; each a (hidden, head) pair.
    pub fn divergence(&mut self, teacher: (ValueId, ValueId), student: (ValueId, ValueId)) -> ValueId {
        self.add_op(Op::Divergence, &[teacher.0, teacher.1, student.0, student.1])
    }

    pub fn cosine_distance(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.add_op(Op::CosineDistance, &[x, y])
    }

    pub fn metric(&mut self, x: ValueId, program: Arc<Program>) -> ValueId {
        self.add_op(Op::Metric { program }, &[x])
    }

    /// The covariance of a stream as its norm sees it, added to that of others.
    pub fn covariance(&mut self, x: ValueId, eps: f64, onto: Option<ValueId>) -> ValueId {
        let operands: Vec<ValueId> = std::iter::once(x).chain(onto).collect();
        self.add_op(Op::Covariance { eps, onto: onto.is_some() }, &operands)
    }

    /// Offers a value to the metrics that want it. They are computed at once, so that the value need not
    /// be kept.
    pub fn tap(&mut self, tap: &str, value: ValueId) {
        if self.shown == Some(tap) {
            self.output(crate::forward::output::READ, value);
        }
        let wanted: Vec<Arc<Program>> = self
            .metrics
            .iter()
            .filter(|(name, _)| *name == tap)
            .map(|(_, program)| program.clone())
            .collect();
        for program in wanted {
            let name = crate::forward::output::metric(tap, &program.name, self.layer);
            let partial = self.metric(value, program);
            self.output(name, partial);
        }
    }

    /// The factors of a value's columns, when they are one part and a mask bears on one of them.
    fn masked_factors(&self, x: ValueId) -> Option<Vec<Sized>> {
        let [part] = self.extent(x)?.parts.as_slice() else { return None };
        let bears = |s: &Sized| self.masks.kept(self.layer, s.dim).is_some_and(|kept| kept < s.size);
        part.factors.iter().any(bears).then(|| part.factors.clone())
    }

    fn is_masked(&self, x: ValueId) -> bool {
        self.masked_factors(x).is_some()
    }

    /// x with the dropped members of its dimensions set to zero; x itself where nothing is dropped.
    pub fn mask(&mut self, x: ValueId) -> ValueId {
        let Some(factors) = self.masked_factors(x) else { return x };
        let dims: Vec<&str> = factors.iter().map(|s| s.dim.name()).collect();
        let per_layer = factors.iter().any(|s| !self.masks.model.contains_key(&s.dim));
        let layer = self.layer.filter(|_| per_layer);
        let at = layer.map_or(String::new(), |l| format!(".{l}"));
        self.mask_by(format!("mask.{}{at}", dims.join("*")), layer, factors, x)
    }

    fn mask_with(&mut self, kind: &str, x: ValueId) -> ValueId {
        let size = self.extent(x).map_or(0, Extent::size);
        let factors = vec![Sized { dim: Dim::NumLayers, size }];
        let at = self.layer.map_or(String::new(), |l| format!(".{l}"));
        self.mask_by(format!("mask.{kind}{at}"), self.layer, factors, x)
    }

    fn mask_by(&mut self, name: String, layer: Option<usize>, factors: Vec<Sized>, x: ValueId) -> ValueId {
        let size = factors.iter().map(|s| s.size).product();
        let mask = self.input(&name, vec![Extent::of(Dim::One, size)]);
        let input = MaskInput { name, layer, factors };
        if !self.graph.masks.contains(&input) {
            self.graph.masks.push(input);
        }
        self.add_op(Op::Mask, &[x, mask])
    }

    /// Unmasked columns of x, divided among `groups`.
    fn active(&self, x: ValueId, groups: usize) -> usize {
        let Some(extent) = self.extent(x) else { return 0 };
        let kept = |s: &Sized| self.masks.kept(self.layer, s.dim).unwrap_or(s.size);
        extent.parts.iter().map(|p| p.factors.iter().map(kept).product::<usize>()).sum::<usize>()
            / groups.max(1)
    }
}
