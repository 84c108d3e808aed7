//! `axis mamba_num_heads`: Mamba heads (paper eq. 22-24), the same number in every SSM group

use super::{Axis, Scope};
use crate::dim::Dim;
use crate::model::LayerKind;

pub const AXIS: Axis = Axis {
    name: "mamba_num_heads",
    also: &["mamba_heads", "num_heads", "n_heads", "nheads", "num_mamba_heads", "ssm_heads", "heads"],
    dim: Dim::MambaNumHeads,
    scope: Scope::Layer(LayerKind::Mamba),
    taps: &["mamba.x", "mamba.z", "mamba.out"],
    doc: "Mamba heads (paper eq. 22-24), the same number in every SSM group",
};
