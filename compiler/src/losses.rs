//! Losses of schedules: what a student is trained to make small.
//!
//! All are means over the predicted positions, in nats where they compare distributions. `p` is the
//! teacher's distribution over tokens and `q` the student's, both at the temperature T; terms with a
//! temperature are multiplied by T^2, so that their gradients keep their size.

use crate::check::Argument;

/// A term of a `loss = ..` line.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// As recipes write it.
    pub name: &'static str,
    pub arguments: &'static [Argument],
    /// Reads the teacher's logits; such a loss cannot stand in a schedule of `train`.
    pub needs_teacher: bool,
    pub doc: &'static str,
}

pub mod cosine;
pub mod cross_entropy;
pub mod forward_kl;
pub mod js;
pub mod mse;
pub mod reverse_kl;

/// To add a loss: its file, its `mod` line, and its line here.
pub const LOSSES: &[Loss] =
    &[forward_kl::LOSS, reverse_kl::LOSS, js::LOSS, cross_entropy::LOSS, mse::LOSS, cosine::LOSS];

pub fn find(name: &str) -> Option<&'static Loss> {
    LOSSES.iter().find(|l| l.name == name)
}

pub(crate) mod common {
    use crate::check::{Accepts, Argument, Default};

    pub const TEMPERATURE: Argument = Argument {
        name: "temperature",
        accepts: Accepts::Positive,
        default: Default::Is(1.0),
        doc: "logits are divided by it before the softmax",
    };
}
