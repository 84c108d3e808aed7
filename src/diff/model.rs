//! Two models side by side: family, parameters, layers, dimensions.

use super::{Part, Section};
use crate::table::{Table, grouped};
use minic_compiler::dim::Dim;
use minic_runtime::provenance::ModelRecord;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A model, and the element type of its weights where it is known.
pub struct Side<'a> {
    pub model: &'a ModelRecord,
    pub dtype: Option<String>,
}

pub fn section(name: &'static str, title: &str, a: &Side, b: &Side) -> Section {
    Section { name, parts: parts(title, a, b), json: to_json(a, b) }
}

fn parts(title: &str, a: &Side, b: &Side) -> Vec<Part> {
    let mut table = Table::new(&["", ">a", ">b", ">change"]);
    let (x, y) = (a.model, b.model);
    let mut row = |what: &str, a: String, b: String, change: String| {
        let change = if a == b { "=".into() } else { change };
        table.row(vec![what.into(), a, b, change]);
    };
    row("family", x.family.clone(), y.family.clone(), String::new());
    row("parameters", grouped(x.params), grouped(y.params), percent(x.params, y.params));
    row("layers", x.pattern.len().to_string(), y.pattern.len().to_string(), String::new());
    row("pattern", x.pattern.clone(), y.pattern.clone(), String::new());
    if let (Some(a), Some(b)) = (&a.dtype, &b.dtype) {
        row("dtype", a.clone(), b.clone(), String::new());
    }
    let mut same = Vec::new();
    for dim in dims(x, y) {
        let (a, b) = (x.dims.get(&dim), y.dims.get(&dim));
        let shown = |n: Option<&usize>| n.map_or("-".to_string(), |n| grouped(*n as u64));
        match (a, b) {
            _ if dim == Dim::NumLayers => {}
            (a, b) if a == b => same.push(dim.name()),
            (Some(&m), Some(&n)) => row(dim.name(), shown(a), shown(b), percent(m as u64, n as u64)),
            _ => row(dim.name(), shown(a), shown(b), String::new()),
        }
    }
    let mut parts = vec![Part::Table { title: title.into(), table }];
    if !same.is_empty() {
        parts.push(Part::Text(format!("    equal: {}", same.join(", "))));
    }
    parts
}

fn dims(a: &ModelRecord, b: &ModelRecord) -> BTreeSet<Dim> {
    a.dims.keys().chain(b.dims.keys()).copied().collect()
}

fn percent(from: u64, to: u64) -> String {
    if from == 0 {
        return String::new();
    }
    format!("{:+.1} %", (to as f64 / from as f64 - 1.0) * 100.0)
}

fn to_json(a: &Side, b: &Side) -> Value {
    let side = |s: &Side| {
        json!({ "family": s.model.family, "params": s.model.params, "pattern": s.model.pattern,
                "layers": s.model.pattern.len(), "dtype": s.dtype })
    };
    let different = dims(a.model, b.model).into_iter().filter(|d| a.model.dims.get(d) != b.model.dims.get(d));
    let different: Map<String, Value> = different
        .map(|d| (d.name().to_string(), json!({ "a": a.model.dims.get(&d), "b": b.model.dims.get(&d) })))
        .collect();
    json!({ "a": side(a), "b": side(b), "dims": different })
}
