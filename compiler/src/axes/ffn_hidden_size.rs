//! `axis ffn_hidden_size`: neurons of the feed-forward blocks (paper eq. 26), ranked in each layer

use super::{Axis, Scope};
use crate::dim::Dim;
use crate::model::LayerKind;

pub const AXIS: Axis = Axis {
    name: "ffn_hidden_size",
    also: &[
        "intermediate_size",
        "ffn_dim",
        "ffn_size",
        "d_ff",
        "d_mlp",
        "mlp_dim",
        "mlp_size",
        "n_inner",
        "feed_forward",
    ],
    dim: Dim::FfnHiddenSize,
    scope: Scope::Layer(LayerKind::Mlp),
    taps: &["ffn.up", "ffn.act"],
    doc: "neurons of the feed-forward blocks (paper eq. 26), ranked in each layer",
};
