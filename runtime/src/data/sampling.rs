//! Windows out of streams.

use super::encoder::MOST_HELD;
use super::stream::TokenStream;
use super::{DataError, FileRecord, Samples};
use crate::random::SplitMix64;

/// Picks windows of `sequence` tokens; see [`super::load`].
pub(super) fn sample(
    streams: &[TokenStream],
    weights: &[f64],
    sequence: usize,
    samples: Option<usize>,
    seed: u64,
) -> Result<Samples, DataError> {
    let mut orders = Vec::with_capacity(streams.len());
    for (i, stream) in streams.iter().enumerate() {
        let windows = stream.len().checked_div(sequence).unwrap_or(0);
        if windows == 0 {
            let (tokens, files) = (stream.len(), named(&stream.records));
            return Err(DataError::SequenceTooLong { sequence, tokens, files });
        }
        orders.push(match samples {
            Some(n) => SplitMix64::stream(seed, i as u64).sample(windows, n),
            None => (0..windows).collect(),
        });
    }
    let turns = take_turns(weights, &orders, samples).map_err(|source| {
        let files = named(&streams[source].records);
        let found = orders[source].len();
        DataError::TooFewSamples { wanted: samples.unwrap_or(0), found, sequence, files }
    })?;
    let files: Vec<FileRecord> = streams.iter().flat_map(|s| s.records.iter().cloned()).collect();
    if turns.len().saturating_mul(sequence) > MOST_HELD {
        return Err(DataError::too_many(named(&files)));
    }
    let mut tokens = Vec::with_capacity(turns.len() * sequence);
    for (source, window) in turns {
        streams[source].read(window * sequence..(window + 1) * sequence, &mut tokens)?;
    }
    let digest = digest(sequence, &tokens);
    Ok(Samples { sequence, tokens, answers: None, files, digest })
}

/// (source, window) in order. Every turn goes to the source whose count is furthest below its share, the
/// first of equals, so that every beginning of the list is mixed as the whole. The error is the source that
/// has too few windows.
fn take_turns(
    weights: &[f64],
    orders: &[Vec<usize>],
    samples: Option<usize>,
) -> Result<Vec<(usize, usize)>, usize> {
    let mut taken = vec![0usize; orders.len()];
    let mut turns = Vec::new();
    while samples.is_none_or(|n| turns.len() < n) {
        let turn = (turns.len() + 1) as f64;
        let behind = |i: usize| turn * weights[i] - taken[i] as f64;
        let next = (1..orders.len()).fold(0, |best, i| if behind(i) > behind(best) { i } else { best });
        match (orders[next].get(taken[next]), samples) {
            (Some(&window), _) => turns.push((next, window)),
            (None, None) => break,
            (None, Some(_)) => return Err(next),
        }
        taken[next] += 1;
    }
    Ok(turns)
}

/// Of the length of a window and all tokens in order.
pub(super) fn digest(sequence: usize, tokens: &[u32]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(sequence as u64).to_le_bytes());
    let mut bytes = Vec::new();
    for piece in tokens.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|id| id.to_le_bytes()));
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// `a.txt, b.txt, c.txt and 4 more`
fn named(files: &[FileRecord]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = files.iter().take(SHOWN).map(|f| f.path.display().to_string()).collect();
    match files.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        Some(more) => format!("{} and {more} more", shown.join(", ")),
        None => shown.join(", "),
    }
}
