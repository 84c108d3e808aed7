//! `cross_entropy()`: -log q of the token that follows in the data

use super::{Loss, Term};
use crate::graph::HeadLoss;

pub const LOSS: Loss = Loss {
    name: "cross_entropy",
    also: &["ce", "nll", "lm_loss", "cross_entropy_loss"],
    arguments: &[],
    needs_teacher: false,
    doc: "-log q of the token that follows in the data",
    build: |_| Term::Head(HeadLoss::CrossEntropy),
};
