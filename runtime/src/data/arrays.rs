//! Token ids that are already there: NumPy's .npy, and the tensor `input_ids` of a .safetensors file.

use super::DataError;
use crate::error::IoError;
use crate::input;
use crate::safetensors::{Element, Reader};
use std::io::{BufReader, Read};
use std::path::Path;

const TENSOR: &str = "input_ids";

/// Bytes that are read at once.
const PIECE: usize = 4 << 20;

fn fault(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), reason: reason.into() }
}

/// Whole-number elements as token ids.
fn decode(path: &Path, element: Element, bytes: &[u8], ids: &mut Vec<u32>) -> Result<(), DataError> {
    let wide = |ids: &mut Vec<u32>, value: i64| match u32::try_from(value) {
        Ok(id) => {
            ids.push(id);
            Ok(())
        }
        Err(_) => {
            let (path, at) = (path.to_path_buf(), ids.len());
            Err(DataError::IdOutOfRange { path, at, id: value, vocab_size: None })
        }
    };
    match element {
        Element::U8 => ids.extend(bytes.iter().map(|&b| u32::from(b))),
        Element::U16 => ids.extend(bytes.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)))),
        Element::U32 => ids.extend(bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b))),
        Element::I16 => {
            bytes.as_chunks().0.iter().try_for_each(|&b| wide(ids, i64::from(i16::from_le_bytes(b))))?
        }
        Element::I32 => {
            bytes.as_chunks().0.iter().try_for_each(|&b| wide(ids, i64::from(i32::from_le_bytes(b))))?
        }
        // An unsigned value over the signed range comes out negative, and is refused as such.
        Element::I64 | Element::U64 => {
            bytes.as_chunks().0.iter().try_for_each(|&b| wide(ids, i64::from_le_bytes(b)))?
        }
        _ => return Err(fault(path, format!("holds {}, not whole numbers", element.name()))),
    }
    Ok(())
}

/// Rows of two dimensions follow each other.
pub(super) fn read_safetensors(path: &Path) -> Result<Vec<u32>, DataError> {
    let reader = Reader::open(path)?;
    let tensor = reader.tensor(TENSOR).ok_or_else(|| fault(path, format!("has no tensor `{TENSOR}`")))?;
    if tensor.shape.is_empty() || tensor.shape.len() > 2 {
        return Err(fault(
            path,
            format!("`{TENSOR}` has shape {:?}, not one or two dimensions", tensor.shape),
        ));
    }
    let (mut ids, mut bytes) = (Vec::new(), Vec::new());
    let step = (PIECE / tensor.row_bytes().max(1)).max(1);
    for begin in (0..tensor.rows()).step_by(step) {
        reader.read_rows(TENSOR, begin..tensor.rows().min(begin + step), &mut bytes)?;
        decode(path, tensor.element, &bytes, &mut ids)?;
    }
    Ok(ids)
}

/// Versions 1 to 3 of the format of one or two dimensions in C order, little-endian.
/// Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
pub(super) fn read_npy(path: &Path) -> Result<Vec<u32>, DataError> {
    let file = input::open(path)?;
    let len = file.metadata().map_err(IoError::at(path, "read the size"))?.len();
    let mut file = BufReader::new(file);
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
    let size = match start[6] {
        1 => take(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
        2 | 3 => take(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
        version => return Err(fault(path, format!("is of the unknown version {version} of .npy"))),
    };
    if size as u64 > len.min(1 << 20) {
        return Err(fault(path, format!("has an absurd header of {size} bytes")));
    }
    let header = String::from_utf8_lossy(&take(size)?).into_owned();
    let Npy { element, count } = npy_header(&header).map_err(|reason| fault(path, reason))?;
    let data = len - 8 - size as u64 - if start[6] == 1 { 2 } else { 4 };
    if count.checked_mul(element.bytes() as u64) != Some(data) {
        return Err(fault(
            path,
            format!("announces {count} elements of {}, but holds {data} bytes", element.name()),
        ));
    }
    let mut ids = Vec::with_capacity(count as usize);
    let mut left = data as usize;
    while left > 0 {
        let bytes = take(left.min(PIECE))?;
        decode(path, element, &bytes, &mut ids)?;
        left -= bytes.len();
    }
    Ok(ids)
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
