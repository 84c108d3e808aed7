//! `axis mamba_head_dim`: channels of every Mamba head (paper eq. 20-21), the same in all heads of a layer

use super::{Axis, Scope};
use crate::dim::Dim;
use crate::model::LayerKind;

pub const AXIS: Axis = Axis {
    name: "mamba_head_dim",
    also: &["head_dim", "headdim", "d_head", "mamba_head_size", "ssm_head_dim", "head_channels"],
    dim: Dim::MambaHeadDim,
    scope: Scope::Layer(LayerKind::Mamba),
    taps: &["mamba.x", "mamba.z", "mamba.out"],
    doc: "channels of every Mamba head (paper eq. 20-21), the same in all heads of a layer",
};
