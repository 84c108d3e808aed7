//! `kernels`: the fused kernels of mamba_ssm and causal_conv1d (mamba#345, mamba#351).

use super::{Finding, Given, Target, inner, nearest, nearest_of, refused, size, slow};
use crate::check::Outline;
use crate::dim::Dim;

/// Widths in multiples of this run at the speed of the hardware.
const FAST: usize = 64;

/// Channels of the convolution come in multiples of this.
const CHANNELS: usize = 8;

pub const TARGET: Target = Target {
    name: "kernels",
    arguments: &[],
    check,
    doc: "mamba_ssm and causal_conv1d: convolution channels in multiples of 8, widths in multiples of 64 for speed",
};

fn check(model: &Outline, _: Given) -> Vec<Finding> {
    let mut found = Vec::new();
    let (heads, channels) = (size(model, Dim::MambaNumHeads), size(model, Dim::MambaHeadDim));
    let fixed = 2 * size(model, Dim::NGroups) * size(model, Dim::SsmStateSize);
    let convolved = inner(model) + fixed;
    if !convolved.is_multiple_of(CHANNELS) {
        let ways = vec![
            nearest(model, Dim::MambaNumHeads, |v| (v * channels + fixed).is_multiple_of(CHANNELS)),
            nearest(model, Dim::MambaHeadDim, |v| (v * heads + fixed).is_multiple_of(CHANNELS)),
        ];
        found.push(refused(
            format!("the convolution has {convolved} channels, no multiple of {CHANNELS}"),
            nearest_of(ways),
        ));
    }
    for dim in [Dim::HiddenSize, Dim::FfnHiddenSize] {
        let Some(own) = model.dim(dim).filter(|v| v % FAST != 0) else { continue };
        found.push(slow(
            format!("{dim} = {own} is no multiple of {FAST}"),
            nearest_of(vec![nearest(model, dim, |v| v % FAST == 0)]),
        ));
    }
    if !inner(model).is_multiple_of(FAST) {
        let ways = vec![
            nearest(model, Dim::MambaNumHeads, |v| v * channels % FAST == 0),
            nearest(model, Dim::MambaHeadDim, |v| v * heads % FAST == 0),
        ];
        found.push(slow(
            format!("heads x channels = {} is no multiple of {FAST}", inner(model)),
            nearest_of(ways),
        ));
    }
    found
}
