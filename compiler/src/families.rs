//! Model families: how a config.json is read and written, which weights there are, how they compute.

pub mod mamba2;
pub mod nemotron_h;

use crate::graph::{Builder, ValueId};
use crate::model::{ModelDesc, Weight};
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

    /// Parameters by the paper's closed formula (section 1.1), written without the weight table.
    fn params(&self, desc: &ModelDesc) -> u64;

    /// What the family's loaders cannot express, e.g. a Mamba2 width that is no multiple of hidden_size.
    fn constraint(&self, desc: &ModelDesc) -> Result<(), ConfigError>;

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
pub const FAMILIES: &[&dyn Family] = &[];

pub fn find(name: &str) -> Option<&'static dyn Family> {
    FAMILIES.iter().copied().find(|f| f.name() == name)
}

pub(crate) fn by_name(name: &'static str) -> &'static dyn Family {
    find(name).unwrap_or(FAMILIES[0])
}

/// A model from the text of its config.json.
pub fn describe(config: &Map<String, Value>) -> Result<ModelDesc, ConfigError> {
    let error = |message: String, help| ConfigError { key: "model_type".into(), message, help };
    let known = || Some(format!("families: {}", FAMILIES.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")));
    let Some(name) = config.get("model_type").and_then(Value::as_str) else {
        return Err(error("is missing or not a string".into(), known()));
    };
    let Some(family) = find(name) else {
        return Err(error(format!("`{name}` is not a family that minic can prune"), known()));
    };
    family.read_config(config)
}
