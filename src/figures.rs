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

/// Why a file gives no figures.
#[derive(Debug)]
struct Unread {
    why: String,
    /// It is no JSON, as half of a file is none: nothing in it is of use to anybody.
    broken: bool,
}

impl Figures {
    /// Those of this machine; none where nothing was measured, or where the file cannot be read, which is told.
    pub fn kept(output: &Output) -> Figures {
        let Some(path) = file() else { return Figures::default() };
        Figures::read(&path).unwrap_or_else(|Unread { why, .. }| {
            output.note(&format!("{}: {why}; times are not measured", path.display()));
            Figures::default()
        })
    }

    /// A rate that nothing can be divided by is none.
    fn read(path: &Path) -> Result<Figures, Unread> {
        const LONGEST: u64 = 4 << 20;
        if !path.is_file() {
            return Ok(Figures::default());
        }
        let bytes = minic_runtime::input::read(path, LONGEST)
            .map_err(|error| Unread { why: error.to_string(), broken: false })?;
        let mut read: Figures = serde_json::from_slice(&bytes).map_err(|error| Unread {
            why: format!("holds no figures: {error}"),
            broken: !error.is_data(),
        })?;
        read.figures.retain(|figure| figure.rate.is_finite() && figure.rate > 0.0);
        Ok(read)
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

    /// Under another name first, so that the file is always whole.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("json.tmp");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&beside)))
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
    let file = path.display();
    output.note(&match add(&path, new) {
        Ok(None) => format!("kept for `minic plan` in {file}"),
        Ok(Some(broken)) => {
            format!("{file}: {broken}; replaced, with what was measured now for `minic plan`")
        }
        Err(why) => format!("{file}: not kept for `minic plan`: {why}"),
    });
}

/// Merges figures into a file, which nobody else writes meanwhile. What was wrong with a file that was replaced.
fn add(path: &Path, new: Vec<Figure>) -> Result<Option<String>, String> {
    let _lock = lock(path).map_err(|error| error.to_string())?;
    let (mut figures, broken) = match Figures::read(path) {
        Ok(figures) => (figures, None),
        Err(Unread { why, broken: true }) => (Figures::default(), Some(why)),
        Err(Unread { why, broken: false }) => return Err(why),
    };
    figures.merge(new);
    figures.write(path).map_err(|error| error.to_string())?;
    Ok(broken)
}

/// Waits for other benchmarks; held until the file is dropped.
fn lock(path: &Path) -> io::Result<File> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let lock = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
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

    fn rates(path: &Path) -> Vec<f64> {
        Figures::read(path).expect("figures").figures.iter().map(|figure| figure.rate).collect()
    }

    #[test]
    fn a_figure_replaces_that_of_the_same_circumstances_in_a_file_that_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("minic/figures.json");
        let both = vec![figure(Kind::Train, 10, 4, 1.0), figure(Kind::Forward, 10, 4, 2.0)];
        assert_eq!(add(&path, both), Ok(None));
        assert_eq!(add(&path, vec![figure(Kind::Train, 10, 4, 5.0)]), Ok(None));
        assert_eq!(rates(&path), [2.0, 5.0]);
        assert_eq!(fs::read_dir(folder.path().join("minic")).expect("a folder").count(), 2, "and the lock");
        fs::write(&path, fs::read_to_string(&path).expect("text").replace("5.0", "0.0")).expect("written");
        assert_eq!(rates(&path), [2.0], "a rate of nothing gives no time");
    }

    #[test]
    fn benchmarks_at_once_lose_no_figure() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("figures.json");
        std::thread::scope(|scope| {
            for n in 1..=8 {
                let path = &path;
                scope.spawn(move || add(path, vec![figure(Kind::Train, n, 4, n as f64)]).expect("kept"));
            }
        });
        assert_eq!(rates(&path), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn a_file_is_replaced_only_where_it_is_broken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("figures.json");
        let new = || vec![figure(Kind::Train, 10, 4, 1.0)];
        // Of a later minic, maybe.
        fs::write(&path, "{}").expect("written");
        assert!(add(&path, new()).is_err_and(|why| why.contains("holds no figures")));
        assert_eq!(fs::read_to_string(&path).expect("text"), "{}");
        fs::write(&path, r#"{ "figures": ["#).expect("written");
        assert!(add(&path, new()).is_ok_and(|broken| broken.is_some()));
        assert_eq!(rates(&path), [1.0]);
        // It cannot be put into place.
        let folder = folder.path().join("a");
        fs::create_dir_all(folder.join("figures.json/full")).expect("a folder");
        assert!(add(&folder.join("figures.json"), new()).is_err());
        assert!(!folder.join("figures.json.tmp").exists());
    }
}
