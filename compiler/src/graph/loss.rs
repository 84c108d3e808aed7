//! Losses of training as operations: what they compare, and how their terms are weighed.

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
    /// T^2 KL(q || p)
    ReverseKl { temperature: f64 },
    /// T^2 (beta KL(p || m) + (1 - beta) KL(q || m)), m = beta p + (1 - beta) q
    Js { beta: f64, temperature: f64 },
    /// -log q of the token that follows; the last position of a sequence has none.
    CrossEntropy,
}

impl HeadLoss {
    pub fn needs_teacher(self) -> bool {
        self != HeadLoss::CrossEntropy
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
            HeadLoss::ReverseKl { temperature } => write!(f, "{weight}*reverse_kl(T={temperature})")?,
            HeadLoss::Js { beta, temperature } => write!(f, "{weight}*js(beta={beta}, T={temperature})")?,
            HeadLoss::CrossEntropy => write!(f, "{weight}*cross_entropy")?,
        }
        write!(f, "/{}", 1.0 / scale)
    }
}

/// Some term compares with a teacher.
pub fn reads_teacher(terms: &[HeadTerm]) -> bool {
    terms.iter().any(|term| term.loss.needs_teacher())
}
