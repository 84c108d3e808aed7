//! `vllm(tensor_parallel = T)`: every width is split over T devices (vllm#13660).

use super::{Finding, Given, Target, nearest, nearest_of, refused, size};
use crate::check::{Accepts, Argument, Default, Outline};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "vllm",
    arguments: &[Argument {
        name: "tensor_parallel",
        accepts: Accepts::Count,
        default: Default::Is(1.0),
        doc: "devices that share every layer",
    }],
    check,
    doc: "vLLM: heads, neurons and SSM groups divide by the number of devices",
};

fn check(model: &Outline, argument: Given) -> Vec<Finding> {
    let devices = usize::try_from(argument("tensor_parallel")).unwrap_or(usize::MAX).max(1);
    let mut found = Vec::new();
    let groups = size(model, Dim::NGroups);
    if groups > 1 && !groups.is_multiple_of(devices) {
        found.push(refused(
            format!("{groups} SSM groups cannot be split over {devices} devices"),
            format!("`tensor_parallel` must divide {groups}"),
        ));
    }
    for dim in [Dim::MambaNumHeads, Dim::NumAttentionHeads, Dim::FfnHiddenSize] {
        let Some(own) = model.dim(dim).filter(|v| v % devices != 0) else { continue };
        let help = match dim {
            Dim::NumAttentionHeads => format!("`tensor_parallel` must divide {own}"),
            _ => nearest_of(vec![nearest(model, dim, |v| v % devices == 0)]),
        };
        found.push(refused(format!("{dim} = {own} cannot be split over {devices} devices"), help));
    }
    let keys = size(model, Dim::NumKeyValueHeads);
    // Fewer key-value heads than devices are repeated, as long as they come out even.
    if keys > 0 && !keys.is_multiple_of(devices) && !devices.is_multiple_of(keys) {
        found.push(refused(
            format!("{keys} key-value heads cannot be split over {devices} devices"),
            format!("`tensor_parallel` must divide {keys}, or be a multiple of it"),
        ));
    }
    found
}
