//! What ends a training.

use crate::error::Kind;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(
        "`{stage}`: update {update}: {what} is not a finite number; the model before this update is saved, and a lower `peak` of the rate or a `clip` may help"
    )]
    Diverged { stage: String, update: u64, what: String },
    #[error(
        "`{stage}`: the schedule asks for {wanted} windows of {sequence} tokens, `{data}` gives {found} with `epochs = {epochs}`; raise its `epochs`, add files, or lower `tokens`"
    )]
    TooFewWindows { stage: String, data: String, wanted: u64, found: u64, sequence: usize, epochs: f64 },
    #[error("`{stage}`: the training makes no update")]
    NoUpdates { stage: String },
    #[error("`{stage}`: {what}")]
    Init { stage: String, what: String },
}

impl TrainError {
    pub fn kind(&self) -> Kind {
        match self {
            TrainError::Diverged { .. } => Kind::Proof,
            TrainError::TooFewWindows { .. } | TrainError::NoUpdates { .. } | TrainError::Init { .. } => {
                Kind::Input
            }
        }
    }
}
