//! The lines of `metrics.jsonl`.

use crate::error::IoError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub stage: String,
    #[serde(flatten)]
    pub row: Row,
    /// Seconds since 1970, whole milliseconds.
    pub time: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Row {
    Update(Update),
    Heldout(Heldout),
}

/// One optimizer update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    pub phase: String,
    /// The first update of the stage is 1; phases count on.
    pub update: u64,
    /// Tokens of this update and all before it.
    pub tokens: u64,
    /// What was made small: the weighted sum, before the update.
    pub loss: f64,
    /// Terms of the loss by name, unweighted.
    pub losses: BTreeMap<String, f64>,
    /// The learning rate.
    pub rate: f64,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    pub tokens_per_second: f64,
}

/// An evaluation on held-out data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heldout {
    /// Updates before it; 0 before the first.
    pub update: u64,
    /// Tokens of these updates.
    pub tokens: u64,
    /// Cross-entropy in nats per token.
    pub heldout_loss: f64,
    /// Share of predicted positions whose most likely token is the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout_top1: Option<f64>,
    /// KL(teacher || student) in nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout_kl: Option<f64>,
}

impl Row {
    /// Updates that were made when the row was written.
    pub fn update(&self) -> u64 {
        match self {
            Row::Update(row) => row.update,
            Row::Heldout(row) => row.update,
        }
    }

    pub fn tokens(&self) -> u64 {
        match self {
            Row::Update(row) => row.tokens,
            Row::Heldout(row) => row.tokens,
        }
    }
}

impl Line {
    /// With its line end.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The lines of a file and their text without its end; none where the file is not there. A line that a kill cut
/// short, or that is no line of a record, is left out.
pub fn read(path: &Path) -> Result<Vec<(Line, Vec<u8>)>, IoError> {
    match fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(IoError::at(path, "read")(error)),
    }
}

pub fn parse(bytes: &[u8]) -> Vec<(Line, Vec<u8>)> {
    let line = |text: &[u8]| Some((serde_json::from_slice(text).ok()?, text.to_vec()));
    bytes.split(|byte| *byte == b'\n').filter_map(line).collect()
}
