//! Files that are packed with gzip or Zstandard, unpacked while they are read.

use super::DataError;
use super::files::Packing;
use crate::error::IoError;
use crate::input;
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Text does not unpack to more than this many times its size; a file made to exhaust memory does.
const MOST_RATIO: u64 = 200;

/// Bytes that may come out whatever went in: short files of one repeated line are packed well.
const FREE: u64 = 64 << 20;

/// Memory that a Zstandard frame may ask for, as the power of two that `zstd` itself stops at.
const WINDOW_LOG: u32 = 27;

/// A file's contents, unpacked, in order.
pub(super) struct Unpacked {
    path: PathBuf,
    inner: Box<dyn Read>,
    packing: Packing,
    /// Bytes of the file that were read.
    taken: Rc<Cell<u64>>,
    given: u64,
}

struct Counted {
    file: File,
    taken: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.taken.set(self.taken.get() + n as u64);
        Ok(n)
    }
}

impl Unpacked {
    pub fn open(path: &Path, packing: Packing) -> Result<Unpacked, DataError> {
        let file = input::open(path)?;
        let taken = Rc::new(Cell::new(0));
        let file = BufReader::with_capacity(1 << 16, Counted { file, taken: taken.clone() });
        let inner: Box<dyn Read> = match packing {
            Packing::None => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(file).map_err(IoError::at(path, "unpack"))?;
                decoder.window_log_max(WINDOW_LOG).map_err(IoError::at(path, "unpack"))?;
                Box::new(decoder)
            }
        };
        Ok(Unpacked { path: path.to_path_buf(), inner, packing, taken, given: 0 })
    }

    /// Some bytes, none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DataError> {
        loop {
            match self.inner.read(buffer) {
                Ok(n) => {
                    self.given += n as u64;
                    self.stop_at_bombs()?;
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fault(e)),
            }
        }
    }

    fn stop_at_bombs(&self) -> Result<(), DataError> {
        let most = FREE.max(self.taken.get().saturating_mul(MOST_RATIO));
        if self.packing == Packing::None || self.given <= most {
            return Ok(());
        }
        Err(self.format(format!(
            "unpacks to more than {MOST_RATIO} times its size, {} bytes out of the first {}: this is no text",
            self.given,
            self.taken.get()
        )))
    }

    /// What the unpacker refuses is the file's fault; what the system refuses is not.
    fn fault(&self, error: io::Error) -> DataError {
        let near = self.taken.get();
        match (self.packing, error.kind()) {
            (Packing::None, _) => IoError::at(&self.path, "read")(error).into(),
            (_, ErrorKind::UnexpectedEof) => self.format(format!(
                "ends in the middle of its {} stream, after {near} bytes",
                self.packing.name()
            )),
            _ if error.raw_os_error().is_some() => IoError::at(&self.path, "read")(error).into(),
            _ => self.format(format!(
                "cannot be unpacked as {}, within its first {near} bytes: {error}",
                self.packing.name()
            )),
        }
    }

    fn format(&self, reason: String) -> DataError {
        DataError::Format { path: self.path.clone(), reason }
    }
}
