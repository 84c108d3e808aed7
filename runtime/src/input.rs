//! Files that somebody else wrote, opened with care.
//!
//! Links are followed wherever they lead: the snapshots of the hub's cache are folders of links. What stands
//! under a name must be a plain file, because a pipe would be waited for without end and a device be read
//! without end. What is read whole has a largest length, far over what is ever seen, because text can take
//! twenty times its length in memory once it is understood.

use crate::error::IoError;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Longest files that are read whole, in bytes. The longest that are known: a recipe of 5 kB, a config.json of
/// 50 kB, an index of 9 MB, a tokenizer.json of 34 MB.
pub const RECIPE: u64 = MIB;
pub const CONFIG: u64 = 4 * MIB;
pub const INDEX: u64 = 32 * MIB;
pub const TOKENIZER: u64 = 48 * MIB;
pub const PROVENANCE: u64 = 64 * MIB;
pub const TOKENS: u64 = 64 * MIB;

/// A plain file, opened.
pub fn open(path: &Path) -> Result<File, IoError> {
    let plain = || {
        // Before it is opened: that already waits for a pipe's writer.
        check_plain(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        check_plain(&file.metadata()?)?;
        Ok(file)
    };
    plain().map_err(IoError::at(path, "open"))
}

/// The bytes of a plain file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, IoError> {
    let whole = |file: File| {
        let mut bytes = Vec::new();
        // One byte more shows a file that is longer, or grows.
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(wrong(format!("it has more than the {} MiB that such a file may have", limit / MIB)));
        }
        Ok(bytes)
    };
    whole(open(path)?).map_err(IoError::at(path, "read"))
}

/// Something stands under the name, be it a link that leads nowhere: who opens it then learns what is wrong.
pub fn exists(path: &Path) -> Result<bool, IoError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(IoError::at(path, "open")(e)),
    }
}

fn check_plain(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(wrong("it is a folder".into())),
        _ => Err(wrong("it is a pipe or a device, not a plain file".into())),
    }
}

/// The user's to mend, see [`IoError::kind`].
fn wrong(reason: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_plain_files_of_a_bounded_length_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, vec![b'x'; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap().len(), 100);
        let error = |path: &Path| {
            let error = read(path, 99).unwrap_err();
            assert_eq!(error.kind(), Kind::Input, "{error}");
            error.to_string()
        };
        assert!(error(&path).ends_with("cannot read: it has more than the 0 MiB that such a file may have"));
        assert!(error(folder.path()).ends_with("cannot open: it is a folder"));
        assert!(error(&folder.path().join("b")).contains("cannot open: "));
        assert!(error(&folder.path().join("a/b")).contains("cannot open: "));
        if cfg!(unix) {
            assert!(error(Path::new("/dev/zero")).ends_with("it is a pipe or a device, not a plain file"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_seen_where_they_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("blob"), "x").unwrap();
        for (from, to) in [("blob", "good"), ("nothing", "dangling"), ("loop", "loop")] {
            std::os::unix::fs::symlink(from, at(to)).unwrap();
        }
        assert_eq!(read(&at("good"), 9).unwrap(), b"x");
        assert!(exists(&at("dangling")).unwrap() && exists(&at("loop")).unwrap());
        assert!(!exists(&at("absent")).unwrap() && !exists(&at("blob/in")).unwrap());
        for name in ["dangling", "loop"] {
            assert_eq!(read(&at(name), 9).unwrap_err().kind(), Kind::Input);
        }
    }
}
