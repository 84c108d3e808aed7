//! Model families: how a config.json is read and written, which weights there are, how they compute.

mod common;
pub mod mamba2;
pub mod nemotron_h;

use crate::dim::Dim;
use crate::graph::{Builder, ValueId};
use crate::init::Init;
use crate::model::{LayerKind, ModelDesc, Weight};
use serde_json::{Map, Value};

/// What is wrong with a config.json: the key at fault, the cause, and the mending.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    pub key: String,
    pub message: String,
    pub help: Option<String>,
}

/// A `model_type` of Hugging Face.
pub trait Family: Sync {
    /// The `model_type` in config.json.
    fn name(&self) -> &'static str;

    /// One line for `minic inspect` and the documentation.
    fn doc(&self) -> &'static str;

    fn read_config(&self, config: &Map<String, Value>) -> Result<ModelDesc, ConfigError>;

    /// config.json for `desc`, in the spelling of `desc.config`.
    fn write_config(&self, desc: &ModelDesc) -> Map<String, Value>;

    fn weights(&self, desc: &ModelDesc) -> Vec<Weight>;

    /// How transformers draws a weight of the table for an untrained model.
    fn init(&self, desc: &ModelDesc, weight: &Weight) -> Result<Init, ConfigError>;

    /// Parameters of these sizes with these layers, by the paper's closed formula (section 1.1), written without
    /// the weight table.
    fn params(&self, desc: &ModelDesc, layers: &[LayerKind]) -> u64;

    /// What the family's loaders cannot express, e.g. a Mamba2 width that is no multiple of hidden_size.
    fn constraint(&self, desc: &ModelDesc) -> Result<(), ConfigError>;

    /// What keeps the residual stream from being rotated: the weights of all norms must go into the matrices
    /// that read them, and change nothing else.
    fn rotatable(&self, desc: &ModelDesc) -> Result<(), ConfigError> {
        if !desc.tied {
            return Ok(());
        }
        Err(ConfigError {
            key: "tie_word_embeddings".into(),
            message: "is true: the weight of the last norm cannot go into the head without the embedding"
                .into(),
            help: Some("rank `hidden_size` by a metric, or untie the head in the checkpoint first".into()),
        })
    }

    /// tokens [sequence] -> the residual stream before the first block [sequence, hidden].
    fn embed(&self, b: &mut Builder, desc: &ModelDesc, tokens: ValueId) -> ValueId;

    /// Block `layer`: stream -> stream.
    fn block(&self, b: &mut Builder, desc: &ModelDesc, layer: usize, stream: ValueId) -> ValueId;

    /// Stream after the last block -> normalised hidden state that the head reads.
    fn last_norm(&self, b: &mut Builder, desc: &ModelDesc, stream: ValueId) -> ValueId;

    /// The head's weight [vocab, hidden].
    fn head(&self, b: &mut Builder, desc: &ModelDesc) -> ValueId;
}

/// To add a family: its file, its `mod` line, and its line here.
pub const FAMILIES: &[&dyn Family] = &[&nemotron_h::NemotronH, &mamba2::Mamba2];

pub fn find(name: &str) -> Option<&'static dyn Family> {
    FAMILIES.iter().copied().find(|f| f.name() == name)
}

pub(crate) fn by_name(name: &'static str) -> &'static dyn Family {
    find(name).unwrap_or(FAMILIES[0])
}

/// A model from the text of its config.json.
pub fn describe(config: &Map<String, Value>) -> Result<ModelDesc, ConfigError> {
    let error = |message: String, help| ConfigError { key: "model_type".into(), message, help };
    let known =
        || Some(format!("families: {}", FAMILIES.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")));
    let Some(name) = config.get("model_type").and_then(Value::as_str) else {
        return Err(error("is missing or not a string".into(), known()));
    };
    let Some(family) = find(name) else {
        return Err(error(format!("`{name}` is not a family that minic can prune"), known()));
    };
    let desc = family.read_config(config)?;
    plausible(&desc).map(|()| desc)
}

/// Refuses sizes whose products could overflow: more than 2^50 parameters, by an upper bound in floating point.
/// For a description that was put together from parts that are not trusted.
pub fn plausible(desc: &ModelDesc) -> Result<(), ConfigError> {
    let s = |dim| desc.size(dim) as f64;
    let inner = s(Dim::MambaNumHeads) * s(Dim::MambaHeadDim);
    let heads = s(Dim::NumAttentionHeads) + s(Dim::NumKeyValueHeads);
    let widest = inner + s(Dim::NGroups) * s(Dim::SsmStateSize) + s(Dim::FfnHiddenSize) + s(Dim::VocabSize);
    let bound = 8.0
        * (widest + heads * s(Dim::AttentionHeadDim))
        * (s(Dim::HiddenSize) + s(Dim::ConvKernel))
        * (desc.layers.len() as f64 + 1.0);
    if bound < 2f64.powi(50) {
        return Ok(());
    }
    let message = format!("give a model of up to {bound:.0e} parameters");
    Err(ConfigError { key: "sizes".into(), message, help: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::{config, graph};
    use std::collections::BTreeMap;

    const NEMOTRON_8B: &str = include_str!("../tests/configs/Nemotron-H-8B-Base-8K.json");
    const MAMBA2: &str = include_str!("../tests/configs/mamba2-1.3b.json");

    fn model(text: &str) -> ModelDesc {
        describe(&config::parse(text).unwrap()).unwrap()
    }

    fn table_sum(desc: &ModelDesc) -> u64 {
        desc.weights().iter().map(|w| w.len() as u64).sum()
    }

    #[test]
    fn the_formula_and_the_weight_table_agree_on_published_counts() {
        let parent = model(NEMOTRON_8B);
        assert_eq!(parent.params(), 8_100_852_736);
        assert_eq!(table_sum(&parent), 8_100_852_736);
        let sizes = BTreeMap::from([
            (Dim::HiddenSize, 3072),
            (Dim::FfnHiddenSize, 12_288),
            (Dim::MambaNumHeads, 112),
        ]);
        let layers: Vec<usize> = (0..52).collect();
        let student = parent.resized(&sizes, &layers);
        assert_eq!((student.params(), table_sum(&student)), (4_489_223_040, 4_489_223_040));
        let mamba = model(MAMBA2);
        assert_eq!(mamba.params(), table_sum(&mamba));
        assert!(mamba.tied);
    }

    #[test]
    fn a_written_config_reads_back_as_the_same_model() {
        for text in [NEMOTRON_8B, MAMBA2] {
            let parent = model(text);
            let sizes = BTreeMap::from([(Dim::HiddenSize, parent.size(Dim::HiddenSize) / 2)]);
            let cut = parent.resized(&sizes, &(0..4).collect::<Vec<_>>());
            let written = config::to_text(&cut.family().write_config(&cut));
            let back = model(&written);
            assert_eq!((back.dims, back.layers, back.dt), (cut.dims, cut.layers, cut.dt));
            // A floor of zero is no `time_step_min` that loads: the source's stays.
            let other = (parent.dt.lo == 0.0).then_some(0.001);
            assert_eq!(back.dt_conflict, other, "both entries of the floor are written");
        }
    }

    #[test]
    fn both_spellings_of_the_pattern_are_kept() {
        let old = model(NEMOTRON_8B);
        let cut = old.resized(&BTreeMap::new(), &[0, 1, 7]);
        let out = cut.family().write_config(&cut);
        assert_eq!(out["hybrid_override_pattern"], "M-*");
        assert_eq!(out["num_hidden_layers"], 3);
        assert!(!out.contains_key("layers_block_type"));
        let mut list = config::parse(NEMOTRON_8B).unwrap();
        list.remove("hybrid_override_pattern");
        list.insert("layers_block_type".into(), serde_json::json!(["mamba", "attention", "mlp"]));
        let new = describe(&list).unwrap();
        assert_eq!(new.pattern(), "M*-");
        assert_eq!(new.family().write_config(&new)["layers_block_type"], list["layers_block_type"]);
    }

    #[test]
    fn what_cannot_be_pruned_is_refused_with_the_key() {
        let with = |text: &str, key: &str, value: serde_json::Value| {
            let mut map = config::parse(text).unwrap();
            map.insert(key.into(), value);
            describe(&map).unwrap_err()
        };
        use serde_json::json;
        assert!(with(NEMOTRON_8B, "hybrid_override_pattern", json!("ME")).message.contains("experts"));
        assert!(with(NEMOTRON_8B, "layers_block_type", json!(["moe"])).message.contains("experts"));
        assert!(with(NEMOTRON_8B, "model_type", json!("llama")).help.unwrap().contains("nemotron_h"));
        assert_eq!(with(NEMOTRON_8B, "mamba_num_heads", json!(100)).key, "mamba_num_heads");
        assert_eq!(with(NEMOTRON_8B, "hidden_size", json!(0)).key, "hidden_size");
        assert_eq!(with(NEMOTRON_8B, "mlp_hidden_act", json!("gelu")).key, "mlp_hidden_act");
        assert_eq!(with(MAMBA2, "num_heads", json!(48)).key, "expand");
    }

    #[test]
    fn every_weight_of_the_table_is_read_by_the_forward_pass_in_the_same_shape() {
        for text in [NEMOTRON_8B, MAMBA2] {
            let desc = model(text);
            let mut b = graph::Builder::new();
            let tokens = b.tokens(8);
            let mut x = desc.family().embed(&mut b, &desc, tokens);
            for layer in 0..desc.layers.len() {
                x = desc.family().block(&mut b, &desc, layer, x);
            }
            let h = desc.family().last_norm(&mut b, &desc, x);
            let head = desc.family().head(&mut b, &desc);
            let loss = b.token_loss(h, head, tokens);
            b.output("loss", loss);
            let graph = b.finish().unwrap();
            let mut read: Vec<(String, Vec<crate::dim::Extent>)> = graph
                .order()
                .filter_map(|id| match &graph.node(id).op {
                    graph::Op::Weight { name } => Some((name.clone(), graph.node(id).shape.clone())),
                    _ => None,
                })
                .collect();
            let mut table: Vec<_> = desc.weights().into_iter().map(|w| (w.name, w.shape)).collect();
            read.sort_by(|a, b| a.0.cmp(&b.0));
            table.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(read, table);
        }
    }
}
