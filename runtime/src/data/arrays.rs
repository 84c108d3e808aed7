//! Token ids that are already there: NumPy's .npy, the tensor `input_ids` of a .safetensors file, and bare
//! numbers. They are checked once and then read where they lie, so that a file may be larger than the memory.

use super::DataError;
use super::files::Width;
use crate::error::IoError;
use crate::input;
use crate::position::PositionedFile;
use crate::safetensors::{Element, Reader};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

const TENSOR: &str = "input_ids";

/// Bytes that are read at once.
const PIECE: usize = 4 << 20;

/// Whole numbers in a file, one after the other.
#[derive(Debug)]
pub(super) struct Array {
    path: PathBuf,
    file: PositionedFile,
    /// Where the first one lies.
    offset: u64,
    element: Element,
    len: usize,
}

impl Array {
    fn new(path: &Path, offset: u64, element: Element, len: u64) -> Result<Array, DataError> {
        if !decodable(element) {
            return Err(fault(path, format!("holds {}, not whole numbers", element.name())));
        }
        let len = usize::try_from(len).map_err(|_| fault(path, "has an absurd shape"))?;
        Ok(Array { path: path.to_path_buf(), file: PositionedFile::open(path)?, offset, element, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends the ids of a range within 0..len().
    pub fn read(&self, range: Range<usize>, ids: &mut Vec<u32>) -> Result<(), DataError> {
        let (size, mut bytes) = (self.element.bytes(), Vec::new());
        let mut begin = range.start;
        while begin < range.end {
            let end = range.end.min(begin + PIECE / size);
            bytes.resize((end - begin) * size, 0);
            self.file.read_exact_at(&mut bytes, self.offset + (begin * size) as u64)?;
            self.decode(begin, &bytes, ids)?;
            begin = end;
        }
        Ok(())
    }

    /// Every id is below `vocab_size`.
    pub fn check(&self, vocab_size: usize) -> Result<(), DataError> {
        let mut ids = Vec::new();
        for begin in (0..self.len).step_by(PIECE / 4) {
            ids.clear();
            self.read(begin..self.len.min(begin + PIECE / 4), &mut ids)?;
            check_ids(&self.path, begin, &ids, vocab_size)?;
        }
        Ok(())
    }

    /// Little-endian elements, the first of which has the index `at`.
    fn decode(&self, at: usize, bytes: &[u8], ids: &mut Vec<u32>) -> Result<(), DataError> {
        let before = ids.len();
        let mut wide = |value: i64| match u32::try_from(value) {
            Ok(id) => {
                ids.push(id);
                Ok(())
            }
            Err(_) => {
                let at = at + ids.len() - before;
                Err(DataError::IdOutOfRange { path: self.path.clone(), at, id: value, vocab_size: None })
            }
        };
        match self.element {
            Element::U8 => ids.extend(bytes.iter().map(|&b| u32::from(b))),
            Element::U16 => ids.extend(bytes.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)))),
            Element::U32 => ids.extend(bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b))),
            Element::I16 => {
                bytes.as_chunks().0.iter().try_for_each(|&b| wide(i64::from(i16::from_le_bytes(b))))?
            }
            Element::I32 => {
                bytes.as_chunks().0.iter().try_for_each(|&b| wide(i64::from(i32::from_le_bytes(b))))?
            }
            // An unsigned value over the signed range comes out negative, and is refused as such.
            _ => bytes.as_chunks().0.iter().try_for_each(|&b| wide(i64::from_le_bytes(b)))?,
        }
        Ok(())
    }
}

fn decodable(element: Element) -> bool {
    use Element::{I16, I32, I64, U8, U16, U32, U64};
    matches!(element, U8 | U16 | U32 | U64 | I16 | I32 | I64)
}

/// The first of `ids` has the index `at`.
pub(super) fn check_ids(path: &Path, at: usize, ids: &[u32], vocab_size: usize) -> Result<(), DataError> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(i) => Err(DataError::IdOutOfRange {
            path: path.to_path_buf(),
            at: at + i,
            id: i64::from(ids[i]),
            vocab_size: Some(vocab_size),
        }),
        None => Ok(()),
    }
}

fn fault(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), reason: reason.into() }
}

/// Rows of two dimensions follow each other.
pub(super) fn open_safetensors(path: &Path) -> Result<Array, DataError> {
    let reader = Reader::open(path)?;
    let tensor = reader.tensor(TENSOR).ok_or_else(|| fault(path, format!("has no tensor `{TENSOR}`")))?;
    if tensor.shape.is_empty() || tensor.shape.len() > 2 {
        return Err(fault(
            path,
            format!("`{TENSOR}` has shape {:?}, not one or two dimensions", tensor.shape),
        ));
    }
    Array::new(path, reader.offset(tensor), tensor.element, tensor.len() as u64)
}

/// Ids of two or four bytes. In a `.bin` it is the header that says how many, as llm.c writes it, or the index
/// that Megatron puts beside it; without either, two where the vocabulary fits, as nanoGPT writes them.
pub(super) fn open_raw(path: &Path, width: Width, vocab_size: usize) -> Result<Array, DataError> {
    let len = std::fs::metadata(path).map_err(IoError::at(path, "read the size"))?.len();
    let (offset, element) = match width {
        Width::Two => (0, Element::U16),
        Width::Four => (0, Element::U32),
        Width::Unsaid => bin(path, len, vocab_size)?,
    };
    let (bytes, size) = (len.saturating_sub(offset), element.bytes() as u64);
    if bytes % size != 0 {
        return Err(fault(path, format!("has {bytes} bytes of data, no multiple of the {size} of an id")));
    }
    let array = Array::new(path, offset, element, bytes / size)?;
    if width == Width::Unsaid && offset == 0 && element == Element::U16 {
        array.refuse_halves()?;
    }
    Ok(array)
}

/// `u16`, `u32`, `bin`, or what the index beside a `.bin` says, as `bin of I32`.
pub(super) fn raw_form(path: &Path, width: Width) -> Result<String, DataError> {
    Ok(match width {
        Width::Two => "u16".into(),
        Width::Four => "u32".into(),
        Width::Unsaid => megatron(path)?.map_or("bin".into(), |element| format!("bin of {}", element.name())),
    })
}

/// Where the ids of a .bin begin, and what they are.
fn bin(path: &Path, len: u64, vocab_size: usize) -> Result<(u64, Element), DataError> {
    let mut start = [0; 12];
    if len >= LLM_C_HEADER {
        PositionedFile::open(path)?.read_exact_at(&mut start, 0)?;
        let word = |i: usize| start[4 * i..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        if let Some((_, _, element)) =
            LLM_C.iter().find(|(magic, version, _)| (*magic, *version) == (word(0), word(1)))
        {
            let (announced, found) = (u64::from(word(2)), (len - LLM_C_HEADER) / element.bytes() as u64);
            if announced != found {
                return Err(fault(
                    path,
                    format!("announces {announced} ids in the header of llm.c, but holds {found}"),
                ));
            }
            return Ok((LLM_C_HEADER, *element));
        }
    }
    let element = match megatron(path)? {
        Some(element) => element,
        None if vocab_size <= 1 << 16 => Element::U16,
        None => Element::U32,
    };
    Ok((0, element))
}

const LLM_C_HEADER: u64 = 256 * 4;

/// Magic number and version of the header, and the ids that follow it.
/// Source: <https://github.com/karpathy/llm.c/blob/master/dev/data/data_common.py>.
const LLM_C: &[(u32, u32, Element)] = &[(20240520, 1, Element::U16), (20240801, 7, Element::U32)];

/// What the `.idx` beside a `.bin` of Megatron says of its ids: magic, version, and a code.
/// Source: <https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py>.
fn megatron(path: &Path) -> Result<Option<Element>, DataError> {
    const MAGIC: &[u8] = b"MMIDIDX\x00\x00";
    const CODES: &[(u8, Element)] =
        &[(1, Element::U8), (3, Element::I16), (4, Element::I32), (5, Element::I64), (8, Element::U16)];
    let index = path.with_extension("idx");
    if !index.is_file() {
        return Ok(None);
    }
    let mut start = Vec::new();
    let file = input::open(&index)?;
    file.take(MAGIC.len() as u64 + 9).read_to_end(&mut start).map_err(IoError::at(&index, "read"))?;
    let code = start.strip_prefix(MAGIC).and_then(|rest| rest.get(8)).ok_or_else(|| {
        fault(
            &index,
            "is not the index of a Megatron data set; without it, the ids of the .bin are bare numbers",
        )
    })?;
    let found = CODES.iter().find(|(c, _)| c == code).map(|(_, element)| Some(*element));
    found.ok_or_else(|| fault(&index, format!("says that its ids are of the unknown type {code}")))
}

impl Array {
    /// Ids of four bytes that are read as two are every second time zero.
    fn refuse_halves(&self) -> Result<(), DataError> {
        const LOOK: usize = 1024;
        const ENOUGH: usize = 16;
        let mut ids = Vec::new();
        self.read(0..self.len.min(LOOK) & !1, &mut ids)?;
        let (pairs, _) = ids.as_chunks::<2>();
        let halves = pairs.iter().all(|p| p[1] == 0) && pairs.iter().any(|p| p[0] != 0);
        if pairs.len() < ENOUGH || !halves {
            return Ok(());
        }
        Err(fault(
            &self.path,
            "looks like ids of four bytes: every second one of two bytes is 0; name it .u32, or .u16 if it is right",
        ))
    }
}

/// Versions 1 to 3 of the format of one or two dimensions in C order, little-endian.
/// Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
pub(super) fn open_npy(path: &Path) -> Result<Array, DataError> {
    let mut file = input::open(path)?;
    let len = file.metadata().map_err(IoError::at(path, "read the size"))?.len();
    let mut take = |n: usize| {
        let mut bytes = vec![0; n];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(fault(path, "ends before its data do"))
            }
            Err(e) => Err(IoError::at(path, "read")(e).into()),
        }
    };
    let start = take(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(fault(path, "is not a .npy file"));
    }
    let digits = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(fault(path, format!("is of the unknown version {version} of .npy"))),
    };
    let size = take(digits)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    if size > len.min(1 << 20) {
        return Err(fault(path, format!("has an absurd header of {size} bytes")));
    }
    let header = String::from_utf8_lossy(&take(size as usize)?).into_owned();
    let Npy { element, count } = npy_header(&header).map_err(|reason| fault(path, reason))?;
    let offset = 8 + size + digits as u64;
    let data = len.saturating_sub(offset);
    if count.checked_mul(element.bytes() as u64) != Some(data) {
        return Err(fault(
            path,
            format!("announces {count} elements of {}, but holds {data} bytes", element.name()),
        ));
    }
    Array::new(path, offset, element, count)
}

struct Npy {
    element: Element,
    count: u64,
}

const DESCRS: &[(&str, Element)] = &[
    ("|u1", Element::U8),
    ("<u2", Element::U16),
    ("<i2", Element::I16),
    ("<u4", Element::U32),
    ("<i4", Element::I32),
    ("<u8", Element::U64),
    ("<i8", Element::I64),
];

/// `{'descr': '<u2', 'fortran_order': False, 'shape': (3, 4), }`
fn npy_header(text: &str) -> Result<Npy, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let absent = |key: &str| format!("its header has no `{key}`");
    let descr = value("descr").ok_or_else(|| absent("descr"))?;
    let quoted = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).map(|(d, _)| d);
    let element = quoted.and_then(|d| DESCRS.iter().find(|(name, _)| *name == d)).map(|(_, e)| *e);
    let element = element.ok_or_else(|| {
        let found = quoted.unwrap_or("records");
        let known = DESCRS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!("holds elements of type `{found}`; token ids are read from {known}")
    })?;
    let fortran = value("fortran_order").ok_or_else(|| absent("fortran_order"))?.starts_with("True");
    let shape = value("shape").and_then(|s| s.strip_prefix('(')?.split_once(')')).map(|(s, _)| s);
    let shape = shape.ok_or_else(|| absent("shape"))?;
    let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::parse::<u64>);
    let sizes = sizes.collect::<Result<Vec<u64>, _>>().map_err(|_| format!("has the bad shape ({shape})"))?;
    if sizes.is_empty() || sizes.len() > 2 {
        return Err(format!("has shape ({shape}), not one or two dimensions"));
    }
    if fortran && sizes.len() == 2 {
        return Err("is in Fortran order; save it in C order".into());
    }
    let count = sizes.iter().try_fold(1u64, |n, &s| n.checked_mul(s)).ok_or("has an absurd shape")?;
    Ok(Npy { element, count })
}
