//! One column of a Parquet file: texts, or lists of token ids. Columns are read page by page, a thousand rows
//! at a time; the others are never touched.

use super::DataError;
use super::rows::{LONGEST, Place, Row, Rows};
use crate::guard::guarded;
use parquet::basic::{Compression, LogicalType, Repetition, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use std::path::Path;

/// Rows that are read at once.
const AT_ONCE: usize = 1024;

/// Pages do not unpack to more than this many times the size of the file, nor texts to more than that.
const MOST_RATIO: u64 = 200;

/// Bytes that may come out whatever went in.
const FREE: u64 = 64 << 20;

/// Hands on the rows of the column `field`. Nested fields are named with dots.
pub(super) fn read<C: ChunkReader + 'static>(
    path: &Path,
    source: C,
    field: &str,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let size = source.len();
    // The crate checks most of what a file says, but not all of it.
    guarded(|| read_groups(path, source, size, field, rows))
        .unwrap_or_else(|_| Err(fault(path, "is damaged: its pages cannot be read")))?;
    rows.flush()
}

fn fault(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), reason: reason.into() }
}

fn read_groups<C: ChunkReader + 'static>(
    path: &Path,
    source: C,
    size: u64,
    field: &str,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let wrong = |e: ParquetError| fault(path, format!("is not a Parquet file that is read: {}", reason(&e)));
    let file = SerializedFileReader::new(source).map_err(wrong)?;
    let schema = file.metadata().file_metadata().schema_descr();
    let (index, kind) = column(schema, field).map_err(|reason| fault(path, reason))?;
    let descriptor = schema.column(index);
    let mut at = Progress { row: 0, text: 0, most: FREE.max(size.saturating_mul(MOST_RATIO)) };
    for group in 0..file.num_row_groups() {
        let reader = file.get_row_group(group).map_err(wrong)?;
        let chunk = reader.metadata().column(index);
        packing(chunk.compression()).map_err(|reason| fault(path, format!("column `{field}` {reason}")))?;
        if u64::try_from(chunk.uncompressed_size()).is_ok_and(|n| n > at.most) {
            return Err(fault(path, bomb(chunk.uncompressed_size())));
        }
        if u64::try_from(chunk.num_values()).is_ok_and(|n| n > at.most) {
            return Err(fault(
                path,
                format!("announces {} values, more than it can hold", chunk.num_values()),
            ));
        }
        let near = |e: ParquetError, at: &Progress| {
            fault(path, format!("cannot be read after row {}: {}", at.row, reason(&e)))
        };
        let column = reader.get_column_reader(index).map_err(|e| near(e, &at))?;
        let read = match (kind, column) {
            (Kind::Text, ColumnReader::ByteArrayColumnReader(column)) => {
                texts(column, &descriptor, &mut at, rows)
            }
            (Kind::Ids { .. }, ColumnReader::Int32ColumnReader(column)) => {
                let unsigned = matches!(kind, Kind::Ids { unsigned: true });
                let id = |v: i32| if unsigned { Some(v.cast_unsigned()) } else { u32::try_from(v).ok() };
                lists::<Int32Type>(column, &descriptor, &mut at, rows, id)
            }
            (Kind::Ids { .. }, ColumnReader::Int64ColumnReader(column)) => {
                lists::<Int64Type>(column, &descriptor, &mut at, rows, |v| u32::try_from(v).ok())
            }
            _ => Err(Fault::Parquet(ParquetError::General("its column is of another type".into()))),
        };
        match read {
            Ok(()) => {}
            Err(Fault::Data(e)) => return Err(e),
            Err(Fault::Parquet(e)) => return Err(near(e, &at)),
            Err(Fault::Bomb) => return Err(fault(path, bomb(at.text as i64))),
        }
    }
    Ok(())
}

fn bomb(bytes: i64) -> String {
    format!("unpacks to more than {MOST_RATIO} times its size, {bytes} bytes: this is no text")
}

/// Without the crate's own prefix, on one line.
fn reason(error: &ParquetError) -> String {
    let text = error.to_string();
    let text = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

enum Fault {
    Data(DataError),
    Parquet(ParquetError),
    Bomb,
}

/// How far the file was read.
struct Progress {
    row: u64,
    /// Bytes of text that came out, and the most that may.
    text: u64,
    most: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Ids { unsigned: bool },
}

/// The leaf that a field names, and what is in it.
fn column(schema: &SchemaDescriptor, field: &str) -> Result<(usize, Kind), String> {
    let wanted: Vec<&str> = field.split('.').collect();
    let under = |c: &ColumnDescriptor| {
        let parts = c.path().parts();
        parts.len() >= wanted.len() && parts.iter().zip(&wanted).all(|(a, b)| a == b)
    };
    // A column whose own name has dots in it.
    let named = |c: &ColumnDescriptor| c.path().parts().first().is_some_and(|first| first == field);
    let columns = schema.columns();
    let found: Vec<usize> =
        (0..columns.len()).filter(|&i| under(&columns[i]) || named(&columns[i])).collect();
    let &[index] = found.as_slice() else {
        let names = schema.root_schema().get_fields().iter().map(|f| format!("`{}`", f.name()));
        let names = names.take(20).collect::<Vec<_>>().join(", ");
        return Err(match found.len() {
            0 => format!("has no column `{field}`; its columns: {names}"),
            _ => format!("column `{field}` has fields of its own; name one of them, as in `{field}.text`"),
        });
    };
    let column = &columns[index];
    let unsigned = matches!(column.logical_type_ref(), Some(LogicalType::Integer(int)) if !int.is_signed);
    match (column.physical_type(), column.max_rep_level()) {
        (Type::BYTE_ARRAY, 0) => Ok((index, Kind::Text)),
        (Type::INT32 | Type::INT64, 1) => Ok((index, Kind::Ids { unsigned })),
        (kind, depth) => Err(format!(
            "column `{field}` holds {}{kind}; a string or a list of whole numbers is read",
            if depth > 0 { "lists of " } else { "" }
        )),
    }
}

fn packing(compression: Compression) -> Result<(), String> {
    match compression {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_) => {
            Ok(())
        }
        other => {
            let name = other.to_string();
            let name = name.split('(').next().unwrap_or_default();
            Err(format!("is packed with {name}; uncompressed, snappy, gzip and zstd are read"))
        }
    }
}

fn texts(
    mut column: ColumnReaderImpl<ByteArrayType>,
    descriptor: &ColumnDescriptor,
    at: &mut Progress,
    rows: &mut dyn Rows,
) -> Result<(), Fault> {
    let present = descriptor.max_def_level();
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (records, _, _) =
            column.read_records(AT_ONCE, Some(&mut levels), None, &mut values).map_err(Fault::Parquet)?;
        if records == 0 {
            return Ok(());
        }
        let mut values = values.iter();
        for i in 0..records {
            at.row += 1;
            let there = present == 0 || levels.get(i) == Some(&present);
            let row = match values.next_if(there) {
                None => Err("is null".to_string()),
                Some(bytes) if bytes.len() > LONGEST => Err(format!("is longer than {} MiB", LONGEST >> 20)),
                Some(bytes) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => Ok(Row::Text(text.to_string())),
                    Err(e) => Err(format!("is not UTF-8 at byte {}", e.valid_up_to())),
                },
            };
            if let Ok(Row::Text(text)) = &row {
                at.text += text.len() as u64;
            }
            if at.text > at.most {
                return Err(Fault::Bomb);
            }
            rows.push(Place::Row(at.row), row).map_err(Fault::Data)?;
        }
    }
}

/// An iterator's next value, where one is due.
trait NextIf: Iterator {
    fn next_if(&mut self, due: bool) -> Option<Self::Item> {
        if due { self.next() } else { None }
    }
}

impl<I: Iterator> NextIf for I {}

fn lists<T: DataType>(
    mut column: ColumnReaderImpl<T>,
    descriptor: &ColumnDescriptor,
    at: &mut Progress,
    rows: &mut dyn Rows,
    id: impl Fn(T::T) -> Option<u32>,
) -> Result<(), Fault>
where
    T::T: Copy,
{
    let present = descriptor.max_def_level();
    let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        defs.clear();
        reps.clear();
        values.clear();
        let (records, _, _) = column
            .read_records(AT_ONCE, Some(&mut defs), Some(&mut reps), &mut values)
            .map_err(Fault::Parquet)?;
        if records == 0 {
            return Ok(());
        }
        let mut values = values.iter();
        let mut row: Option<Result<Row, String>> = None;
        for (&def, &rep) in defs.iter().zip(&reps) {
            if rep == 0
                && let Some(row) = row.replace(Ok(Row::Ids(Vec::new())))
            {
                at.row += 1;
                rows.push(Place::Row(at.row), row).map_err(Fault::Data)?;
            }
            let value = values.next_if(def == present).map(|&v| id(v));
            match (value, &mut row) {
                (Some(Some(id)), Some(Ok(Row::Ids(ids)))) => ids.push(id),
                (Some(None), Some(row)) => *row = Err("holds a number that is no token id".into()),
                (None, Some(row)) if def + 1 == present && optional_element(descriptor) => {
                    *row = Err("holds a null among its token ids".into());
                }
                (None, Some(row)) if def == 0 && nullable(descriptor) => *row = Err("is null".into()),
                _ => {}
            }
        }
        if let Some(row) = row {
            at.row += 1;
            rows.push(Place::Row(at.row), row).map_err(Fault::Data)?;
        }
    }
}

/// The list itself may be absent: a level of its own for that comes before those of its elements.
fn nullable(descriptor: &ColumnDescriptor) -> bool {
    let elements = i16::from(optional_element(descriptor));
    // One level for `there is an element`, and one if that may be null.
    descriptor.max_def_level() > 1 + elements
}

fn optional_element(descriptor: &ColumnDescriptor) -> bool {
    descriptor.self_type().get_basic_info().repetition() == Repetition::OPTIONAL
}
