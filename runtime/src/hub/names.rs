//! How repositories are named: in recipes, on the hub, in the cache.

use super::HubError;
use std::fmt;
use std::path::{Component, Path};

pub const PREFIX: &str = "hf://";
const DATASETS: &str = "datasets/";
const DEFAULT_REVISION: &str = "main";

/// A model or a data set at a revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repo {
    pub is_dataset: bool,
    /// `org/name`
    pub id: String,
    revision: Option<String>,
}

/// What a recipe names: a model, or files of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub repo: Repo,
    /// Of files within a data set; may be a glob.
    pub path: Option<String>,
}

impl Remote {
    /// `None` for what does not begin with `hf://`.
    pub fn parse(text: &str) -> Option<Result<Remote, HubError>> {
        let rest = text.strip_prefix(PREFIX)?;
        let fault = |reason: &str| HubError::Name { text: text.into(), reason: reason.into() };
        Some(match rest.strip_prefix(DATASETS) {
            Some(rest) => dataset(rest).ok_or_else(|| {
                fault("the files of a data set are named as `hf://datasets/org/name@revision/path`")
            }),
            None => model(rest).ok_or_else(|| fault("a checkpoint is named as `hf://org/name@revision`")),
        })
    }

    /// How the hub's own program puts this into the cache.
    pub fn download_command(&self) -> String {
        let Repo { is_dataset, id, revision } = &self.repo;
        let mut command = format!("hf download {id}");
        if *is_dataset {
            command += " --repo-type dataset";
        }
        if let Some(revision) = revision {
            command += &format!(" --revision {revision}");
        }
        match &self.path {
            Some(path) => command + &format!(" --include '{path}'"),
            None => command,
        }
    }
}

fn model(text: &str) -> Option<Remote> {
    let (id, revision) = match text.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (text, None),
    };
    let repo = Repo::new(false, id, revision)?;
    Some(Remote { repo, path: None })
}

fn dataset(text: &str) -> Option<Remote> {
    let mut parts = text.splitn(3, '/');
    let (org, name, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    // `refs/convert/parquet` and `refs/pr/1` are the revisions with slashes.
    let (revision, path) = match revision {
        Some("refs") => {
            let mut parts = path.splitn(3, '/');
            let (kind, name) = (parts.next()?, parts.next()?);
            (Some(format!("refs/{kind}/{name}")), parts.next()?)
        }
        revision => (revision.map(str::to_string), path),
    };
    let repo = Repo::new(true, &format!("{org}/{name}"), revision.as_deref())?;
    (is_inside(path)).then(|| Remote { repo, path: Some(path.to_string()) })
}

/// A path of plain names: nothing that leads out of a folder.
pub(super) fn is_inside(path: &str) -> bool {
    let plain = |c: Component| matches!(c, Component::Normal(_));
    !path.is_empty() && !path.contains(['\\', '\0']) && Path::new(path).components().all(plain)
}

impl Repo {
    fn new(is_dataset: bool, id: &str, revision: Option<&str>) -> Option<Repo> {
        let name = |part: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && !part.contains("--") && part.chars().all(legal)
        };
        let (org, last) = id.split_once('/')?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
        let revision_is_legal = |r: &str| r.chars().all(legal) && is_inside(r) && !r.contains("..");
        let all = name(org) && name(last) && revision.is_none_or(revision_is_legal);
        all.then(|| Repo { is_dataset, id: id.into(), revision: revision.map(str::to_string) })
    }

    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    pub fn at(&self, commit: &str) -> Repo {
        Repo { revision: Some(commit.to_string()), ..self.clone() }
    }

    /// Its revision is a commit, which never moves.
    pub fn is_commit(&self) -> bool {
        is_commit(self.revision())
    }

    /// `models--org--name`
    pub fn folder(&self) -> String {
        let kind = if self.is_dataset { "datasets" } else { "models" };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }
}

/// As a recipe spells it.
impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{PREFIX}{}{}", if self.is_dataset { DATASETS } else { "" }, self.id)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a folder or a file of the cache comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `hf://org/name`, without a revision.
    pub repo: String,
    pub commit: String,
    /// Within the repository; empty for its root.
    pub path: String,
}

/// `.../models--org--name/snapshots/COMMIT/path`, read backwards; `None` for what is not of a cache.
pub fn origin(path: &Path) -> Option<Origin> {
    let parts: Vec<&str> = path.components().map(|c| c.as_os_str().to_str()).collect::<Option<_>>()?;
    let at = parts.iter().position(|p| *p == "snapshots")?;
    let (folder, commit) = (parts.get(at.checked_sub(1)?)?, parts.get(at + 1)?);
    let (is_dataset, name) = match (folder.strip_prefix("models--"), folder.strip_prefix("datasets--")) {
        (Some(name), _) => (false, name),
        (_, Some(name)) => (true, name),
        _ => return None,
    };
    let repo = Repo::new(is_dataset, &name.replacen("--", "/", 1), None)?;
    let path = parts[at + 2..].join("/");
    is_commit(commit).then(|| Origin { repo: repo.to_string(), commit: commit.to_string(), path })
}

/// A file's path as it is recorded: where a file of the cache comes from, rather than where it lies.
pub fn spelled(path: &Path) -> String {
    match origin(path) {
        Some(Origin { repo, commit, path }) => format!("{repo}@{commit}/{path}"),
        None => path.display().to_string(),
    }
}
