//! `mse()`: mean squared difference of the two models' logits

use super::Loss;

pub const LOSS: Loss = Loss {
    name: "mse",
    arguments: &[],
    needs_teacher: true,
    doc: "mean squared difference of the two models' logits",
};
