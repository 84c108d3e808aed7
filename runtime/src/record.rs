//! The record of a training in its run folder.
//!
//! - `metrics.jsonl`: one line for every update and every evaluation on held-out data, of all trainings of the
//!   recipe. Everything else is made of it.
//! - `tensorboard/STAGE/`: the same for TensorBoard, over tokens.
//! - `STAGE.svg`: loss over tokens.
//!
//! A training that goes on from a save does its later updates again, so their lines are taken out first.

mod curve;
mod drawing;
mod rows;
mod tensorboard;

pub use curve::{Curve, CurvePoint};
pub use drawing::{draw, svg};
pub use rows::{Heldout, Line, Row, Update};

use crate::error::IoError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub const METRICS_FILE: &str = "metrics.jsonl";
pub const TENSORBOARD_FOLDER: &str = "tensorboard";
/// TensorBoard reads every file of a folder whose name holds `tfevents`.
const EVENTS_FILE: &str = "events.out.tfevents.minic";

/// Takes down one training while it goes on.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    stage: String,
    /// Of this stage, in the order of the training.
    lines: Vec<Line>,
    metrics: Appended,
    events: Appended,
}

/// A file that only grows.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    file: File,
}

/// What the updates of a training took together, in seconds, as its record in a folder tells; nothing where the
/// folder does not have all of it.
pub fn seconds(folder: &Path, stage: &str) -> Result<Option<f64>, IoError> {
    let (mut before, mut updates, mut seconds) = (0, 0, 0.0);
    for (line, _) in rows::read(&folder.join(METRICS_FILE))? {
        if let (true, Row::Update(update)) = (line.stage == stage, line.row) {
            updates += 1;
            if update.update != updates {
                return Ok(None);
            }
            seconds += update.tokens.saturating_sub(before) as f64 / update.tokens_per_second;
            before = update.tokens;
        }
    }
    Ok((before > 0 && seconds.is_finite()).then_some(seconds))
}

impl Record {
    /// Goes on after so many updates: what the folder holds of later ones is taken out, and all of the stage
    /// where nothing was saved (0). Lines of other stages stay.
    pub fn open(folder: &Path, stage: &str, updates: u64) -> Result<Record, IoError> {
        let path = folder.join(METRICS_FILE);
        let before = rows::read(&path)?;
        let holds = |line: &Line| line.stage != stage || (updates > 0 && line.row.update() <= updates);
        let kept = || before.iter().filter(|(line, _)| holds(line));
        // As they stand: a number that is read and written again may be another one in its last digit.
        let text: Vec<u8> = kept().flat_map(|(_, text)| text.iter().copied().chain([b'\n'])).collect();
        let metrics = Appended::over(path, &text)?;
        let lines: Vec<Line> =
            kept().filter(|(line, _)| line.stage == stage).map(|(line, _)| line.clone()).collect();
        let of_stage = folder.join(TENSORBOARD_FOLDER).join(stage);
        fs::create_dir_all(&of_stage).map_err(IoError::at(&of_stage, "create"))?;
        let events = Appended::over(of_stage.join(EVENTS_FILE), &tensorboard::file(&lines))?;
        let (folder, stage) = (folder.to_path_buf(), stage.to_string());
        Ok(Record { folder, stage, lines, metrics, events })
    }

    pub fn update(&mut self, update: Update) -> Result<(), IoError> {
        self.push(Row::Update(update))
    }

    /// An evaluation that was taken down already, before the training went on from a save, is not taken down
    /// twice.
    pub fn heldout(&mut self, heldout: Heldout) -> Result<(), IoError> {
        let same = |line: &Line| matches!(&line.row, Row::Heldout(h) if h.update == heldout.update);
        if self.lines.iter().any(same) {
            return Ok(());
        }
        self.push(Row::Heldout(heldout))?;
        self.draw()
    }

    /// Everything until now is on the disk when this returns. To be called before a training saves its state,
    /// which must not know of updates that the record has lost.
    pub fn sync(&mut self) -> Result<(), IoError> {
        self.metrics.sync()?;
        self.events.sync()
    }

    /// Writes the loss curve a last time.
    pub fn finish(mut self) -> Result<(), IoError> {
        self.sync()?;
        self.draw()
    }

    fn push(&mut self, row: Row) -> Result<(), IoError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Line { stage: self.stage.clone(), row, time: time.as_millis() as f64 / 1e3 };
        self.metrics.write(line.text().as_bytes())?;
        self.events.write(&tensorboard::record(&line))?;
        self.lines.push(line);
        Ok(())
    }

    fn draw(&self) -> Result<(), IoError> {
        let path = self.folder.join(format!("{}.svg", self.stage));
        replace(&path, svg(&self.stage, &self.lines).as_bytes()).map(drop)
    }
}

impl Appended {
    /// A file that holds this, and nothing else yet. Whoever reads the path meets the old content or the new.
    fn over(path: PathBuf, bytes: &[u8]) -> Result<Appended, IoError> {
        let file = replace(&path, bytes)?;
        Ok(Appended { path, file })
    }

    /// One call of the system for each line, so that a kill cuts off the last line at most.
    fn write(&mut self, bytes: &[u8]) -> Result<(), IoError> {
        self.file.write_all(bytes).map_err(IoError::at(&self.path, "write"))
    }

    fn sync(&mut self) -> Result<(), IoError> {
        self.file.sync_data().map_err(IoError::at(&self.path, "write"))
    }
}

/// Replaces a file as a whole; what is given back writes behind its content.
fn replace(path: &Path, bytes: &[u8]) -> Result<File, IoError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let mut file = File::create(&partial).map_err(IoError::at(&partial, "create"))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(IoError::at(&partial, "write"))?;
    fs::rename(&partial, path).map_err(IoError::at(path, "rename"))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
