//! What a store holds, why something is not in it, and throwing away.

use super::{
    Header, Key, LOCK, MODELS, OBJECTS, PARTIAL, Store, StoreError, TMP, clear, header, key::Difference,
};
use crate::error::IoError;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// One object, or one unfinished pass.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The digest of its key.
    pub name: String,
    pub header: Header,
    /// Of its file, and of the folder of its model.
    pub bytes: u64,
    /// When it was last read or written.
    pub used: SystemTime,
    pub unfinished: bool,
}

/// What was thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    pub objects: usize,
    pub bytes: u64,
    pub kept: usize,
}

impl Store {
    /// Everything in the store, by kind and subject; damaged files are left out.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> =
            object_files(&self.root)?.into_iter().filter_map(|path| entry(&path, false)).collect();
        for entry in &mut entries {
            entry.bytes += folder_bytes(&self.root.join(MODELS).join(&entry.name))?;
        }
        entries.extend(files(&self.root.join(PARTIAL))?.iter().filter_map(|path| entry(path, true)));
        entries.sort_by(|a, b| {
            let order =
                |e: &Entry| (e.header.key.get("kind").map(ToString::to_string), e.header.subject.clone());
            order(a).cmp(&order(b)).then(b.used.cmp(&a.used))
        });
        Ok(entries)
    }

    /// How this key differs from that of the object that is most like it: of the same kind and place, with the
    /// most fields in common, last used. `None` where there is no other.
    pub fn why(&self, key: &Key) -> Result<Option<Difference>, StoreError> {
        let entries = self.list()?;
        let own = key.digest();
        let kind = |e: &Entry| e.header.key.get("kind").and_then(|k| k.as_str()) == Some(key.kind());
        let others = entries
            .iter()
            .filter(|e| !e.unfinished && e.name != own && e.header.place == key.place && kind(e));
        let nearest =
            others.max_by_key(|e| (key.alike(&e.header.key), e.header.subject == key.subject, e.used));
        Ok(nearest.and_then(|e| key.difference(&e.header.subject, &e.header.key, &e.header.origins)))
    }

    /// Throws away what was not used for `unused`, and all that dead runs left. Nothing is touched while
    /// another process uses the store.
    pub fn collect(root: &Path, unused: Duration, pretend: bool) -> Result<Collected, StoreError> {
        super::check_format(root)?;
        let path = root.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(IoError::at(&path, "open"))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::Busy { root: root.to_path_buf() });
        }
        let mut collected = Collected::default();
        let mut left = BTreeSet::new();
        let mut paths = object_files(root)?;
        paths.extend(files(&root.join(PARTIAL))?);
        paths.extend(files(&root.join(super::memo::FOLDER))?);
        for path in paths {
            let Ok(metadata) = path.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if used.elapsed().unwrap_or_default() < unused {
                collected.kept += 1;
                left.extend(path.file_name().map(OsStr::to_os_string));
                continue;
            }
            if !pretend {
                fs::remove_file(&path).map_err(IoError::at(&path, "remove"))?;
            }
            collected.objects += 1;
            collected.bytes += metadata.len();
        }
        // After their objects, so that no model counts that is half gone. What dead runs were writing has no
        // object's name.
        for path in files(&root.join(MODELS))? {
            if path.file_name().is_some_and(|name| left.contains(name)) {
                continue;
            }
            collected.objects += 1;
            collected.bytes += folder_bytes(&path)?;
            if !pretend {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(IoError::at(&path, "remove"))?;
            }
        }
        if !pretend {
            clear(&root.join(TMP));
        }
        Ok(collected)
    }
}

/// Of a folder's files; none where there is no folder.
fn folder_bytes(folder: &Path) -> Result<u64, IoError> {
    if !folder.is_dir() {
        return Ok(0);
    }
    Ok(files(folder)?.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum())
}

fn object_files(root: &Path) -> Result<Vec<PathBuf>, IoError> {
    let mut out = Vec::new();
    for folder in files(&root.join(OBJECTS))? {
        out.extend(files(&folder)?);
    }
    Ok(out)
}

/// What a folder holds, sorted; nothing where it is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, IoError> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(IoError::at(folder, "list")(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(IoError::at(folder, "list"))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// From the first line of an object's file.
fn entry(path: &Path, unfinished: bool) -> Option<Entry> {
    let mut line = Vec::new();
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    Some(Entry {
        name: path.file_name()?.to_str()?.to_string(),
        header: header(&line)?.0,
        bytes: metadata.len(),
        used: metadata.modified().ok()?,
        unfinished,
    })
}
