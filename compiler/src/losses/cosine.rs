//! `cosine(layers = [..], teacher_layers = [..])`: 1 - cosine of two streams

use super::Loss;
use super::common::{LAYERS, streams};
use crate::graph::StreamLoss;

pub const LOSS: Loss = Loss {
    name: "cosine",
    also: &["cosine_similarity", "cos"],
    arguments: LAYERS,
    needs_teacher: true,
    doc: "1 - cosine of the streams after layers of both models",
    build: |given| streams(StreamLoss::Cosine, given),
};
