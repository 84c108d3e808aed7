//! `reverse_kl(temperature = T)`: T^2 sum(q log(q / p)): the student keeps to what the teacher finds likely

use super::Loss;
use super::common::TEMPERATURE;

pub const LOSS: Loss = Loss {
    name: "reverse_kl",
    arguments: &[TEMPERATURE],
    needs_teacher: true,
    doc: "T^2 sum(q log(q / p)): the student keeps to what the teacher finds likely",
};
