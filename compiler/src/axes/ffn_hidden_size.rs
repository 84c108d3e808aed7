//! `axis ffn_hidden_size`: neurons of the feed-forward blocks (paper eq. 26), ranked in each layer

use super::{Axis, Scope};
use crate::dim::Dim;
use crate::model::LayerKind;

pub const AXIS: Axis = Axis {
    name: "ffn_hidden_size",
    dim: Dim::FfnHiddenSize,
    scope: Scope::Layer(LayerKind::Mlp),
    taps: &["ffn.up", "ffn.act"],
    doc: "neurons of the feed-forward blocks (paper eq. 26), ranked in each layer",
};
