//! `hf://` on the command line and in plans: fetched or found in the cache, and from there on a folder.

use crate::output::{Exit, Failure, Output};
use minic_compiler::plan::{Plan, Source, Stage};
use minic_runtime::events::{Event, Observer};
use minic_runtime::hub::{Hub, HubError, HubSettings, PREFIX, Remote, Snapshot};
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// The hub of the environment.
pub fn hub(offline: bool) -> Hub {
    let settings = HubSettings::from_env();
    Hub::new(HubSettings { offline: settings.offline || offline, ..settings })
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

/// Puts folders in the place of everything that a plan loads from the hub, and fetches what is missing.
pub fn fetch(plan: &mut Plan, hub: &Hub, observer: &dyn Observer) -> Result<(), Failure> {
    replace(plan, &|remote| {
        let stage = remote.repo.to_string();
        let (watch, last) = (Watch { stage: &stage, observer }, Cell::new(0));
        let progress = |file: &str, done: u64, total: u64| watch.tell(&last, file, done, total);
        match &remote.path {
            None => hub.checkpoint(remote, &progress).map(Some),
            Some(_) => hub.data(remote, &progress).map(Some),
        }
    })?;
    for message in hub.notes() {
        observer.observe(&Event::Note { stage: "fetch", message: &message });
    }
    Ok(())
}

/// The same with what the cache holds; what it does not hold stays as it is.
pub fn locate(plan: &mut Plan, hub: &Hub) -> Result<(), Failure> {
    replace(plan, &|remote| Ok(hub.cached_whole(remote)))
}

type Find<'a> = &'a dyn Fn(&Remote) -> Result<Option<Snapshot>, HubError>;

fn replace(plan: &mut Plan, find: Find) -> Result<(), Failure> {
    for node in plan.graph.node_weights_mut() {
        match &mut node.stage {
            Stage::Load(Source::Checkpoint { path, .. }) => local(path, find)?,
            Stage::Load(Source::Data(data)) => {
                data.mix.iter_mut().flat_map(|s| &mut s.files).try_for_each(|file| local(file, find))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn local(name: &mut String, find: Find) -> Result<(), Failure> {
    let Some(remote) = Remote::parse(name) else { return Ok(()) };
    let remote = remote?;
    if let Some(snapshot) = find(&remote)? {
        let place = snapshot.pattern(&remote);
        *name = place.ok_or_else(|| {
            Failure::new(Exit::Input, format!("{}: its name is not UTF-8", snapshot.folder.display()))
        })?;
    }
    Ok(())
}

struct Watch<'a> {
    stage: &'a str,
    observer: &'a dyn Observer,
}

impl Watch<'_> {
    /// In MiB; the first bytes of a file name it.
    fn tell(&self, last: &Cell<u64>, file: &str, done: u64, total: u64) {
        const MIB: u64 = 1 << 20;
        if done < last.get() || last.get() == 0 {
            let message = format!("fetching {file}, {} MiB", total.div_ceil(MIB));
            self.observer.observe(&Event::StageStarted { stage: self.stage, kind: "fetch" });
            self.observer.observe(&Event::Note { stage: self.stage, message: &message });
        }
        last.set(if done == total { 0 } else { done });
        let (done, total) = ((done / MIB) as usize, (total / MIB) as usize);
        self.observer.observe(&Event::Progress { stage: self.stage, done, total });
    }
}

/// A checkpoint that is named on the command line: a folder, or one of the hub's, which is fetched.
pub fn folder(checkpoint: &Path, output: &Output) -> Result<PathBuf, Failure> {
    named(checkpoint, output, |hub, remote| {
        hub.checkpoint(remote, &|file, done, total| {
            if done == total {
                output.note(&format!("fetched {file}, {total} bytes"));
            }
        })
    })
}

/// The same, of which only config.json must be there.
pub fn config_folder(checkpoint: &Path, output: &Output) -> Result<PathBuf, Failure> {
    named(checkpoint, output, Hub::config)
}

fn named(
    checkpoint: &Path,
    output: &Output,
    find: impl Fn(&Hub, &Remote) -> Result<Snapshot, HubError>,
) -> Result<PathBuf, Failure> {
    let remote = checkpoint.to_str().filter(|text| text.starts_with(PREFIX)).and_then(Remote::parse);
    let Some(remote) = remote else { return Ok(checkpoint.to_path_buf()) };
    let (hub, remote) = (hub(false), remote?);
    let snapshot = find(&hub, &remote)?;
    hub.notes().iter().for_each(|note| output.note(note));
    Ok(snapshot.folder)
}
