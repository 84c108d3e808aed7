//! Feed-forward block without a gate: y = W_down act(W_up u) (Nemotron-H, arXiv:2504.03624).
//!
//! E hidden channels, F neurons, L positions.

use super::Scope;
use crate::dim::{Dim, Extent};
use crate::graph::{Activation, Builder, ValueId};
use crate::model::{ModelDesc, Role, Weight};

fn extents(desc: &ModelDesc) -> (Extent, Extent) {
    let of = |dim| Extent::of(dim, desc.size(dim));
    (of(Dim::HiddenSize), of(Dim::FfnHiddenSize))
}

/// The weights of one block.
pub fn weights(desc: &ModelDesc, at: &Scope) -> Vec<Weight> {
    let (e, f) = extents(desc);
    let mut table = vec![
        at.weight("up_proj.weight", Role::UpProj, vec![f.clone(), e.clone()]),
        at.weight("down_proj.weight", Role::DownProj, vec![e.clone(), f.clone()]),
    ];
    if desc.biases.mlp {
        table.push(at.weight("up_proj.bias", Role::Bias, vec![f]));
        table.push(at.weight("down_proj.bias", Role::Bias, vec![e]));
    }
    table
}

/// stream + MLP(u), u the normalised stream.
pub fn forward(b: &mut Builder, desc: &ModelDesc, at: &Scope, stream: ValueId, u: ValueId) -> ValueId {
    let (e, f) = extents(desc);
    let up = at.load(b, "up_proj.weight", &[&f, &e]); // (F, E)
    let down = at.load(b, "down_proj.weight", &[&e, &f]); // (E, F)
    let up_bias = desc.biases.mlp.then(|| at.load(b, "up_proj.bias", &[&f]));
    let down_bias = desc.biases.mlp.then(|| at.load(b, "down_proj.bias", &[&e]));

    let h = b.linear(u, up, up_bias); // (L, F)
    b.tap("ffn.up", h);
    let a = b.activation(h, Activation::Relu2); // (L, F)
    b.tap("ffn.act", a);
    b.linear_onto(stream, a, down, down_bias) // (L, E)
}
