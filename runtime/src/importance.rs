//! Importance: from partials of samples to scores, and from scores to what a cut keeps.
//!
//! Pure functions. The pass over the calibration set is the executor's; the numbers that it brings are merged
//! by [`crate::tree::Tree`], finished by the metric's program, and ranked here (arXiv:2504.11409, section 2).

mod depth;
mod elimination;
mod rank;
mod scores;
mod weights;

pub use depth::{DepthError, DepthRule};
pub use elimination::Elimination;
pub use rank::{AxisScores, RankError, Ranking, Table, choose, choose_by};
pub use scores::{Scores, random, reversed};

pub use weights::{Side, Source, Statistics, sources};

#[cfg(test)]
mod tests;
