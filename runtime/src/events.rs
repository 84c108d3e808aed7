//! What a run tells while it goes on: to a terminal, and to `events.jsonl` in its folder.

use crate::device::Memory;
use crate::error::IoError;
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    RunStarted {
        recipe: &'a str,
        version: &'a str,
        device: &'a str,
        threads: usize,
    },
    StageStarted {
        stage: &'a str,
        kind: &'a str,
    },
    /// Bytes that the stage is planned to hold at its peak.
    Planned {
        stage: &'a str,
        weights: u64,
        lanes: u64,
        scratch: u64,
    },
    Progress {
        stage: &'a str,
        done: usize,
        total: usize,
    },
    /// Something that a user should know though nothing is wrong.
    Note {
        stage: &'a str,
        message: &'a str,
    },
    /// Why what the store holds does not serve a stage.
    Missed {
        stage: &'a str,
        reason: &'a str,
    },
    /// A pass that is not finished can go on from here.
    Saved {
        stage: &'a str,
        samples: usize,
    },
    StageFinished {
        stage: &'a str,
        seconds: f64,
        /// It was in the store, or where it was to be published, already.
        cached: bool,
        /// The largest resident size of the process meanwhile, in bytes; absent where the system does not say.
        #[serde(skip_serializing_if = "Option::is_none")]
        peak: Option<u64>,
        result: &'a str,
    },
    /// Of a shared run: others have not done what the stage needs.
    StageWaits {
        stage: &'a str,
        message: &'a str,
    },
    RunFinished {
        seconds: f64,
    },
    /// The user stopped it.
    RunStopped {
        stage: &'a str,
    },
    RunFailed {
        stage: &'a str,
        message: &'a str,
    },
}

/// Sees every event, from any thread.
pub trait Observer: Sync {
    fn observe(&self, event: &Event);
}

/// Sees nothing.
impl Observer for () {
    fn observe(&self, _: &Event) {}
}

impl<T: Observer + ?Sized> Observer for &T {
    fn observe(&self, event: &Event) {
        (**self).observe(event);
    }
}

/// All of them, in order.
impl Observer for Vec<Box<dyn Observer + Send + '_>> {
    fn observe(&self, event: &Event) {
        self.iter().for_each(|o| o.observe(event));
    }
}

/// One JSON object a line, each with its time in milliseconds since 1970. Progress is thinned out.
pub struct Journal {
    inner: Mutex<(File, Instant)>,
}

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

impl Journal {
    /// Appends to `path`: a folder tells of all runs that were made in it. A last line that a kill or a full
    /// disk cut short is taken away.
    pub fn open(path: &Path) -> Result<Journal, IoError> {
        let file = File::options().create(true).append(true).read(true).open(path);
        let mut file = file.map_err(IoError::at(path, "open"))?;
        let len = whole_lines(&mut file).map_err(IoError::at(path, "read"))?;
        file.set_len(len).map_err(IoError::at(path, "write"))?;
        Ok(Journal { inner: Mutex::new((file, Instant::now())) })
    }
}

/// The length of a file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(4096);
        file.seek(SeekFrom::Start(begin))?;
        piece.clear();
        file.take(end - begin).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|&b| b == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[derive(Serialize)]
struct Line<'a> {
    time_ms: u128,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Observer for Journal {
    fn observe(&self, event: &Event) {
        let Ok(mut inner) = self.inner.lock() else { return };
        let due = inner.1.elapsed() >= PROGRESS_EVERY;
        match event {
            Event::Progress { done, total, .. } if !due && done < total => return,
            Event::Progress { .. } => inner.1 = Instant::now(),
            _ => {}
        }
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        if let Ok(mut line) = serde_json::to_vec(&Line { time_ms, event }) {
            line.push(b'\n');
            // A journal that cannot be written is no reason to lose the run.
            let _ = inner.0.write_all(&line);
        }
    }
}

/// Set by the user to stop a run at the next place from which it can go on. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One stage's way of telling, and of being told.
pub struct Watch<'a> {
    pub stage: &'a str,
    pub observer: &'a dyn Observer,
    pub stop: Stop,
}

impl<'a> Watch<'a> {
    /// Of something that nobody stops.
    pub fn new(stage: &'a str, observer: &'a dyn Observer) -> Watch<'a> {
        Watch { stage, observer, stop: Stop::default() }
    }

    pub fn planned(&self, memory: Memory) {
        let Memory { weights, lanes, scratch } = memory;
        self.observer.observe(&Event::Planned { stage: self.stage, weights, lanes, scratch });
    }

    pub fn progress(&self, done: usize, total: usize) {
        self.observer.observe(&Event::Progress { stage: self.stage, done, total });
    }

    pub fn saved(&self, samples: usize) {
        self.observer.observe(&Event::Saved { stage: self.stage, samples });
    }

    pub fn note(&self, message: &str) {
        self.observer.observe(&Event::Note { stage: self.stage, message });
    }
}
