//! `llama_cpp`: the inner width is a multiple of the number of states (llama.cpp#20335).

use super::{Finding, Given, Target, inner, nearest, nearest_of, refused, size};
use crate::check::Outline;
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "llama_cpp",
    arguments: &[],
    check,
    doc: "llama.cpp: heads x head_dim is a multiple of ssm_state_size",
};

fn check(model: &Outline, _: Given) -> Vec<Finding> {
    let (inner, states) = (inner(model), size(model, Dim::SsmStateSize).max(1));
    if inner % states == 0 {
        return Vec::new();
    }
    let (heads, channels) = (size(model, Dim::MambaNumHeads), size(model, Dim::MambaHeadDim));
    let ways = vec![
        nearest(model, Dim::MambaNumHeads, |v| v * channels % states == 0),
        nearest(model, Dim::MambaHeadDim, |v| v * heads % states == 0),
    ];
    vec![refused(
        format!("{heads} heads x {channels} channels = {inner} is no multiple of ssm_state_size = {states}"),
        nearest_of(ways),
    )]
}
