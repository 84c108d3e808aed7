//! Which files a declaration names, and how each is read.

use super::DataError;
use crate::error::IoError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl,
    Npy,
    Safetensors,
}

/// Formats that would be read as text by mistake.
const NOT_READ: &[&str] =
    &["parquet", "arrow", "bin", "json", "gz", "zst", "bz2", "xz", "zip", "npz", "pt", "pth"];

impl Format {
    /// By the extension; an unknown one is text.
    pub fn of(path: &Path) -> Result<Format, DataError> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Ok(Format::Jsonl),
            "npy" => Ok(Format::Npy),
            "safetensors" => Ok(Format::Safetensors),
            e if NOT_READ.contains(&e) => Err(DataError::Format {
                path: path.to_path_buf(),
                reason: format!("files of type .{e} are not read; text, .jsonl, .npy and .safetensors are"),
            }),
            _ => Ok(Format::Text),
        }
    }
}

/// Patterns in the order in which they stand, the matches of one sorted by their bytes, every file once.
pub(super) fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for pattern in patterns {
        let matches =
            if is_glob(base, pattern) { matches(base, pattern)? } else { vec![plain(base, pattern)?] };
        files.extend(matches.into_iter().filter(|path| seen.insert(path.clone())));
    }
    Ok(files)
}

/// A file whose name holds `[` or `*` is itself before it is a pattern.
fn is_glob(base: &Path, pattern: &str) -> bool {
    pattern.contains(['*', '?', '[']) && !base.join(pattern).is_file()
}

fn plain(base: &Path, pattern: &str) -> Result<PathBuf, DataError> {
    let path = base.join(pattern);
    if path.is_dir() {
        let reason = "is a folder; a glob such as `folder/*.txt` names its files".to_string();
        return Err(DataError::Format { path, reason });
    }
    if path.exists() { Ok(path) } else { Err(no_match(base, pattern)) }
}

fn matches(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let fault = |reason: String| DataError::Glob { pattern: pattern.to_string(), reason };
    let absolute = Path::new(pattern).is_absolute();
    let whole = if absolute {
        pattern.to_string()
    } else {
        let base = base.to_str().ok_or_else(|| fault("its folder's name is not UTF-8".into()))?;
        let base = if base.is_empty() { "." } else { base };
        format!("{}/{pattern}", glob::Pattern::escape(base))
    };
    let mut files = Vec::new();
    for path in glob::glob(&whole).map_err(|e| fault(e.to_string()))? {
        let path = path.map_err(|e| {
            let path = e.path().to_path_buf();
            IoError { path, action: "list", source: e.into() }
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(no_match(base, pattern));
    }
    files.sort();
    Ok(files)
}

fn no_match(base: &Path, pattern: &str) -> DataError {
    DataError::NoMatch { base: base.to_path_buf(), pattern: pattern.to_string() }
}

pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(IoError::at(path, "read"))?;
    String::from_utf8(bytes).map_err(|e| DataError::Format {
        path: path.to_path_buf(),
        reason: format!("is not UTF-8 text at byte {}", e.utf8_error().valid_up_to()),
    })
}
