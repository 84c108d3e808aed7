//! Digests of files that did not change since they were read.

use super::Store;
use crate::checkpoint::digest_file;
use crate::error::IoError;
use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) const FOLDER: &str = "files";

#[derive(Serialize, Deserialize)]
struct Memo {
    path: PathBuf,
    stamp: Stamp,
    digest: String,
}

impl Store {
    /// BLAKE3 of a file, hexadecimal; not read again as long as its [`Stamp`] is the same.
    pub fn digest_file(&self, path: &Path) -> Result<String, IoError> {
        if let Some(known) = self.known_digest(path) {
            return Ok(known);
        }
        let before = Stamp::of(path)?;
        let digest = digest_file(path)?;
        if Stamp::of(path)? == before && before.is_settled() {
            self.remember(path, before, &digest);
        }
        Ok(digest)
    }

    /// The digest of a file that did not change since it was last read.
    pub fn known_digest(&self, path: &Path) -> Option<String> {
        let stamp = Stamp::of(path).ok()?;
        let text = fs::read(self.memo(path)?).ok()?;
        let memo: Memo = serde_json::from_slice(&text).ok()?;
        (memo.stamp == stamp).then_some(memo.digest)
    }

    /// A memo that is lost is only time lost, so that nothing here fails.
    fn remember(&self, path: &Path, stamp: Stamp, digest: &str) {
        let Some(place) = self.memo(path) else { return };
        let memo = Memo { path: path.to_path_buf(), stamp, digest: digest.to_string() };
        let tmp = super::Temporary::new(&self.root.join(super::TMP));
        let text = serde_json::to_vec(&memo).unwrap_or_default();
        if fs::write(&tmp.0, text).is_ok() {
            let _ = fs::rename(&tmp.0, place);
        }
    }

    fn memo(&self, path: &Path) -> Option<PathBuf> {
        let path = path.canonicalize().ok()?;
        let name = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
        Some(self.root.join(FOLDER).join(&name[..32]))
    }
}

/// Marks an object as used now, for [`Store::collect`].
pub(super) fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|f| f.set_modified(SystemTime::now()));
}
