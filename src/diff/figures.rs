//! Evaluations side by side.

use super::{Part, Section, signed};
use crate::table::Table;
use minic_runtime::evaluate::Figures;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Figures by what was evaluated: `half on heldout`.
pub type Evaluated = BTreeMap<String, Figures>;

pub fn section(a: &Evaluated, b: &Evaluated) -> Section {
    let mut table = Table::new(&["evaluated", "quantity", ">a", ">b", ">b - a"]);
    let mut json = Map::new();
    for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let (x, y) = (a.get(name), b.get(name));
        let mut shown = name.as_str();
        let mut quantities = Map::new();
        for (quantity, decimals, read) in QUANTITIES {
            let (x, y) = (x.and_then(read), y.and_then(read));
            if x.is_none() && y.is_none() {
                continue;
            }
            let number = |n: Option<f64>| n.map_or("-".to_string(), |n| format!("{n:.decimals$}"));
            let difference = x.zip(y).map(|(x, y)| y - x);
            let change = difference.map_or(String::new(), |d| signed(d, *decimals));
            table.row(vec![shown.into(), quantity.to_string(), number(x), number(y), change]);
            quantities.insert(quantity.to_string(), json!({ "a": x, "b": y, "difference": difference }));
            shown = "";
        }
        json.insert(name.clone(), Value::Object(quantities));
    }
    let part = Part::Table { title: "evaluations".into(), table };
    let parts = if json.is_empty() { Vec::new() } else { vec![part] };
    Section { name: "evaluations", parts, json: Value::Object(json) }
}

type Read = fn(&Figures) -> Option<f64>;

const QUANTITIES: &[(&str, usize, Read)] = &[
    ("loss", 5, |f| Some(f.loss)),
    ("perplexity", 4, |f| Some(f.perplexity)),
    ("top1", 4, |f| Some(f.top1)),
    ("kl", 5, |f| f.kl),
    ("accuracy", 4, |f| f.accuracy),
];
