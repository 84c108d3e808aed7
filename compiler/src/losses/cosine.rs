//! `cosine()`: 1 - cosine of the two models' logits

use super::Loss;

pub const LOSS: Loss =
    Loss { name: "cosine", arguments: &[], needs_teacher: true, doc: "1 - cosine of the two models' logits" };
