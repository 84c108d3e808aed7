//! Objects of the store that a folder of files belongs to.

use super::identity::{REPAIRED, TRAINED};
use super::{Executor, RunError};
use crate::store::Key;
use petgraph::graph::NodeIndex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What each of them tells of its folder.
#[derive(Deserialize)]
struct Files {
    /// Name to BLAKE3.
    files: BTreeMap<String, String>,
}

impl Executor<'_> {
    /// What is kept under a key whose folder is as it was written.
    pub(super) fn recall_folder<T: DeserializeOwned>(
        &self,
        id: NodeIndex,
        key: &Key,
    ) -> Result<Option<T>, RunError> {
        if self.holds(key)? { self.recall(id, key) } else { Ok(None) }
    }

    /// The store holds the result of a stage, and the folder that belongs to it is as it was written.
    pub(super) fn holds(&self, key: &Key) -> Result<bool, RunError> {
        if ![TRAINED, REPAIRED].contains(&key.kind()) {
            return Ok(self.store.has(key));
        }
        let Some(Files { files }) = self.store.get(key)? else { return Ok(false) };
        let folder = self.store.folder(key);
        for (name, digest) in files {
            let path = folder.join(name);
            if !path.is_file() || self.digest_file(&path)? != digest {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
