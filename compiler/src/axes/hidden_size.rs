//! `axis hidden_size`: channels of the residual stream (paper eq. 27), one ranking for the model

use super::{Axis, Scope};
use crate::dim::Dim;

pub const AXIS: Axis = Axis {
    name: "hidden_size",
    also: &["d_model", "hidden_dim", "n_embd", "embed_dim", "embedding_size", "model_dim", "dim", "width"],
    dim: Dim::HiddenSize,
    scope: Scope::Model,
    taps: &["norm.out"],
    doc: "channels of the residual stream (paper eq. 27), one ranking for the model",
};
