//! Why a run stopped.

use super::folder::FolderError;
use super::shard::Waits;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::error::{IoError, Kind};
use crate::gate::GateError;
use crate::importance::{DepthError, RankError};
use crate::provenance::ProvenanceError;
use crate::publish::PublishError;
use crate::repair::RepairError;
use crate::safetensors::SafetensorsError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::train::TrainError;
use minic_compiler::graph::ShapeError;
use minic_compiler::schedule::ScheduleError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "`{path}` is not fetched; the hub is asked before a run begins, and `--set {name}.checkpoint=DIR` takes a folder instead"
    )]
    Remote { name: String, path: String },
    /// Only while previewing.
    #[error("not in the store")]
    NotStored,
    /// Of a shared run: others have not done what this needs. It ends no run.
    #[error("{0}")]
    Waits(Waits),
    #[error("stopped; the same command goes on from here")]
    Stopped,
    #[error(
        "no candidate of `{search}` meets every requirement once the surviving layers are known: {}; loosen one of them, or give `num_layers` other values",
        require.join(", ")
    )]
    EmptySpace { search: String, require: Vec<String> },
    #[error("no candidate could be ranked by {by}: {why}")]
    NoCandidate { by: String, why: String },
    #[error("there are no samples")]
    NoSamples,
    #[error("{what} is not a finite number")]
    NotFinite { what: String },
    /// The plan and the run disagree.
    #[error("bug: {what} is needed and was not planned")]
    Unplanned { what: String },
    #[error("{}: holds something that this recipe did not make; --overwrite replaces it", folder.display())]
    Occupied { folder: PathBuf },
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Depth(#[from] DepthError),
    #[error(transparent)]
    Rank(#[from] RankError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The samples that a record tells of are not those that were read.
    #[error("the files of `{name}` changed while the run went on; the same command starts over with them")]
    Changed { name: String },
}

impl RunError {
    pub fn kind(&self) -> Kind {
        match self {
            RunError::Remote { .. }
            | RunError::NoSamples
            | RunError::EmptySpace { .. }
            | RunError::Occupied { .. }
            | RunError::Depth(_) => Kind::Input,
            RunError::Io(e) => e.kind(),
            RunError::Checkpoint(e) => e.kind(),
            RunError::Safetensors(e) => e.kind(),
            RunError::Data(e) => e.kind(),
            RunError::Source(e) => e.kind(),
            RunError::Gate(e) => e.kind(),
            RunError::Publish(e) => e.kind(),
            RunError::Provenance(e) => e.kind(),
            RunError::Store(e) => e.kind(),
            RunError::Device(e) => e.kind(),
            RunError::Folder(e) => e.kind(),
            RunError::Train(e) => e.kind(),
            RunError::Repair(e) => e.kind(),
            RunError::Stopped => Kind::Stopped,
            RunError::NotStored => Kind::Proof,
            RunError::Changed { .. } | RunError::Waits(_) => Kind::World,
            RunError::NotFinite { .. }
            | RunError::NoCandidate { .. }
            | RunError::Unplanned { .. }
            | RunError::Rank(_)
            | RunError::Shape(_)
            | RunError::Schedule(_) => Kind::Proof,
        }
    }
}
