//! `axis num_layers`: whole layers, ranked by what the model loses without them

use super::{Axis, Scope};
use crate::dim::Dim;

pub const AXIS: Axis = Axis {
    name: "num_layers",
    dim: Dim::NumLayers,
    scope: Scope::Depth,
    taps: &[],
    doc: "whole layers, ranked by what the model loses without them",
};
