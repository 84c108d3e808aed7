//! A training on the disk: weights, averages, and how far it had come.
//!
//! A header that names the tensors and tells of the training, after its length, then their f32 elements; all
//! numbers are little-endian.

use super::{StoreError, Trained};
use crate::convert;
use crate::device::{TrainingState, Weights};
use crate::samples::Saves;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
struct Header {
    trained: Trained,
    /// Elements of every weight; the averages that are there have as many.
    weights: BTreeMap<String, usize>,
    averages: Vec<String>,
}

pub(super) fn store(saves: &Saves, state: &TrainingState, trained: &Trained) -> Result<(), StoreError> {
    let TrainingState { weights, mean, square } = state;
    let names: Vec<&str> = weights.names().collect();
    let tensors: Vec<&[f32]> = names.iter().filter_map(|name| weights.get(name)).collect();
    let header = Header {
        trained: trained.clone(),
        weights: names.iter().zip(&tensors).map(|(name, t)| (name.to_string(), t.len())).collect(),
        averages: mean.keys().cloned().collect(),
    };
    // MessagePack, because floats keep their bits; writing to memory cannot fail.
    let header = rmp_serde::to_vec_named(&header).unwrap_or_default();
    let length = (header.len() as u64).to_le_bytes();
    let averages = mean.values().chain(square.values()).map(Vec::as_slice);
    let mut pieces = vec![&length[..], &header];
    let tensors: Vec<_> = tensors.into_iter().chain(averages).map(convert::f32_bytes).collect();
    pieces.extend(tensors.iter().map(|bytes| bytes.as_ref()));
    saves.store.put_partial_pieces(saves.key, &pieces)
}

/// `None` where nothing was saved, or what was saved is no training.
pub(super) fn load(saves: &Saves) -> Result<Option<(TrainingState, Trained)>, StoreError> {
    Ok(saves.store.partial_bytes(saves.key)?.and_then(|bytes| parse(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<(TrainingState, Trained)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, mut rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let Header { trained, weights: lengths, averages } = rmp_serde::from_slice(header).ok()?;
    let mut take = |len: usize| -> Option<Vec<f32>> {
        let (piece, after) = rest.split_at_checked(len.checked_mul(4)?)?;
        rest = after;
        Some(piece.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    };
    let mut state = TrainingState::default();
    let mut weights = Weights::default();
    for (name, &len) in &lengths {
        weights.insert(name.clone(), take(len)?);
    }
    for into in [&mut state.mean, &mut state.square] {
        for name in &averages {
            into.insert(name.clone(), take(*lengths.get(name)?)?);
        }
    }
    state.weights = weights;
    Some((state, trained))
}
