//! `forward_kl(temperature = T)`: T^2 sum(p log(p / q)): the teacher's tokens are covered

use super::common::{TEMPERATURE, temperature};
use super::{Loss, Term};
use crate::graph::HeadLoss;

pub const LOSS: Loss = Loss {
    name: "forward_kl",
    arguments: &[TEMPERATURE],
    needs_teacher: true,
    doc: "T^2 sum(p log(p / q)): the teacher's tokens are covered",
    build: |given| Term::Head(HeadLoss::ForwardKl { temperature: temperature(given) }),
};
