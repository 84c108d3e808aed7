//! The compiler of recipes: names and units resolved, a plan over stages, tensor graphs and their schedules.
//!
//! Pure: no input, no output, no clock (`clippy.toml` bans the calls). It is called; it calls nobody. Points of spaces are
//! judged by the threads of rayon, and put together in their order.

pub mod assist;
pub mod autodiff;
pub mod axes;
pub mod check;
pub mod config;
pub mod cost;
pub mod cut;
pub mod dim;
pub mod families;
pub mod forward;
pub mod graph;
pub mod hir;
pub mod init;
pub mod losses;
pub mod lower;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod pareto;
pub mod passes;
pub mod plan;
pub mod schedule;
pub mod space;
pub mod targets;
pub mod text;
