//! One JSON object a line.

use super::DataError;
use crate::tokens::Tokenizer;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::path::Path;

/// The ids of every row's `field`, each followed by `eos` where there is one. Blank lines are passed over.
pub(super) fn read(
    path: &Path,
    text: &str,
    field: &str,
    tokenizer: &Tokenizer,
    eos: Option<u32>,
) -> Result<Vec<u32>, DataError> {
    let rows: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()).collect();
    let read = |&(i, row): &(usize, &str)| {
        let fault = |reason| DataError::Row { path: path.to_path_buf(), line: i + 1, reason };
        let text = row_text(row, field).map_err(fault)?;
        let mut ids = tokenizer.encode(&text)?;
        ids.extend(eos);
        Ok(ids)
    };
    // Collected before it is judged, so that the first bad row is named whatever thread meets one first.
    let ids: Vec<Result<Vec<u32>, DataError>> = rows.par_iter().map(read).collect();
    Ok(ids.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

fn row_text(row: &str, field: &str) -> Result<String, String> {
    let mut row: Map<String, Value> =
        serde_json::from_str(row).map_err(|e| format!("is not a JSON object: {e}"))?;
    match row.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("the field `{field}` is not a string")),
        None => {
            let fields = row.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            Err(format!("has no field `{field}`; its fields: {fields}"))
        }
    }
}
