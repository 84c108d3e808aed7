//! Reading a file at a position, from several threads at once.

use crate::error::IoError;
use crate::input;
use crate::stamp::Stamp;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

/// A file without a cursor of its own.
#[derive(Debug)]
pub struct PositionedFile {
    path: PathBuf,
    #[cfg(unix)]
    file: File,
    #[cfg(not(unix))]
    file: std::sync::Mutex<File>,
}

impl PositionedFile {
    pub fn open(path: &Path) -> Result<PositionedFile, IoError> {
        let file = input::open(path)?;
        #[cfg(not(unix))]
        let file = std::sync::Mutex::new(file);
        Ok(PositionedFile { path: path.to_path_buf(), file })
    }

    /// In bytes.
    pub fn len(&self) -> Result<u64, IoError> {
        Ok(self.metadata()?.len())
    }

    /// Of the open file, whatever its name leads to by now.
    pub fn stamp(&self) -> Result<Stamp, IoError> {
        Ok(Stamp::new(&self.metadata()?))
    }

    fn metadata(&self) -> Result<Metadata, IoError> {
        #[cfg(unix)]
        let metadata = self.file.metadata();
        #[cfg(not(unix))]
        let metadata = self.file.lock().unwrap_or_else(|e| e.into_inner()).metadata();
        metadata.map_err(IoError::at(&self.path, "read the size"))
    }

    pub fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` with the bytes from `offset` on; an end of file before that is an error.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), IoError> {
        self.fill(buffer, offset).map_err(IoError::at(&self.path, "read"))
    }

    #[cfg(unix)]
    fn fill(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(not(unix))]
    fn fill(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}
