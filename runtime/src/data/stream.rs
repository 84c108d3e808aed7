//! The tokens of the files of one source, one file after the other.

use super::arrays::Array;
use super::{DataError, FileRecord};
use std::ops::Range;

/// All tokens of the files of one source.
#[derive(Debug, Default)]
pub(super) struct TokenStream {
    files: Vec<Tokens>,
    len: usize,
    /// In the order in which they were read.
    pub records: Vec<FileRecord>,
}

/// The tokens of one file.
#[derive(Debug)]
pub(super) enum Tokens {
    Held(Vec<u32>),
    Stored(Array),
}

impl Tokens {
    pub fn len(&self) -> usize {
        match self {
            Tokens::Held(ids) => ids.len(),
            Tokens::Stored(array) => array.len(),
        }
    }

    /// Appends the ids of a range within 0..len().
    pub fn read(&self, range: Range<usize>, ids: &mut Vec<u32>) -> Result<(), DataError> {
        match self {
            Tokens::Held(held) => {
                ids.extend_from_slice(&held[range]);
                Ok(())
            }
            Tokens::Stored(array) => array.read(range, ids),
        }
    }
}

impl TokenStream {
    pub fn push(&mut self, tokens: Tokens, record: FileRecord) {
        self.len += tokens.len();
        self.files.push(tokens);
        self.records.push(record);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Those of them that are in memory.
    pub fn held(&self) -> usize {
        self.files.iter().map(|file| if let Tokens::Held(ids) = file { ids.len() } else { 0 }).sum()
    }

    /// Appends the ids of a range within 0..len().
    pub fn read(&self, range: Range<usize>, ids: &mut Vec<u32>) -> Result<(), DataError> {
        let mut before = 0;
        for file in &self.files {
            let (begin, end) = (range.start.max(before), range.end.min(before + file.len()));
            if begin < end {
                file.read(begin - before..end - before, ids)?;
            }
            before += file.len();
        }
        Ok(())
    }
}
