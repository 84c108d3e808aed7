//! `minic.lock.toml`: digests and revisions of everything that went in.

use super::{DataRecord, Parent, Provenance};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Lock<'a> {
    minic: &'a str,
    recipe: Recipe<'a>,
    model: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data: Vec<Data<'a>>,
}

#[derive(Serialize)]
struct Recipe<'a> {
    file: &'a str,
    blake3: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    checkpoint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    blake3: &'a str,
    files: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Parent> for Model<'a> {
    fn from(parent: &'a Parent) -> Model<'a> {
        Model {
            name: &parent.name,
            checkpoint: &parent.checkpoint,
            revision: parent.revision.as_deref(),
            blake3: &parent.digest,
            files: &parent.files,
        }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    name: &'a str,
    /// Of the tokens that were seen.
    blake3: &'a str,
    sequence: usize,
    samples: usize,
    /// As text: TOML's integers are signed.
    seed: String,
    files: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a DataRecord> for Data<'a> {
    fn from(data: &'a DataRecord) -> Data<'a> {
        Data {
            name: &data.name,
            blake3: &data.digest,
            sequence: data.sequence,
            samples: data.samples,
            seed: data.seed.to_string(),
            files: &data.files,
        }
    }
}

/// The same text for the same provenance.
pub fn lock_text(provenance: &Provenance) -> String {
    let recipe = &provenance.recipe;
    let lock = Lock {
        minic: &provenance.minic,
        recipe: Recipe { file: &recipe.file, blake3: &recipe.digest, set: &recipe.overrides },
        model: provenance.parents.iter().map(Model::from).collect(),
        data: provenance.data.iter().map(Data::from).collect(),
    };
    let body = toml::to_string(&lock).unwrap_or_default();
    format!("# What went into this folder; written by minic from {}.\n\n{body}", super::PROVENANCE_FILE)
}
