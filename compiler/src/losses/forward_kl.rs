//! `forward_kl(temperature = T, top_k = K)`: T^2 sum(p log(p / q)): the teacher's tokens are covered

use super::common::{TEMPERATURE, temperature};
use super::{Loss, Term};
use crate::check::{Accepts, Argument, Default};
use crate::graph::{HeadLoss, TopK};

pub const LOSS: Loss = Loss {
    name: "forward_kl",
    also: &["kl", "kld", "kl_div", "kl_divergence", "kd", "logits"],
    arguments: &[
        TEMPERATURE,
        Argument {
            name: "top_k",
            accepts: Accepts::Count,
            default: Default::Absent,
            doc: "the teacher's likeliest tokens, which are written down once; all others are one class",
        },
    ],
    needs_teacher: true,
    doc: "T^2 sum(p log(p / q)): the teacher's tokens are covered",
    build: |given| {
        let temperature = temperature(given);
        Term::Head(match given.get("top_k") {
            Some(k) => HeadLoss::TopK(TopK { k: k as usize, temperature }),
            None => HeadLoss::ForwardKl { temperature },
        })
    },
};
