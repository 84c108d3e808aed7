//! Importance metrics as expressions, compiled to streaming reductions.
//!
//! `metric flap(x, w) = variance(x, over = tokens) * l2(w) * l2(w)` reads the activation x [batch, sequence,
//! element] of a tap, and the weight w [element, other side] beside it, and gives one score per element.
//! A [`Program`] reduces each sample by itself (a [`Partial`]), merges partials in pairs, and finishes with
//! the statistics of the weight. How samples are batched never enters.

mod expr;
mod functions;
mod lower;
mod partial;
mod rankings;
mod reducers;
mod typing;

pub use expr::{Block, Expr, LANES, Leaf};
pub use functions::{Binary, FUNCTIONS, Function, Unary};
pub use lower::{OVER, PARAMETERS, compile, compile_with, lint};
pub use partial::Partial;
pub use rankings::{LAYER_METRICS, LayerMetricName, RANKINGS, Ranking, RankingKind, layer_metric, ranking};
pub use reducers::{REDUCERS, Reducer, ReducerName, Reduction, State};

use std::fmt;

/// A compiled `metric NAME(x, w) = EXPR`. Equal reductions are there once.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub name: String,
    /// Over the positions of one sample, of x.
    pub sequence: Vec<Reduction>,
    /// Over the samples, of the results of `sequence`.
    pub batch: Vec<Reduction>,
    /// Over all positions of all samples at once, of x.
    pub tokens: Vec<Reduction>,
    /// Over the other side of the weight, of w.
    pub weight: Vec<Reduction>,
    /// Of the results of `batch`, `tokens` and `weight`.
    pub score: Expr,
}

impl Program {
    /// f64 numbers per element in one sample's partial: the states of `batch`, then those of `tokens`.
    pub fn slots(&self) -> usize {
        self.batch.iter().chain(&self.tokens).map(|r| r.reducer.width()).sum()
    }

    /// Whether activations are needed; without them the metric needs no data.
    pub fn uses_x(&self) -> bool {
        self.slots() > 0
    }

    /// Whether statistics of the weight are needed.
    pub fn uses_w(&self) -> bool {
        !self.weight.is_empty()
    }

    /// The meaning without the name: equal formulas compute equal scores.
    pub fn formula(&self) -> String {
        let mut text = String::new();
        let stages = [
            ("s", "sequence", &self.sequence),
            ("b", "batch", &self.batch),
            ("t", "tokens", &self.tokens),
            ("w", "other side", &self.weight),
        ];
        for (letter, over, reductions) in stages {
            for (i, reduction) in reductions.iter().enumerate() {
                text += &format!("{letter}{i} = {reduction} over {over}; ");
            }
        }
        text + &self.score.to_string()
    }
}

/// `activation: s0 = mean(abs(x)) over sequence; b0 = l2(s0) over batch; b0`
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.formula())
    }
}

#[cfg(test)]
mod tests;
