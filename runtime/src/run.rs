//! The executor: stages of a plan, one after the other.

use crate::error::Kind;
use minic_compiler::graph::ShapeError;
use minic_compiler::schedule::ScheduleError;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("there are no samples")]
    NoSamples,
    #[error("{what} is not a finite number")]
    NotFinite { what: String },
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Gate(#[from] crate::gate::GateError),
}

impl RunError {
    pub fn kind(&self) -> Kind {
        match self {
            RunError::NoSamples => Kind::Input,
            RunError::NotFinite { .. } => Kind::Proof,
            RunError::Source(e) => e.kind(),
            RunError::Gate(e) => e.kind(),
            RunError::Device(_) | RunError::Shape(_) | RunError::Schedule(_) => Kind::Proof,
        }
    }
}
