//! BLAKE3 digests of files.

use crate::error::IoError;
use crate::input;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Lower-case hexadecimal digests of files, and one of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// File name to digest.
    pub files: BTreeMap<String, String>,
    /// Of the lines `NAME DIGEST`, sorted by name.
    pub all: String,
}

/// Of one file, read in pieces that all threads hash together.
pub fn digest_file(path: &Path) -> Result<String, IoError> {
    const PIECE: usize = 8 << 20;
    let mut file = input::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        if read.map_err(IoError::at(path, "read"))? == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&piece);
    }
}

/// Of the files of these names, each digested by `digest`.
pub(super) fn digests<E: Send>(
    folder: &Path,
    names: Vec<String>,
    digest: impl Fn(&Path) -> Result<String, E> + Sync,
) -> Result<Digests, E> {
    let digest = |name: String| digest(&folder.join(&name)).map(|d| (name, d));
    let files = names.into_par_iter().map(digest).collect::<Result<BTreeMap<_, _>, _>>()?;
    let lines: String = files.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    Ok(Digests { files, all: blake3::hash(lines.as_bytes()).to_hex().to_string() })
}
