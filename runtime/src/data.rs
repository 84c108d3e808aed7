//! `data` declarations: files to one stream of tokens, cut into windows, some of them picked.
//!
//! - Text: the ids of each file, one after the other, nothing added.
//! - JSONL: the ids of each row's field, and the `eos_token_id` of config.json, where it has one, after each
//!   row.
//! - Arrays (.npy, .safetensors): the ids as they are, rows one after the other.
//!
//! The stream is cut into windows of `sequence` tokens; a short last one is dropped. A window is picked at
//! most once.

mod arrays;
mod files;
mod jsonl;
mod sampling;

use crate::error::{IoError, Kind};
use crate::safetensors::SafetensorsError;
use crate::tokens::{Tokenizer, TokenizerError};
use minic_compiler::hir;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// What reading a declaration needs to know of the model and the recipe.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Relative paths are relative to it.
    pub base: &'a Path,
    /// The model's folder or a tokenizer.json; opened only where text is read.
    pub tokenizer: Option<&'a Path>,
    /// Ids are below it.
    pub vocab_size: usize,
    /// Ends each row of JSONL; [`crate::tokens::eos_id`].
    pub eos: Option<u32>,
}

/// The files that a path or glob of a declaration names, sorted.
pub fn matching(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    files::expand(base, &[pattern.to_string()])
}

/// The file is of a format that is read.
pub fn is_read(path: &Path) -> bool {
    files::Format::of(path).is_ok()
}

/// All tokens of the files of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenStream {
    pub tokens: Vec<u32>,
    /// In the order in which they were read.
    pub files: Vec<FileRecord>,
}

/// A file that went in.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRecord {
    pub path: PathBuf,
    /// BLAKE3, hexadecimal.
    pub digest: String,
    pub tokens: usize,
}

/// Windows of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    sequence: usize,
    tokens: Vec<u32>,
    pub files: Vec<FileRecord>,
    /// BLAKE3 of the length of a window and all tokens in order, hexadecimal: what was seen, however it
    /// was stored.
    pub digest: String,
}

impl Samples {
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.sequence
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Window `i` of 0..len(), `sequence` tokens.
    pub fn window(&self, i: usize) -> &[u32] {
        &self.tokens[i * self.sequence..(i + 1) * self.sequence]
    }

    pub fn windows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.sequence)
    }
}

/// The windows of a declaration.
///
/// Without `samples`, all windows in the order of the files. With it, so many in the order of a seeded
/// shuffle, so that fewer samples are the beginning of more. In a mix every window comes from the source that
/// is furthest behind its weight; without `samples` that ends where such a source has none left.
pub fn load(data: &hir::Data, context: &Context) -> Result<Samples, DataError> {
    let base = data.tokenizer.as_ref().map(|t| context.base.join(t));
    let context = Context { tokenizer: base.as_deref().or(context.tokenizer), ..context.clone() };
    let reader = StreamReader::new(&context, data.field.as_deref());
    let streams =
        data.mix.iter().map(|source| reader.read(&source.files)).collect::<Result<Vec<TokenStream>, _>>()?;
    let weights: Vec<f64> = data.mix.iter().map(|source| source.weight).collect();
    sampling::sample(&streams, &weights, data.sequence, data.samples, data.seed)
}

/// Reads files into streams; the tokenizer is opened once, and only if it is needed.
struct StreamReader<'a> {
    context: &'a Context<'a>,
    field: &'a str,
    tokenizer: OnceCell<Tokenizer>,
}

const DEFAULT_FIELD: &str = "text";

impl<'a> StreamReader<'a> {
    fn new(context: &'a Context, field: Option<&'a str>) -> Self {
        StreamReader { context, field: field.unwrap_or(DEFAULT_FIELD), tokenizer: OnceCell::new() }
    }

    /// The files that paths and globs name, in order: as listed, those of one glob sorted, each once.
    fn read(&self, patterns: &[String]) -> Result<TokenStream, DataError> {
        let mut stream = TokenStream::default();
        for path in files::expand(self.context.base, patterns)? {
            let digest = crate::checkpoint::digest_file(&path)?;
            let tokens = self.read_file(&path)?;
            self.check_ids(&path, &tokens)?;
            stream.files.push(FileRecord { path, digest, tokens: tokens.len() });
            stream.tokens.extend(tokens);
        }
        if stream.tokens.is_empty() {
            return Err(DataError::Empty { files: patterns.to_vec() });
        }
        Ok(stream)
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u32>, DataError> {
        match files::Format::of(path)? {
            files::Format::Text => {
                let text = files::read_text(path)?;
                Ok(self.tokenizer(path)?.encode(&text)?)
            }
            files::Format::Jsonl => {
                let text = files::read_text(path)?;
                jsonl::read(path, &text, self.field, self.tokenizer(path)?, self.context.eos)
            }
            files::Format::Npy => arrays::read_npy(path),
            files::Format::Safetensors => arrays::read_safetensors(path),
        }
    }

    fn tokenizer(&self, needed_for: &Path) -> Result<&Tokenizer, DataError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let path = self
            .context
            .tokenizer
            .ok_or_else(|| DataError::NoTokenizer { path: needed_for.to_path_buf() })?;
        let tokenizer = Tokenizer::open(path)?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    fn check_ids(&self, path: &Path, tokens: &[u32]) -> Result<(), DataError> {
        let vocab_size = self.context.vocab_size;
        match tokens.iter().position(|&id| id as usize >= vocab_size) {
            Some(at) => Err(DataError::IdOutOfRange {
                path: path.to_path_buf(),
                at,
                id: i64::from(tokens[at]),
                vocab_size: Some(vocab_size),
            }),
            None => Ok(()),
        }
    }
}

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
    #[error("{}:{line}: {reason}", path.display())]
    Row { path: PathBuf, line: usize, reason: String },
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
}

fn bound(vocab_size: Option<usize>) -> String {
    match vocab_size {
        Some(size) => format!("and the model's vocab_size is {size}"),
        None => "which is no token id".to_string(),
    }
}

impl DataError {
    pub fn kind(&self) -> Kind {
        match self {
            DataError::Io(e) => e.kind(),
            DataError::Tokenizer(e) => e.kind(),
            DataError::Safetensors(e) => e.kind(),
            _ => Kind::Input,
        }
    }
}

#[cfg(test)]
mod tests;
