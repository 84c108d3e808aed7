//! What benchmarks of whole commands measure with: stages timed, files copied, memory at its peak.

use crate::error::IoError;
use crate::events::{Event, Observer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seconds of every stage of a run, by its name, with its kind; other observers see all of it too.
pub struct Timed<'a> {
    next: &'a dyn Observer,
    stages: Mutex<Stages>,
}

#[derive(Default)]
struct Stages {
    kinds: BTreeMap<String, String>,
    peak: Option<u64>,
    seconds: BTreeMap<String, f64>,
}

impl<'a> Timed<'a> {
    pub fn new(next: &'a dyn Observer) -> Timed<'a> {
        Timed { next, stages: Mutex::default() }
    }

    /// Of all stages of a kind (`load`, `score`, `cut`, `export`) together.
    pub fn seconds(&self, kind: &str) -> f64 {
        let Ok(stages) = self.stages.lock() else { return 0.0 };
        let of = |name: &String| stages.kinds.get(name).is_some_and(|k| k == kind);
        stages.seconds.iter().filter(|(name, _)| of(name)).map(|(_, seconds)| seconds).sum()
    }
}

impl Timed<'_> {
    /// The largest resident size that any stage saw, in bytes. (A run starts counting anew with every stage.)
    pub fn peak(&self) -> Option<u64> {
        self.stages.lock().ok().and_then(|stages| stages.peak)
    }
}

impl Observer for Timed<'_> {
    fn observe(&self, event: &Event) {
        if let Ok(mut stages) = self.stages.lock() {
            match event {
                Event::StageStarted { stage, kind } => {
                    stages.kinds.insert(stage.to_string(), kind.to_string());
                }
                Event::StageFinished { stage, seconds, peak, .. } => {
                    stages.seconds.insert(stage.to_string(), *seconds);
                    stages.peak = stages.peak.max(*peak);
                }
                _ => {}
            }
        }
        self.next.observe(event);
    }
}

/// Copies the first `bytes` bytes of some files, one after the other, into a folder that is there, by reads
/// and writes of a MiB, and waits until they are on the disk.
pub fn copy(files: &[PathBuf], bytes: u64, to: &Path) -> Result<Duration, IoError> {
    let began = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut copied = 0;
    for (i, path) in files.iter().enumerate() {
        let target = to.join(i.to_string());
        let from = File::open(path).map_err(IoError::at(path, "open"))?;
        let mut from = from.take(bytes - copied);
        let mut out = File::create_new(&target).map_err(IoError::at(&target, "create"))?;
        loop {
            let read = from.read(&mut buffer).map_err(IoError::at(path, "read"))?;
            if read == 0 {
                break;
            }
            out.write_all(&buffer[..read]).map_err(IoError::at(&target, "write"))?;
            copied += read as u64;
        }
        out.sync_all().map_err(IoError::at(&target, "sync"))?;
    }
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_are_copied_as_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|name| folder.path().join(name));
        files.iter().for_each(|path| std::fs::write(path, [7; 1000]).unwrap());
        for (asked, expected) in [(0, 0), (1500, 1500), (3000, 3000), (9000, 3000)] {
            let to = folder.path().join(asked.to_string());
            std::fs::create_dir(&to).unwrap();
            copy(&files, asked, &to).unwrap();
            let there: u64 = to.read_dir().unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
            assert_eq!(there, expected);
        }
    }

    #[test]
    fn stages_are_timed_by_kind() {
        let timed = Timed::new(&());
        let stages = [("a", "score", 1.0, None), ("b", "cut", 2.0, Some(9)), ("c", "score", 4.0, Some(3))];
        for (stage, kind, seconds, peak) in stages {
            timed.observe(&Event::StageStarted { stage, kind });
            timed.observe(&Event::StageFinished { stage, seconds, cached: false, peak, result: "" });
        }
        assert_eq!(timed.peak(), Some(9));
        assert_eq!([timed.seconds("score"), timed.seconds("cut"), timed.seconds("load")], [5.0, 2.0, 0.0]);
    }
}
