//! The tokenizer of a declaration: opened once, and only where there is text that was not tokenized before.

use super::{Context, DataError};
use crate::checkpoint::digest_file;
use crate::tokens::{TOKENIZER_FILE, Tokenizer};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// Tokens of one source that are held in memory, 4 GiB of them.
pub(super) const MOST_HELD: usize = 1 << 30;

pub(super) struct Encoder<'a> {
    context: &'a Context<'a>,
    tokenizer: OnceCell<Tokenizer>,
    digest: OnceCell<String>,
}

impl<'a> Encoder<'a> {
    pub fn new(context: &'a Context<'a>) -> Self {
        Encoder { context, tokenizer: OnceCell::new(), digest: OnceCell::new() }
    }

    pub fn eos(&self) -> Option<u32> {
        self.context.eos
    }

    pub fn vocab_size(&self) -> usize {
        self.context.vocab_size
    }

    pub fn tokenizer(&self, needed_for: &Path) -> Result<&Tokenizer, DataError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let path = self.context.tokenizer;
        let path = path.ok_or_else(|| DataError::NoTokenizer { path: needed_for.to_path_buf() })?;
        let tokenizer = Tokenizer::open(path)?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// BLAKE3 of tokenizer.json; `None` where there is none.
    pub fn digest(&self) -> Result<Option<&str>, DataError> {
        let Some(path) = self.file() else { return Ok(None) };
        if self.digest.get().is_none() {
            let digest = digest_file(&path)?;
            return Ok(Some(self.digest.get_or_init(|| digest)));
        }
        Ok(self.digest.get().map(String::as_str))
    }

    fn file(&self) -> Option<PathBuf> {
        let path = self.context.tokenizer?;
        let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_path_buf() };
        path.is_file().then_some(path)
    }

    pub fn check_held(&self, tokens: usize, path: &Path) -> Result<(), DataError> {
        if tokens <= MOST_HELD {
            return Ok(());
        }
        Err(DataError::too_many(path.display().to_string()))
    }
}
