//! Rows of JSONL and Parquet: texts become ids, rows that cannot be read are left out and counted.

use super::DataError;
use super::encoder::Encoder;
use crate::error::Kind;
use minic_compiler::hir;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Bytes of the longest row that is read.
pub(super) const LONGEST: usize = 64 << 20;

/// Bytes of text that are gathered before they are tokenized.
const BATCH: usize = 4 << 20;

/// Bad rows that are remembered, the first ones.
const NAMED: usize = 5;

/// What the field of a row holds.
pub(super) enum Row {
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

/// Takes the rows of a file in order.
pub(super) trait Rows {
    /// The row that stands at `at`, or why it cannot be read.
    fn push(&mut self, at: Place, row: Result<Row, String>) -> Result<(), DataError>;

    /// Must be called after the last row.
    fn flush(&mut self) -> Result<(), DataError>;
}

/// The rows of one file, and which of them were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftovers {
    pub rows: u64,
    pub bad: u64,
    /// The first bad ones.
    pub first: Vec<BadRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    pub at: Place,
    pub reason: String,
}

/// Where a row stands, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Of a JSONL file.
    Line(u64),
    /// Of a Parquet file.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// `\n  line 3: is not a JSON object`, for each that is known.
impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for BadRow { at, reason } in &self.first {
            write!(f, "\n  {at}: {reason}")?;
        }
        match self.bad - (self.first.len() as u64).min(self.bad) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl Leftovers {
    pub(super) fn leave_out(&mut self, at: Place, reason: String) {
        self.bad += 1;
        if self.first.len() < NAMED {
            self.first.push(BadRow { at, reason });
        }
    }

    /// `FILE: 3 of 900 rows were left out: ..`; nothing where none was.
    pub fn note(&self, path: &Path) -> Option<String> {
        let were = if self.bad == 1 { "row was" } else { "rows were" };
        (self.bad > 0)
            .then(|| format!("{}: {} {were} left out of {}:{self}", path.display(), self.bad, self.rows))
    }

    /// Few rows may be bad, and never all of them. Without a limit of the recipe's: one in a thousand, but
    /// ten of any file that is mostly readable.
    pub(super) fn judge(&self, path: &Path, limit: Option<hir::BadRows>) -> Result<(), DataError> {
        const FEW: u64 = 10;
        let most = match limit {
            Some(hir::BadRows::Count(count)) => count,
            Some(hir::BadRows::Share(share)) => (self.rows as f64 * share).floor() as u64,
            None => (self.rows / 1000).max(FEW.min(self.rows / 2)),
        };
        if self.bad == 0 || (self.bad <= most && self.bad < self.rows) {
            return Ok(());
        }
        let leftovers = Box::new(self.clone());
        Err(DataError::BadRows { path: path.to_path_buf(), leftovers, limit: most })
    }
}

/// Takes rows in order and makes one stream of ids of them; texts are tokenized by all threads.
pub(super) struct Gatherer<'a> {
    encoder: &'a Encoder<'a>,
    path: &'a Path,
    waiting: Vec<(Place, Result<Row, String>)>,
    bytes: usize,
    pub tokens: Vec<u32>,
    pub leftovers: Leftovers,
}

impl<'a> Gatherer<'a> {
    pub fn new(encoder: &'a Encoder<'a>, path: &'a Path) -> Self {
        let (tokens, leftovers) = (Vec::new(), Leftovers::default());
        Gatherer { encoder, path, waiting: Vec::new(), bytes: 0, tokens, leftovers }
    }
}

impl Rows for Gatherer<'_> {
    fn push(&mut self, at: Place, row: Result<Row, String>) -> Result<(), DataError> {
        const OVERHEAD: usize = 256;
        self.bytes += OVERHEAD
            + match &row {
                Ok(Row::Text(text)) => text.len(),
                Ok(Row::Ids(ids)) => 4 * ids.len(),
                Err(reason) => reason.len(),
            };
        self.leftovers.rows += 1;
        self.waiting.push((at, row));
        if self.bytes < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let any_text = waiting.iter().any(|(_, row)| matches!(row, Ok(Row::Text(_))));
        let tokenizer = if any_text { Some(self.encoder.tokenizer(self.path)?) } else { None };
        let eos = self.encoder.eos();
        let encode = |(at, row): (Place, Result<Row, String>)| match (row, tokenizer) {
            (Ok(Row::Text(text)), Some(tokenizer)) => (
                at,
                tokenizer.encode(&text).map(|mut ids| {
                    ids.extend(eos);
                    Ok(ids)
                }),
            ),
            (Ok(Row::Text(_)), None) => (at, Ok(Ok(Vec::new()))),
            (Ok(Row::Ids(ids)), _) => (at, Ok(Ok(ids))),
            (Err(reason), _) => (at, Ok(Err(reason))),
        };
        let encoded: Vec<_> = waiting.into_par_iter().map(encode).collect();
        for (at, ids) in encoded {
            match ids {
                Ok(Ok(ids)) => self.tokens.extend(ids),
                Ok(Err(reason)) => self.leftovers.leave_out(at, reason),
                // The tokenizer does not take this text; others it may.
                Err(error) if error.kind() == Kind::Input => self.leftovers.leave_out(at, error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        self.encoder.check_held(self.tokens.len(), self.path)
    }
}
