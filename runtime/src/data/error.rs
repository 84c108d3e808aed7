//! Why data cannot be read.

use super::encoder::MOST_HELD;
use super::rows::Leftovers;
use crate::error::{IoError, Kind};
use crate::safetensors::SafetensorsError;
use crate::tokens::TokenizerError;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error("{}: no file matches `{pattern}`", base.display())]
    NoMatch { base: PathBuf, pattern: String },
    #[error("`{pattern}` is not a glob: {reason}")]
    Glob { pattern: String, reason: String },
    #[error("{}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("{}{leftovers}", bad_rows(path, leftovers, *limit))]
    BadRows { path: PathBuf, leftovers: Box<Leftovers>, limit: u64 },
    #[error("{}: text needs a tokenizer, and the model has no tokenizer.json", path.display())]
    NoTokenizer { path: PathBuf },
    #[error("{}: token {at} has id {id}, {}", path.display(), bound(*vocab_size))]
    IdOutOfRange { path: PathBuf, at: usize, id: i64, vocab_size: Option<usize> },
    #[error("no token is in {}", files.join(", "))]
    Empty { files: Vec<String> },
    #[error("a sequence of {sequence} tokens is longer than the data, {tokens} tokens in {files}")]
    SequenceTooLong { sequence: usize, tokens: usize, files: String },
    #[error("{wanted} samples are asked for, but {files} give {found} windows of {sequence} tokens")]
    TooFewSamples { wanted: usize, found: usize, sequence: usize, files: String },
    #[error("{wanted} samples are asked for, but {files} hold {found} questions")]
    TooFewQuestions { wanted: usize, found: usize, files: String },
    #[error(
        "{files}: more than {MOST_HELD} tokens, the most that is held in memory; name fewer files, ask for fewer `samples`, or make the tokens before, in a .npy, .u16 or .u32 file, which is read where it lies"
    )]
    TooMany { files: String },
}

fn bad_rows(path: &Path, leftovers: &Leftovers, limit: u64) -> String {
    let Leftovers { rows, bad, .. } = leftovers;
    let rest = match limit {
        0 => "none may be bad".to_string(),
        limit if limit < *bad => format!("{limit} may be bad"),
        _ => "one at least must be good".to_string(),
    };
    format!(
        "{}: {bad} of {rows} rows cannot be read, and {rest} (`bad_rows` sets the limit):",
        path.display()
    )
}

fn bound(vocab_size: Option<usize>) -> String {
    match vocab_size {
        Some(size) => format!("and the model's vocab_size is {size}"),
        None => "which is no token id".to_string(),
    }
}

impl DataError {
    pub(super) fn too_many(files: String) -> DataError {
        DataError::TooMany { files }
    }

    pub fn kind(&self) -> Kind {
        match self {
            DataError::Io(e) => e.kind(),
            DataError::Tokenizer(e) => e.kind(),
            DataError::Safetensors(e) => e.kind(),
            _ => Kind::Input,
        }
    }
}
