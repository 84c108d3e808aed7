//! Causal grouped-query attention without positions (Nemotron-H, arXiv:2504.03624).
//!
//! E hidden channels, Hq query heads, Hkv key/value heads, d channels of a head, L positions.

use super::Scope;
use crate::dim::{Dim, Extent, Part};
use crate::graph::{Builder, Op, ValueId};
use crate::model::{ModelDesc, Role, Weight};

/// (E), (Hq*d), (Hkv*d)
fn extents(desc: &ModelDesc) -> (Extent, Extent, Extent) {
    let d = (Dim::AttentionHeadDim, desc.size(Dim::AttentionHeadDim));
    let heads = |dim| Extent::concat(vec![Part::new("heads", &[(dim, desc.size(dim)), d])]);
    let e = Extent::of(Dim::HiddenSize, desc.size(Dim::HiddenSize));
    (e, heads(Dim::NumAttentionHeads), heads(Dim::NumKeyValueHeads))
}

/// The weights of one block; attention has no bias in any supported family.
pub fn weights(desc: &ModelDesc, at: &Scope) -> Vec<Weight> {
    let (e, q, kv) = extents(desc);
    vec![
        at.weight("q_proj.weight", Role::QueryProj, vec![q.clone(), e.clone()]),
        at.weight("k_proj.weight", Role::KeyProj, vec![kv.clone(), e.clone()]),
        at.weight("v_proj.weight", Role::ValueProj, vec![kv, e.clone()]),
        at.weight("o_proj.weight", Role::OutputProj, vec![e, q]),
    ]
}

/// stream + W_o softmax(q k^T / sqrt(d)) v, causal, query head j reading key head j / (Hq / Hkv).
pub fn forward(b: &mut Builder, desc: &ModelDesc, at: &Scope, stream: ValueId, u: ValueId) -> ValueId {
    let (e, hq, hkv) = extents(desc);
    let w_q = at.load(b, "q_proj.weight", &[&hq, &e]); // (Hq*d, E)
    let w_k = at.load(b, "k_proj.weight", &[&hkv, &e]); // (Hkv*d, E)
    let w_v = at.load(b, "v_proj.weight", &[&hkv, &e]); // (Hkv*d, E)
    let w_o = at.load(b, "o_proj.weight", &[&e, &hq]); // (E, Hq*d)

    let q = b.linear(u, w_q, None); // (L, Hq*d)
    let k = b.linear(u, w_k, None); // (L, Hkv*d)
    let v = b.linear(u, w_v, None); // (L, Hkv*d)
    let op = Op::Attention {
        heads: desc.size(Dim::NumAttentionHeads),
        kv_heads: desc.size(Dim::NumKeyValueHeads),
        head_dim: desc.size(Dim::AttentionHeadDim),
    };
    let context = b.attention(op, q, k, v); // (L, Hq*d)
    b.tap("attention.out", context);
    b.linear_onto(stream, context, w_o, None) // (L, E)
}
