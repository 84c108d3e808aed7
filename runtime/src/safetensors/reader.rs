//! One file, opened and checked.

use super::header::{self, Header, MAX_HEADER};
use super::{SafetensorsError, Tensor};
use crate::error::IoError;
use crate::position::PositionedFile;
use crate::stamp::{Change, Stamp};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A safetensors file whose header has been checked wholly.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: PositionedFile,
    /// The file as it was when its header was checked.
    stamp: Stamp,
    /// Where the data begin in the file.
    data: u64,
    header: Header,
}

impl Reader {
    /// Reads and checks the header; no tensor is read.
    pub fn open(path: &Path) -> Result<Reader, SafetensorsError> {
        let fault = |reason: String| SafetensorsError::Header { path: path.to_path_buf(), reason };
        let file = PositionedFile::open(path)?;
        let stamp = file.stamp()?;
        let len = stamp.len;
        let mut prefix = [0; 8];
        if len < 8 {
            return Err(fault(format!("it has {len} bytes, fewer than the length of a header takes")));
        }
        file.read_exact_at(&mut prefix, 0)?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > MAX_HEADER {
            return Err(fault(format!("a header of {header_len} bytes is over the limit of {MAX_HEADER}")));
        }
        if header_len > len - 8 {
            return Err(fault(format!(
                "a header of {header_len} bytes is longer than the file of {len} bytes"
            )));
        }
        let mut text = vec![0; header_len as usize];
        file.read_exact_at(&mut text, 8)?;
        let data = 8 + header_len;
        let header = header::parse(&text, len - data).map_err(|f| match f.tensor {
            Some(tensor) => SafetensorsError::Tensor { path: path.to_path_buf(), tensor, reason: f.reason },
            None => fault(f.reason),
        })?;
        Ok(Reader { path: path.to_path_buf(), file, stamp, data, header })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it was when it was opened.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The path still leads to the file that was opened, and nobody has written it since.
    pub fn unchanged(&self) -> Result<(), SafetensorsError> {
        self.stamp.since(&self.path)?.map_or(Ok(()), |change| Err(self.changed(change)))
    }

    /// In the header's order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.header.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.header.tensors.get(name)
    }

    /// Where the bytes of one of its tensors begin in the file.
    pub fn offset(&self, tensor: &Tensor) -> u64 {
        self.data + tensor.begin
    }

    /// `__metadata__`, empty where the file has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The bytes of rows `rows` (indices of the first dimension) into `out`, whose former contents are lost.
    pub fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SafetensorsError> {
        let tensor = self.tensor(name).ok_or_else(|| self.fault(name, "is not in this file".into()))?;
        if rows.start > rows.end || rows.end > tensor.rows() {
            return Err(self.fault(name, format!("rows {rows:?} of {} are asked for", tensor.rows())));
        }
        let row = tensor.row_bytes();
        out.resize((rows.end - rows.start) * row, 0);
        let at = self.data + tensor.begin + (rows.start * row) as u64;
        self.file.read_exact_at(out, at).map_err(|e| self.cut_short(e))
    }

    /// All bytes of a tensor into `out`, whose former contents are lost.
    pub fn read(&self, name: &str, out: &mut Vec<u8>) -> Result<(), SafetensorsError> {
        let rows = self.tensor(name).map_or(0, Tensor::rows);
        self.read_rows(name, 0..rows, out)
    }

    /// The header was checked against the length of the file: an end before it means a shorter file.
    fn cut_short(&self, error: IoError) -> SafetensorsError {
        match self.file.len() {
            Ok(now) if error.source.kind() == io::ErrorKind::UnexpectedEof => {
                self.changed(Change::Length { before: self.stamp.len, now })
            }
            _ => error.into(),
        }
    }

    fn changed(&self, change: Change) -> SafetensorsError {
        SafetensorsError::Changed { path: self.path.clone(), change }
    }

    fn fault(&self, tensor: &str, reason: String) -> SafetensorsError {
        SafetensorsError::Tensor { path: self.path.clone(), tensor: tensor.to_string(), reason }
    }
}
