//! Loaders that a result must be accepted by: `deploy MODEL for hf, vllm(tensor_parallel = 4)`.

use crate::check::{Argument, Outline};
use crate::dim::Dim;

/// A loader, and what it refuses.
pub struct Target {
    /// As recipes write it.
    pub name: &'static str,
    pub arguments: &'static [Argument],
    /// What speaks against a model; the arguments are read by name.
    pub check: fn(&Outline, Given) -> Vec<Finding>,
    pub doc: &'static str,
}

/// The values of a target's arguments, by name.
pub type Given<'a> = &'a dyn Fn(&str) -> u64;

/// One thing that speaks against a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The loader fails; otherwise it is slow or needs care.
    pub refused: bool,
    pub message: String,
    pub help: String,
}

pub mod hf;
pub mod kernels;
pub mod llama_cpp;
pub mod vllm;

/// To add a target: its file, its `mod` line, and its line here.
pub const TARGETS: &[Target] = &[hf::TARGET, vllm::TARGET, llama_cpp::TARGET, kernels::TARGET];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

fn refused(message: String, help: String) -> Finding {
    Finding { refused: true, message, help }
}

fn slow(message: String, help: String) -> Finding {
    Finding { refused: false, message, help }
}

fn size(model: &Outline, dim: Dim) -> usize {
    model.dim(dim).unwrap_or(0)
}

/// Heads x channels of the Mamba mixers.
fn inner(model: &Outline) -> usize {
    size(model, Dim::MambaNumHeads) * size(model, Dim::MambaHeadDim)
}

/// "`mamba_num_heads` 112 or 128": sizes near the model's own, in either direction, that satisfy a rule.
fn nearest(model: &Outline, dim: Dim, fits: impl Fn(usize) -> bool) -> Option<String> {
    let own = model.dim(dim)?;
    let grouped = |v: usize| dim.within().and_then(|o| model.dim(o)).is_none_or(|n| v.is_multiple_of(n));
    let fits = |v: &usize| grouped(*v) && fits(*v);
    let below = (1..own).rev().find(&fits);
    let above = (own + 1..=own.saturating_mul(2)).find(&fits);
    let near: Vec<String> = [below, above].into_iter().flatten().map(|v| v.to_string()).collect();
    (!near.is_empty()).then(|| format!("`{dim}` {}", near.join(" or ")))
}

fn nearest_of(ways: Vec<Option<String>>) -> String {
    let ways: Vec<String> = ways.into_iter().flatten().collect();
    if ways.is_empty() {
        "no size near it fits".into()
    } else {
        format!("nearest that fit: {}", ways.join(", or "))
    }
}
