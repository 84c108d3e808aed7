//! The hidden folder, its lock, and the rename.
//!
//! Beside `NAME` lie, while a run writes it: `.NAME.minic-ID`, the folder that is being written;
//! `.NAME.minic-ID.old`, for the moment between two renames, the folder that is replaced; and
//! `.NAME.minic-ID.lock`, a file that the run holds locked. A lock that nobody holds belongs to a dead run,
//! and what belongs to it is cleaned by the next run that writes `NAME`.

use super::PublishError;
use crate::error::IoError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A folder that is being written and has no name yet. Dropped unpublished, it is removed.
#[derive(Debug)]
pub struct StagedFolder {
    target: PathBuf,
    overwrite: bool,
    /// Removed when this is dropped, in this order.
    staging: Remove,
    lock: LockFile,
}

impl StagedFolder {
    /// Beside `target`, whose parents are made. A folder that holds something is refused unless
    /// `overwrite`; so is, always, one that holds the current folder.
    pub fn new(target: &Path, overwrite: bool) -> Result<StagedFolder, PublishError> {
        let target = resolve(target)?;
        clean(&target)?;
        check_target(&target, overwrite)?;
        let lock = LockFile::new(&target)?;
        let staging = lock.sibling("");
        fs::create_dir(&staging).map_err(IoError::at(&staging, "create"))?;
        let staged = StagedFolder { target, overwrite, staging: Remove(staging), lock };
        if let Ok(current) = std::env::current_dir() {
            staged.keep_clear_of(&current)?;
        }
        Ok(staged)
    }

    /// The folder to write into.
    pub fn path(&self) -> &Path {
        &self.staging.0
    }

    /// The name that it will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Refuses to replace a folder in which `input` lies: what a run reads is never removed by it.
    pub fn keep_clear_of(&self, input: &Path) -> Result<(), PublishError> {
        match (self.target.canonicalize(), input.canonicalize()) {
            (Ok(target), Ok(full)) if full.starts_with(&target) && holds_something(&target)? => {
                Err(PublishError::HoldsInput { path: self.target.clone(), input: input.to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// A small file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
        let path = self.path().join(name);
        let mut file = File::create(&path).map_err(IoError::at(&path, "create"))?;
        Ok(file.write_all(bytes).map_err(IoError::at(&path, "write"))?)
    }

    /// Syncs everything and gives the folder its name, in place of one that is there.
    pub fn publish(self) -> Result<PathBuf, PublishError> {
        sync_all(self.path())?;
        check_target(&self.target, self.overwrite)?;
        if self.target.exists() {
            self.swap()?
        } else {
            rename(self.path(), &self.target)?
        }
        if let Some(parent) = self.target.parent() {
            sync_folder(parent)?;
        }
        Ok(self.target.clone())
    }

    /// The old folder goes aside, and comes back if the new one cannot take its place.
    fn swap(&self) -> Result<(), IoError> {
        let old = Remove(self.lock.sibling(OLD));
        rename(&self.target, &old.0)?;
        if let Err(error) = rename(self.path(), &self.target) {
            rename(&old.0, &self.target)?;
            return Err(error);
        }
        Ok(())
    }
}

const OLD: &str = ".old";
const LOCK: &str = ".lock";
const MARK: &str = ".minic-";

/// `.NAME.minic-`
fn prefix(target: &Path) -> String {
    format!(".{}{MARK}", target.file_name().unwrap_or_default().to_string_lossy())
}

/// Absolute, through links, with its parents made.
fn resolve(target: &Path) -> Result<PathBuf, PublishError> {
    if let Ok(found) = target.canonicalize() {
        return if found.file_name().is_some() { Ok(found) } else { Err(no_name(target)) };
    }
    let name = target.file_name().ok_or_else(|| no_name(target))?;
    let absolute = std::path::absolute(target).map_err(IoError::at(target, "resolve"))?;
    let parent = absolute.parent().ok_or_else(|| no_name(target))?;
    fs::create_dir_all(parent).map_err(IoError::at(parent, "create"))?;
    Ok(parent.canonicalize().map_err(IoError::at(parent, "resolve"))?.join(name))
}

fn no_name(path: &Path) -> PublishError {
    PublishError::NoName { path: path.to_path_buf() }
}

fn check_target(target: &Path, overwrite: bool) -> Result<(), PublishError> {
    let path = target.to_path_buf();
    match fs::symlink_metadata(target) {
        Err(_) => Ok(()),
        Ok(found) if !found.is_dir() => Err(PublishError::NotAFolder { path }),
        Ok(_) if !overwrite && holds_something(target)? => Err(PublishError::Exists { path }),
        Ok(_) => Ok(()),
    }
}

fn holds_something(folder: &Path) -> Result<bool, IoError> {
    Ok(fs::read_dir(folder).map_err(IoError::at(folder, "list"))?.next().is_some())
}

/// Removes what dead runs left beside `target`; a folder that one of them was about to replace gets its
/// name back. What cannot be removed, or belongs to a live run, stays.
fn clean(target: &Path) -> Result<(), PublishError> {
    let Some(parent) = target.parent() else { return Ok(()) };
    let prefix = prefix(target);
    for entry in fs::read_dir(parent).map_err(IoError::at(parent, "list"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) =
            name.strip_prefix(&prefix).map(|rest| rest.trim_end_matches(OLD).trim_end_matches(LOCK))
        else {
            continue;
        };
        let path = |suffix: &str| parent.join(format!("{prefix}{id}{suffix}"));
        let Ok(lock) = File::create(path(LOCK)) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        if path(OLD).is_dir() && !target.exists() {
            rename(&path(OLD), target)?;
        }
        drop((Remove(path("")), Remove(path(OLD)), Remove(path(LOCK))));
    }
    Ok(())
}

/// Held locked for as long as it lives.
#[derive(Debug)]
struct LockFile {
    /// Without its suffix.
    base: PathBuf,
    _path: Remove,
    _file: File,
}

impl LockFile {
    fn new(target: &Path) -> Result<LockFile, IoError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{}-{count}-{time:x}", prefix(target), std::process::id());
            let base = target.with_file_name(name);
            let path = with_suffix(&base, LOCK);
            let file = File::create_new(&path).map_err(IoError::at(&path, "create"))?;
            // A file system without locks: the run goes on, and nobody cleans while it does.
            let taken = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
            // Another run may take a lock file for a dead one's in the moment before it is locked.
            if !taken && path.exists() {
                return Ok(LockFile { base, _path: Remove(path), _file: file });
            }
        }
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.base, suffix)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// A file or a folder that is removed with this value, if it is still there.
#[derive(Debug)]
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Nobody is left to be told, and the next run tries again.
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), IoError> {
    // Unix replaces an empty folder, Windows does not.
    #[cfg(windows)]
    let _ = fs::remove_dir(to);
    fs::rename(from, to).map_err(IoError::at(from, "rename"))
}

/// Every file below, then every folder.
fn sync_all(folder: &Path) -> Result<(), IoError> {
    for entry in fs::read_dir(folder).map_err(IoError::at(folder, "list"))? {
        let path = entry.map_err(IoError::at(folder, "list"))?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let file = File::options().read(true).write(cfg!(windows)).open(&path);
            file.and_then(|f| f.sync_all()).map_err(IoError::at(&path, "sync"))?;
        }
    }
    sync_folder(folder)
}

/// The names in a folder; only Unix can sync them.
fn sync_folder(folder: &Path) -> Result<(), IoError> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(IoError::at(folder, "sync"))?;
    }
    Ok(())
}
