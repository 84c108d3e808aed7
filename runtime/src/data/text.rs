//! Plain text, tokenized while it is read.

use super::DataError;
use super::encoder::Encoder;
use super::packed::Unpacked;
use crate::tokens::TokenizerError;
use std::path::Path;

/// Bytes that are read before the next part is tokenized.
const PART: usize = 4 << 20;

/// The ids of a whole file, nothing added.
pub(super) fn read(path: &Path, file: &mut Unpacked, encoder: &Encoder) -> Result<Vec<u32>, DataError> {
    let tokenizer = encoder.tokenizer(path)?;
    let (mut tokens, mut done) = (Vec::new(), 0);
    let mut part = Part { bytes: Vec::new(), valid: 0 };
    loop {
        let more = part.fill(file, part.bytes.len() + PART)?;
        part.validate(more)
            .map_err(|at| fault(path, format!("is not UTF-8 text at byte {}", done + at as u64)))?;
        let text = part.text();
        let placed = |e: TokenizerError| match e {
            TokenizerError::Unbroken { .. } => fault(path, format!("after byte {done}: {e}")),
            e => e.into(),
        };
        if !more {
            tokens.extend(tokenizer.encode(text).map_err(placed)?);
            encoder.check_held(tokens.len(), path)?;
            return Ok(tokens);
        }
        let (ids, used) = tokenizer.encode_beginning(text).map_err(placed)?;
        tokens.extend(ids);
        encoder.check_held(tokens.len(), path)?;
        part.drop_first(used);
        done += used as u64;
    }
}

fn fault(path: &Path, reason: String) -> DataError {
    DataError::Format { path: path.to_path_buf(), reason }
}

/// Bytes of a file that are not tokenized yet.
struct Part {
    bytes: Vec<u8>,
    /// So many are known to be UTF-8.
    valid: usize,
}

impl Part {
    /// Reads until there are `wanted` bytes; false at the end of the file.
    fn fill(&mut self, file: &mut Unpacked, wanted: usize) -> Result<bool, DataError> {
        while self.bytes.len() < wanted {
            let old = self.bytes.len();
            self.bytes.resize(wanted, 0);
            let n = file.read(&mut self.bytes[old..])?;
            self.bytes.truncate(old + n);
            if n == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The place of the first byte that is no UTF-8. A character may be cut where more follows.
    fn validate(&mut self, more: bool) -> Result<(), usize> {
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            Err(e) if more && e.error_len().is_none() => self.valid += e.valid_up_to(),
            Err(e) => return Err(self.valid + e.valid_up_to()),
        }
        Ok(())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.valid]).unwrap_or_default()
    }

    fn drop_first(&mut self, n: usize) {
        self.bytes.drain(..n);
        self.valid -= n;
    }
}
