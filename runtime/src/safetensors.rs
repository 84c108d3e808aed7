//! Files in the safetensors format, read and written piece by piece.
//!
//! A file is an 8-byte little-endian length n, n bytes of JSON, and the tensors' bytes. The JSON maps each
//! name to its dtype, its shape and its range of bytes; the ranges cover the data without gap or overlap.
//! Nothing that a header says is believed before it is checked. Tensors are read by position into buffers
//! of the caller, never mapped, so that a file that shrinks meanwhile is an error and not a fault.
//!
//! Source: <https://huggingface.co/docs/safetensors/index#format>.

mod header;
mod reader;
mod writer;

use crate::error::{IoError, Kind};
use crate::stamp::Change;
use minic_compiler::model::DType;
use std::path::PathBuf;

pub use header::MAX_HEADER;
pub use reader::Reader;
pub use writer::{Entry, Writer};

/// Element types of the format with a whole number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

const ELEMENTS: &[(&str, Element, usize)] = &[
    ("BOOL", Element::Bool, 1),
    ("U8", Element::U8, 1),
    ("I8", Element::I8, 1),
    ("F8_E4M3", Element::F8E4M3, 1),
    ("F8_E5M2", Element::F8E5M2, 1),
    ("I16", Element::I16, 2),
    ("U16", Element::U16, 2),
    ("F16", Element::F16, 2),
    ("BF16", Element::BF16, 2),
    ("I32", Element::I32, 4),
    ("U32", Element::U32, 4),
    ("F32", Element::F32, 4),
    ("I64", Element::I64, 8),
    ("U64", Element::U64, 8),
    ("F64", Element::F64, 8),
];

impl Element {
    pub fn from_name(name: &str) -> Option<Element> {
        ELEMENTS.iter().find(|e| e.0 == name).map(|e| e.1)
    }

    fn row(self) -> (&'static str, Element, usize) {
        ELEMENTS.iter().copied().find(|e| e.1 == self).unwrap_or(("F32", Element::F32, 4))
    }

    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub fn bytes(self) -> usize {
        self.row().2
    }

    /// The dtype of weights that minic computes with; `None` for all others.
    pub fn dtype(self) -> Option<DType> {
        DType::from_name(self.name())
    }
}

/// One tensor of a file: what it is, and where it lies in the data that follow the header.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub element: Element,
    pub shape: Vec<usize>,
    begin: u64,
    end: u64,
}

impl Tensor {
    pub fn bytes(&self) -> u64 {
        self.end - self.begin
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one index of the first dimension; a scalar is one row.
    pub fn row_bytes(&self) -> usize {
        self.shape.iter().skip(1).product::<usize>() * self.element.bytes()
    }

    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: not a valid safetensors file: {reason}", path.display())]
    Header { path: PathBuf, reason: String },
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor { path: PathBuf, tensor: String, reason: String },
    /// Somebody writes where minic reads.
    #[error("{}: changed while it was read: {change}", path.display())]
    Changed { path: PathBuf, change: Change },
    /// The caller of the writer gave other tensors than it announced.
    #[error("{}: {reason}", path.display())]
    Written { path: PathBuf, reason: String },
}

impl SafetensorsError {
    pub fn kind(&self) -> Kind {
        match self {
            SafetensorsError::Io(e) => e.kind(),
            SafetensorsError::Changed { .. } => Kind::World,
            SafetensorsError::Header { .. } | SafetensorsError::Tensor { .. } => Kind::Input,
            SafetensorsError::Written { .. } => Kind::Proof,
        }
    }
}

#[cfg(test)]
mod tests;
