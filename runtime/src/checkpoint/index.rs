//! Which files hold the weights of a folder.

use super::CheckpointError;
use crate::input;
use crate::safetensors::Reader;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

pub const WEIGHTS_FILE: &str = "model.safetensors";
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// model.safetensors.index.json: which shard holds which tensor.
#[derive(Debug, Deserialize)]
pub struct WeightIndex {
    #[serde(default)]
    metadata: Metadata,
    weight_map: WeightMap,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    /// Bytes of all tensors. Some writers leave it out, some write it as a float.
    total_size: Option<serde_json::Number>,
}

/// Tensor to file; a repeated tensor is an error and not the last one's.
#[derive(Debug)]
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<WeightMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((tensor, file)) = access.next_entry::<String, String>()? {
                    if map.contains_key(&tensor) {
                        return Err(A::Error::custom(format!("tensor `{tensor}` appears twice")));
                    }
                    map.insert(tensor, file);
                }
                Ok(WeightMap(map))
            }
        }
        deserializer.deserialize_map(V)
    }
}

/// The files of weights, opened; as transformers does, a single file is preferred to shards.
pub(super) fn open_files(folder: &Path) -> Result<Vec<Reader>, CheckpointError> {
    let single = folder.join(WEIGHTS_FILE);
    if input::exists(&single)? {
        return Ok(vec![Reader::open(&single)?]);
    }
    let path = folder.join(INDEX_FILE);
    if !input::exists(&path)? {
        return Err(CheckpointError::NoWeights { folder: folder.to_path_buf() });
    }
    let fault = |reason: String| CheckpointError::Index { path: path.clone(), reason };
    let text = input::read(&path, input::INDEX)?;
    let index: WeightIndex =
        serde_json::from_slice(&text).map_err(|e| fault(format!("is not an index of shards: {e}")))?;
    let names: BTreeSet<&String> = index.weight_map.0.values().collect();
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        files.push(open_shard(folder, name).map_err(fault)??);
    }
    check_shards(&index, &files).map_err(fault)?;
    Ok(files)
}

/// Of any file system, in bytes.
const LONGEST_NAME: usize = 255;

/// The outer error is the index's, the inner one the shard's.
fn open_shard(folder: &Path, name: &str) -> Result<Result<Reader, CheckpointError>, String> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !plain || name.len() > LONGEST_NAME || name.contains(|c: char| "/\\".contains(c) || c.is_control()) {
        return Err(format!("names the file `{name}`, which is not a plain name in this folder"));
    }
    let path = folder.join(name);
    if let Ok(false) = input::exists(&path) {
        return Err(format!("names the file `{name}`, which is not there"));
    }
    Ok(Reader::open(&path).map_err(CheckpointError::from))
}

/// Every tensor of the index lies in its shard, and every shard holds only those.
fn check_shards(index: &WeightIndex, files: &[Reader]) -> Result<(), String> {
    let mut total = 0;
    let mut found = BTreeSet::new();
    for file in files {
        let shard = file.path().file_name().unwrap_or_default().to_string_lossy();
        for (tensor, info) in file.tensors() {
            total += info.bytes();
            match index.weight_map.0.get(tensor) {
                Some(named) if *named == shard => found.insert(tensor),
                Some(named) => {
                    return Err(format!("tensor `{tensor}` is in `{shard}`, the index says `{named}`"));
                }
                None => return Err(format!("tensor `{tensor}` of `{shard}` is not in the index")),
            };
        }
    }
    if let Some((tensor, file)) = index.weight_map.0.iter().find(|(t, _)| !found.contains(t.as_str())) {
        return Err(format!("tensor `{tensor}` is not in `{file}`, where the index says it is"));
    }
    match &index.metadata.total_size {
        Some(size) if size.as_f64() != Some(total as f64) => {
            Err(format!("total_size is {size}, but the shards hold {total} bytes of tensors"))
        }
        _ => Ok(()),
    }
}
