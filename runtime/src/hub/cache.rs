//! The layout of the hub's cache on the disk.

use super::Repo;
use super::names::is_commit;
use crate::error::IoError;
use crate::input;
use std::path::{Path, PathBuf};

const REFS: &str = "refs";
const SNAPSHOTS: &str = "snapshots";
#[cfg(feature = "hub")]
const BLOBS: &str = "blobs";
#[cfg(feature = "hub")]
const LOCKS: &str = ".locks";

/// The commit of a repository's revision: itself, or as `refs/REVISION` has it.
pub fn commit(cache: &Path, repo: &Repo) -> Option<String> {
    if repo.is_commit() {
        return Some(repo.revision().to_string());
    }
    let path = cache.join(repo.folder()).join(REFS).join(repo.revision());
    let text = String::from_utf8(input::read(&path, 1024).ok()?).ok()?;
    let text = text.trim();
    is_commit(text).then(|| text.to_string())
}

pub fn snapshot(cache: &Path, repo: &Repo, commit: &str) -> PathBuf {
    cache.join(repo.folder()).join(SNAPSHOTS).join(commit)
}

#[cfg(feature = "hub")]
pub fn blob(cache: &Path, repo: &Repo, digest: &str) -> PathBuf {
    cache.join(repo.folder()).join(BLOBS).join(digest)
}

/// The file that programs lock while they fetch a blob.
#[cfg(feature = "hub")]
pub fn lock(cache: &Path, repo: &Repo, digest: &str) -> PathBuf {
    cache.join(LOCKS).join(repo.folder()).join(format!("{digest}.lock"))
}

/// Notes the commit of a branch or tag, whole or not at all.
#[cfg_attr(not(feature = "hub"), expect(dead_code))]
pub fn set_ref(cache: &Path, repo: &Repo, commit: &str) -> Result<(), IoError> {
    if repo.is_commit() {
        return Ok(());
    }
    let path = cache.join(repo.folder()).join(REFS).join(repo.revision());
    create_parent(&path)?;
    let partial = path.with_extension(format!("{}.incomplete", std::process::id()));
    std::fs::write(&partial, commit).map_err(IoError::at(&partial, "write"))?;
    std::fs::rename(&partial, &path).map_err(IoError::at(&path, "write"))
}

pub fn create_parent(path: &Path) -> Result<(), IoError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(IoError::at(folder, "create"))
}
