//! What `minic bench` measured on this machine, kept for the times of plans: `minic/figures.json` in the user's folder
//! of states (`XDG_STATE_HOME`, `~/.local/state`).

use crate::output::Output;
use crate::table::date;
use serde::{Deserialize, Serialize};
use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a figure is a rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Operations of forward passes over samples.
    Forward,
    /// Operations of updates: forwards, in reverse, a teacher's, and AdamW.
    Train,
    /// Bytes of files of data, until they are samples.
    Data,
    /// Bytes of a checkpoint's weights, until their digests are known.
    Load,
    /// Bytes of weights that are scored by themselves.
    Score,
    /// Bytes of both models of which it is proved that one is the other cut.
    Cut,
    /// Bytes of weights that are written, read back and proved.
    Export,
}

impl Kind {
    /// It is no work of a device's.
    pub fn is_of_host(self) -> bool {
        !matches!(self, Kind::Forward | Kind::Train)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Kind::Forward => "forward passes",
            Kind::Train => "training",
            Kind::Data => "reading data",
            Kind::Load => "loading checkpoints",
            Kind::Score => "scoring weights",
            Kind::Cut => "proving cuts",
            Kind::Export => "exports",
        })
    }
}

/// Under which circumstances something is measured or asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    pub kind: Kind,
    /// [`minic_runtime::device::Device::kind`]; `host` for what is no work of a device's.
    pub device: String,
    pub threads: usize,
    /// Parameters of the model; zero for data.
    pub params: u64,
    /// Tokens of a sample; zero where there are none.
    pub sequence: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    #[serde(flatten)]
    pub of: Circumstances,
    /// Operations or bytes a second.
    pub rate: f64,
    /// `2026-11-26`, UTC.
    pub date: String,
    /// The version that measured.
    pub minic: String,
}

/// A model or a sample so many times as large, or as small, is measured by another's figure; beyond it the figure is a
/// rough guide.
const NEAR: f64 = 2.5;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    figures: Vec<Figure>,
}

impl Figures {
    /// Those of this machine; none where nothing was measured, or where the file cannot be read, which is told.
    pub fn kept(output: &Output) -> Figures {
        let Some(path) = file() else { return Figures::default() };
        Figures::read(&path).unwrap_or_else(|why| {
            output.note(&format!("{}: {why}; times are not measured", path.display()));
            Figures::default()
        })
    }

    fn read(path: &Path) -> Result<Figures, String> {
        const LONGEST: u64 = 4 << 20;
        if !path.is_file() {
            return Ok(Figures::default());
        }
        let bytes = minic_runtime::input::read(path, LONGEST).map_err(|e| e.to_string())?;
        serde_json::from_slice(&bytes).map_err(|e| format!("holds no figures: {e}"))
    }

    /// The figure of the nearest model and sample, and whether these are near enough to be more than a rough guide.
    pub fn nearest(&self, wanted: &Circumstances) -> Option<(&Figure, bool)> {
        let same = |of: &Circumstances| {
            (of.kind, &of.device, of.threads) == (wanted.kind, &wanted.device, wanted.threads)
        };
        let times = |a: f64, b: f64| (a.max(1.0) / b.max(1.0)).ln().abs();
        let apart = |of: &Circumstances| {
            let params = times(of.params as f64, wanted.params as f64);
            (params, times(of.sequence as f64, wanted.sequence as f64))
        };
        let far = |figure: &&Figure| {
            let (params, sequence) = apart(&figure.of);
            params + sequence
        };
        let found = self.figures.iter().filter(|figure| same(&figure.of));
        let found = found.min_by(|a, b| far(a).total_cmp(&far(b)))?;
        let (params, sequence) = apart(&found.of);
        Some((found, params.max(sequence) <= NEAR.ln()))
    }

    /// A figure replaces one of the same circumstances.
    fn merge(&mut self, new: Vec<Figure>) {
        self.figures.retain(|old| new.iter().all(|new| new.of != old.of));
        self.figures.extend(new);
        self.figures.sort_by(|a, b| {
            let key = |f: &Figure| (f.of.kind, f.of.device.clone(), f.of.threads, f.of.params, f.of.sequence);
            key(a).cmp(&key(b))
        });
    }

    /// Under a name of its own first, so that the file is always whole.
    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = File::create(&beside)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

impl Circumstances {
    /// Here: with the threads that there are.
    pub fn here(kind: Kind, device: &str, params: u64, sequence: usize) -> Circumstances {
        let device = if kind.is_of_host() { "host" } else { device }.to_string();
        Circumstances { kind, device, threads: minic_runtime::threads::count(), params, sequence }
    }

    /// So much of it in so many seconds, now.
    pub fn measured(self, amount: f64, seconds: f64) -> Option<Figure> {
        let rate = amount / seconds;
        let minic = env!("CARGO_PKG_VERSION").to_string();
        (rate.is_finite() && rate > 0.0).then(|| Figure { of: self, rate, date: today(), minic })
    }
}

/// Keeps figures for plans. That they cannot be kept is told, and fails no benchmark.
pub fn keep(new: Vec<Figure>, output: &Output) {
    let Some(path) = file().filter(|_| !new.is_empty()) else { return };
    // A file that holds no figures is replaced.
    let mut figures = Figures::read(&path).unwrap_or_default();
    figures.merge(new);
    match figures.write(&path) {
        Ok(()) => output.note(&format!("kept for `minic plan` in {}", path.display())),
        Err(error) => output.note(&format!("{}: not kept for `minic plan`: {error}", path.display())),
    }
}

fn file() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let states = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(states.join("minic/figures.json"))
}

fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    date(seconds / 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(kind: Kind, params: u64, sequence: usize, rate: f64) -> Figure {
        let of = Circumstances { kind, device: "cpu".into(), threads: 2, params, sequence };
        Figure { of, rate, date: today(), minic: "0".into() }
    }

    #[test]
    fn the_nearest_figure_of_the_same_circumstances_is_taken_and_a_far_one_is_told() {
        let mut figures = Figures::default();
        figures.merge(vec![
            figure(Kind::Forward, 1_000_000, 128, 1.0),
            figure(Kind::Forward, 8_000_000_000, 4096, 2.0),
            figure(Kind::Train, 4_000_000_000, 4096, 3.0),
        ]);
        let rate = |kind, params, sequence| {
            let wanted = figure(kind, params, sequence, 0.0).of;
            figures.nearest(&wanted).map(|(figure, near)| (figure.rate, near))
        };
        assert_eq!(rate(Kind::Forward, 500_000, 128), Some((1.0, true)));
        assert_eq!(rate(Kind::Forward, 4_000_000_000, 8192), Some((2.0, true)));
        assert_eq!(rate(Kind::Forward, 1_000_000_000, 4096), Some((2.0, false)));
        assert_eq!(rate(Kind::Cut, 1_000_000, 0), None);
        let elsewhere = Circumstances { threads: 3, ..figure(Kind::Train, 4_000_000_000, 4096, 0.0).of };
        assert_eq!(figures.nearest(&elsewhere), None, "of other threads");
    }

    #[test]
    fn a_figure_replaces_that_of_the_same_circumstances_in_a_file_that_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("minic/figures.json");
        let mut figures = Figures::read(&path).expect("nothing is there");
        figures.merge(vec![figure(Kind::Train, 10, 4, 1.0), figure(Kind::Forward, 10, 4, 2.0)]);
        figures.merge(vec![figure(Kind::Train, 10, 4, 5.0)]);
        figures.write(&path).expect("it can be written");
        let read = Figures::read(&path).expect("figures");
        assert_eq!(read.figures.iter().map(|f| f.rate).collect::<Vec<_>>(), [2.0, 5.0]);
        assert_eq!(fs::read_dir(folder.path().join("minic")).expect("a folder").count(), 1);
        fs::write(&path, "{}").expect("it can be written");
        assert!(Figures::read(&path).is_err_and(|why| why.contains("figures")));
    }
}
