//! `reverse_kl(temperature = T)`: T^2 sum(q log(q / p)): the student keeps to what the teacher finds likely

use super::common::{TEMPERATURE, temperature};
use super::{Loss, Term};
use crate::graph::HeadLoss;

pub const LOSS: Loss = Loss {
    name: "reverse_kl",
    also: &["rkl", "kl_reverse"],
    arguments: &[TEMPERATURE],
    needs_teacher: true,
    doc: "T^2 sum(q log(q / p)): the student keeps to what the teacher finds likely",
    build: |given| Term::Head(HeadLoss::ReverseKl { temperature: temperature(given) }),
};
