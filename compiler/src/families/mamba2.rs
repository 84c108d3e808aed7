//! Mamba2 (arXiv:2405.21060): `Mamba2ForCausalLM`, one mixer a layer and nothing else. The inner width is
//! stored as expand x hidden_size with a whole `expand`, so heads x head_dim must stay a multiple of it.

use super::{ConfigError, Family, common};
use crate::config::{self, Reader};
use crate::dim::Dim;
use crate::graph::{Builder, ValueId};
use crate::init::{self, Init};
use crate::model::{Biases, DtLimit, LayerKind, ModelDesc, Role, Weight};
use crate::nn;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub struct Mamba2;

/// config.json's key of each size, with the default of transformers.
const SIZES: &[(Dim, &[&str], usize)] = &[
    (Dim::VocabSize, &["vocab_size"], 32_768),
    (Dim::HiddenSize, &["hidden_size"], 4096),
    (Dim::MambaNumHeads, &["num_heads"], 128),
    (Dim::MambaHeadDim, &["head_dim"], 64),
    (Dim::NGroups, &["n_groups"], 8),
    (Dim::SsmStateSize, &["state_size"], 128),
    (Dim::ConvKernel, &["conv_kernel"], 4),
];

impl Family for Mamba2 {
    fn name(&self) -> &'static str {
        "mamba2"
    }

    fn doc(&self) -> &'static str {
        "Mamba2: one SSM mixer a layer; heads x head_dim is a multiple of hidden_size"
    }

    fn read_config(&self, config: &Map<String, Value>) -> Result<ModelDesc, ConfigError> {
        let read = Reader { map: config };
        let mut dims = BTreeMap::new();
        for &(dim, keys, default) in SIZES {
            dims.insert(dim, read.size(keys, Some(default))?);
        }
        let layers = read.size(&["num_hidden_layers", "n_layer"], Some(64))?;
        common::check_layers(&read, "num_hidden_layers", layers)?;
        dims.insert(Dim::NumLayers, layers);
        common::expect(&read, "hidden_act", "silu")?;
        let (lo, hi) = read.limits(&["time_step_limit"])?.unwrap_or((0.0, f64::INFINITY));
        let named_floor = common::floor(&read, &["time_step_min"], lo)?;
        let desc = ModelDesc {
            family: self.name(),
            dims,
            layers: vec![LayerKind::Mamba; layers],
            eps: common::epsilon(&read, &["layer_norm_epsilon"])?,
            dt: DtLimit { lo, hi },
            dt_conflict: Some(named_floor).filter(|f| *f != lo),
            biases: Biases {
                mixer: read.bool("use_bias", false)?,
                mlp: false,
                conv: common::conv_bias(&read, &["use_conv_bias"])?,
            },
            tied: read.bool("tie_word_embeddings", false)?,
            prefix: "backbone.".into(),
            dtype: common::dtype(&read)?,
            config: config.clone(),
        };
        let expand = read.size(&["expand"], Some(2))?;
        let (inner, hidden) = (inner(&desc), desc.size(Dim::HiddenSize));
        if inner != expand * hidden {
            let message = format!(
                "is {expand}, but num_heads x head_dim = {inner} is not {expand} x hidden_size = {}",
                expand * hidden
            );
            return read.fail("expand", message);
        }
        self.constraint(&desc).map(|()| desc)
    }

    fn write_config(&self, desc: &ModelDesc) -> Map<String, Value> {
        let mut out = desc.config.clone();
        for &(dim, keys, _) in SIZES {
            common::set(&mut out, keys, json!(desc.size(dim)));
        }
        out.insert("expand".into(), json!(inner(desc) / desc.size(Dim::HiddenSize).max(1)));
        common::set(&mut out, &["num_hidden_layers", "n_layer"], json!(desc.layers.len()));
        let hi = if desc.dt.hi.is_finite() { json!(desc.dt.hi) } else { config::infinity() };
        out.insert("time_step_limit".into(), json!([desc.dt.lo, hi]));
        // transformers takes its logarithm while it loads, whatever the weights are: zero would not load.
        if desc.dt.lo > 0.0 {
            out.insert("time_step_min".into(), json!(desc.dt.lo));
        }
        common::write_dtype(&mut out, desc);
        out
    }

    fn weights(&self, desc: &ModelDesc) -> Vec<Weight> {
        let mut table = common::outer_weights(desc);
        for i in 0..desc.layers.len() {
            table.push(common::norm_weight(desc, i));
            table.extend(nn::mamba2::weights(desc, &common::mixer(desc, i)));
        }
        table
    }

    fn init(&self, desc: &ModelDesc, weight: &Weight) -> Result<Init, ConfigError> {
        let rescale = Reader { map: &desc.config }.bool("rescale_prenorm_residual", false)?;
        match (weight.role, weight.shape.as_slice()) {
            (Role::Conv, [_, _, taps]) => Ok(init::kaiming(taps.size())),
            (Role::OutProj, [_, inner]) if rescale => Ok(init::rescaled(init::kaiming(inner.size()), desc)),
            (Role::OutProj, [_, inner]) => Ok(init::kaiming(inner.size())),
            _ => init::common(desc, weight, 0.1),
        }
    }

    fn params(&self, desc: &ModelDesc, layers: &[LayerKind]) -> u64 {
        common::params(desc, layers)
    }

    fn constraint(&self, desc: &ModelDesc) -> Result<(), ConfigError> {
        common::divides(desc, Dim::MambaNumHeads, Dim::NGroups, "num_heads")?;
        let (inner, hidden) = (inner(desc), desc.size(Dim::HiddenSize));
        if hidden > 0 && inner % hidden == 0 {
            return Ok(());
        }
        let width = desc.size(Dim::MambaHeadDim) * desc.size(Dim::NGroups);
        let heads = |k: usize| k * hidden / desc.size(Dim::MambaHeadDim).max(1);
        let fits = |k: &usize| (k * hidden).is_multiple_of(width.max(1));
        let legal: Vec<String> = (1..=8).filter(fits).map(|k| heads(k).to_string()).collect();
        Err(ConfigError {
            key: "expand".into(),
            message: format!(
                "heads x head_dim = {inner} is no multiple of hidden_size = {hidden}, and mamba2 stores it as a whole `expand`"
            ),
            help: (!legal.is_empty()).then(|| {
                format!(
                    "at hidden_size {hidden} and this head_dim, mamba_num_heads may be {}",
                    legal.join(", ")
                )
            }),
        })
    }

    fn embed(&self, b: &mut Builder, desc: &ModelDesc, tokens: ValueId) -> ValueId {
        common::embed(b, desc, tokens)
    }

    fn block(&self, b: &mut Builder, desc: &ModelDesc, layer: usize, stream: ValueId) -> ValueId {
        b.layer = Some(layer);
        let u = common::norm(b, desc, layer, stream);
        b.tap("norm.out", u);
        nn::mamba2::forward(b, desc, &common::mixer(desc, layer), stream, u)
    }

    fn last_norm(&self, b: &mut Builder, desc: &ModelDesc, stream: ValueId) -> ValueId {
        common::last_norm(b, desc, stream)
    }

    fn head(&self, b: &mut Builder, desc: &ModelDesc) -> ValueId {
        common::head(b, desc)
    }
}

/// I = H*P
fn inner(desc: &ModelDesc) -> usize {
    desc.size(Dim::MambaNumHeads) * desc.size(Dim::MambaHeadDim)
}
