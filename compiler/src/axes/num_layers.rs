//! `axis num_layers`: whole layers, ranked by what the model loses without them

use super::{Axis, Scope};
use crate::dim::Dim;

pub const AXIS: Axis = Axis {
    name: "num_layers",
    also: &["n_layer", "n_layers", "num_hidden_layers", "layers", "depth", "num_blocks"],
    dim: Dim::NumLayers,
    scope: Scope::Depth,
    taps: &[],
    doc: "whole layers, ranked by what the model loses without them",
};
