//! Tensors that stand in the place of others.

use super::gather::Kept;
use super::stored::Stored;
use crate::safetensors::{Reader, SafetensorsError};
use minic_compiler::model::DType;
use std::path::Path;

/// An open safetensors file of f32 tensors, under the names of those that they replace.
#[derive(Debug)]
pub struct Patch {
    file: Reader,
}

impl Patch {
    /// Reads and checks the header; no tensor is read.
    pub fn open(path: &Path) -> Result<Patch, SafetensorsError> {
        let file = Reader::open(path)?;
        let other = file.tensors().find(|(_, tensor)| tensor.element.dtype() != Some(DType::F32));
        if let Some((name, tensor)) = other {
            let reason = format!("is {}, but what replaces a weight is F32", tensor.element.name());
            return Err(SafetensorsError::Tensor { path: path.into(), tensor: name.into(), reason });
        }
        Ok(Patch { file })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The names of the tensors that are replaced.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.tensors().map(|(name, _)| name)
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.file.tensors().map(|(name, tensor)| (name, tensor.shape.as_slice()))
    }

    /// What is kept of a tensor of the file; `None` where it has none of that name.
    pub(super) fn stored(&self, name: &str, kept: &Kept) -> Option<Stored<'_>> {
        Stored::new(&self.file, name, kept)
    }
}
