//! One file, written from front to back.

use super::SafetensorsError;
use crate::error::IoError;
use minic_compiler::model::DType;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Entry {
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product::<u64>() * self.dtype.bytes() as u64
    }
}

/// Writes the header at once and then takes the tensors' bytes in the order of the entries.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    expected: u64,
    written: u64,
}

const BUFFER: usize = 1 << 20;

impl Writer {
    /// Refuses an order in which a tensor would begin at no multiple of its element size: loaders map the
    /// file and read elements in place. Wider dtypes first is always right.
    pub fn create(path: &Path, entries: &[Entry]) -> Result<Writer, SafetensorsError> {
        let (header, expected) = header(entries)
            .map_err(|reason| SafetensorsError::Written { path: path.to_path_buf(), reason })?;
        let file = File::create_new(path).map_err(IoError::at(path, "create"))?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let mut writer =
            Writer { path: path.to_path_buf(), file, hasher: blake3::Hasher::new(), expected, written: 0 };
        writer.put(&(header.len() as u64).to_le_bytes())?;
        writer.put(&header)?;
        Ok(writer)
    }

    /// The next bytes, of any number: the middle of a tensor, or several tensors.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SafetensorsError> {
        self.written += bytes.len() as u64;
        if self.written > self.expected {
            return Err(self.fault("more bytes are written than its header announces"));
        }
        self.put(bytes)
    }

    /// Bytes of tensors written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Waits until the file is on the disk. Returns its BLAKE3 digest.
    pub fn finish(mut self) -> Result<blake3::Hash, SafetensorsError> {
        if self.written != self.expected {
            let reason = format!("{} of {} announced bytes are written", self.written, self.expected);
            return Err(self.fault(&reason));
        }
        self.file.flush().map_err(IoError::at(&self.path, "write"))?;
        self.file.get_ref().sync_all().map_err(IoError::at(&self.path, "sync"))?;
        Ok(self.hasher.finalize())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SafetensorsError> {
        self.hasher.update(bytes);
        Ok(self.file.write_all(bytes).map_err(IoError::at(&self.path, "write"))?)
    }

    fn fault(&self, reason: &str) -> SafetensorsError {
        SafetensorsError::Written { path: self.path.clone(), reason: reason.to_string() }
    }
}

/// The JSON, padded with spaces so that the data begin at a multiple of 8, and the length of the data.
fn header(entries: &[Entry]) -> Result<(Vec<u8>, u64), String> {
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut at = 0;
    for entry in entries {
        let Entry { name, dtype, shape } = entry;
        if at % dtype.bytes() as u64 != 0 {
            return Err(format!(
                "tensor `{name}` would begin at byte {at}, inside an element of {}",
                dtype.name()
            ));
        }
        let end = at + entry.bytes();
        let value = json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [at, end] });
        if map.insert(name.clone(), value).is_some() {
            return Err(format!("tensor `{name}` is announced twice"));
        }
        at = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok((text, at))
}
