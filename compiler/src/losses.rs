//! Losses of schedules: what a student is trained to make small.
//!
//! All are means over positions, in nats where they compare distributions: over those that have a next token
//! where that is what is predicted, else over all. `p` is the teacher's distribution over tokens and `q` the
//! student's, both at the temperature T; terms with a temperature are multiplied by T^2, so that their gradients
//! keep their size.

use crate::check::{Argument, Arguments};
use crate::graph::{HeadLoss, StreamLoss};

/// A term of a `loss = ..` line.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// As recipes write it.
    pub name: &'static str,
    /// As other programs call it.
    pub also: &'static [&'static str],
    pub arguments: &'static [Argument],
    /// Reads the teacher's logits; such a loss cannot stand in a schedule of `train`.
    pub needs_teacher: bool,
    pub doc: &'static str,
    pub build: fn(&Arguments) -> Term,
}

/// What a term computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// Of the student's logits, position by position.
    Head(HeadLoss),
    Streams(Streams),
}

/// A loss between residual streams: the mean over the student's layers that are listed, each with the teacher's
/// layer at the same place. A layer's stream is what it leaves to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Streams {
    pub loss: StreamLoss,
    /// `None`: all of the student's.
    pub layers: Option<Vec<usize>>,
    /// `None`: those from which the student's were cut.
    pub teacher_layers: Option<Vec<usize>>,
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
    use super::{Streams, Term};
    use crate::check::{Accepts, Argument, Arguments, Default};
    use crate::graph::StreamLoss;

    pub const TEMPERATURE: Argument = Argument {
        name: "temperature",
        accepts: Accepts::Positive,
        default: Default::Is(1.0),
        doc: "logits are divided by it before the softmax",
    };

    pub fn temperature(given: &Arguments) -> f64 {
        given.number(TEMPERATURE.name)
    }

    /// The arguments of losses between streams.
    pub const LAYERS: &[Argument] = &[
        Argument {
            name: "layers",
            accepts: Accepts::Layers,
            default: Default::Absent,
            doc: "the student's layers, by default all of them",
        },
        Argument {
            name: "teacher_layers",
            accepts: Accepts::Layers,
            default: Default::Absent,
            doc: "the teacher's layers, by default those that the student's were cut from",
        },
    ];

    pub fn streams(loss: StreamLoss, given: &Arguments) -> Term {
        let [layers, teacher_layers] = ["layers", "teacher_layers"].map(|name| given.layers(name));
        Term::Streams(Streams { loss, layers, teacher_layers })
    }
}
