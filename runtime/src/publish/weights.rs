//! Weights to one safetensors file or to shards with their index, piece by piece.

use super::PublishError;
use crate::checkpoint::{INDEX_FILE, WEIGHTS_FILE};
use crate::convert;
use crate::error::IoError;
use crate::safetensors::{Entry, Writer};
use minic_compiler::model::DType;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc;

/// What was written, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The safetensors files; not the index.
    pub files: Vec<WrittenFile>,
    /// Bytes of all tensors.
    pub bytes: u64,
    pub params: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WrittenFile {
    pub name: String,
    /// BLAKE3, hexadecimal.
    pub digest: String,
}

/// Takes the values of some rows of a tensor, from the first to the last, in parts of any size.
pub struct Piece<'a> {
    entry: &'a Entry,
    /// The elements of the tensor that these rows are.
    elements: Range<usize>,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

/// Elements that are converted at once.
const CONVERTED: usize = 1 << 16;

impl Piece<'_> {
    pub fn elements(&self) -> Range<usize> {
        self.elements.clone()
    }

    /// Whole elements as they are stored in `dtype`; copied bit for bit where that is the tensor's own.
    pub fn write(&mut self, dtype: DType, bytes: &[u8]) -> Result<(), PublishError> {
        if dtype == self.entry.dtype {
            let first = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            return self.check(first, None);
        }
        for part in bytes.chunks(CONVERTED * dtype.bytes()) {
            let mut values = std::mem::take(&mut self.values);
            values.clear();
            convert::decode(dtype, part, &mut values);
            let result = self.write_f32(&values);
            self.values = values;
            result?;
        }
        Ok(())
    }

    /// Whole elements as they are stored in `dtype`, which `read` appends; read in place where that is the
    /// tensor's own.
    pub fn fill<E: From<PublishError>>(
        &mut self,
        dtype: DType,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if dtype == self.entry.dtype {
            let first = self.bytes.len();
            read(&mut self.bytes)?;
            return Ok(self.check(first, None)?);
        }
        let mut bytes = Vec::new();
        read(&mut bytes)?;
        Ok(self.write(dtype, &bytes)?)
    }

    /// Values that are rounded to the tensor's dtype, to nearest even.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), PublishError> {
        let first = self.bytes.len();
        convert::encode(self.entry.dtype, values, &mut self.bytes);
        self.check(first, Some(values))
    }

    /// Nothing that is NaN or infinite is published. `first` is the byte at which what is new begins.
    fn check(&self, first: usize, rounded_from: Option<&[f32]>) -> Result<(), PublishError> {
        let dtype = self.entry.dtype;
        let Some((at, value)) = convert::first_non_finite(dtype, &self.bytes[first..]) else { return Ok(()) };
        let from = rounded_from.and_then(|values| values.get(at)).copied().filter(|v| v.is_finite());
        let at = self.elements.start + first / dtype.bytes() + at;
        Err(PublishError::NonFinite { tensor: self.entry.name.clone(), at, value, rounded_from: from })
    }
}

/// Bytes of one piece, and of all pieces that are held at once: those that are made, those that wait to be
/// written, and what it takes to make them.
const PIECE: u64 = 2 << 20;
const IN_FLIGHT: u64 = 256 << 20;

/// Bytes of the tensors that are open at once, unless one alone is larger: one that is computed when it is opened
/// holds all of its values in f32.
const OPEN: u64 = 128 << 20;

/// Neighbours that may be open at once.
pub fn groups(entries: &[Entry]) -> Vec<&[Entry]> {
    let (mut groups, mut rest) = (Vec::new(), entries);
    while let Some((first, others)) = rest.split_first() {
        let mut bytes = first.bytes();
        let fits = |entry: &&Entry| {
            bytes += entry.bytes();
            bytes <= OPEN
        };
        let (group, after) = rest.split_at(1 + others.iter().take_while(fits).count());
        groups.push(group);
        rest = after;
    }
    groups
}

/// Writes `entries` into `folder`, each in its own dtype. `open` gives what a tensor is made of, shortly before its
/// first rows are, and only some neighbours are open at once ([`groups`]); `give` puts the values of some rows
/// (indices of the first dimension) into the piece. The files hold wider dtypes first, otherwise the given
/// order. Pieces are made by all threads and written in order, so the files are the same for any number of
/// threads; memory does not depend on the size of a tensor, but for what `open` holds.
///
/// With `shard`, tensors fill files of up to that many bytes (a larger tensor has a file of its own), as
/// transformers counts them: tensors only. All that fits one file is `model.safetensors`.
pub fn write_weights<S: Sync, E: From<PublishError> + Send>(
    folder: &Path,
    entries: &[Entry],
    shard: Option<u64>,
    open: impl Fn(&Entry) -> Result<S, E>,
    give: impl Fn(&S, Range<usize>, &mut Piece) -> Result<(), E> + Sync,
) -> Result<Written, E> {
    let shards = shards(entries, shard);
    let written = std::thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel(made_at_once());
        let writer = scope.spawn(|| write_files(folder, &shards, receive));
        let mut groups = shards.iter().flat_map(|shard| groups(shard));
        let made = groups.try_for_each(|group| make_group(group, &open, &give, &send));
        drop(send);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match made {
            Err(Some(error)) => Err(error),
            // The writer stopped first, and says why.
            Err(None) | Ok(()) => Ok(written?),
        }
    })?;
    if shards.len() > 1 {
        write_index(folder, &written, &shards)?;
    }
    Ok(written)
}

fn made_at_once() -> usize {
    rayon::current_num_threads().saturating_mul(2).clamp(2, (IN_FLIGHT / PIECE / 4) as usize)
}

/// Opens some tensors, and makes and sends all pieces of them in order. `Err(None)`: nobody receives them.
fn make_group<S: Sync, E: From<PublishError> + Send>(
    group: &[Entry],
    open: &impl Fn(&Entry) -> Result<S, E>,
    give: &(impl Fn(&S, Range<usize>, &mut Piece) -> Result<(), E> + Sync),
    send: &mpsc::SyncSender<Vec<u8>>,
) -> Result<(), Option<E>> {
    let opened = group.iter().map(open).collect::<Result<Vec<S>, E>>().map_err(Some)?;
    let of = |(entry, opened)| pieces(entry).map(move |rows| (entry, opened, rows));
    let pieces: Vec<(&Entry, &S, Range<usize>)> = group.iter().zip(&opened).flat_map(of).collect();
    for batch in pieces.chunks(made_at_once()) {
        let make = |(entry, opened, rows): &(&Entry, &S, Range<usize>)| {
            make(entry, rows.clone(), |rows, piece| give(opened, rows, piece))
        };
        let made: Vec<Result<Vec<u8>, E>> = batch.par_iter().map(make).collect();
        for bytes in made {
            send.send(bytes.map_err(Some)?).map_err(|_| None)?;
        }
    }
    Ok(())
}

/// Rows of a tensor by some MiB.
fn pieces(entry: &Entry) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = entry.shape.first().copied().unwrap_or(1);
    let step = (PIECE / (entry.bytes() / rows.max(1) as u64).max(1)).max(1) as usize;
    (0..rows).step_by(step).map(move |at| at..rows.min(at + step))
}

fn make<E: From<PublishError>>(
    entry: &Entry,
    rows: Range<usize>,
    give: impl Fn(Range<usize>, &mut Piece) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let row = entry.shape.iter().skip(1).product::<usize>();
    let elements = rows.start * row..rows.end * row;
    let expected = elements.len() * entry.dtype.bytes();
    let bytes = Vec::with_capacity(expected);
    let mut sink = Piece { entry, elements, bytes, values: Vec::new() };
    give(rows.clone(), &mut sink)?;
    let written = sink.bytes.len();
    if written != expected {
        let tensor = entry.name.clone();
        let (written, expected) = (written as u64, expected as u64);
        return Err(PublishError::Incomplete { tensor, rows, written, expected }.into());
    }
    Ok(sink.bytes)
}

/// The other end of the channel: one file after the other, until the last piece or the first that is missing.
fn write_files(
    folder: &Path,
    shards: &[Vec<Entry>],
    receive: mpsc::Receiver<Vec<u8>>,
) -> Result<Written, PublishError> {
    let mut written = Written::default();
    for (i, shard) in shards.iter().enumerate() {
        let name = file_name(i, shards.len());
        let mut writer = Writer::create(&folder.join(&name), shard)?;
        for _ in shard.iter().flat_map(pieces) {
            // Nothing more comes: making a piece failed, and its error is told.
            let Ok(bytes) = receive.recv() else { return Ok(written) };
            writer.write(&bytes)?;
        }
        let digest = writer.finish()?.to_hex().to_string();
        written.files.push(WrittenFile { name, digest });
        written.bytes += shard.iter().map(Entry::bytes).sum::<u64>();
        written.params += shard.iter().map(|e| e.bytes() / e.dtype.bytes() as u64).sum::<u64>();
    }
    Ok(written)
}

/// Entries in the order of the files; at least one file.
fn shards(entries: &[Entry], limit: Option<u64>) -> Vec<Vec<Entry>> {
    let mut shards: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut bytes = 0;
    for entry in entries {
        let full = limit.is_some_and(|limit| bytes + entry.bytes() > limit);
        if full && shards.last().is_some_and(|s| !s.is_empty()) {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += entry.bytes();
        shards.last_mut().into_iter().for_each(|s| s.push(entry.clone()));
    }
    for shard in &mut shards {
        shard.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.bytes()));
    }
    shards
}

fn file_name(i: usize, n: usize) -> String {
    if n == 1 {
        return WEIGHTS_FILE.to_string();
    }
    format!("model-{:05}-of-{n:05}.safetensors", i + 1)
}

fn write_index(folder: &Path, written: &Written, shards: &[Vec<Entry>]) -> Result<(), PublishError> {
    let file = |(shard, written): (&Vec<Entry>, &WrittenFile)| -> Vec<(String, Value)> {
        shard.iter().map(|entry| (entry.name.clone(), Value::from(written.name.clone()))).collect()
    };
    let map: BTreeMap<String, Value> = shards.iter().zip(&written.files).flat_map(file).collect();
    let metadata = json!({ "total_size": written.bytes, "total_parameters": written.params });
    let index = json!({ "metadata": metadata, "weight_map": map });
    let path = folder.join(INDEX_FILE);
    let mut text = format!("{index:#}");
    text.push('\n');
    Ok(std::fs::write(&path, text).map_err(IoError::at(&path, "write"))?)
}
