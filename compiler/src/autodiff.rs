//! Reverse mode: appends to a graph with losses what adds up the gradients of its weights.
//!
//! Losses make their own gradients ([`Op::HeadLoss`], [`Op::StreamLoss`]). From there the pass walks the graph
//! backwards, once, at compile time: every operation has one hand-written rule, a vector-Jacobian product, below.
//! What a rule reads of the forward pass is either kept until then or computed again, as [`Recompute`] says;
//! kernels are pure, so that changes no bit.

use crate::dim::{Dim, Extent, Part};
use crate::graph::{Builder, Op, ShapeError, ValueId};
use std::collections::BTreeMap;

/// Which values of the forward pass are computed again for the backward pass instead of being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    Nothing,
    /// Norms, convolutions and activation functions, which cost little beside the products around them.
    Cheap,
    /// Everything but the streams between blocks: one more forward pass, and the least memory.
    Blocks,
}

impl Recompute {
    fn keeps(self, op: &Op) -> bool {
        match self {
            Recompute::Nothing => true,
            Recompute::Cheap => {
                matches!(op, Op::Embed | Op::Linear { .. } | Op::Ssd { .. } | Op::Attention { .. })
            }
            Recompute::Blocks => matches!(op, Op::Embed | Op::Linear { residual: true, .. }),
        }
    }
}

/// Appends the backward pass. `seeds` are values with their gradients; several of one value are added.
pub fn reverse(
    b: &mut Builder,
    seeds: &[(ValueId, ValueId)],
    recompute: Recompute,
) -> Result<(), ShapeError> {
    let mut pass =
        Reverse { b, recompute, whole: BTreeMap::new(), parts: BTreeMap::new(), again: BTreeMap::new() };
    for &(value, gradient) in seeds {
        pass.add(value, gradient);
    }
    // A node's readers come after it, so its gradient is complete when the walk gets there.
    while let Some(id) = pass.last() {
        pass.node(id)?;
    }
    Ok(())
}

struct Reverse<'a> {
    b: &'a mut Builder,
    recompute: Recompute,
    /// Gradients of values that are not yet passed on.
    whole: BTreeMap<ValueId, ValueId>,
    /// Gradients of parts of a value, by the names of the parts.
    parts: BTreeMap<ValueId, Vec<(String, ValueId)>>,
    /// Values of the forward pass that are computed again.
    again: BTreeMap<ValueId, ValueId>,
}

impl Reverse<'_> {
    fn last(&self) -> Option<ValueId> {
        let whole = self.whole.last_key_value().map(|(id, _)| *id);
        whole.max(self.parts.last_key_value().map(|(id, _)| *id))
    }

    fn op(&self, id: ValueId) -> &Op {
        &self.b.graph().node(id).op
    }

    fn fail<T>(&self, id: ValueId, message: impl Into<String>) -> Result<T, ShapeError> {
        Err(ShapeError { op: self.op(id).name(), message: message.into() })
    }

    /// One more contribution to the gradient of a value. Weights add up their own; data have none.
    fn add(&mut self, value: ValueId, gradient: ValueId) {
        let sum = match self.whole.remove(&value) {
            Some(before) => self.b.add_op(Op::Add, &[before, gradient]),
            None => gradient,
        };
        self.whole.insert(value, sum);
    }

    /// The gradient of a value by all that read it.
    fn gradient(&mut self, id: ValueId) -> Result<ValueId, ShapeError> {
        if let Some(parts) = self.parts.remove(&id) {
            let sum = self.concat(id, parts)?;
            self.add(id, sum);
        }
        match self.whole.remove(&id) {
            Some(gradient) => Ok(gradient),
            None => self.fail(id, "has no gradient"),
        }
    }

    /// The gradient of a value of which parts were read. A run of parts that lies side by side in one value
    /// already, as those of a convolution do in the gradient of a scan, is a view.
    fn concat(&mut self, id: ValueId, parts: Vec<(String, ValueId)>) -> Result<ValueId, ShapeError> {
        let Some(extent) = self.b.extent(id).cloned() else { return self.fail(id, "has no columns") };
        let mut placed = Vec::new();
        for (name, gradient) in parts {
            match extent.run(&name) {
                Some((at, run)) => placed.push((at, run.size(), gradient)),
                None => return self.fail(id, format!("no part `{name}`")),
            }
        }
        placed.sort_by_key(|(at, ..)| *at);
        let mut end = 0;
        let mut pieces: Vec<ValueId> = Vec::new();
        for (at, size, gradient) in placed {
            if at != end {
                return self.fail(id, "its parts are not read each once");
            }
            end = at + size;
            let joined = pieces.last().and_then(|&before| self.join(before, gradient));
            if joined.is_some() {
                pieces.pop();
            }
            pieces.push(joined.unwrap_or(gradient));
        }
        if end != extent.size() {
            return self.fail(id, "a part is read by nobody");
        }
        if let [piece] = pieces[..] {
            return Ok(piece);
        }
        let width = |piece: &ValueId| self.b.extent(*piece).map_or(0, Extent::size);
        let part = |piece: &ValueId| Part::new(&format!("%{}", piece.index()), &[(Dim::One, width(piece))]);
        let extent = Extent::concat(pieces.iter().map(part).collect());
        Ok(self.b.add_op(Op::Concat { extent }, &pieces))
    }

    /// Two neighbouring parts of one value as one.
    fn join(&mut self, left: ValueId, right: ValueId) -> Option<ValueId> {
        let (Op::Part { name: first }, Op::Part { name: second }) = (self.op(left), self.op(right)) else {
            return None;
        };
        let both = format!("{first}|{second}");
        let (of_left, of_right) = (self.b.graph().operands(left)[0], self.b.graph().operands(right)[0]);
        let is_run = of_left == of_right && self.b.extent(of_left)?.run(&both).is_some();
        is_run.then(|| self.b.part(of_left, &both))
    }

    /// A value of the forward pass, where the backward pass reads it.
    fn need(&mut self, id: ValueId) -> ValueId {
        let op = self.op(id).clone();
        if op.is_leaf() || self.recompute.keeps(&op) {
            return id;
        }
        if let Some(&again) = self.again.get(&id) {
            return again;
        }
        let operands = self.b.graph().operands(id);
        let again: Vec<ValueId> = operands.iter().map(|&o| self.need(o)).collect();
        let is_view = op.is_view();
        let value = if is_view && again == operands { id } else { self.b.add_op(op, &again) };
        self.again.insert(id, value);
        value
    }

    /// Passes the gradient of one value on to its operands.
    fn node(&mut self, id: ValueId) -> Result<(), ShapeError> {
        let (op, operands) = (self.op(id).clone(), self.b.graph().operands(id));
        if let Op::Part { name } = op {
            let gradient = self.gradient(id)?;
            self.parts.entry(operands[0]).or_default().push((name, gradient));
            return Ok(());
        }
        let dy = self.gradient(id)?;
        match op {
            Op::Tokens | Op::Input { .. } | Op::Weight { .. } => {}
            Op::Embed => _ = self.accumulate(Op::EmbedGrad, &[operands[0], dy], operands[1]),
            Op::RmsNorm { eps, .. } => self.rms_norm(eps, &operands, dy),
            Op::Linear { bias, residual } => self.linear(bias, residual, &operands, dy),
            Op::ConvSilu { kernel, bias } => self.conv_silu(kernel, bias, &operands, dy),
            Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
                self.ssd(Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi }, &operands, dy);
            }
            Op::GatedNorm { groups, eps, .. } => self.gated_norm(groups, eps, &operands, dy),
            Op::Activation(activation) => {
                let x = self.need(operands[0]);
                let dx = self.b.add_op(Op::ActivationGrad(activation), &[x, dy]);
                self.add(operands[0], dx);
            }
            Op::Attention { heads, kv_heads, head_dim } => {
                let mut read: Vec<ValueId> = operands.iter().map(|&o| self.need(o)).collect();
                read.extend([self.need(id), dy]);
                let gradients = self.b.add_op(Op::AttentionGrad { heads, kv_heads, head_dim }, &read);
                self.pass_parts(gradients, &[("q", operands[0]), ("k", operands[1]), ("v", operands[2])]);
            }
            Op::Add => operands.iter().for_each(|&o| self.add(o, dy)),
            _ => return self.fail(id, "has no reverse"),
        }
        Ok(())
    }

    fn accumulate(&mut self, op: Op, operands: &[ValueId], weight: ValueId) -> ValueId {
        let gradient = self.b.gradient(weight);
        let operands: Vec<ValueId> = operands.iter().copied().chain([gradient]).collect();
        self.b.add_op(op, &operands)
    }

    fn pass_parts(&mut self, gradients: ValueId, to: &[(&str, ValueId)]) {
        for (name, operand) in to {
            let part = self.b.part(gradients, name);
            self.add(*operand, part);
        }
    }

    /// y = x / rms(x) * w. What the stream beside the block has is added to at once.
    fn rms_norm(&mut self, eps: f64, operands: &[ValueId], dy: ValueId) {
        let (x, weight) = (self.need(operands[0]), operands[1]);
        self.accumulate(Op::RmsNormWeightGrad { eps }, &[x, dy], weight);
        let beside = self.whole.remove(&operands[0]);
        let read: Vec<ValueId> = [x, weight, dy].into_iter().chain(beside).collect();
        let dx = self.b.add_op(Op::RmsNormGrad { eps, onto: beside.is_some() }, &read);
        self.add(operands[0], dx);
    }

    /// y = r + x W^T + b: dW = dy^T x, db = sum dy, dr = dy, dx = dy W.
    fn linear(&mut self, bias: bool, residual: bool, operands: &[ValueId], dy: ValueId) {
        let (x, weight) = (self.need(operands[0]), operands[1]);
        self.accumulate(Op::LinearWeightGrad, &[dy, x], weight);
        if bias {
            self.accumulate(Op::ColumnSum, &[dy], operands[2]);
        }
        let dx = self.b.add_op(Op::LinearGrad, &[dy, weight]);
        if residual {
            self.add(operands[2 + usize::from(bias)], dy);
        }
        self.add(operands[0], dx);
    }

    /// y = silu(s), s = conv(x, w) + b.
    fn conv_silu(&mut self, kernel: usize, bias: bool, operands: &[ValueId], dy: ValueId) {
        let (x, weight) = (self.need(operands[0]), operands[1]);
        let read: Vec<ValueId> =
            [x, weight].into_iter().chain(bias.then(|| operands[2])).chain([dy]).collect();
        let ds = self.b.add_op(Op::SiluGrad { kernel, bias }, &read);
        self.accumulate(Op::ConvWeightGrad { kernel }, &[x, ds], weight);
        if bias {
            self.accumulate(Op::ColumnSum, &[ds], operands[2]);
        }
        let dx = self.b.add_op(Op::ConvGrad { kernel }, &[ds, weight]);
        self.add(operands[0], dx);
    }

    /// Operands are x, dt, B, C, dt_bias, A_log, D. dt_bias is added to dt, so that their gradients are one.
    fn ssd(&mut self, op: Op, operands: &[ValueId], dy: ValueId) {
        let read: Vec<ValueId> = operands.iter().map(|&o| self.need(o)).chain([dy]).collect();
        let gradients = self.b.add_op(op, &read);
        for (name, weight) in [("dt", operands[4]), ("A_log", operands[5]), ("D", operands[6])] {
            let part = self.b.part(gradients, name);
            self.accumulate(Op::ColumnSum, &[part], weight);
        }
        let [x, dt, b, c] = [0, 1, 2, 3].map(|i| operands[i]);
        self.pass_parts(gradients, &[("x", x), ("B", b), ("C", c), ("dt", dt)]);
    }

    /// v = y silu(z), normed by groups, times w.
    fn gated_norm(&mut self, groups: usize, eps: f64, operands: &[ValueId], dv: ValueId) {
        let [y, z] = [0, 1].map(|i| self.need(operands[i]));
        let weight = operands[2];
        self.accumulate(Op::GatedNormWeightGrad { groups, eps }, &[y, z, dv], weight);
        let gradients = self.b.add_op(Op::GatedNormGrad { groups, eps }, &[y, z, weight, dv]);
        self.pass_parts(gradients, &[("y", operands[0]), ("z", operands[1])]);
    }
}

#[cfg(test)]
mod tests;
