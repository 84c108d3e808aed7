//! What a run tells while it goes on: to a terminal, and to `events.jsonl` in its folder.

use crate::device::Memory;
use crate::error::IoError;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
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
    StageFinished {
        stage: &'a str,
        seconds: f64,
        result: &'a str,
    },
    RunFinished {
        seconds: f64,
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

/// All of them, in order.
impl Observer for Vec<Box<dyn Observer + Send>> {
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
    /// Appends to `path`: a folder tells of all runs that were made in it.
    pub fn open(path: &Path) -> Result<Journal, IoError> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(IoError::at(path, "open"))?;
        Ok(Journal { inner: Mutex::new((file, Instant::now())) })
    }
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

/// One stage's way of telling.
pub struct Watch<'a> {
    pub stage: &'a str,
    pub observer: &'a dyn Observer,
}

impl Watch<'_> {
    pub fn planned(&self, memory: Memory) {
        let Memory { weights, lanes, scratch } = memory;
        self.observer.observe(&Event::Planned { stage: self.stage, weights, lanes, scratch });
    }

    pub fn progress(&self, done: usize, total: usize) {
        self.observer.observe(&Event::Progress { stage: self.stage, done, total });
    }

    pub fn note(&self, message: &str) {
        self.observer.observe(&Event::Note { stage: self.stage, message });
    }
}
