//! `hf`: Hugging Face transformers.
//!
//! Structural rules (whole head groups, equal widths in all layers, a whole `expand` for mamba2) always hold;
//! what is left is the cache of nemotron_h, which asks an attention layer for its length.

use super::{Finding, Given, Target, slow};
use crate::check::Outline;
use crate::model::LayerKind;

pub const TARGET: Target = Target { name: "hf", arguments: &[], check, doc: "Hugging Face transformers" };

fn check(model: &Outline, _: Given) -> Vec<Finding> {
    if model.desc.family != "nemotron_h" || model.layers.range(LayerKind::Attention).0 > 0 {
        return Vec::new();
    }
    vec![slow(
        "no attention layer is left, and the cache of nemotron_h asks one for its length".into(),
        "keep one with `keep attention 1`, or call the model with `use_cache=False`".into(),
    )]
}
