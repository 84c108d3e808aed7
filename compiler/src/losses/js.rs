//! `js(beta = B, temperature = T)`: the generalised Jensen-Shannon divergence of arXiv:2306.13649.

use super::Loss;
use super::common::TEMPERATURE;
use crate::check::{Accepts, Argument, Default};

pub const LOSS: Loss = Loss {
    name: "js",
    arguments: &[
        Argument {
            name: "beta",
            accepts: Accepts::Fraction,
            default: Default::Is(0.5),
            doc: "the teacher's share of the mixture m",
        },
        TEMPERATURE,
    ],
    needs_teacher: true,
    doc: "T^2 (beta KL(p || m) + (1 - beta) KL(q || m)) with m = beta p + (1 - beta) q",
};
