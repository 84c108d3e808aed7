//! `mse(layers = [..], teacher_layers = [..])`: mean over the channels of the squared difference of two streams

use super::Loss;
use super::common::{LAYERS, streams};
use crate::graph::StreamLoss;

pub const LOSS: Loss = Loss {
    name: "mse",
    also: &["l2", "hidden_mse"],
    arguments: LAYERS,
    needs_teacher: true,
    doc: "squared difference of the streams after layers of both models, mean over the channels",
    build: |given| streams(StreamLoss::Mse, given),
};
