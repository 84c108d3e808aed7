//! One JSON object a line.

use super::DataError;
use super::packed::Unpacked;
use super::rows::{LONGEST, Place, Row, Rows};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Hands on the rows of a file. Blank lines are passed over.
pub(super) fn read(file: &mut Unpacked, field: &str, rows: &mut dyn Rows) -> Result<(), DataError> {
    let mut lines = Lines { piece: vec![0; 1 << 16], line: Vec::new(), over: false, number: 1 };
    loop {
        let n = file.read(&mut lines.piece)?;
        if n == 0 {
            break;
        }
        lines.take(n, field, rows)?;
    }
    if !lines.line.is_empty() || lines.over {
        lines.end(field, rows)?;
    }
    rows.flush()
}

struct Lines {
    piece: Vec<u8>,
    /// What was read of the line that is not at its end yet.
    line: Vec<u8>,
    /// The line is longer than the longest row; its rest is passed over.
    over: bool,
    number: u64,
}

impl Lines {
    /// The first `n` bytes of the piece.
    fn take(&mut self, n: usize, field: &str, rows: &mut dyn Rows) -> Result<(), DataError> {
        let piece = std::mem::take(&mut self.piece);
        let mut rest = &piece[..n];
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            self.extend(&rest[..end]);
            self.end(field, rows)?;
            rest = &rest[end + 1..];
        }
        self.extend(rest);
        self.piece = piece;
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.over |= self.line.len() + bytes.len() > LONGEST;
        if self.over {
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, field: &str, rows: &mut dyn Rows) -> Result<(), DataError> {
        let at = self.number;
        self.number += 1;
        if self.over {
            self.over = false;
            return rows.push(Place::Line(at), Err(format!("is longer than {} MiB", LONGEST >> 20)));
        }
        let line = self.line.trim_ascii();
        // A mark that some editors put at the beginning of a file.
        let line = if at == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if !line.is_empty() {
            rows.push(Place::Line(at), parse(line, field))?;
        }
        self.line.clear();
        Ok(())
    }
}

fn parse(line: &[u8], field: &str) -> Result<Row, String> {
    let text = std::str::from_utf8(line).map_err(|e| format!("is not UTF-8 at byte {}", e.valid_up_to()))?;
    if text.starts_with('[') {
        return Err("is not a JSON object but a list: each row is an object on a line of its own".into());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Object { field }
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found))
        .map_err(|e| format!("is not a JSON object: {e}"))?;
    let Some(value) = found.value.map(RawValue::get) else {
        return Err(format!("has no field `{field}`; its fields: {}", found.others.join(", ")));
    };
    match value.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str(value).map(Row::Text).map_err(|e| format!("the field `{field}`: {e}"))
        }
        Some(b'[') => serde_json::from_str(value)
            .map(Row::Ids)
            .map_err(|_| format!("the field `{field}` is a list of other things than token ids")),
        _ => Err(format!("the field `{field}` is neither a string nor a list of token ids")),
    }
}

/// Finds one field of an object, and keeps nothing of the others but some of their names.
struct Object<'a> {
    field: &'a str,
}

#[derive(Default)]
struct Found<'de> {
    value: Option<&'de RawValue>,
    others: Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found<'de>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        const SHOWN: usize = 8;
        let mut found = Found::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == self.field {
                found.value = Some(map.next_value()?);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            if found.others.len() < SHOWN {
                found.others.push(format!("`{}`", key.chars().take(40).collect::<String>()));
            }
        }
        Ok(found)
    }
}
