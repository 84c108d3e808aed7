//! The family's table of weights against what the files hold.

use super::Place;
use crate::safetensors::Reader;
use minic_compiler::model::ModelDesc;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Spellings of the name before `layers.`; the second is transformers' in memory.
const PREFIXES: &[&str] = &["backbone.", "model."];

/// Multi-token prediction heads of published checkpoints, which transformers ignores too.
const IGNORED_PREFIX: &str = "mtp.";

const HEAD: &str = "lm_head.weight";

/// One weight that is not as config.json implies.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    Missing { name: String, shape: Vec<usize> },
    Unexpected { name: String, file: String, shape: Vec<usize> },
    Shape { name: String, file: String, expected: Vec<usize>, found: Vec<usize> },
    DType { name: String, file: String, found: &'static str },
    Twice { name: String, files: [String; 2] },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Mismatch::Missing { name, shape } => write!(f, "`{name}` {shape:?} is missing"),
            Mismatch::Unexpected { name, file, shape } => {
                write!(f, "`{name}` {shape:?} in {file} belongs to no weight of this model")
            }
            Mismatch::Shape { name, file, expected, found } => {
                write!(f, "`{name}` in {file} has shape {found:?}, config.json implies {expected:?}")
            }
            Mismatch::DType { name, file, found } => {
                write!(f, "`{name}` in {file} is {found}; weights are read in F32, BF16 and F16")
            }
            Mismatch::Twice { name, files: [a, b] } => write!(f, "`{name}` is both in {a} and in {b}"),
        }
    }
}

/// The first eight, one on a line, and how many more.
pub(super) fn listed(mismatches: &[Mismatch]) -> String {
    const SHOWN: usize = 8;
    let mut text: String = mismatches.iter().take(SHOWN).map(|m| format!("\n  {m}")).collect();
    if let Some(more) = mismatches.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

pub(super) struct Matched {
    pub places: BTreeMap<String, Place>,
    pub notes: Vec<String>,
}

/// The prefix that the files spell, if any.
pub(super) fn prefix(files: &[Reader]) -> Option<String> {
    let has = |prefix: &str| files.iter().any(|f| f.tensors().any(|(name, _)| name.starts_with(prefix)));
    PREFIXES.iter().find(|p| has(p)).map(|p| p.to_string())
}

pub(super) fn compare(desc: &ModelDesc, files: &[Reader]) -> Result<Matched, Vec<Mismatch>> {
    let (stored, mut mismatches) = stored(files);
    let mut places = BTreeMap::new();
    let mut used = BTreeSet::new();
    for weight in desc.weights() {
        let shape = weight.sizes();
        let spelled = [Some(weight.name.clone()), old_spelling(&weight.name)];
        let Some(name) = spelled.into_iter().flatten().find(|n| stored.contains_key(n.as_str())) else {
            mismatches.push(Mismatch::Missing { name: weight.name, shape });
            continue;
        };
        let file = stored[name.as_str()];
        mismatches.extend(differing(&files[file], &name, shape));
        used.insert(name.clone());
        places.insert(weight.name, Place { file, stored: name });
    }
    let (mut ignored, mut tied_head) = (0, false);
    for (&name, &file) in stored.iter().filter(|(name, _)| !used.contains(**name)) {
        match name {
            _ if name.starts_with(IGNORED_PREFIX) => ignored += 1,
            HEAD if desc.tied => tied_head = true,
            _ => mismatches.push(unexpected(&files[file], name)),
        }
    }
    if !mismatches.is_empty() {
        return Err(mismatches);
    }
    let mut notes = Vec::new();
    if ignored > 0 {
        notes.push(format!("{ignored} tensors `{IGNORED_PREFIX}*` (multi-token prediction) are not loaded"));
    }
    if tied_head {
        notes.push(format!("`{HEAD}` is not loaded: config.json ties the head to the embedding"));
    }
    Ok(Matched { places, notes })
}

/// Tensor name to file; a name that two files have is a mismatch.
fn stored(files: &[Reader]) -> (BTreeMap<&str, usize>, Vec<Mismatch>) {
    let mut stored: BTreeMap<&str, usize> = BTreeMap::new();
    let mut mismatches = Vec::new();
    for (i, file) in files.iter().enumerate() {
        for (name, _) in file.tensors() {
            match stored.get(name) {
                Some(&first) => mismatches.push(Mismatch::Twice {
                    name: name.to_string(),
                    files: [file_name(&files[first]), file_name(file)],
                }),
                None => _ = stored.insert(name, i),
            }
        }
    }
    (stored, mismatches)
}

/// Early Mamba2 checkpoints name the embedding in the singular; transformers renames it on load.
fn old_spelling(name: &str) -> Option<String> {
    name.strip_suffix("embeddings.weight").map(|start| format!("{start}embedding.weight"))
}

fn differing(file: &Reader, name: &str, expected: Vec<usize>) -> Option<Mismatch> {
    let tensor = file.tensor(name)?;
    if tensor.shape != expected {
        let found = tensor.shape.clone();
        return Some(Mismatch::Shape { name: name.to_string(), file: file_name(file), expected, found });
    }
    let wrong = tensor.element.dtype().is_none();
    wrong.then(|| Mismatch::DType {
        name: name.to_string(),
        file: file_name(file),
        found: tensor.element.name(),
    })
}

fn unexpected(file: &Reader, name: &str) -> Mismatch {
    let shape = file.tensor(name).map(|t| t.shape.clone()).unwrap_or_default();
    Mismatch::Unexpected { name: name.to_string(), file: file_name(file), shape }
}

fn file_name(file: &Reader) -> String {
    file.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}
