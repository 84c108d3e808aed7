//! `hf`: Hugging Face transformers.
//!
//! What it asks of shapes always holds: widths are equal in all layers, whole head groups are kept, config.json names
//! every width by itself and spells layers as the source does, and a mamba2 that has no whole `expand` is E0411.

use super::{Origin, Rule, Target};
use crate::model::LayerKind;

pub const TARGET: Target = Target {
    name: "hf",
    also: &["transformers", "huggingface", "hugging_face"],
    arguments: &[],
    rules: &[ATTENTION_CACHE],
    doc: "Hugging Face transformers",
};

const ATTENTION_CACHE: Rule = Rule {
    name: "attention_cache",
    origin: Origin {
        name: "transformers, cache_utils.py",
        url: "https://github.com/huggingface/transformers/blob/main/src/transformers/cache_utils.py",
    },
    refuses: false,
    asks: "the cache of nemotron_h asks an attention layer for its length",
    dims: &[],
    holds: |s| s.model.family != "nemotron_h" || s.layers.range(LayerKind::Attention).0 > 0,
    found: |s| match s.layers.range(LayerKind::Attention).1 {
        0 => "no attention layer is left".into(),
        _ => "perhaps no attention layer is left".into(),
    },
    otherwise: "keep one with `keep attention 1`, or call the model with `use_cache=False`",
};
