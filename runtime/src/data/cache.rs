//! Tokens of files that were tokenized before.

use super::rows::Leftovers;
use serde::{Deserialize, Serialize};

/// To be raised with every change of a reader that may change what comes out of a file.
pub const READER: u32 = 1;

/// What the tokens of a file depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenKey {
    pub reader: u32,
    /// BLAKE3 of the file.
    pub file: String,
    /// `jsonl+gzip`
    pub form: String,
    /// Of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// BLAKE3 of tokenizer.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Put after each row of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos: Option<u32>,
}

/// What came out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTokens {
    pub tokens: Vec<u32>,
    pub leftovers: Leftovers,
}

/// Keeps the tokens of files. What cannot be kept is read again: neither function fails.
pub trait TokenCache: Sync {
    fn get(&self, key: &TokenKey) -> Option<FileTokens>;
    fn put(&self, key: &TokenKey, tokens: &FileTokens);
}

#[derive(Serialize, Deserialize)]
struct Head {
    leftovers: Leftovers,
    tokens: u64,
}

impl FileTokens {
    /// A line of JSON, then four bytes a token, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = Head { leftovers: self.leftovers.clone(), tokens: self.tokens.len() as u64 };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        bytes.reserve_exact(4 * self.tokens.len());
        bytes.extend(self.tokens.iter().flat_map(|id| id.to_le_bytes()));
        bytes
    }

    /// Nothing where the bytes are not such.
    pub fn from_bytes(bytes: &[u8]) -> Option<FileTokens> {
        let end = bytes.iter().position(|&b| b == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let (ids, rest) = bytes[end + 1..].as_chunks();
        if !rest.is_empty() || ids.len() as u64 != head.tokens {
            return None;
        }
        let tokens = ids.iter().map(|&id| u32::from_le_bytes(id)).collect();
        Some(FileTokens { tokens, leftovers: head.leftovers })
    }
}
