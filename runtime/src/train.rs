//! Training: the rate of every update, and the update itself.

pub mod optimizer;
pub mod rate;
