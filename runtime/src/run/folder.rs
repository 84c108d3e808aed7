//! The folder of a run, `.minic/runs/NAME`: whose it is now, and what happened in it.
//!
//! - `lock`: held locked by the run that lives here; says which process it is.
//! - `events.jsonl`: everything that runs told, one after the other.
//! - `recipe.mrecipe`, `result.json`: the recipe of the last finished run, and what it made.
//! - `report.html`: the same as a page.

use crate::error::{IoError, Kind};
use crate::events::Journal;
use crate::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub const EVENTS_FILE: &str = "events.jsonl";
pub const RESULT_FILE: &str = "result.json";
pub const REPORT_FILE: &str = "report.html";
/// As it is called in exported folders, too.
pub const RECIPE_FILE: &str = "recipe.mrecipe";
const LOCK_FILE: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: {holder} is running in this folder; wait for it, or stop it", folder.display())]
    Busy { folder: PathBuf, holder: String },
}

impl FolderError {
    pub fn kind(&self) -> Kind {
        Kind::World
    }
}

/// Who holds the lock.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// Milliseconds since 1970.
    since: u64,
}

/// A run folder that is this process's alone for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// How the run before ended, if it did not finish.
    pub before: Option<String>,
    _lock: File,
}

impl RunFolder {
    /// Takes the folder; makes it if it is not there.
    pub fn open(path: &Path) -> Result<RunFolder, FolderError> {
        fs::create_dir_all(path).map_err(IoError::at(path, "create"))?;
        let lock = path.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&lock);
        let mut file = file.map_err(IoError::at(&lock, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Busy { folder: path.to_path_buf(), holder: holder(&lock) });
            }
            // A file system without locks is used as it is.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => Err(IoError::at(&lock, "lock")(e))?,
        }
        let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis() as u64);
        let text = serde_json::to_string(&Holder { pid: std::process::id(), since }).unwrap_or_default();
        let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(IoError::at(&lock, "write"))?;
        Ok(RunFolder { path: path.to_path_buf(), before: unfinished(&path.join(EVENTS_FILE)), _lock: file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn journal(&self) -> Result<Journal, IoError> {
        Journal::open(&self.path.join(EVENTS_FILE))
    }

    /// Writes the recipe and then `result.json`, each whole or not at all.
    pub fn write_result<T: Serialize>(&self, recipe: &str, result: &T) -> Result<(), IoError> {
        self.write(RECIPE_FILE, recipe)?;
        self.write(RESULT_FILE, &json::to_text(result))
    }

    /// Writes a file of the folder, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<(), IoError> {
        let (path, partial) = (self.path.join(name), self.path.join(format!("{name}.partial")));
        let mut file = File::create(&partial).map_err(IoError::at(&partial, "create"))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(IoError::at(&partial, "write"))?;
        fs::rename(&partial, &path).map_err(IoError::at(&path, "rename"))
    }
}

fn holder(lock: &Path) -> String {
    let known: Option<Holder> = fs::read(lock).ok().and_then(|text| serde_json::from_slice(&text).ok());
    known.map_or("another process".into(), |h| format!("process {}", h.pid))
}

/// What the journal says of the last run, unless it finished.
fn unfinished(events: &Path) -> Option<String> {
    let text = fs::read_to_string(events).ok()?;
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let start = events.iter().rposition(|e| e["event"] == "run_started")?;
    let run = &events[start..];
    let last = |kind: &str| run.iter().rev().find(|e| e["event"] == kind);
    let begun = |field: &str| last("stage_started").and_then(|e| e[field].as_str());
    let stage = begun("stage").unwrap_or("its beginning");
    if last("run_finished").is_some() {
        return None;
    }
    if last("run_stopped").is_some() {
        return Some(format!("the run before was stopped in `{stage}`"));
    }
    if let Some(failed) = last("run_failed") {
        let message = failed["message"].as_str().unwrap_or_default();
        return Some(format!("the run before failed in `{stage}`: {message}"));
    }
    let progress = last("progress").filter(|e| e["stage"] == stage);
    let unit = match begun("kind") {
        Some("train" | "distill") => "updates",
        Some("search") => "steps of a rung",
        _ => "samples",
    };
    let far = progress.map(|e| format!(" after {} of {} {unit}", e["done"], e["total"])).unwrap_or_default();
    Some(format!("the run before was cut off in `{stage}`{far}"))
}
