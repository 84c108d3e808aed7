//! Folders that appear whole or not at all.
//!
//! Everything is written into a hidden folder beside the final one and synced; then one rename makes it the
//! final one. Until then, and after any error, the final name is untouched.

mod stage;
mod weights;

use crate::error::{IoError, Kind};
use crate::input;
use crate::safetensors::SafetensorsError;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use stage::StagedFolder;
pub use weights::{Piece, Written, WrittenFile, groups, write_weights};

/// Files of a checkpoint that go along unchanged: generation settings, and everything of the tokenizer.
const COMPANIONS: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
];

/// The same, whatever the extension.
const COMPANION_STEMS: &[&str] = &["vocab", "chat_template"];

/// Copies a checkpoint's companions byte for byte; returns their names, sorted.
pub fn copy_companions(checkpoint: &Path, staged: &StagedFolder) -> Result<Vec<String>, PublishError> {
    let mut copied = Vec::new();
    for entry in fs::read_dir(checkpoint).map_err(IoError::at(checkpoint, "list"))? {
        let entry = entry.map_err(IoError::at(checkpoint, "list"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let stem = name.split_once('.').map_or("", |(stem, _)| stem);
        let wanted = COMPANIONS.contains(&name.as_str()) || COMPANION_STEMS.contains(&stem);
        // Not by the entry's own type: caches of downloads are folders of links.
        if wanted && entry.path().is_file() {
            // The content alone: a read-only source makes no read-only export.
            let bytes = input::read(&entry.path(), input::TOKENIZER)?;
            staged.write(&name, &bytes)?;
            copied.push(name);
        }
    }
    copied.sort();
    Ok(copied)
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error("{}: holds something already; --overwrite replaces it", path.display())]
    Exists { path: PathBuf },
    #[error("{}: is a file, not a folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{}: is no name for a folder", path.display())]
    NoName { path: PathBuf },
    #[error("{}: would be replaced, but {} lies in it", path.display(), input.display())]
    HoldsInput { path: PathBuf, input: PathBuf },
    #[error("tensor `{tensor}`: element {at} is {value}{}", rounded(*rounded_from))]
    NonFinite { tensor: String, at: usize, value: f32, rounded_from: Option<f32> },
    #[error("tensor `{tensor}`, rows {rows:?}: {written} bytes were given, {expected} were announced")]
    Incomplete { tensor: String, rows: Range<usize>, written: u64, expected: u64 },
}

fn rounded(from: Option<f32>) -> String {
    from.map_or(String::new(), |value| format!(", rounded from {value}: the dtype's range is too small"))
}

impl PublishError {
    pub fn kind(&self) -> Kind {
        match self {
            PublishError::Io(e) => e.kind(),
            PublishError::Safetensors(e) => e.kind(),
            PublishError::Exists { .. }
            | PublishError::NotAFolder { .. }
            | PublishError::NoName { .. }
            | PublishError::HoldsInput { .. } => Kind::Input,
            PublishError::NonFinite { .. } | PublishError::Incomplete { .. } => Kind::Proof,
        }
    }
}

#[cfg(test)]
mod tests;
