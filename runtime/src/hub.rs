//! Checkpoints and data sets of the Hugging Face hub: `hf://org/name@revision` and
//! `hf://datasets/org/name@revision/path`.
//!
//! Files live in the cache that every program of the hub shares, in its layout: `models--org--name` with
//! `refs/REVISION` (a commit), `snapshots/COMMIT/FILE` (links) and `blobs/DIGEST`. What is there is found
//! without a network; what is missing is fetched only by a [`Hub`] that may. A file gets its name when it is
//! whole and its digest is right.
//!
//! Source of the layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.

mod cache;
#[cfg(feature = "hub")]
mod client;
mod names;
mod settings;

#[cfg(all(test, unix, feature = "hub"))]
mod tests;

use crate::checkpoint::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use crate::error::{IoError, Kind};
use crate::input;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use names::{Origin, PREFIX, Remote, Repo, origin, spelled};
pub use settings::{HubSettings, Token};

/// Repositories as they are known to this process: a branch that moves meanwhile does not move here.
pub struct Hub {
    settings: HubSettings,
    commits: Mutex<BTreeMap<Repo, String>>,
    notes: Mutex<Vec<String>>,
    #[cfg(feature = "hub")]
    client: client::Client,
}

/// A repository at one commit, some of its files at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Holds the files under the names that they have in the repository.
    pub folder: PathBuf,
    /// 40 hexadecimal digits.
    pub commit: String,
}

impl Snapshot {
    /// What a remote names in it: its folder, or a path or glob in it. `None` where that is not UTF-8.
    pub fn pattern(&self, remote: &Remote) -> Option<String> {
        let folder = self.folder.to_str()?;
        Some(match &remote.path {
            None => folder.to_string(),
            Some(path) if is_glob(path) => format!("{}/{path}", glob::Pattern::escape(folder)),
            Some(path) => format!("{folder}/{path}"),
        })
    }
}

/// Told while files are fetched: the file, bytes of it that are there, bytes that it has.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("`{text}`: {reason}")]
    Name { text: String, reason: String },
    #[error(
        "{repo}: {what} is not in the cache {} and nothing is fetched {why}; fetch it with `{command}`",
        cache.display()
    )]
    Absent { repo: String, what: String, cache: PathBuf, why: &'static str, command: String },
    #[error("{repo}: the hub knows no such repository, revision or file ({url}){hint}")]
    NotFound { repo: String, url: String, hint: &'static str },
    #[error("{repo}: the hub wants to know who asks ({status} at {url}); {help}")]
    Denied { repo: String, url: String, status: u16, help: &'static str },
    #[error("{repo}: {what}")]
    Contents { repo: String, what: String },
    #[error("{repo}: {reason} ({url}); what was fetched is kept, and the same command resumes")]
    Network { repo: String, url: String, reason: String },
}

impl HubError {
    pub fn kind(&self) -> Kind {
        match self {
            HubError::Io(e) => e.kind(),
            HubError::Network { .. } => Kind::World,
            HubError::Name { .. }
            | HubError::Absent { .. }
            | HubError::NotFound { .. }
            | HubError::Denied { .. }
            | HubError::Contents { .. } => Kind::Input,
        }
    }
}

impl Hub {
    pub fn new(settings: HubSettings) -> Hub {
        Hub {
            commits: Mutex::default(),
            notes: Mutex::default(),
            #[cfg(feature = "hub")]
            client: client::Client::new(&settings),
            settings,
        }
    }

    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// What a user should know though nothing failed; each is given once.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// What a remote names, where the cache holds all that can be told to belong to it.
    pub fn cached_whole(&self, remote: &Remote) -> Option<Snapshot> {
        let snapshot = self.cached(&remote.repo)?;
        let missing = match &remote.path {
            None => complete(&snapshot.folder),
            Some(path) => missing_one(&snapshot.folder, path),
        };
        matches!(missing, Ok(None)).then_some(snapshot)
    }

    /// What the cache holds of a repository; `None` where it does not know the revision.
    pub fn cached(&self, repo: &Repo) -> Option<Snapshot> {
        let known = self.commits.lock().unwrap_or_else(|e| e.into_inner()).get(repo).cloned();
        let commit = known.or_else(|| cache::commit(&self.settings.cache, repo))?;
        let folder = cache::snapshot(&self.settings.cache, repo, &commit);
        folder.is_dir().then_some(Snapshot { folder, commit })
    }

    /// A checkpoint with every file that a run may read, fetched where that is allowed.
    pub fn checkpoint(&self, remote: &Remote, progress: Progress) -> Result<Snapshot, HubError> {
        self.obtain(remote, &|files| checkpoint_files(files), &complete, progress)
    }

    /// A checkpoint of which only config.json is surely there.
    pub fn config(&self, remote: &Remote) -> Result<Snapshot, HubError> {
        let wanted = |files: &[String]| files.iter().filter(|f| *f == CONFIG_FILE).cloned().collect();
        let missing = |folder: &Path| missing_one(folder, CONFIG_FILE);
        self.obtain(remote, &wanted, &missing, &|_, _, _| ())
    }

    /// The files of a data set that the path of `remote` names, which may be a glob.
    pub fn data(&self, remote: &Remote, progress: Progress) -> Result<Snapshot, HubError> {
        let path = remote.path.as_deref().unwrap_or_default();
        let glob = glob::Pattern::new(path).ok();
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let named = |file: &str| file == path || glob.as_ref().is_some_and(|g| g.matches_with(file, options));
        let wanted = |files: &[String]| files.iter().filter(|f| named(f)).cloned().collect();
        // Whether a glob has all of its files only the hub can tell.
        let missing = |folder: &Path| missing_one(folder, path);
        self.obtain(remote, &wanted, &missing, progress)
    }

    /// From the cache where nothing is missing there; else from the hub, if it may be asked.
    fn obtain(
        &self,
        remote: &Remote,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
        missing: &dyn Fn(&Path) -> Result<Option<String>, IoError>,
        progress: Progress,
    ) -> Result<Snapshot, HubError> {
        let repo = &remote.repo;
        let cached = self.cached(repo);
        let lacks = match &cached {
            Some(snapshot) => missing(&snapshot.folder)?,
            None => Some(format!("revision {}", repo.revision())),
        };
        let settled = repo.is_commit() || self.settings.offline || !cfg!(feature = "hub");
        match (cached, lacks) {
            (Some(snapshot), None) if settled => Ok(snapshot),
            (_, Some(what)) if self.settings.offline || !cfg!(feature = "hub") => {
                Err(self.absent(remote, what))
            }
            (cached, lacks) => self.fetch(repo, wanted, cached.filter(|_| lacks.is_none()), progress),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(
        &self,
        repo: &Repo,
        _: &dyn Fn(&[String]) -> Vec<String>,
        _: Option<Snapshot>,
        _: Progress,
    ) -> Result<Snapshot, HubError> {
        Err(self.absent(&Remote { repo: repo.clone(), path: None }, format!("revision {}", repo.revision())))
    }

    /// Asks for the commit of the revision, and fetches what is missing of the wanted files. Where the hub
    /// cannot be reached, what the cache has of the revision is taken if it is all there.
    #[cfg(feature = "hub")]
    fn fetch(
        &self,
        repo: &Repo,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
        cached: Option<Snapshot>,
        progress: Progress,
    ) -> Result<Snapshot, HubError> {
        let listed = match (self.client.list(&self.pinned(repo)), cached) {
            (Err(error @ HubError::Network { .. }), Some(cached)) => {
                let note = format!("{error}; the cache holds it at {}, which is taken", cached.commit);
                self.notes.lock().unwrap_or_else(|e| e.into_inner()).push(note);
                return Ok(cached);
            }
            (listed, _) => listed?,
        };
        self.commits
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .entry(repo.clone())
            .or_insert_with(|| listed.commit.clone());
        let folder = cache::snapshot(&self.settings.cache, repo, &listed.commit);
        let files = wanted(&listed.files);
        if files.is_empty() {
            let what = format!("no file of it at {} is what is asked for", listed.commit);
            return Err(HubError::Contents { repo: repo.to_string(), what });
        }
        for file in files {
            self.client.fetch(repo, &listed.commit, &file, progress)?;
        }
        cache::set_ref(&self.settings.cache, repo, &listed.commit)?;
        Ok(Snapshot { folder, commit: listed.commit })
    }

    /// The repository at the commit that this process has settled on.
    #[cfg(feature = "hub")]
    fn pinned(&self, repo: &Repo) -> Repo {
        let commits = self.commits.lock().unwrap_or_else(|e| e.into_inner());
        commits.get(repo).map_or(repo.clone(), |commit| repo.at(commit))
    }

    fn absent(&self, remote: &Remote, what: String) -> HubError {
        let why = if self.settings.offline { "offline" } else { "by a minic that was built without `hub`" };
        HubError::Absent {
            repo: remote.repo.to_string(),
            what,
            cache: self.settings.cache.clone(),
            why,
            command: remote.download_command(),
        }
    }
}

/// Files at the root of a repository that a checkpoint consists of: not the same weights in other formats.
fn checkpoint_files(files: &[String]) -> Vec<String> {
    const KINDS: &[&str] = &["json", "txt", "model", "jinja", "md", "py"];
    let sharded = files.iter().any(|f| f == INDEX_FILE);
    let wanted = |file: &&String| {
        if file.contains('/') {
            return false;
        }
        match file.rsplit_once('.') {
            // The stem that both the shards and the one file have.
            Some((stem, "safetensors")) if sharded => stem.starts_with("model-"),
            Some((_, "safetensors")) => *file == WEIGHTS_FILE,
            Some((_, kind)) => KINDS.contains(&kind),
            None => file.starts_with("LICENSE"),
        }
    };
    let mut files: Vec<String> = files.iter().filter(wanted).cloned().collect();
    // What is small comes first: a wrong choice shows before the weights are fetched.
    files.sort_by_key(|f| (f.ends_with(".safetensors"), f != CONFIG_FILE, f.clone()));
    files
}

fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn missing_one(folder: &Path, file: &str) -> Result<Option<String>, IoError> {
    let there = folder.join(file).is_file() || (is_glob(file) && matches_any(folder, file));
    Ok((!there).then(|| format!("`{file}`")))
}

fn matches_any(folder: &Path, pattern: &str) -> bool {
    let folder = glob::Pattern::escape(&folder.to_string_lossy());
    glob::glob(&format!("{folder}/{pattern}")).is_ok_and(|mut found| found.next().is_some())
}

/// Every file is there that a checkpoint in this folder consists of.
pub fn is_whole(folder: &Path) -> bool {
    matches!(complete(folder), Ok(None))
}

/// The first file that a checkpoint in this folder lacks.
fn complete(folder: &Path) -> Result<Option<String>, IoError> {
    if let Some(missing) = missing_one(folder, CONFIG_FILE)? {
        return Ok(Some(missing));
    }
    let index = folder.join(INDEX_FILE);
    if !index.is_file() {
        return missing_one(folder, WEIGHTS_FILE);
    }
    let bytes = input::read(&index, input::INDEX)?;
    let index: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let shards = index.get("weight_map").and_then(serde_json::Value::as_object);
    // What is wrong with an index is said when the checkpoint is opened.
    let shards = shards.into_iter().flat_map(|map| map.values()).filter_map(serde_json::Value::as_str);
    for shard in shards {
        if let Some(missing) = missing_one(folder, shard)? {
            return Ok(Some(missing));
        }
    }
    Ok(None)
}
