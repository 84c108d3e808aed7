//! The Mamba2 mixer: state space duality (arXiv:2405.21060), as Minitron-SSM writes it (arXiv:2504.11409,
//! equations 5-14).
//!
//! | here | paper | |
//! |---|---|---|
//! | E | d_e | hidden channels |
//! | H | m_h | heads |
//! | P | m_d | channels of a head |
//! | G | g | groups; the heads of one group share B and C |
//! | N | d_s | states |
//! | I | m_h m_d | inner width, H*P, heads outermost |
//! | K | | taps of the convolution |
//! | L | | positions |

use super::Scope;
use crate::dim::{Dim, Extent, Part};
use crate::graph::{Builder, Op, ValueId};
use crate::model::{ModelDesc, Role, Weight};

struct Extents {
    /// (E)
    hidden: Extent,
    /// (I)
    inner: Extent,
    /// (H)
    heads: Extent,
    /// Rows of in_proj: z | x | B | C | dt.
    zxbcdt: Extent,
    /// Channels of the convolution: x | B | C.
    xbc: Extent,
    /// (K)
    taps: Extent,
}

fn extents(desc: &ModelDesc) -> Extents {
    let sized = |dim| (dim, desc.size(dim));
    let (h, p) = (sized(Dim::MambaNumHeads), sized(Dim::MambaHeadDim));
    let (g, n) = (sized(Dim::NGroups), sized(Dim::SsmStateSize));
    let inner = |name| Part::new(name, &[h, p]);
    let states = |name| Part::new(name, &[g, n]);
    Extents {
        hidden: Extent::of(Dim::HiddenSize, desc.size(Dim::HiddenSize)),
        inner: Extent::concat(vec![inner("inner")]),
        heads: Extent::of(h.0, h.1),
        zxbcdt: Extent::concat(vec![inner("z"), inner("x"), states("B"), states("C"), Part::new("dt", &[h])]),
        xbc: Extent::concat(vec![inner("x"), states("B"), states("C")]),
        taps: Extent::of(Dim::ConvKernel, desc.size(Dim::ConvKernel)),
    }
}

/// The weights of one mixer.
pub fn weights(desc: &ModelDesc, at: &Scope) -> Vec<Weight> {
    let Extents { hidden, inner, heads, zxbcdt, xbc, taps } = extents(desc);
    let mut table = vec![
        at.weight("in_proj.weight", Role::InProj, vec![zxbcdt.clone(), hidden.clone()]),
        at.weight("conv1d.weight", Role::Conv, vec![xbc.clone(), Extent::of(Dim::One, 1), taps]),
        at.weight("dt_bias", Role::PerHead, vec![heads.clone()]),
        at.weight("A_log", Role::PerHead, vec![heads.clone()]),
        at.weight("D", Role::PerHead, vec![heads]),
        at.weight("norm.weight", Role::GatedNorm, vec![inner.clone()]),
        at.weight("out_proj.weight", Role::OutProj, vec![hidden.clone(), inner]),
    ];
    if desc.biases.conv {
        table.push(at.weight("conv1d.bias", Role::Conv, vec![xbc]));
    }
    if desc.biases.mixer {
        table.push(at.weight("in_proj.bias", Role::Bias, vec![zxbcdt]));
        table.push(at.weight("out_proj.bias", Role::Bias, vec![hidden]));
    }
    table
}

/// stream + Mamba2(u), u the normalised stream.
pub fn forward(b: &mut Builder, desc: &ModelDesc, at: &Scope, stream: ValueId, u: ValueId) -> ValueId {
    let Extents { hidden, inner, heads, zxbcdt, xbc, taps } = extents(desc);
    let one = Extent::of(Dim::One, 1);
    let in_proj = at.load(b, "in_proj.weight", &[&zxbcdt, &hidden]); // (2I+2GN+H, E)
    let in_bias = desc.biases.mixer.then(|| at.load(b, "in_proj.bias", &[&zxbcdt]));
    let conv = at.load(b, "conv1d.weight", &[&xbc, &one, &taps]); // (I+2GN, 1, K)
    let conv_bias = desc.biases.conv.then(|| at.load(b, "conv1d.bias", &[&xbc]));
    let dt_bias = at.load(b, "dt_bias", &[&heads]);
    let a_log = at.load(b, "A_log", &[&heads]);
    let d = at.load(b, "D", &[&heads]);
    let norm = at.load(b, "norm.weight", &[&inner]);
    let out_proj = at.load(b, "out_proj.weight", &[&hidden, &inner]); // (E, I)
    let out_bias = desc.biases.mixer.then(|| at.load(b, "out_proj.bias", &[&hidden]));

    // Eqs 5-9: z, x, B, C, dt of one fused projection.
    let zxbcdt = b.linear(u, in_proj, in_bias); // (L, 2I+2GN+H)
    let z = b.part(zxbcdt, "z"); // (L, I)
    let x = b.part(zxbcdt, "x"); // (L, I)
    b.tap("mamba.z", z);
    b.tap("mamba.x", x);
    let dt = b.part(zxbcdt, "dt"); // (L, H)

    // Eqs 10-12: one depthwise convolution over x | B | C, then SiLU.
    let raw = b.part(zxbcdt, "x|B|C"); // (L, I+2GN)
    let xbc = b.conv_silu(raw, conv, conv_bias, desc.size(Dim::ConvKernel)); // (L, I+2GN)
    let x = b.part(xbc, "x"); // (L, I)
    let b_states = b.part(xbc, "B"); // (L, G*N)
    let c_states = b.part(xbc, "C"); // (L, G*N)

    // Eq. 13: y = SSM(x, B, C, A, D, dt).
    let scan = Op::Ssd {
        heads: desc.size(Dim::MambaNumHeads),
        head_dim: desc.size(Dim::MambaHeadDim),
        groups: desc.size(Dim::NGroups),
        state: desc.size(Dim::SsmStateSize),
        dt_lo: desc.dt.lo,
        dt_hi: desc.dt.hi,
    };
    let y = b.ssd(scan, [x, dt, b_states, c_states, dt_bias, a_log, d]); // (L, I)

    // Eq. 14: gate, then RMSNorm over each group's I/G channels, then the output projection.
    let v = b.gated_norm(y, z, norm, desc.size(Dim::NGroups), desc.eps); // (L, I)
    b.tap("mamba.out", v);
    b.linear_onto(stream, v, out_proj, out_bias) // (L, E)
}
