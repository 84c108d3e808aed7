//! What kind of failure an error is; the command line turns it into its exit code.

use std::io;
use std::path::{Path, PathBuf};

/// Who has to act on a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The recipe, a checkpoint or a data file is wrong: the same command fails again until it is mended.
    Input,
    /// A file, a device, memory or the network failed: the same command may succeed later.
    World,
    /// What was made is not what was planned; nothing is published.
    Proof,
    /// The user stopped it; the same command goes on.
    Stopped,
}

impl Kind {
    /// The exit code of the command line.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Input => 1,
            Kind::World => 3,
            Kind::Proof => 4,
            Kind::Stopped => 130,
        }
    }
}

/// An operation of the file system that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct IoError {
    pub path: PathBuf,
    /// Completes "cannot ..": `open`, `read`, `rename`.
    pub action: &'static str,
    pub source: io::Error,
}

impl IoError {
    /// For `map_err`.
    pub fn at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> IoError {
        move |source| IoError { path: path.to_path_buf(), action, source }
    }

    /// A name that leads nowhere, or to what is no file, is a wrong input; everything else is the world's doing.
    pub fn kind(&self) -> Kind {
        use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound};
        match self.source.kind() {
            NotFound | NotADirectory | IsADirectory | InvalidInput | InvalidFilename => Kind::Input,
            _ if self.is_loop() => Kind::Input,
            _ => Kind::World,
        }
    }

    /// Symbolic links that lead to each other. The kind has no stable name yet.
    fn is_loop(&self) -> bool {
        let code = if cfg!(target_os = "linux") { 40 } else { 62 };
        cfg!(unix) && self.source.raw_os_error() == Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_an_input_error_and_a_full_disk_is_not() {
        let error = |kind| IoError::at(Path::new("a/b"), "open")(io::Error::from(kind));
        assert_eq!(error(io::ErrorKind::NotFound).kind().exit_code(), 1);
        assert_eq!(error(io::ErrorKind::StorageFull).kind().exit_code(), 3);
        assert_eq!(Kind::Proof.exit_code(), 4);
        assert!(error(io::ErrorKind::NotFound).to_string().starts_with("a/b: cannot open: "));
    }
}
