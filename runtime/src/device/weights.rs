//! Weights in f32, shared by the sessions that read them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Tensors by the name that a schedule reads them under. A clone shares the tensors.
#[derive(Clone, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Arc<Vec<f32>>>,
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
            tensors.insert(name, Arc::new(tensor));
        }
        Ok(Weights { tensors })
    }

    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(|tensor| tensor.as_slice())
    }

    /// A tensor as it is shared.
    pub fn shared(&self, name: &str) -> Option<&Arc<Vec<f32>>> {
        self.tensors.get(name)
    }

    /// A tensor to be written; what others share stays as it is.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors.get_mut(name).map(|tensor| Arc::make_mut(tensor).as_mut_slice())
    }

    pub fn insert(&mut self, name: String, tensor: Vec<f32>) {
        self.tensors.insert(name, Arc::new(tensor));
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Those of both; `other`'s where a name is in both.
    pub fn with(mut self, other: &Weights) -> Weights {
        self.tensors.extend(other.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        self
    }

    /// Those that are not named.
    pub fn without(mut self, named: impl Fn(&str) -> bool) -> Weights {
        self.tensors.retain(|name, _| !named(name));
        self
    }

    /// The same tensors as those of model `scope`: `scope/NAME`.
    pub fn scoped(&self, scope: &str) -> Weights {
        let tensors = self.tensors.iter().map(|(name, tensor)| (format!("{scope}/{name}"), tensor.clone()));
        Weights { tensors: tensors.collect() }
    }
}
