//! `data` declarations: files to one stream of tokens, cut into windows, some of them picked.
//!
//! - Text: the ids of each file, one after the other, nothing added.
//! - Rows of JSONL and Parquet whose field is a string: its ids, and the `eos_token_id` of config.json, where
//!   it has one, after each row. Rows whose field is a list of ids: the ids as they are.
//! - Arrays (.npy, .safetensors, .u16, .u32, .bin): the ids as they are, rows one after the other.
//!
//! Text and JSONL may be packed (.gz, .zst). Files are read piece by piece; what is held is the tokens of
//! texts and rows, four bytes each, and the windows that are picked.
//!
//! With `answer`, each row is a sample by itself: a question and its answer, padded.
//!
//! The stream is cut into windows of `sequence` tokens; a short last one is dropped. A window is picked at
//! most once.

mod arrays;
mod cache;
mod encoder;
mod error;
mod files;
mod jsonl;
mod packed;
mod parquet;
mod questions;
mod rows;
mod sampling;
mod stream;
mod text;

use crate::checkpoint::digest_file;
use crate::error::IoError;
use crate::input;
use encoder::{Encoder, MOST_HELD};
use files::{Form, Format, Packing};
use minic_compiler::hir;
use packed::Unpacked;
use rows::Gatherer;
use std::ops::Range;
use std::path::{Path, PathBuf};
use stream::{TokenStream, Tokens};

pub use cache::{FileTokens, READER, TokenCache, TokenKey};
pub use error::DataError;
pub use rows::{BadRow, Leftovers, Place};

/// Raised when other samples are picked of the same tokens.
pub const VERSION: u32 = 1;

/// What reading a declaration needs to know of the model and the recipe.
#[derive(Clone)]
pub struct Context<'a> {
    /// Relative paths are relative to it.
    pub base: &'a Path,
    /// The model's folder or a tokenizer.json; opened only where text is read.
    pub tokenizer: Option<&'a Path>,
    /// Ids are below it.
    pub vocab_size: usize,
    /// Ends each row of text; [`crate::tokens::eos_id`].
    pub eos: Option<u32>,
    /// Where tokens of files are kept.
    pub cache: Option<&'a dyn TokenCache>,
}

/// The files that a path or glob of a declaration names, sorted.
pub fn matching(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    files::expand(base, &[pattern.to_string()])
}

/// The most tokens that any tokenizer makes of a file; `None` where that cannot be said without reading it.
/// The error says why the file cannot be read.
pub fn most_tokens(path: &Path) -> Result<Option<u64>, DataError> {
    let form = Form::of(path)?;
    let bytes = std::fs::metadata(path).map_err(IoError::at(path, "read the size"))?.len();
    Ok(match (form.format, form.packing) {
        // No token is shorter than a byte, and a row has more bytes around its text than ids are added.
        (Format::Text | Format::Jsonl, Packing::None) => Some(bytes),
        (Format::Npy | Format::Safetensors, _) => Some(bytes),
        (Format::Raw(width), _) => Some(bytes / width.least() as u64),
        (Format::Parquet, _) | (_, Packing::Gzip | Packing::Zstd) => None,
    })
}

/// How a file is read, as far as its own bytes do not say: by its name, and by the index beside a `.bin`.
pub fn form(path: &Path) -> Result<String, DataError> {
    let form = Form::of(path)?;
    Ok(match form.format {
        Format::Raw(width) => arrays::raw_form(path, width)?,
        _ => form.name(),
    })
}

/// A file that went in.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRecord {
    pub path: PathBuf,
    /// BLAKE3, hexadecimal.
    pub digest: String,
    pub tokens: usize,
    /// Of its rows; empty where it has none.
    pub leftovers: Leftovers,
}

/// Windows of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    sequence: usize,
    tokens: Vec<u32>,
    /// Of questions: which tokens of each window are the answer.
    answers: Option<Vec<Range<usize>>>,
    pub files: Vec<FileRecord>,
    /// BLAKE3 of the length of a window and all tokens in order, hexadecimal: what was seen, however it
    /// was stored.
    pub digest: String,
}

impl Samples {
    #[cfg(test)]
    pub(crate) fn of(sequence: usize, tokens: Vec<u32>) -> Samples {
        let digest = sampling::digest(sequence, &tokens);
        Samples { sequence, tokens, answers: None, files: Vec::new(), digest }
    }

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

    /// Of questions: which tokens of each window are the answer; the first token is never one.
    pub fn answers(&self) -> Option<&[Range<usize>]> {
        self.answers.as_deref()
    }

    /// What a user should know though nothing is wrong: rows that were left out.
    pub fn notes(&self) -> Vec<String> {
        self.files.iter().filter_map(|f| f.leftovers.note(&f.path)).collect()
    }

    /// Rows of all files that were left out.
    pub fn bad_rows(&self) -> u64 {
        self.files.iter().map(|f| f.leftovers.bad).sum()
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
    if let Some(answer) = &data.answer {
        return questions::load(data, answer, &context);
    }
    let reader = Reader { encoder: Encoder::new(&context), context: &context, data };
    let streams = data.mix.iter().map(|source| reader.source(&source.files));
    let streams = streams.collect::<Result<Vec<TokenStream>, _>>()?;
    let weights: Vec<f64> = data.mix.iter().map(|source| source.weight).collect();
    sampling::sample(&streams, &weights, data.sequence, data.samples, data.seed)
}

/// All tokens of one file, and the rows that were left out, whatever their number. `field` is the field of
/// rows, `text` by default.
pub fn read_file(path: &Path, field: Option<&str>, context: &Context) -> Result<FileTokens, DataError> {
    let encoder = Encoder::new(context);
    let (tokens, leftovers) = read(path, field.unwrap_or(DEFAULT_FIELD), &encoder)?;
    if tokens.len() > MOST_HELD {
        return Err(DataError::too_many(path.display().to_string()));
    }
    let mut ids = Vec::new();
    tokens.read(0..tokens.len(), &mut ids)?;
    Ok(FileTokens { tokens: ids, leftovers })
}

const DEFAULT_FIELD: &str = "text";

/// Reads the files of a declaration.
struct Reader<'a> {
    encoder: Encoder<'a>,
    context: &'a Context<'a>,
    data: &'a hir::Data,
}

impl Reader<'_> {
    /// The files that paths and globs name, in order: as listed, those of one glob sorted, each once.
    fn source(&self, patterns: &[String]) -> Result<TokenStream, DataError> {
        let mut stream = TokenStream::default();
        for path in files::expand(self.context.base, patterns)? {
            let digest = digest_file(&path)?;
            let (tokens, leftovers) = self.file(&path, &digest)?;
            leftovers.judge(&path, self.data.bad_rows)?;
            let record = FileRecord { path, digest, tokens: tokens.len(), leftovers };
            stream.push(tokens, record);
            if stream.held() > MOST_HELD {
                return Err(DataError::too_many(patterns.join(", ")));
            }
        }
        if stream.len() == 0 {
            return Err(DataError::Empty { files: patterns.to_vec() });
        }
        Ok(stream)
    }

    /// From the cache, where tokens had to be made and are kept; else from the file.
    fn file(&self, path: &Path, digest: &str) -> Result<(Tokens, Leftovers), DataError> {
        let field = self.data.field.as_deref().unwrap_or(DEFAULT_FIELD);
        let cache = match (self.context.cache, self.key(path, digest, field)?) {
            (Some(cache), Some(key)) => Some((cache, key)),
            _ => None,
        };
        if let Some(kept) = cache.as_ref().and_then(|(cache, key)| cache.get(key)) {
            arrays::check_ids(path, 0, &kept.tokens, self.context.vocab_size)?;
            return Ok((Tokens::Held(kept.tokens), kept.leftovers));
        }
        match (read(path, field, &self.encoder)?, cache) {
            ((Tokens::Held(tokens), leftovers), Some((cache, key))) => {
                let made = FileTokens { tokens, leftovers };
                cache.put(&key, &made);
                Ok((Tokens::Held(made.tokens), made.leftovers))
            }
            (read, _) => Ok(read),
        }
    }

    /// What the tokens of a file depend on; `None` where they are not made but read.
    fn key(&self, path: &Path, digest: &str, field: &str) -> Result<Option<TokenKey>, DataError> {
        let form = Form::of(path)?;
        let rows = match form.format {
            Format::Text => false,
            Format::Jsonl | Format::Parquet => true,
            Format::Npy | Format::Safetensors | Format::Raw(_) => return Ok(None),
        };
        Ok(Some(TokenKey {
            reader: READER,
            file: digest.to_string(),
            form: form.name(),
            field: rows.then(|| field.to_string()),
            tokenizer: self.encoder.digest()?.map(str::to_string),
            eos: self.context.eos.filter(|_| rows),
        }))
    }
}

/// The tokens of one file, every id within the vocabulary.
fn read(path: &Path, field: &str, encoder: &Encoder) -> Result<(Tokens, Leftovers), DataError> {
    let form = Form::of(path)?;
    let array = match form.format {
        Format::Npy => arrays::open_npy(path)?,
        Format::Safetensors => arrays::open_safetensors(path)?,
        Format::Raw(width) => arrays::open_raw(path, width, encoder.vocab_size())?,
        Format::Text => {
            let tokens = text::read(path, &mut Unpacked::open(path, form.packing)?, encoder)?;
            return held(path, tokens, Leftovers::default(), encoder);
        }
        Format::Jsonl => {
            let mut rows = Gatherer::new(encoder, path);
            jsonl::read(&mut Unpacked::open(path, form.packing)?, field, &mut rows)?;
            return held(path, rows.tokens, rows.leftovers, encoder);
        }
        Format::Parquet => {
            let mut rows = Gatherer::new(encoder, path);
            parquet::read(path, input::open(path)?, field, &mut rows)?;
            return held(path, rows.tokens, rows.leftovers, encoder);
        }
    };
    array.check(encoder.vocab_size())?;
    Ok((Tokens::Stored(array), Leftovers::default()))
}

fn held(
    path: &Path,
    tokens: Vec<u32>,
    leftovers: Leftovers,
    encoder: &Encoder,
) -> Result<(Tokens, Leftovers), DataError> {
    arrays::check_ids(path, 0, &tokens, encoder.vocab_size())?;
    Ok((Tokens::Held(tokens), leftovers))
}

#[cfg(test)]
mod tests;
