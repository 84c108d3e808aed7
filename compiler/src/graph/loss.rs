//! Losses of training as operations: what they compare, and how their terms are weighed.

use crate::dim::{Dim, Extent, Part};
use std::fmt;

/// One term over the student's logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadTerm {
    /// As the recipe weighs it.
    pub weight: f64,
    /// 1 / the positions of one optimizer update, so that the gradient is that of a mean.
    pub scale: f64,
    pub loss: HeadLoss,
}

/// A loss of one position in nats: p is the teacher's distribution, q the student's, both at the temperature;
/// terms with a temperature are multiplied by its square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeadLoss {
    /// T^2 KL(p || q)
    ForwardKl { temperature: f64 },
    /// T^2 (sum over K of p ln(p / q) + (1 - P) ln((1 - P) / (1 - Q))), with K the teacher's targets and P and Q
    /// the sums of p and q over K: the KL in which all other tokens are one class.
    TopK(TopK),
    /// T^2 KL(q || p)
    ReverseKl { temperature: f64 },
    /// T^2 (beta KL(p || m) + (1 - beta) KL(q || m)), m = beta p + (1 - beta) q
    Js { beta: f64, temperature: f64 },
    /// -log q of the token that follows; the last position of a sequence has none.
    CrossEntropy,
}

impl HeadLoss {
    /// Reads the teacher's logits as they are made.
    pub fn needs_teacher(self) -> bool {
        self.targets().is_none() && self != HeadLoss::CrossEntropy
    }

    /// What it reads of the teacher where that was written down before.
    pub fn targets(self) -> Option<TopK> {
        match self {
            HeadLoss::TopK(targets) => Some(targets),
            _ => None,
        }
    }
}

/// A teacher's targets at one position: its k likeliest tokens at a temperature, and the probability of the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    pub k: usize,
    pub temperature: f64,
}

impl TopK {
    /// Ids, which f32 has as they are up to [`TopK::MOST_TOKENS`], natural logarithms of probabilities, both from
    /// the likeliest token on, and the probability of all other tokens together.
    pub fn columns(self) -> Extent {
        let part = |name: &str, n| Part::new(name, &[(Dim::One, n)]);
        Extent::concat(vec![part("ids", self.k), part("log_p", self.k), part("rest", 1)])
    }

    /// The largest vocabulary whose ids are whole numbers of f32.
    pub const MOST_TOKENS: usize = 1 << 24;

    /// What the input of a graph that holds them is called: `teacher top 64 at T=1`.
    pub fn input(self) -> String {
        format!("teacher {self}")
    }

    /// Those of a vocabulary that may have fewer tokens.
    pub fn of(self, vocab: usize) -> TopK {
        TopK { k: self.k.min(vocab), ..self }
    }
}

impl fmt::Display for TopK {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "top {} at T={}", self.k, self.temperature)
    }
}

/// A loss of one position between two streams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamLoss {
    /// Mean over the channels of the squared difference.
    Mse,
    /// 1 - cosine
    Cosine,
}

impl fmt::Display for HeadTerm {
    /// `0.9*forward_kl(T=2)/4096`, the positions of an update last.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let HeadTerm { weight, scale, loss } = self;
        match loss {
            HeadLoss::ForwardKl { temperature } => write!(f, "{weight}*forward_kl(T={temperature})")?,
            HeadLoss::TopK(TopK { k, temperature }) => {
                write!(f, "{weight}*forward_kl(T={temperature}, k={k})")?
            }
            HeadLoss::ReverseKl { temperature } => write!(f, "{weight}*reverse_kl(T={temperature})")?,
            HeadLoss::Js { beta, temperature } => write!(f, "{weight}*js(beta={beta}, T={temperature})")?,
            HeadLoss::CrossEntropy => write!(f, "{weight}*cross_entropy")?,
        }
        write!(f, "/{}", 1.0 / scale)
    }
}

/// Some term reads the teacher's logits.
pub fn reads_teacher(terms: &[HeadTerm]) -> bool {
    terms.iter().any(|term| term.loss.needs_teacher())
}

/// The targets that terms read, one for each such term, in their order.
pub fn targets_of(terms: &[HeadTerm]) -> impl Iterator<Item = TopK> + '_ {
    terms.iter().filter_map(|term| term.loss.targets())
}
