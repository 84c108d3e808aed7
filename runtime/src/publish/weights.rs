//! Weights to one safetensors file or to shards with their index, tensor by tensor.

use super::PublishError;
use crate::checkpoint::{INDEX_FILE, WEIGHTS_FILE};
use crate::convert;
use crate::error::IoError;
use crate::safetensors::{Entry, Writer};
use minic_compiler::model::DType;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

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

/// Takes the values of one tensor, from its first element to its last, in pieces of any size.
pub struct TensorSink<'a> {
    writer: &'a mut Writer,
    entry: &'a Entry,
    elements: usize,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

/// Elements that are converted at once.
const PIECE: usize = 1 << 16;

impl TensorSink<'_> {
    /// Whole elements as they are stored in `dtype`; copied bit for bit where that is the tensor's own.
    pub fn write(&mut self, dtype: DType, bytes: &[u8]) -> Result<(), PublishError> {
        if dtype == self.entry.dtype {
            return self.put(bytes, None);
        }
        for piece in bytes.chunks(PIECE * dtype.bytes()) {
            let mut values = std::mem::take(&mut self.values);
            values.clear();
            convert::decode(dtype, piece, &mut values);
            let result = self.write_f32(&values);
            self.values = values;
            result?;
        }
        Ok(())
    }

    /// Values that are rounded to the tensor's dtype, to nearest even.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), PublishError> {
        for piece in values.chunks(PIECE) {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            convert::encode(self.entry.dtype, piece, &mut bytes);
            let result = self.put(&bytes, Some(piece));
            self.bytes = bytes;
            result?;
        }
        Ok(())
    }

    /// Nothing that is NaN or infinite is published.
    fn put(&mut self, bytes: &[u8], rounded_from: Option<&[f32]>) -> Result<(), PublishError> {
        let dtype = self.entry.dtype;
        if let Some((at, value)) = convert::first_non_finite(dtype, bytes) {
            let from = rounded_from.map(|values| values[at]).filter(|v| v.is_finite());
            let (tensor, at) = (self.entry.name.clone(), self.elements + at);
            return Err(PublishError::NonFinite { tensor, at, value, rounded_from: from });
        }
        self.elements += bytes.len() / dtype.bytes();
        Ok(self.writer.write(bytes)?)
    }
}

/// Writes `entries` into `folder`, each in its own dtype; `give` pushes the values of one of them into the
/// sink. The files hold wider dtypes first, otherwise the given order, and `give` is called in that order.
///
/// With `shard`, tensors fill files of up to that many bytes (a larger tensor has a file of its own), as
/// transformers counts them: tensors only. All that fits one file is `model.safetensors`.
pub fn write_weights<E: From<PublishError>>(
    folder: &Path,
    entries: &[Entry],
    shard: Option<u64>,
    mut give: impl FnMut(&Entry, &mut TensorSink) -> Result<(), E>,
) -> Result<Written, E> {
    let shards = shards(entries, shard);
    let mut written = Written::default();
    let mut map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = file_name(i, shards.len());
        let mut writer = Writer::create(&folder.join(&name), shard).map_err(PublishError::from)?;
        for entry in shard {
            write_tensor(&mut writer, entry, &mut give)?;
            map.insert(entry.name.clone(), Value::from(name.clone()));
            written.bytes += entry.bytes();
            written.params += entry.bytes() / entry.dtype.bytes() as u64;
        }
        let digest = writer.finish().map_err(PublishError::from)?.to_hex().to_string();
        written.files.push(WrittenFile { name, digest });
    }
    if shards.len() > 1 {
        write_index(folder, &written, map)?;
    }
    Ok(written)
}

fn write_tensor<E: From<PublishError>>(
    writer: &mut Writer,
    entry: &Entry,
    give: &mut impl FnMut(&Entry, &mut TensorSink) -> Result<(), E>,
) -> Result<(), E> {
    let before = writer.written();
    let mut sink = TensorSink { writer, entry, elements: 0, values: Vec::new(), bytes: Vec::new() };
    give(entry, &mut sink)?;
    let (tensor, expected) = (entry.name.clone(), entry.bytes());
    let written = writer.written() - before;
    if written != expected {
        return Err(PublishError::Incomplete { tensor, written, expected }.into());
    }
    Ok(())
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

fn write_index(folder: &Path, written: &Written, map: BTreeMap<String, Value>) -> Result<(), PublishError> {
    let metadata = json!({ "total_size": written.bytes, "total_parameters": written.params });
    let index = json!({ "metadata": metadata, "weight_map": map });
    let path = folder.join(INDEX_FILE);
    let mut text = format!("{index:#}");
    text.push('\n');
    Ok(std::fs::write(&path, text).map_err(IoError::at(&path, "write"))?)
}
