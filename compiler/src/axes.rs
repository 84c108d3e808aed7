//! What can be pruned, and where activations are tapped to score it.

use crate::dim::Dim;
use crate::model::{LayerKind, Role};

/// Over what one ranking reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each layer of this kind is ranked by itself; all keep the same number.
    Layer(LayerKind),
    /// One ranking for the whole model; scores are summed over the taps of all layers.
    Model,
    /// The layers themselves are ranked, by a layer metric.
    Depth,
}

/// A prunable dimension.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// As recipes write it.
    pub name: &'static str,
    /// As other programs call it.
    pub also: &'static [&'static str],
    pub dim: Dim,
    pub scope: Scope,
    /// Taps that may score it, the default first; none for depth.
    pub taps: &'static [&'static str],
    pub doc: &'static str,
}

pub mod ffn_hidden_size;
pub mod hidden_size;
pub mod mamba_head_dim;
pub mod mamba_num_heads;
pub mod num_layers;

/// To add an axis: its file, its `mod` line, and its line here. Cuts are made in this order.
pub const AXES: &[Axis] = &[
    num_layers::AXIS,
    mamba_head_dim::AXIS,
    mamba_num_heads::AXIS,
    ffn_hidden_size::AXIS,
    hidden_size::AXIS,
];

pub fn find(name: &str) -> Option<&'static Axis> {
    AXES.iter().find(|a| a.name == name)
}

/// As other programs call a dimension that can be cut.
pub fn also(dim: Dim) -> &'static [&'static str] {
    AXES.iter().find(|a| a.dim == dim).map_or(&[], |a| a.also)
}

/// Which side of which weight stands for `w` at a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapWeight {
    /// Rows of the weight of this role, its part of that name (`None`: all rows).
    Rows(Role, Option<&'static str>),
    /// Columns of the weight of this role.
    Columns(Role),
    /// Columns of every matrix of the block that reads the residual stream (for the last norm: the head).
    Readers,
}

/// A named extra output of a block.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub name: &'static str,
    /// The factors of a score at this tap, outermost first.
    pub dims: &'static [Dim],
    /// The blocks that have it; `None`: every block, and the last norm.
    pub kind: Option<LayerKind>,
    pub weight: TapWeight,
    pub doc: &'static str,
}

const HEADS: &[Dim] = &[Dim::MambaNumHeads, Dim::MambaHeadDim];

pub const TAPS: &[Tap] = &[
    Tap {
        name: "mamba.x",
        dims: HEADS,
        kind: Some(LayerKind::Mamba),
        weight: TapWeight::Rows(Role::InProj, Some("x")),
        doc: "x part of in_proj's output, before the convolution",
    },
    Tap {
        name: "mamba.z",
        dims: HEADS,
        kind: Some(LayerKind::Mamba),
        weight: TapWeight::Rows(Role::InProj, Some("z")),
        doc: "z part of in_proj's output, the gate before its SiLU",
    },
    Tap {
        name: "mamba.out",
        dims: HEADS,
        kind: Some(LayerKind::Mamba),
        weight: TapWeight::Columns(Role::OutProj),
        doc: "input of out_proj, after the gated norm",
    },
    Tap {
        name: "ffn.up",
        dims: &[Dim::FfnHiddenSize],
        kind: Some(LayerKind::Mlp),
        weight: TapWeight::Rows(Role::UpProj, None),
        doc: "up_proj's output, before the activation function",
    },
    Tap {
        name: "ffn.act",
        dims: &[Dim::FfnHiddenSize],
        kind: Some(LayerKind::Mlp),
        weight: TapWeight::Columns(Role::DownProj),
        doc: "input of down_proj, after the activation function",
    },
    Tap {
        name: "norm.out",
        dims: &[Dim::HiddenSize],
        kind: None,
        weight: TapWeight::Readers,
        doc: "a block's normalised input, and the head's",
    },
    Tap {
        name: "attention.out",
        dims: &[Dim::NumAttentionHeads, Dim::AttentionHeadDim],
        kind: Some(LayerKind::Attention),
        weight: TapWeight::Columns(Role::OutputProj),
        doc: "input of o_proj",
    },
];

/// The matrix of a block that writes to the stream, by its role, and the tap of what it reads.
pub fn writer(kind: LayerKind) -> Option<(&'static Tap, Role)> {
    TAPS.iter().filter(|tap| tap.kind == Some(kind)).find_map(|tap| match tap.weight {
        TapWeight::Columns(role) => Some((tap, role)),
        TapWeight::Rows(..) | TapWeight::Readers => None,
    })
}

impl Axis {
    /// The tap of what the block's last matrix reads, where members of this axis are inputs of it.
    pub fn read_at(&self) -> Option<&'static Tap> {
        let Scope::Layer(kind) = self.scope else { return None };
        writer(kind).map(|(tap, _)| tap).filter(|tap| tap.dims.contains(&self.dim))
    }
}

pub fn find_tap(name: &str) -> Option<&'static Tap> {
    TAPS.iter().find(|t| t.name == name)
}
