//! `js(beta = B, temperature = T)`: the generalised Jensen-Shannon divergence of arXiv:2306.13649.

use super::common::{TEMPERATURE, temperature};
use super::{Loss, Term};
use crate::check::{Accepts, Argument, Default};
use crate::graph::HeadLoss;

pub const LOSS: Loss = Loss {
    name: "js",
    also: &["jsd", "jensen_shannon"],
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
    build: |given| Term::Head(HeadLoss::Js { beta: given.number("beta"), temperature: temperature(given) }),
};
