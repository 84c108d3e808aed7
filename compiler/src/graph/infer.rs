//! Shapes of values from the shapes of their operands, and the verifier.
//!
//! Checked, for every node:
//! - the number of operands is the operation's;
//! - operands come before the node (the graph is in topological order, so it has no cycle);
//! - operand shapes fit each other and the operation's own constants;
//! - a gradient is the last operand of an operation that adds to it, and nothing else;
//! - the last operand of an operation that moves a state on is a state;
//! - the stored shape is the inferred one; outputs name nodes of the graph.

use super::loss::{reads_teacher, targets_of};
use super::{Graph, Node, Op, TopK};
use crate::dim::{Dim, Extent, Part};

/// A shape that does not fit, told in the operation's terms.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{op}: {message}")]
pub struct ShapeError {
    pub op: &'static str,
    pub message: String,
}

impl Op {
    fn arity(&self) -> usize {
        match self {
            Op::Tokens | Op::Input { .. } | Op::Weight { .. } | Op::State { .. } | Op::Gradient { .. } => 0,
            Op::Part { .. } | Op::Last | Op::Activation(_) | Op::Metric { .. } | Op::Argmax => 1,
            Op::Embed | Op::RmsNorm { .. } | Op::Add | Op::Mask | Op::CosineDistance | Op::TopK(_) => 2,
            Op::Covariance { onto, .. } => 1 + usize::from(*onto),
            Op::Linear { bias, residual } => 2 + usize::from(*bias) + usize::from(*residual),
            Op::ConvSilu { bias, .. } => 2 + usize::from(*bias),
            Op::GatedNorm { .. } | Op::Attention { .. } | Op::TokenLoss => 3,
            Op::Divergence => 4,
            Op::Ssd { .. } => 7,
            Op::ColumnSum | Op::LinearGrad | Op::ConvGrad { .. } | Op::ActivationGrad(_) => 2,
            Op::StreamLoss { .. } => 2,
            Op::LinearWeightGrad
            | Op::RmsNormWeightGrad { .. }
            | Op::ConvWeightGrad { .. }
            | Op::EmbedGrad => 3,
            Op::RmsNormGrad { onto, .. } => 3 + usize::from(*onto),
            Op::SiluGrad { bias, .. } => 3 + usize::from(*bias),
            Op::GatedNormGrad { .. } | Op::GatedNormWeightGrad { .. } => 4,
            Op::AttentionGrad { .. } => 5,
            Op::SsdGrad { .. } => 8,
            Op::HeadLoss { terms } => 4 + 2 * usize::from(reads_teacher(terms)) + targets_of(terms).count(),
            Op::Concat { extent } => extent.parts.len(),
            Op::Keep { .. } => 3,
            Op::ConvStep { bias, .. } => 3 + usize::from(*bias),
            Op::AttentionStep { .. } => 4,
            Op::SsdStep { .. } => 8,
            Op::SsdPrefill { .. } => 9,
        }
    }

    /// The shape of the value, or what does not fit. Leaves have the shape that they were declared with.
    pub fn infer(&self, operands: &[&Node]) -> Result<Vec<Extent>, ShapeError> {
        let fail = |message: String| Err(ShapeError { op: self.name(), message });
        if operands.len() != self.arity() {
            return fail(format!("takes {} operands, got {}", self.arity(), operands.len()));
        }
        let (rows, cols): (Vec<usize>, Vec<usize>) = operands.iter().map(|n| n.matrix()).unzip();
        let want = |what: &str, got: usize, expected: usize| {
            if got == expected {
                return Ok(());
            }
            Err(ShapeError { op: self.name(), message: format!("{what} is {got}, expected {expected}") })
        };
        match self {
            Op::Tokens | Op::Input { .. } | Op::Weight { .. } | Op::State { .. } | Op::Gradient { .. } => {
                fail("a leaf has no operands to infer from".into())
            }
            Op::Embed => Ok(vec![operands[0].shape[0].clone(), operands[1].shape[1].clone()]),
            Op::RmsNorm { active, .. } => {
                want("width of the weight", operands[1].len(), cols[0])?;
                if *active == 0 || *active > cols[0] {
                    return fail(format!("active width {active} of {}", cols[0]));
                }
                Ok(operands[0].shape.clone())
            }
            Op::Linear { bias, residual } => {
                want("columns of the weight", cols[1], cols[0])?;
                let shape = vec![operands[0].shape[0].clone(), operands[1].shape[0].clone()];
                if *bias {
                    want("width of the bias", operands[2].len(), rows[1])?;
                }
                if *residual {
                    let last = operands.len() - 1;
                    want("rows of the residual", rows[last], rows[0])?;
                    want("columns of the residual", cols[last], rows[1])?;
                }
                Ok(shape)
            }
            Op::Part { name } => match operands[0].shape.last().and_then(|e| e.run(name)) {
                Some((_, run)) => Ok(vec![operands[0].shape[0].clone(), run]),
                None => fail(format!("no part `{name}`")),
            },
            Op::Last => match rows[0] {
                0 => fail("there is no row".into()),
                _ => Ok(vec![Extent::of(Dim::Sequence, 1), last_extent(operands[0])]),
            },
            Op::ConvSilu { kernel, bias } => {
                want("elements of the weight", operands[1].len(), cols[0] * kernel)?;
                if *bias {
                    want("width of the bias", operands[2].len(), cols[0])?;
                }
                Ok(operands[0].shape.clone())
            }
            Op::Ssd { heads, head_dim, groups, state, .. } => {
                if *groups == 0 || heads % groups != 0 {
                    return fail(format!("{heads} heads do not divide into {groups} groups"));
                }
                want("width of x", cols[0], heads * head_dim)?;
                want("width of dt", cols[1], *heads)?;
                want("width of B", cols[2], groups * state)?;
                want("width of C", cols[3], groups * state)?;
                for (i, what) in ["dt_bias", "A_log", "D"].iter().enumerate() {
                    want(what, operands[4 + i].len(), *heads)?;
                }
                Ok(operands[0].shape.clone())
            }
            Op::GatedNorm { groups, active, .. } => {
                want("width of z", cols[1], cols[0])?;
                want("width of the weight", operands[2].len(), cols[0])?;
                if *groups == 0 || cols[0] % groups != 0 {
                    return fail(format!("{} columns do not divide into {groups} groups", cols[0]));
                }
                if *active == 0 || *active > cols[0] / groups {
                    return fail(format!("active width {active} of {}", cols[0] / groups));
                }
                Ok(operands[0].shape.clone())
            }
            Op::Activation(_) => Ok(operands[0].shape.clone()),
            Op::Attention { heads, kv_heads, head_dim } => {
                if *kv_heads == 0 || heads % kv_heads != 0 {
                    return fail(format!("{heads} query heads do not divide into {kv_heads} key heads"));
                }
                want("width of q", cols[0], heads * head_dim)?;
                want("width of k", cols[1], kv_heads * head_dim)?;
                want("width of v", cols[2], kv_heads * head_dim)?;
                Ok(operands[0].shape.clone())
            }
            Op::Add => {
                want("rows of the second operand", rows[1], rows[0])?;
                want("columns of the second operand", cols[1], cols[0])?;
                Ok(operands[0].shape.clone())
            }
            Op::Mask => {
                want("width of the mask", operands[1].len(), cols[0])?;
                Ok(operands[0].shape.clone())
            }
            Op::TokenLoss => {
                want("columns of the head", cols[1], cols[0])?;
                want("tokens", operands[2].len(), rows[0])?;
                if rows[0] < 2 {
                    return fail("a sample needs two tokens to predict one".into());
                }
                Ok(vec![Extent::of(Dim::Sequence, rows[0] - 1), columns("nll_hit", 2)])
            }
            Op::Divergence => {
                want("columns of the teacher's head", cols[1], cols[0])?;
                want("columns of the student's head", cols[3], cols[2])?;
                want("student's vocabulary", rows[3], rows[1])?;
                want("student's positions", rows[2], rows[0])?;
                Ok(vec![Extent::of(Dim::Sequence, rows[0]), columns("kl_mse", 2)])
            }
            Op::TopK(targets) => {
                want("columns of the head", cols[1], cols[0])?;
                let vocab = rows[1];
                if targets.k == 0 || targets.k > vocab {
                    return fail(format!("{} of {vocab} tokens", targets.k));
                }
                if vocab > TopK::MOST_TOKENS {
                    return fail(format!("ids of {vocab} tokens are no whole numbers of f32"));
                }
                Ok(vec![operands[0].shape[0].clone(), targets.columns()])
            }
            Op::CosineDistance => {
                want("columns of the second operand", cols[1], cols[0])?;
                want("rows of the second operand", rows[1], rows[0])?;
                Ok(vec![Extent::of(Dim::Sequence, rows[0]), columns("distance", 1)])
            }
            Op::Metric { program } => {
                let Some(element) = operands[0].shape.last() else {
                    return fail("a scalar has no elements to score".into());
                };
                Ok(vec![columns("slots", program.slots()), element.clone()])
            }
            Op::Covariance { onto, .. } => {
                let Some(width) = operands[0].shape.last() else {
                    return fail("a scalar has no covariance".into());
                };
                if *onto {
                    want("rows of the sum", rows[1], cols[0])?;
                    want("columns of the sum", cols[1], cols[0])?;
                }
                Ok(vec![width.clone(), width.clone()])
            }
            Op::HeadLoss { terms } => {
                want("columns of the head", cols[1], cols[0])?;
                want("tokens", operands[2].len(), rows[0])?;
                let last = operands.len() - 1;
                if reads_teacher(terms) {
                    want("columns of the teacher's head", cols[4], cols[3])?;
                    want("teacher's vocabulary", rows[4], rows[1])?;
                    want("teacher's positions", rows[3], rows[0])?;
                }
                let first = 3 + 2 * usize::from(reads_teacher(terms));
                for (i, targets) in targets_of(terms).enumerate() {
                    want("positions of the targets", rows[first + i], rows[0])?;
                    want("columns of the targets", cols[first + i], targets.columns().size())?;
                }
                want("elements of the gradient", operands[last].len(), rows[1] * cols[1])?;
                Ok(vec![operands[0].shape[0].clone(), with_losses(cols[0], terms.len())])
            }
            Op::StreamLoss { .. } => {
                want("columns of the second operand", cols[1], cols[0])?;
                want("rows of the second operand", rows[1], rows[0])?;
                Ok(vec![operands[0].shape[0].clone(), with_losses(cols[0], 1)])
            }
            Op::Concat { extent } => {
                for (i, part) in extent.parts.iter().enumerate() {
                    want(&format!("width of part `{}`", part.name), cols[i], part.size())?;
                    want(&format!("rows of part `{}`", part.name), rows[i], rows[0])?;
                }
                Ok(vec![operands[0].shape[0].clone(), extent.clone()])
            }
            Op::ColumnSum => {
                want("elements of the gradient", operands[1].len(), cols[0])?;
                Ok(nothing())
            }
            Op::LinearGrad => {
                want("rows of the weight", rows[1], cols[0])?;
                Ok(vec![operands[0].shape[0].clone(), operands[1].shape[1].clone()])
            }
            Op::LinearWeightGrad => {
                want("positions of x", rows[1], rows[0])?;
                want("rows of the gradient", rows[2], cols[0])?;
                want("columns of the gradient", cols[2], cols[1])?;
                Ok(nothing())
            }
            Op::RmsNormGrad { .. } => {
                want("width of the weight", operands[1].len(), cols[0])?;
                for (i, operand) in operands.iter().enumerate().skip(2) {
                    want(&format!("elements of operand {i}"), operand.len(), operands[0].len())?;
                }
                Ok(operands[0].shape.clone())
            }
            Op::RmsNormWeightGrad { .. } => {
                want("elements of dy", operands[1].len(), operands[0].len())?;
                want("elements of the gradient", operands[2].len(), cols[0])?;
                Ok(nothing())
            }
            Op::GatedNormGrad { groups, .. } | Op::GatedNormWeightGrad { groups, .. } => {
                if *groups == 0 || cols[0] % groups != 0 {
                    return fail(format!("{} columns do not divide into {groups} groups", cols[0]));
                }
                let whole = operands[0].len();
                let (weight, dv) = if matches!(self, Op::GatedNormGrad { .. }) { (2, 3) } else { (3, 2) };
                want("elements of z", operands[1].len(), whole)?;
                want("elements of dv", operands[dv].len(), whole)?;
                want("width of the weight", operands[weight].len(), cols[0])?;
                if weight == 3 {
                    return Ok(nothing());
                }
                Ok(vec![operands[0].shape[0].clone(), parts(&[("y", cols[0]), ("z", cols[0])])])
            }
            Op::SiluGrad { kernel, bias } => {
                want("elements of the weight", operands[1].len(), cols[0] * kernel)?;
                if *bias {
                    want("width of the bias", operands[2].len(), cols[0])?;
                }
                want("elements of dy", operands[operands.len() - 1].len(), operands[0].len())?;
                Ok(operands[0].shape.clone())
            }
            Op::ConvGrad { kernel } => {
                want("elements of the weight", operands[1].len(), cols[0] * kernel)?;
                Ok(operands[0].shape.clone())
            }
            Op::ConvWeightGrad { kernel } => {
                want("elements of ds", operands[1].len(), operands[0].len())?;
                want("elements of the gradient", operands[2].len(), cols[0] * kernel)?;
                Ok(nothing())
            }
            Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi } => {
                let (dt_lo, dt_hi) = (*dt_lo, *dt_hi);
                let (heads, head_dim, groups, state) = (*heads, *head_dim, *groups, *state);
                let scan = Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi };
                scan.infer(&operands[..7])?;
                want("elements of dy", operands[7].len(), operands[0].len())?;
                let (inner, states) = (heads * head_dim, groups * state);
                let widths = [inner, states, states, heads, heads, heads];
                let names = ["x", "B", "C", "dt", "A_log", "D"];
                let columns: Vec<_> = names.into_iter().zip(widths).collect();
                Ok(vec![operands[0].shape[0].clone(), parts(&columns)])
            }
            Op::ActivationGrad(_) => {
                want("elements of dy", operands[1].len(), operands[0].len())?;
                Ok(operands[0].shape.clone())
            }
            Op::AttentionGrad { heads, kv_heads, head_dim } => {
                let (heads, kv_heads, head_dim) = (*heads, *kv_heads, *head_dim);
                Op::Attention { heads, kv_heads, head_dim }.infer(&operands[..3])?;
                want("elements of y", operands[3].len(), operands[0].len())?;
                want("elements of dy", operands[4].len(), operands[0].len())?;
                let columns = parts(&[("q", cols[0]), ("k", cols[1]), ("v", cols[2])]);
                Ok(vec![operands[0].shape[0].clone(), columns])
            }
            Op::EmbedGrad => {
                want("positions of dx", rows[1], operands[0].len())?;
                want("columns of the gradient", cols[2], cols[1])?;
                Ok(nothing())
            }
            Op::Keep { positions, window } => {
                ring(self, "ring", rows[2], *window)?;
                want("columns of the ring", cols[2], cols[0])?;
                want("elements of `at`", operands[1].len(), 2)?;
                if *positions == 0 || rows[0] % positions != 0 {
                    return fail(format!("{} rows are no multiple of {positions} positions", rows[0]));
                }
                Ok(nothing())
            }
            Op::ConvStep { kernel, bias } => {
                let sequences = ring(self, "ring", rows[0], *kernel)?;
                want("elements of the weight", operands[1].len(), cols[0] * kernel)?;
                if *bias {
                    want("width of the bias", operands[2].len(), cols[0])?;
                }
                want("elements of `at`", operands[operands.len() - 1].len(), 2)?;
                Ok(vec![Extent::of(Dim::Sequence, sequences), last_extent(operands[0])])
            }
            Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi }
            | Op::SsdStep { heads, head_dim, groups, state, dt_lo, dt_hi } => {
                let (dt_lo, dt_hi) = (*dt_lo, *dt_hi);
                let (heads, head_dim, groups, state) = (*heads, *head_dim, *groups, *state);
                let scan = Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi };
                let value = scan.infer(&operands[..7])?;
                let last = operands.len() - 1;
                want("columns of the states", cols[last], heads * state * head_dim)?;
                match self {
                    Op::SsdStep { .. } => want("rows of the states", rows[last], rows[0])?,
                    _ => want("elements of `at`", operands[7].len(), 2)?,
                }
                Ok(value)
            }
            Op::AttentionStep { heads, kv_heads, head_dim, window } => {
                if *kv_heads == 0 || heads % kv_heads != 0 {
                    return fail(format!("{heads} query heads do not divide into {kv_heads} key heads"));
                }
                want("width of q", cols[0], heads * head_dim)?;
                for (i, what) in [(1, "k"), (2, "v")] {
                    want(&format!("width of {what}"), cols[i], kv_heads * head_dim)?;
                    want(&format!("sequences of {what}"), ring(self, what, rows[i], *window)?, rows[0])?;
                }
                want("elements of `at`", operands[3].len(), 2)?;
                Ok(operands[0].shape.clone())
            }
            Op::Argmax => {
                if cols[0] == 0 || cols[0] > TopK::MOST_TOKENS {
                    return fail(format!("ids of {} tokens are no whole numbers of f32", cols[0]));
                }
                Ok(vec![operands[0].shape[0].clone(), columns("id", 1)])
            }
        }
    }
}

/// The sequences whose rings of `window` rows have so many rows together.
fn ring(op: &Op, what: &str, rows: usize, window: usize) -> Result<usize, ShapeError> {
    let fail = |message: String| Err(ShapeError { op: op.name(), message });
    if window == 0 || !rows.is_multiple_of(window) {
        return fail(format!("{rows} rows of {what} are no multiple of {window}"));
    }
    // Positions are given in f32.
    if window > TopK::MOST_TOKENS {
        return fail(format!("positions up to {window} are no whole numbers of f32"));
    }
    Ok(rows / window)
}

fn last_extent(node: &Node) -> Extent {
    node.shape.last().cloned().unwrap_or_else(|| columns("nothing", 0))
}

/// The shape of the value of an operation that only adds to a gradient.
fn nothing() -> Vec<Extent> {
    vec![columns("nothing", 0)]
}

fn parts(columns: &[(&str, usize)]) -> Extent {
    Extent::concat(columns.iter().map(|(name, n)| Part::new(name, &[(Dim::One, *n)])).collect())
}

fn with_losses(width: usize, losses: usize) -> Extent {
    parts(&[("hidden", width), ("losses", losses)])
}

fn columns(name: &str, n: usize) -> Extent {
    Extent::concat(vec![Part::new(name, &[(Dim::One, n)])])
}

impl Graph {
    /// The rules at the head of this file.
    pub fn verify(&self) -> Result<(), ShapeError> {
        for id in self.order() {
            let node = self.node(id);
            let operands = self.operands(id);
            let fail = |message: &str| Err(ShapeError { op: node.op.name(), message: message.into() });
            if operands.iter().any(|o| *o >= id) {
                return fail("an operand comes after the node that reads it");
            }
            if node.op.is_leaf() {
                if !operands.is_empty() {
                    return fail("a leaf has operands");
                }
                continue;
            }
            let nodes: Vec<&Node> = operands.iter().map(|&o| self.node(o)).collect();
            let adds_to = nodes.last().is_some_and(|n| matches!(n.op, Op::Gradient { .. }));
            if adds_to != node.op.accumulates() {
                return fail("gradients are last operands of operations that add to them, and of no others");
            }
            if node.op.moves_on() && !nodes.last().is_some_and(|n| matches!(n.op, Op::State { .. })) {
                return fail("what it moves on is no state");
            }
            if node.op.infer(&nodes)? != node.shape {
                return fail("the stored shape is not the inferred one");
            }
        }
        if let Some(id) = self.effects.iter().find(|id| !self.node(**id).op.changes()) {
            let message = "is run for an effect that it does not have".into();
            return Err(ShapeError { op: self.node(*id).op.name(), message });
        }
        match self.outputs.iter().find(|(_, id)| self.dag.node_weight(*id).is_none()) {
            Some((name, _)) => Err(ShapeError { op: "output", message: format!("`{name}` names no node") }),
            None => Ok(()),
        }
    }
}
