//! `axis hidden_size`: channels of the residual stream (paper eq. 27), one ranking for the model

use super::{Axis, Scope};
use crate::dim::Dim;

pub const AXIS: Axis = Axis {
    name: "hidden_size",
    dim: Dim::HiddenSize,
    scope: Scope::Model,
    taps: &["norm.out"],
    doc: "channels of the residual stream (paper eq. 27), one ranking for the model",
};
