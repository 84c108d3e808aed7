//! Which files a declaration names, and how each is read.

use super::DataError;
use crate::error::IoError;
use crate::input;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is in a file, and what it is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub format: Format,
    pub packing: Packing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl,
    Parquet,
    Npy,
    Safetensors,
    /// Token ids and nothing else, little-endian.
    Raw(Width),
}

/// Bytes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
    /// `.bin`: the file or the vocabulary decides.
    Unsaid,
}

impl Width {
    /// Bytes that an id takes at least.
    pub fn least(self) -> usize {
        match self {
            // Megatron's index may say one.
            Width::Unsaid => 1,
            Width::Two => 2,
            Width::Four => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    pub fn name(self) -> &'static str {
        match self {
            Packing::None => "unpacked",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }
}

/// An extension of file names, and what it stands for. An unknown one is text.
const FORMATS: &[(&str, Format)] = &[
    ("jsonl", Format::Jsonl),
    ("ndjson", Format::Jsonl),
    ("json", Format::Jsonl),
    ("parquet", Format::Parquet),
    ("npy", Format::Npy),
    ("safetensors", Format::Safetensors),
    ("u16", Format::Raw(Width::Two)),
    ("u32", Format::Raw(Width::Four)),
    ("bin", Format::Raw(Width::Unsaid)),
];

const PACKINGS: &[(&str, Packing)] = &[("gz", Packing::Gzip), ("zst", Packing::Zstd)];

/// Formats that would be read as text by mistake.
const NOT_READ: &[&str] = &[
    "7z", "arrow", "avro", "bz2", "feather", "h5", "idx", "lz4", "npz", "orc", "pickle", "pkl", "pt", "pth",
    "rar", "tar", "tgz", "xz", "zip",
];

impl Form {
    pub fn of(path: &Path) -> Result<Form, DataError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (inner, packing) = match split(&name) {
            Some((inner, last)) => match PACKINGS.iter().find(|(e, _)| *e == last) {
                Some((_, packing)) => (inner, *packing),
                None => (name.as_str(), Packing::None),
            },
            None => (name.as_str(), Packing::None),
        };
        let fault = |reason| DataError::Format { path: path.to_path_buf(), reason };
        let extension = split(inner).map_or("", |(_, extension)| extension);
        if NOT_READ.contains(&extension) {
            let read = "text, .jsonl (also .gz and .zst), .parquet, .npy, .safetensors, .u16, .u32 and .bin";
            return Err(fault(format!("files of type .{extension} are not read; {read} are")));
        }
        let format = FORMATS.iter().find(|(e, _)| *e == extension).map_or(Format::Text, |(_, f)| *f);
        match format {
            Format::Text | Format::Jsonl => Ok(Form { format, packing }),
            _ if packing == Packing::None => Ok(Form { format, packing }),
            _ => Err(fault(format!("files of type .{extension} are read unpacked only"))),
        }
    }

    /// `jsonl+gzip`
    pub fn name(self) -> String {
        let format = match self.format {
            Format::Text => "text",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
            Format::Raw(_) => "raw",
        };
        match self.packing {
            Packing::None => format.to_string(),
            packing => format!("{format}+{}", packing.name()),
        }
    }
}

/// `("a.jsonl", "gz")` of `a.jsonl.gz`; nothing of a hidden file without an extension.
fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())
}

/// Patterns in the order in which they stand, the matches of one sorted by their bytes, every file once.
pub(super) fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for pattern in patterns {
        let matches =
            if is_glob(base, pattern) { matches(base, pattern)? } else { vec![plain(base, pattern)?] };
        files.extend(matches.into_iter().filter(|path| seen.insert(path.clone())));
    }
    Ok(files)
}

/// A file whose name holds `[` or `*` is itself before it is a pattern.
fn is_glob(base: &Path, pattern: &str) -> bool {
    pattern.contains(['*', '?', '[']) && !base.join(pattern).is_file()
}

fn plain(base: &Path, pattern: &str) -> Result<PathBuf, DataError> {
    let path = base.join(pattern);
    if path.is_dir() {
        let reason = "is a folder; a glob such as `folder/*.txt` names its files".to_string();
        return Err(DataError::Format { path, reason });
    }
    // A link that leads nowhere is told when it is opened.
    if input::exists(&path)? { Ok(path) } else { Err(no_match(base, pattern)) }
}

fn matches(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let fault = |reason: String| DataError::Glob { pattern: pattern.to_string(), reason };
    let absolute = Path::new(pattern).is_absolute();
    let whole = if absolute {
        pattern.to_string()
    } else {
        let base = base.to_str().ok_or_else(|| fault("its folder's name is not UTF-8".into()))?;
        let base = if base.is_empty() { "." } else { base };
        format!("{}/{pattern}", glob::Pattern::escape(base))
    };
    let mut files = Vec::new();
    for path in glob::glob(&whole).map_err(|e| fault(e.to_string()))? {
        let path = path.map_err(|e| {
            let path = e.path().to_path_buf();
            IoError { path, action: "list", source: e.into() }
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(no_match(base, pattern));
    }
    files.sort();
    Ok(files)
}

fn no_match(base: &Path, pattern: &str) -> DataError {
    let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    DataError::NoMatch { base: base.to_path_buf(), pattern: pattern.to_string() }
}
