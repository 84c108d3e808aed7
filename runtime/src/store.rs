//! The artifact store: what stages made, under the digest of what made it.
//!
//! An object is one file, `objects/ab/abcd..`: a line of JSON (the key, what it was made from, the digest of
//! the payload), then the payload. It is written under `tmp/`, synced, and renamed, so that an object is there
//! whole or not at all; what is read is checked against its digest. `partial/` holds passes that are not
//! finished, `files/` the digests of files that did not change since they were read, `models/`
//! checkpoints of trained models, each under the name of its object. A model whose object is gone is nobody's.
//!
//! Runs that share a store hold a shared lock on it; [`Store::collect`] needs it alone.

mod keep;
mod key;
mod memo;

pub use keep::{Collected, Entry};
pub use key::{Difference, Key, digest_of};

use crate::error::{IoError, Kind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The version of the store's layout; another one is another store.
const FORMAT: &str = "1";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: is a store of format {found}, this version of minic keeps format {FORMAT}; name another with --store", root.display())]
    Format { root: PathBuf, found: String },
    #[error("{}: a run is using the store; collect when it is done", root.display())]
    Busy { root: PathBuf },
}

impl StoreError {
    pub fn kind(&self) -> Kind {
        match self {
            StoreError::Io(_) | StoreError::Busy { .. } => Kind::World,
            StoreError::Format { .. } => Kind::Input,
        }
    }
}

/// The line before an object's payload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Version of minic that made it; says nothing about its validity.
    pub minic: String,
    /// [`Key::subject`] and [`Key::place`].
    pub subject: String,
    pub place: String,
    pub key: Map<String, Value>,
    #[serde(default)]
    pub origins: Map<String, Value>,
    /// Length of the payload in bytes, and its BLAKE3.
    pub bytes: u64,
    pub digest: String,
}

/// The payload of an object, in its file.
#[derive(Debug)]
pub struct Payload {
    path: PathBuf,
    begin: u64,
}

impl Payload {
    /// Fills `bytes` with what is at `offset`.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        let at = IoError::at(&self.path, "read");
        let mut file = File::open(&self.path).map_err(IoError::at(&self.path, "open"))?;
        let read = file.seek(SeekFrom::Start(self.begin + offset)).and_then(|_| file.read_exact(bytes));
        read.map_err(at)
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Locked in shared mode for as long as the store is open.
    _lock: File,
}

const LOCK: &str = "lock";
const OBJECTS: &str = "objects";
const PARTIAL: &str = "partial";
const MODELS: &str = "models";
const TMP: &str = "tmp";

impl Store {
    /// Opens the store in `root`, and makes it if it is not there.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        for folder in [OBJECTS, PARTIAL, TMP, memo::FOLDER] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(IoError::at(&folder, "create"))?;
        }
        check_format(root)?;
        let path = root.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(IoError::at(&path, "open"))?;
        // Alone: what is in `tmp` belongs to nobody who lives.
        if lock.try_lock().is_ok() {
            clear(&root.join(TMP));
            let _ = lock.unlock();
        }
        match lock.lock_shared() {
            // A file system without locks: runs go on, and nobody collects while they do.
            Err(e) if e.kind() != ErrorKind::Unsupported => Err(IoError::at(&path, "lock")(e))?,
            _ => Ok(Store { root: root.to_path_buf(), _lock: lock }),
        }
    }

    /// The store in `root` if there is one; nothing is made.
    pub fn open_existing(root: &Path) -> Result<Option<Store>, StoreError> {
        if root.join(OBJECTS).is_dir() { Store::open(root).map(Some) } else { Ok(None) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The payload of the object of this key; `None` if there is none, or if it is damaged.
    pub fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.object(key);
        let payload = read(&path)?;
        if payload.is_some() {
            memo::touch(&path);
        }
        Ok(payload)
    }

    /// The same for a payload that is read piece by piece; that it is whole is proved here, once.
    pub fn payload(&self, key: &Key) -> Result<Option<Payload>, StoreError> {
        let path = self.object(key);
        let Some((_, begin)) = whole(&path)? else { return Ok(None) };
        memo::touch(&path);
        Ok(Some(Payload { path, begin: begin as u64 }))
    }

    /// The object of this key is there; its payload is not read.
    pub fn has(&self, key: &Key) -> bool {
        self.object(key).is_file()
    }

    pub fn put_bytes(&self, key: &Key, payload: &[u8]) -> Result<(), StoreError> {
        self.write(&self.object(key), key, &[payload])
    }

    /// An object that [`Store::put`] wrote. One that does not read as a `T` is as good as none.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        Ok(self.bytes(key)?.and_then(|bytes| rmp_serde::from_slice(&bytes).ok()))
    }

    pub fn put<T: Serialize>(&self, key: &Key, value: &T) -> Result<(), StoreError> {
        self.put_bytes(key, &pack(value))
    }

    /// Takes an object out that can be made again.
    pub fn forget(&self, key: &Key) {
        // What cannot be removed is collected.
        let _ = fs::remove_file(self.object(key));
    }

    /// How far a pass had come.
    pub fn partial<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        Ok(self.partial_bytes(key)?.and_then(|bytes| rmp_serde::from_slice(&bytes).ok()))
    }

    pub fn put_partial<T: Serialize>(&self, key: &Key, value: &T) -> Result<(), StoreError> {
        self.put_partial_pieces(key, &[&pack(value)])
    }

    /// The same as bytes.
    pub fn partial_bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(read(&self.unfinished(key))?)
    }

    /// Bytes that lie in several places, one after the other.
    pub fn put_partial_pieces(&self, key: &Key, pieces: &[&[u8]]) -> Result<(), StoreError> {
        self.write(&self.unfinished(key), key, pieces)
    }

    pub fn drop_partial(&self, key: &Key) {
        // What cannot be removed is overwritten by the next pass, or collected.
        let _ = fs::remove_file(self.unfinished(key));
    }

    /// Where the folder of this key's model stands, if it does. It is published as any other folder.
    pub fn folder(&self, key: &Key) -> PathBuf {
        self.root.join(MODELS).join(key.digest())
    }

    /// A file that no run finds again.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let name = Temporary::new(&self.root.join(TMP));
        let file = File::options().create_new(true).read(true).write(true).open(&name.0);
        Ok(Scratch { file: file.map_err(IoError::at(&name.0, "create"))?, name })
    }

    fn object(&self, key: &Key) -> PathBuf {
        let digest = key.digest();
        self.root.join(OBJECTS).join(&digest[..2]).join(&digest)
    }

    fn unfinished(&self, key: &Key) -> PathBuf {
        self.root.join(PARTIAL).join(key.digest())
    }

    fn write(&self, path: &Path, key: &Key, payload: &[&[u8]]) -> Result<(), StoreError> {
        let mut digest = blake3::Hasher::new();
        for piece in payload {
            digest.update(piece);
        }
        let header = Header {
            minic: env!("CARGO_PKG_VERSION").into(),
            subject: key.subject.clone(),
            place: key.place.clone(),
            key: key.fields.clone(),
            origins: key.origins.clone(),
            bytes: payload.iter().map(|piece| piece.len() as u64).sum(),
            digest: digest.finalize().to_hex().to_string(),
        };
        let line = serde_json::to_string(&header).unwrap_or_default() + "\n";
        let tmp = Temporary::new(&self.root.join(TMP));
        let at = |action| IoError::at(&tmp.0, action);
        let mut file = File::create_new(&tmp.0).map_err(at("create"))?;
        file.write_all(line.as_bytes()).map_err(at("write"))?;
        for piece in payload {
            file.write_all(piece).map_err(at("write"))?;
        }
        file.sync_all().map_err(at("sync"))?;
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(IoError::at(folder, "create"))?;
        fs::rename(&tmp.0, path).map_err(IoError::at(path, "rename"))?;
        if cfg!(unix) {
            File::open(folder).and_then(|f| f.sync_all()).map_err(IoError::at(folder, "sync"))?;
        }
        Ok(())
    }
}

/// MessagePack with names: floats keep their bits, and optional fields may be left out.
fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    // Artifacts are plain data; writing them to memory cannot fail.
    rmp_serde::to_vec_named(value).unwrap_or_default()
}

fn check_format(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        // Empty: a crash between creating and writing it.
        Ok(found) if !found.trim().is_empty() => {
            Err(StoreError::Format { root: root.to_path_buf(), found: found.trim().to_string() })
        }
        Err(e) if e.kind() != ErrorKind::NotFound => Err(IoError::at(&path, "read")(e))?,
        _ => Ok(fs::write(&path, format!("{FORMAT}\n")).map_err(IoError::at(&path, "write"))?),
    }
}

/// The header of an object's file, and where its payload begins.
fn header(bytes: &[u8]) -> Option<(Header, usize)> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((serde_json::from_slice(&bytes[..end]).ok()?, end + 1))
}

/// The payload of an object's file; a damaged one is removed, and counts as absent.
fn read(path: &Path) -> Result<Option<Vec<u8>>, IoError> {
    Ok(whole(path)?.map(|(mut bytes, begin)| bytes.split_off(begin)))
}

/// An object's file, and where its payload begins, on the same terms.
fn whole(path: &Path) -> Result<Option<(Vec<u8>, usize)>, IoError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(IoError::at(path, "read")(e)),
    };
    let checked = header(&bytes).filter(|(header, begin)| {
        let payload = &bytes[*begin..];
        payload.len() as u64 == header.bytes && blake3::hash(payload).to_hex().as_str() == header.digest
    });
    match checked {
        Some((_, begin)) => Ok(Some((bytes, begin))),
        None => {
            let _ = fs::remove_file(path);
            Ok(None)
        }
    }
}

/// Removes the files of a folder, as far as they can be removed.
fn clear(folder: &Path) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
}

/// A file for what does not fit into memory; it goes with this value.
pub struct Scratch {
    pub file: File,
    name: Temporary,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.name.0
    }
}

/// A file that is removed with this value, unless it got another name.
struct Temporary(PathBuf);

impl Temporary {
    fn new(folder: &Path) -> Temporary {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos());
        Temporary(folder.join(format!("{}-{count}-{time:x}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
