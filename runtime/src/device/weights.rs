//! Weights in f32, shared by the sessions that read them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Tensors by the name that a schedule reads them under.
#[derive(Clone, Default)]
pub struct Weights {
    tensors: Arc<BTreeMap<String, Vec<f32>>>,
}

impl Weights {
    /// Reads each name with `read`; two models share a graph under names with a prefix.
    pub fn load<E>(
        names: impl IntoIterator<Item = String>,
        mut read: impl FnMut(&str) -> Result<Vec<f32>, E>,
    ) -> Result<Weights, E> {
        let mut tensors = BTreeMap::new();
        for name in names {
            let tensor = read(&name)?;
            tensors.insert(name, tensor);
        }
        Ok(Weights { tensors: Arc::new(tensors) })
    }

    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(Vec::as_slice)
    }
}
