//! A checkpoint folder of Hugging Face: config.json, one safetensors file or shards with their index.
//!
//! Opening proves that the files hold every weight of the family's table and no other, each of the shape that
//! config.json implies; tensors are read later, one by one.

mod digest;
mod index;
mod table;

use crate::convert;
use crate::error::{IoError, Kind};
use crate::input;
use crate::safetensors::{Reader, SafetensorsError, Tensor};
use crate::stamp::Stamp;
use minic_compiler::config;
use minic_compiler::families::{self, ConfigError};
use minic_compiler::model::{DType, ModelDesc};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use digest::{Digests, digest_file};
pub use index::{INDEX_FILE, WEIGHTS_FILE, WeightIndex};
pub use table::Mismatch;

pub const CONFIG_FILE: &str = "config.json";

/// An open checkpoint. Shared by threads: every read is at a position of its own.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    /// config.json as it was when it was read.
    config: Stamp,
    desc: ModelDesc,
    files: Vec<Reader>,
    places: BTreeMap<String, Place>,
    notes: Vec<String>,
}

/// Where a weight of the table lies: a file, and the name that it has there.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    file: usize,
    stored: String,
}

impl Checkpoint {
    /// Opens a folder and checks it against its config.json. No tensor is read.
    pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        let config = Stamp::of(&folder.join(CONFIG_FILE))?;
        let mut desc = read_desc(folder)?;
        let files = index::open_files(folder)?;
        desc.prefix = table::prefix(&files).unwrap_or(desc.prefix);
        let table::Matched { places, notes } = table::compare(&desc, &files)
            .map_err(|mismatches| CheckpointError::Weights { folder: folder.to_path_buf(), mismatches })?;
        Ok(Checkpoint { folder: folder.to_path_buf(), config, desc, files, places, notes })
    }

    /// Opens a folder of which only config.json is used. No weight can be read of it.
    pub fn shape_of(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        let config = Stamp::of(&folder.join(CONFIG_FILE))?;
        let (desc, folder) = (read_desc(folder)?, folder.to_path_buf());
        Ok(Checkpoint { folder, config, desc, files: Vec::new(), places: BTreeMap::new(), notes: Vec::new() })
    }

    /// The folder has a config.json and no weights: the shape of a model, and nothing more.
    pub fn is_weightless(folder: &Path) -> bool {
        let has = |name: &str| folder.join(name).exists();
        has(CONFIG_FILE) && !has(WEIGHTS_FILE) && !has(INDEX_FILE)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn desc(&self) -> &ModelDesc {
        &self.desc
    }

    /// What a user should know though nothing is wrong: tensors that are not loaded.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// No file of the folder that was read has been written, replaced or removed since it was opened.
    pub fn unchanged(&self) -> Result<(), CheckpointError> {
        let path = self.folder.join(CONFIG_FILE);
        if let Some(change) = self.config.since(&path)? {
            return Err(SafetensorsError::Changed { path, change }.into());
        }
        Ok(self.files.iter().try_for_each(Reader::unchanged)?)
    }

    /// A weight by its name in the table, `desc().weights()`.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, CheckpointError> {
        let (reader, stored) = self.place(name)?;
        reader.tensor(stored).ok_or_else(|| self.unknown(name))
    }

    /// The file that holds a weight.
    pub fn file(&self, name: &str) -> Result<&Path, CheckpointError> {
        Ok(self.place(name)?.0.path())
    }

    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        Ok(&self.tensor(name)?.shape)
    }

    pub fn dtype(&self, name: &str) -> Result<DType, CheckpointError> {
        self.tensor(name)?.element.dtype().ok_or_else(|| self.unknown(name))
    }

    /// The dtype of most of the weights' bytes, which is what the checkpoint is said to be in.
    pub fn main_dtype(&self) -> Option<DType> {
        let mut bytes: BTreeMap<DType, u64> = BTreeMap::new();
        for name in self.places.keys() {
            let Ok(tensor) = self.tensor(name) else { continue };
            let Some(dtype) = tensor.element.dtype() else { continue };
            *bytes.entry(dtype).or_default() += tensor.bytes();
        }
        bytes.into_iter().max_by_key(|(dtype, n)| (*n, std::cmp::Reverse(*dtype))).map(|(dtype, _)| dtype)
    }

    /// A whole tensor as stored, into `out`, whose former contents are lost.
    pub fn read_bytes(&self, name: &str, out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        let (reader, stored) = self.place(name)?;
        Ok(reader.read(stored, out)?)
    }

    /// Rows `rows` of a tensor as stored, into `out`, whose former contents are lost.
    pub fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), CheckpointError> {
        let (reader, stored) = self.place(name)?;
        Ok(reader.read_rows(stored, rows, out)?)
    }

    /// A whole tensor in row-major order. Stored values of 16 bits are read in pieces, so that the peak is
    /// the result and a few MiB.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (dtype, tensor) = (self.dtype(name)?, self.tensor(name)?);
        let mut values = Vec::with_capacity(tensor.len());
        let mut bytes = Vec::new();
        for rows in pieces(tensor) {
            self.read_rows(name, rows, &mut bytes)?;
            convert::decode(dtype, &bytes, &mut values);
        }
        Ok(values)
    }

    /// The first NaN or infinity of a tensor: its index in row-major order, and its value.
    pub fn first_non_finite(&self, name: &str) -> Result<Option<(usize, f32)>, CheckpointError> {
        let (dtype, tensor) = (self.dtype(name)?, self.tensor(name)?);
        let mut bytes = Vec::new();
        for rows in pieces(tensor) {
            let before = rows.start * tensor.row_bytes() / dtype.bytes();
            self.read_rows(name, rows, &mut bytes)?;
            if let Some((at, value)) = convert::first_non_finite(dtype, &bytes) {
                return Ok(Some((before + at, value)));
            }
        }
        Ok(None)
    }

    /// BLAKE3 of config.json and of every file of weights, and of all of them together.
    pub fn digests(&self) -> Result<Digests, CheckpointError> {
        Ok(self.digests_by(digest_file)?)
    }

    /// The same, by a function that may know digests already.
    pub fn digests_by<E: Send>(
        &self,
        digest: impl Fn(&Path) -> Result<String, E> + Sync,
    ) -> Result<Digests, E> {
        let mut names = vec![CONFIG_FILE.to_string()];
        names.extend(self.files.iter().filter_map(|f| Some(f.path().file_name()?.to_str()?.to_string())));
        digest::digests(&self.folder, names, digest)
    }

    /// The file that holds a weight, and the name that it has there.
    pub(crate) fn place(&self, name: &str) -> Result<(&Reader, &str), CheckpointError> {
        let place = self.places.get(name).ok_or_else(|| self.unknown(name))?;
        Ok((&self.files[place.file], &place.stored))
    }

    fn unknown(&self, name: &str) -> CheckpointError {
        CheckpointError::Unknown { folder: self.folder.clone(), name: name.to_string() }
    }
}

/// Row ranges of a few MiB each, one row at least.
pub(crate) fn pieces(tensor: &Tensor) -> impl Iterator<Item = Range<usize>> + use<> {
    const PIECE: usize = 4 << 20;
    let (rows, step) = (tensor.rows(), (PIECE / tensor.row_bytes().max(1)).max(1));
    (0..rows).step_by(step).map(move |at| at..rows.min(at + step))
}

/// The model that a folder's config.json describes.
pub fn read_desc(folder: &Path) -> Result<ModelDesc, CheckpointError> {
    let path = folder.join(CONFIG_FILE);
    let bytes = input::read(&path, input::CONFIG)?;
    let wrong = |error: ConfigError| CheckpointError::Config { path: path.clone(), error };
    let text = String::from_utf8(bytes).map_err(|_| {
        wrong(ConfigError { key: CONFIG_FILE.into(), message: "is not UTF-8".into(), help: None })
    })?;
    let map = config::parse(&text).map_err(wrong)?;
    families::describe(&map).map_err(wrong)
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error("{}: {}", path.display(), told(error))]
    Config { path: PathBuf, error: ConfigError },
    #[error("{}: neither {WEIGHTS_FILE} nor {INDEX_FILE} is there", folder.display())]
    NoWeights { folder: PathBuf },
    #[error("{}: {reason}", path.display())]
    Index { path: PathBuf, reason: String },
    #[error("{}: the weights are not those of its config.json:{}", folder.display(), table::listed(mismatches))]
    Weights { folder: PathBuf, mismatches: Vec<Mismatch> },
    #[error("{}: no weight is named `{name}`", folder.display())]
    Unknown { folder: PathBuf, name: String },
}

/// Where the whole file is at fault, it is named once.
fn told(error: &ConfigError) -> String {
    if error.key == CONFIG_FILE { error.message.clone() } else { error.to_string() }
}

impl CheckpointError {
    pub fn kind(&self) -> Kind {
        match self {
            CheckpointError::Io(e) => e.kind(),
            CheckpointError::Safetensors(e) => e.kind(),
            CheckpointError::Config { .. }
            | CheckpointError::NoWeights { .. }
            | CheckpointError::Index { .. }
            | CheckpointError::Weights { .. }
            | CheckpointError::Unknown { .. } => Kind::Input,
        }
    }
}

#[cfg(test)]
mod tests;
