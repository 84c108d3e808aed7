//! Nemotron-H (arXiv:2504.03624): `NemotronHForCausalLM`, Mamba2, feed-forward and attention blocks in one
//! pattern. One layer is x + mixer(norm(x)); attention has no positions; the head is stored on its own.

use super::{ConfigError, Family, common};
use crate::config::{self, Reader};
use crate::dim::Dim;
use crate::graph::{Builder, ValueId};
use crate::init::{self, Init};
use crate::model::{Biases, DtLimit, LayerKind, ModelDesc, Role, Weight};
use crate::nn::{self, Scope};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub struct NemotronH;

/// config.json's keys of each size, the one that is written first; defaults of transformers 5.
const SIZES: &[(Dim, &[&str], usize)] = &[
    (Dim::VocabSize, &["vocab_size"], 131_072),
    (Dim::HiddenSize, &["hidden_size"], 4096),
    (Dim::FfnHiddenSize, &["intermediate_size"], 21_504),
    (Dim::MambaNumHeads, &["mamba_num_heads"], 128),
    (Dim::MambaHeadDim, &["mamba_head_dim"], 64),
    (Dim::NGroups, &["n_groups", "mamba_n_groups"], 8),
    (Dim::SsmStateSize, &["ssm_state_size"], 128),
    (Dim::ConvKernel, &["conv_kernel", "mamba_d_conv"], 4),
    (Dim::NumAttentionHeads, &["num_attention_heads"], 32),
    (Dim::NumKeyValueHeads, &["num_key_value_heads"], 8),
    (Dim::AttentionHeadDim, &["head_dim", "attention_head_dim"], 128),
];

/// Spellings of a block's kind in `layers_block_type`.
const KINDS: &[(&str, LayerKind)] = &[
    ("linear_attention", LayerKind::Mamba),
    ("mamba", LayerKind::Mamba),
    ("full_attention", LayerKind::Attention),
    ("attention", LayerKind::Attention),
    ("mlp", LayerKind::Mlp),
];

impl Family for NemotronH {
    fn name(&self) -> &'static str {
        "nemotron_h"
    }

    fn doc(&self) -> &'static str {
        "Nemotron-H: Mamba2, feed-forward and attention blocks in one pattern"
    }

    fn read_config(&self, config: &Map<String, Value>) -> Result<ModelDesc, ConfigError> {
        let read = Reader { map: config };
        let layers = layers(&read)?;
        let mut dims = BTreeMap::new();
        for &(dim, keys, default) in SIZES {
            dims.insert(dim, read.size(keys, Some(default))?);
        }
        dims.insert(Dim::NumLayers, layers.len());
        common::expect(&read, "mlp_hidden_act", "relu2")?;
        common::expect(&read, "mamba_hidden_act", "silu")?;
        // transformers 5 clamps at time_step_min and ignores time_step_limit.
        let lo = common::floor(&read, &["time_step_min", "mamba_dt_min"], 0.001)?;
        let limit = read.limits(&["time_step_limit", "mamba_dt_limit"])?;
        let desc = ModelDesc {
            family: self.name(),
            dims,
            layers,
            eps: common::epsilon(&read, &["layer_norm_epsilon", "rms_norm_eps"])?,
            dt: DtLimit { lo, hi: f64::INFINITY },
            dt_conflict: limit.map(|l| l.0).filter(|l| *l != lo),
            biases: Biases {
                mixer: read.bool("use_bias", false)?,
                mlp: read.bool("mlp_bias", false)?,
                conv: common::conv_bias(&read, &["use_conv_bias", "mamba_conv_bias"])?,
            },
            tied: false,
            prefix: "backbone.".into(),
            dtype: common::dtype(&read)?,
            config: config.clone(),
        };
        self.constraint(&desc).map(|()| desc)
    }

    fn write_config(&self, desc: &ModelDesc) -> Map<String, Value> {
        let mut out = desc.config.clone();
        for &(dim, keys, _) in SIZES {
            common::set(&mut out, keys, json!(desc.size(dim)));
        }
        // Both names of the attention head's width are kept in step where both are there.
        if out.contains_key("attention_head_dim") {
            out.insert("attention_head_dim".into(), json!(desc.size(Dim::AttentionHeadDim)));
        }
        write_layers(&mut out, desc);
        common::set(&mut out, &["time_step_min", "mamba_dt_min"], json!(desc.dt.lo));
        let limit = json!([desc.dt.lo, config::infinity()]);
        common::set(&mut out, &["time_step_limit", "mamba_dt_limit"], limit);
        if out.contains_key("tie_word_embeddings") {
            out.insert("tie_word_embeddings".into(), json!(false));
        }
        // The cache of transformers wants an attention layer to ask for the length.
        if !desc.layers.contains(&LayerKind::Attention) {
            out.insert("use_cache".into(), json!(false));
        }
        common::write_dtype(&mut out, desc);
        out
    }

    fn weights(&self, desc: &ModelDesc) -> Vec<Weight> {
        let mut table = common::outer_weights(desc);
        for (i, kind) in desc.layers.iter().enumerate() {
            table.push(common::norm_weight(desc, i));
            let at = common::mixer(desc, i);
            table.extend(match kind {
                LayerKind::Mamba => nn::mamba2::weights(desc, &at),
                LayerKind::Mlp => nn::mlp::weights(desc, &at),
                LayerKind::Attention => nn::attention::weights(desc, &at),
            });
        }
        table
    }

    fn init(&self, desc: &ModelDesc, weight: &Weight) -> Result<Init, ConfigError> {
        let rescale = Reader { map: &desc.config }.bool("rescale_prenorm_residual", true)?;
        match (weight.role, weight.shape.as_slice()) {
            (Role::OutProj, [_, inner]) if rescale => Ok(init::rescaled(init::kaiming(inner.size()), desc)),
            _ => init::common(desc, weight, 0.02),
        }
    }

    fn params(&self, desc: &ModelDesc, layers: &[LayerKind]) -> u64 {
        common::params(desc, layers)
    }

    fn constraint(&self, desc: &ModelDesc) -> Result<(), ConfigError> {
        common::divides(desc, Dim::MambaNumHeads, Dim::NGroups, "mamba_num_heads")?;
        common::divides(desc, Dim::NumAttentionHeads, Dim::NumKeyValueHeads, "num_attention_heads")
    }

    fn embed(&self, b: &mut Builder, desc: &ModelDesc, tokens: ValueId) -> ValueId {
        common::embed(b, desc, tokens)
    }

    fn block(&self, b: &mut Builder, desc: &ModelDesc, layer: usize, stream: ValueId) -> ValueId {
        b.layer = Some(layer);
        let u = common::norm(b, desc, layer, stream);
        b.tap("norm.out", u);
        let at: Scope = common::mixer(desc, layer);
        match desc.layers[layer] {
            LayerKind::Mamba => nn::mamba2::forward(b, desc, &at, stream, u),
            LayerKind::Mlp => nn::mlp::forward(b, desc, &at, stream, u),
            LayerKind::Attention => nn::attention::forward(b, desc, &at, stream, u),
        }
    }

    fn last_norm(&self, b: &mut Builder, desc: &ModelDesc, stream: ValueId) -> ValueId {
        common::last_norm(b, desc, stream)
    }

    fn head(&self, b: &mut Builder, desc: &ModelDesc) -> ValueId {
        common::head(b, desc)
    }
}

/// `layers_block_type` wins over `hybrid_override_pattern`; `num_hidden_layers` is derived by the loaders.
fn layers(read: &Reader) -> Result<Vec<LayerKind>, ConfigError> {
    let moe = |key: &str, at: usize| {
        Err(ConfigError {
            key: key.into(),
            message: format!("layer {at} is a mixture of experts, which minic cannot prune"),
            help: Some("supported blocks: Mamba2 (M), feed-forward (-), attention (*)".into()),
        })
    };
    if let Some((key, value)) = read.get(&["layers_block_type"]) {
        let Some(list) = value.as_array() else { return read.fail(key, "is not a list") };
        common::check_layers(read, key, list.len())?;
        let kind = |(i, v): (usize, &Value)| match v.as_str() {
            Some("moe") => moe(key, i),
            Some(s) => match KINDS.iter().find(|(name, _)| *name == s) {
                Some((_, kind)) => Ok(*kind),
                None => read.fail(key, format!("layer {i} is `{s}`, which is no kind of block")),
            },
            None => read.fail(key, format!("layer {i} is {v}, not a string")),
        };
        return non_empty(read, key, list.iter().enumerate().map(kind).collect::<Result<_, _>>()?);
    }
    let Some((key, value)) = read.get(&["hybrid_override_pattern"]) else {
        return read.fail("layers_block_type", "is missing, and so is hybrid_override_pattern");
    };
    let Some(pattern) = value.as_str() else { return read.fail(key, "is not a string") };
    common::check_layers(read, key, pattern.len())?;
    let kind = |(i, c): (usize, char)| match LayerKind::ALL.iter().find(|k| k.letter() == c) {
        Some(kind) => Ok(*kind),
        None if c == 'E' => moe(key, i),
        None => read.fail(key, format!("layer {i} is `{c}`; known are M, - and *")),
    };
    non_empty(read, key, pattern.chars().enumerate().map(kind).collect::<Result<_, _>>()?)
}

fn non_empty(read: &Reader, key: &str, layers: Vec<LayerKind>) -> Result<Vec<LayerKind>, ConfigError> {
    if layers.is_empty() { read.fail(key, "names no layer") } else { Ok(layers) }
}

/// The pattern in each spelling that the source has.
fn write_layers(out: &mut Map<String, Value>, desc: &ModelDesc) {
    let legacy = |v: &Value| v.as_str().is_some_and(|s| s == "mamba" || s == "attention");
    if let Some(list) = out.get("layers_block_type").and_then(Value::as_array) {
        let skip = usize::from(list.iter().any(legacy));
        let name = |kind: &LayerKind| {
            let mut names = KINDS.iter().filter(|(_, k)| k == kind).map(|(name, _)| *name);
            let first = names.next().unwrap_or_default();
            if skip == 1 { names.next().unwrap_or(first) } else { first }
        };
        let list: Vec<Value> = desc.layers.iter().map(|k| json!(name(k))).collect();
        out.insert("layers_block_type".into(), Value::Array(list));
    }
    if out.contains_key("hybrid_override_pattern") {
        out.insert("hybrid_override_pattern".into(), json!(desc.pattern()));
    }
    if out.contains_key("num_hidden_layers") {
        out.insert("num_hidden_layers".into(), json!(desc.layers.len()));
    }
}
