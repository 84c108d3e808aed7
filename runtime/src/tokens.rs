//! Text to token ids, by the checkpoint's own tokenizer.json.

use crate::error::{IoError, Kind};
use crate::guard::guarded;
use crate::input;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A tokenizer.json. Special tokens that it would put around a text are not added, and its truncation and
/// padding do not apply; a special token that is spelled in a text becomes its id, as transformers has it.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: no tokenizer is there", path.display())]
    Missing { path: PathBuf },
    #[error("{}: not a tokenizer that is understood: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("{}: cannot tokenize: {reason}", path.display())]
    Encode { path: PathBuf, reason: String },
    #[error("no line or word ends for {} MiB, too long to be tokenized as one word", bytes >> 20)]
    Unbroken { bytes: usize },
}

impl TokenizerError {
    pub fn kind(&self) -> Kind {
        match self {
            TokenizerError::Io(e) => e.kind(),
            _ => Kind::Input,
        }
    }
}

/// Bytes of text that are tokenized at once: the crate keeps about 100 bytes for each token meanwhile.
const PIECE: usize = 256 << 10;

/// Bytes that are tokenized at once where no place to split is found; beyond, the text is refused.
const UNBROKEN: usize = 8 << 20;

/// Bytes on both sides of a split that must give the same ids whole and split.
const AROUND: usize = 512;

impl Tokenizer {
    /// From a tokenizer.json, or from the folder that holds one.
    pub fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
        let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_path_buf() };
        if !input::exists(&path)? {
            return Err(TokenizerError::Missing { path });
        }
        let bytes = input::read(&path, input::TOKENIZER)?;
        let invalid = |reason: String| TokenizerError::Invalid { path: path.clone(), reason };
        let mut inner: tokenizers::Tokenizer = guarded(|| serde_json::from_slice(&bytes))
            .and_then(|read| read.map_err(|e| e.to_string()))
            .map_err(invalid)?;
        inner.with_truncation(None).map_err(|e| invalid(e.to_string()))?;
        inner.with_padding(None);
        Ok(Tokenizer { path, inner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ids of a text. A long text is tokenized in pieces by all threads; it is split only where the
    /// text around the split gives the same ids whole and split, so the ids are those of the whole.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let pieces = self.pieces(text, PIECE)?;
        self.encode_pieces(text, pieces)
    }

    /// The ids of the beginning of a text that goes on, and how many bytes these are of.
    pub fn encode_beginning(&self, text: &str) -> Result<(Vec<u32>, usize), TokenizerError> {
        let mut pieces = self.pieces(text, PIECE)?;
        // The last piece has no end yet, and a split needs the text that follows it.
        while pieces.last().is_some_and(|p| p.end + AROUND > text.len()) {
            pieces.pop();
        }
        let used = pieces.last().map_or(0, |p| p.end);
        Ok((self.encode_pieces(text, pieces)?, used))
    }

    fn encode_pieces(&self, text: &str, pieces: Vec<Range<usize>>) -> Result<Vec<u32>, TokenizerError> {
        let ids: Vec<Vec<u32>> =
            pieces.into_par_iter().map(|piece| self.encode_piece(&text[piece])).collect::<Result<_, _>>()?;
        Ok(ids.concat())
    }

    fn encode_piece(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false))
            .and_then(|encoded| encoded.map_err(|e| e.to_string()))
            .map_err(|reason| TokenizerError::Encode { path: self.path.clone(), reason })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ranges of about `size` bytes; longer where no place to split is found.
    fn pieces(&self, text: &str, size: usize) -> Result<Vec<Range<usize>>, TokenizerError> {
        let mut pieces = Vec::new();
        let (mut begin, mut from) = (0, size);
        while from < text.len() {
            match self.split(text, from, size)? {
                Some(at) => {
                    pieces.push(begin..at);
                    (begin, from) = (at, at + size);
                }
                None => from += size,
            }
            if from - begin > UNBROKEN + size {
                return Err(TokenizerError::Unbroken { bytes: from - begin - size });
            }
        }
        pieces.push(begin..text.len());
        Ok(pieces)
    }

    /// A place to split in the `size` bytes from `from` on: where a line begins, else where a word ends.
    fn split(&self, text: &str, from: usize, size: usize) -> Result<Option<usize>, TokenizerError> {
        const TRIES: usize = 16;
        let from = text.ceil_char_boundary(from.min(text.len()));
        let range = from..text.ceil_char_boundary((from + size).min(text.len()));
        let candidates = line_starts(text, range.clone()).take(TRIES);
        for at in candidates.chain(word_ends(text, range).take(TRIES)) {
            if self.splits_at(text, at)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether the text around `at` gives the same ids whole and split there.
    fn splits_at(&self, text: &str, at: usize) -> Result<bool, TokenizerError> {
        let (left, right) = (text.floor_char_boundary(at.saturating_sub(AROUND)), at + AROUND);
        let right = text.ceil_char_boundary(right.min(text.len()));
        let whole = self.encode_piece(&text[left..right])?;
        let mut halves = self.encode_piece(&text[left..at])?;
        halves.extend(self.encode_piece(&text[at..right])?);
        Ok(whole == halves)
    }
}

/// Positions in a range where a line begins with a letter and the line before it does not end in white
/// space: no token of the usual tokenizers spans them, and no rule looks across them.
fn line_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let start = range.start;
    text[range].match_indices('\n').map(move |(i, _)| start + i).filter_map(move |newline| {
        let ends = text[..newline].chars().next_back().is_some_and(|c| !c.is_whitespace());
        let begins = text[newline + 1..].chars().next().is_some_and(char::is_alphabetic);
        (ends && begins).then_some(newline + 1)
    })
}

/// Positions in a range of a space between two letters: for texts without lines.
fn word_ends(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let start = range.start;
    text[range].match_indices(' ').map(move |(i, _)| start + i).filter(move |&space| {
        let ends = text[..space].chars().next_back().is_some_and(char::is_alphabetic);
        ends && text[space + 1..].chars().next().is_some_and(char::is_alphabetic)
    })
}

/// `eos_token_id` of a config.json; the first where it is a list.
pub fn eos_id(config: &Map<String, Value>) -> Option<u32> {
    let value = config.get("eos_token_id")?;
    let id = value.as_array().map_or(Some(value), |list| list.first())?;
    u32::try_from(id.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn open(json: &str) -> (tempfile::TempDir, Result<Tokenizer, TokenizerError>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TOKENIZER_FILE), json).unwrap();
        let tokenizer = Tokenizer::open(folder.path());
        (folder, tokenizer)
    }

    #[test]
    fn a_byte_tokenizer_gives_bytes() {
        let (_folder, tokenizer) = open(&testing::byte_tokenizer(&[]));
        let tokenizer = tokenizer.unwrap();
        let text: String = (0..=0x2ff).filter_map(char::from_u32).chain("é漢字🙂\r\n".chars()).collect();
        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(tokenizer.encode(&text).unwrap(), bytes);
        assert_eq!(tokenizer.encode("a<eos>b").unwrap(), [97, 258, 98]);
        assert!(tokenizer.encode("").unwrap().is_empty());
    }

    /// Merges across letters and across line ends: a split that broke one would show.
    #[test]
    fn pieces_give_the_ids_of_the_whole() {
        let merges = [
            ("e", "r"),
            ("\u{10a}", "a"),
            ("\u{10a}", "\u{10a}"),
            ("t", "h"),
            (".", "\u{10a}"),
            ("th", "er"),
        ];
        let (_folder, tokenizer) = open(&testing::byte_tokenizer(&merges));
        let tokenizer = tokenizer.unwrap();
        let mut text = String::new();
        for i in 0..400 {
            text.push_str(
                ["and the other\nrather", "\n\nover there.\n", "ether\n after", "é\nöther\n1\na"][i % 4],
            );
            text.push_str(&"x".repeat(i % 7));
        }
        let whole = tokenizer.encode_piece(&text).unwrap();
        for size in [1, 10, 64, 1000, text.len() - 1, text.len(), 1 << 20] {
            let pieces = tokenizer.pieces(&text, size).unwrap();
            assert_eq!(pieces.len() > 1, size < text.len() - 100, "{size}");
            let ids: Vec<u32> =
                pieces.into_iter().flat_map(|p| tokenizer.encode_piece(&text[p]).unwrap()).collect();
            assert_eq!(ids, whole, "{size}");
        }
    }

    #[test]
    fn truncation_and_padding_do_not_apply() {
        let json = testing::byte_tokenizer(&[])
            .replace("\"truncation\":null", r#""truncation":{"direction":"Right","max_length":4,"strategy":"LongestFirst","stride":0}"#)
            .replace("\"padding\":null", r#""padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":256,"pad_type_id":0,"pad_token":"<pad>"}"#);
        let (_folder, tokenizer) = open(&json);
        let tokenizer = tokenizer.unwrap();
        assert_eq!(tokenizer.encode("abcdef").unwrap().len(), 6);
        assert_eq!(tokenizer.encode("a").unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_tokenizer_is_an_error() {
        for json in ["", "{}", "[1, 2]", "{\"version\": \"1.0\", \"model\": {\"type\": \"Nothing\"}}"] {
            let (_folder, tokenizer) = open(json);
            let error = tokenizer.err().unwrap();
            assert!(matches!(error, TokenizerError::Invalid { .. }), "{error}");
            assert_eq!(error.kind(), Kind::Input);
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Tokenizer::open(folder.path()).err(), Some(TokenizerError::Missing { .. })));
    }

    /// The library panics at both.
    #[test]
    fn what_the_library_gives_up_at_is_an_error() {
        let good: Value = serde_json::from_str(&testing::byte_tokenizer(&[])).unwrap();
        for (key, value) in [
            ("decoder", serde_json::json!(7)),
            ("normalizer", serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" })),
        ] {
            let mut broken = good.clone();
            broken[key] = value;
            let (_folder, tokenizer) = open(&broken.to_string());
            let error = tokenizer.err().unwrap();
            assert!(matches!(error, TokenizerError::Invalid { .. }), "{key}: {error}");
        }
    }

    #[test]
    fn the_end_of_a_row_is_read_from_the_config() {
        let eos = |text: &str| eos_id(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert_eq!(eos(r#"{"eos_token_id": 258}"#), Some(258));
        assert_eq!(eos(r#"{"eos_token_id": [2, 11]}"#), Some(2));
        for none in
            [r#"{}"#, r#"{"eos_token_id": null}"#, r#"{"eos_token_id": []}"#, r#"{"eos_token_id": -1}"#]
        {
            assert_eq!(eos(none), None);
        }
    }
}
