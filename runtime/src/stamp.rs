//! What the file system says of a file: enough to see that it is no longer the one that was opened.

use crate::error::IoError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Two equal stamps of one path: the same file, not written in between, as far as its file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// In bytes.
    pub len: u64,
    /// When it was last written; `None` where the file system does not say.
    pub modified: Option<SystemTime>,
    /// Device and number of the file; zeros where the system has none.
    pub inode: (u64, u64),
    /// When content, owner or name last changed, in nanoseconds since 1970: no program can set it back.
    pub changed: u64,
}

impl Stamp {
    pub fn new(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let (inode, changed) = {
            use std::os::unix::fs::MetadataExt;
            let changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
            ((metadata.dev(), metadata.ino()), changed as u64)
        };
        #[cfg(not(unix))]
        let (inode, changed) = ((0, 0), 0);
        Stamp { len: metadata.len(), modified: metadata.modified().ok(), inode, changed }
    }

    /// Of the file that a path leads to now, behind symbolic links.
    pub fn of(path: &Path) -> Result<Stamp, IoError> {
        Ok(Stamp::new(&std::fs::metadata(path).map_err(IoError::at(path, "read"))?))
    }

    /// So long ago that one more change would show: clocks of file systems tick slowly.
    pub fn is_settled(&self) -> bool {
        let before = SystemTime::now() - Duration::from_secs(2);
        let nanos = before.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        self.modified.is_some_and(|m| m < before) && self.changed < nanos
    }

    /// What happened to `path` since this stamp was taken of it.
    pub fn since(&self, path: &Path) -> Result<Option<Change>, IoError> {
        match Stamp::of(path) {
            Ok(now) => Ok(self.change(&now)),
            Err(e) if e.source.kind() == ErrorKind::NotFound => Ok(Some(Change::Gone)),
            Err(e) => Err(e),
        }
    }

    /// How a later stamp differs from this one.
    fn change(&self, now: &Stamp) -> Option<Change> {
        if now.len != self.len {
            Some(Change::Length { before: self.len, now: now.len })
        } else if now.inode != self.inode {
            Some(Change::Replaced)
        } else if now.modified != self.modified {
            Some(Change::Written)
        } else {
            None
        }
    }
}

/// What happened to a file since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Length { before: u64, now: u64 },
    Replaced,
    Written,
    Gone,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Change::Length { before, now } => write!(f, "it had {before} bytes and has {now} now"),
            Change::Replaced => f.write_str("another file stands under its name"),
            Change::Written => f.write_str("it was written again"),
            Change::Gone => f.write_str("it is not there any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_way_to_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "1234").unwrap();
        let before = Stamp::of(&path).unwrap();
        assert_eq!(before.since(&path).unwrap(), None);

        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_eq!(before.since(&path).unwrap(), Some(Change::Written));

        let other = folder.path().join("b");
        fs::write(&other, "5678").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(before.modified.unwrap()).unwrap();
        fs::rename(&other, &path).unwrap();
        let replaced = before.since(&path).unwrap();
        assert_eq!(replaced, cfg!(unix).then_some(Change::Replaced));

        fs::write(&path, "12").unwrap();
        let change = before.since(&path).unwrap();
        assert_eq!(change, Some(Change::Length { before: 4, now: 2 }));

        fs::remove_file(&path).unwrap();
        assert_eq!(before.since(&path).unwrap(), Some(Change::Gone));
    }
}
