//! Two runs side by side, from what they left in their folders.

use super::figures::{self, Evaluated};
use super::model::{self, Side};
use super::{Part, Section, kept, lines};
use crate::output::Output;
use minic_runtime::provenance::Step;
use minic_runtime::run::Summary;
use serde_json::{Map, Value, json};

pub fn compare(a: &Summary, b: &Summary, output: &Output) -> Vec<Section> {
    let steps: Vec<(&Step, &Step)> =
        a.cuts.iter().filter_map(|(name, step)| Some((step, b.cuts.get(name)?))).collect();
    vec![
        models(a, b),
        lines::section(Some(&a.run.text), Some(&b.run.text)),
        figures::section(&evaluated(a), &evaluated(b)),
        kept::section(&steps, output.verbose),
    ]
}

fn evaluated(run: &Summary) -> Evaluated {
    let mut out = Evaluated::new();
    for e in run.evaluations.values() {
        if let (Some(model), Some(figures)) = (&e.against, &e.against_figures) {
            out.entry(format!("{model} on {}", e.data)).or_insert_with(|| figures.clone());
        }
    }
    // Their own figures last: they also have the divergence.
    for e in run.evaluations.values() {
        out.insert(format!("{} on {}", e.model, e.data), e.figures.clone());
    }
    out
}

/// Every model that both made, and the names of the others.
fn models(a: &Summary, b: &Summary) -> Section {
    let mut parts = Vec::new();
    let mut both = Map::new();
    for (name, x) in &a.models {
        let Some(y) = b.models.get(name) else { continue };
        let side = |model| Side { model, dtype: None };
        let section = model::section("model", &format!("model {name}"), &side(x), &side(y));
        parts.extend(section.parts);
        both.insert(name.clone(), section.json);
    }
    let missing = |here: &Summary, there: &Summary| -> Vec<String> {
        here.models.keys().filter(|n| !there.models.contains_key(*n)).cloned().collect()
    };
    let (only_a, only_b) = (missing(a, b), missing(b, a));
    for (side, names) in [("a", &only_a), ("b", &only_b)] {
        if !names.is_empty() {
            parts.push(Part::Text(format!("only in {side}: {}", names.join(", "))));
        }
    }
    let json = json!({ "both": Value::Object(both), "only_a": only_a, "only_b": only_b });
    Section { name: "models", parts, json }
}
