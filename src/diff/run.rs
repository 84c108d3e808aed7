//! Two runs side by side, from what they left in their folders.

use super::figures::{self, Evaluated};
use super::model::{self, Side};
use super::{RESULT_FILE, Section, checkpoint, kept, lines};
use crate::output::{Exit, Failure, Output};
use minic_runtime::evaluate::Figures;
use minic_runtime::input;
use minic_runtime::provenance::{ModelRecord, Step};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What is compared of `result.json`; the rest of it is passed over.
#[derive(Deserialize)]
struct Outcome {
    models: BTreeMap<String, ModelRecord>,
    #[serde(default)]
    cuts: BTreeMap<String, Step>,
    #[serde(default)]
    evaluations: BTreeMap<String, Evaluation>,
}

#[derive(Deserialize)]
struct Evaluation {
    model: String,
    data: String,
    figures: Figures,
    against: Option<String>,
    against_figures: Option<Figures>,
}

pub fn compare(a: &Path, b: &Path, output: &Output) -> Result<Vec<Section>, Failure> {
    let (recipe_a, recipe_b) = (checkpoint::recipe_of(a)?, checkpoint::recipe_of(b)?);
    let (a, b) = (Outcome::read(a)?, Outcome::read(b)?);
    let steps: Vec<(&Step, &Step)> =
        a.cuts.iter().filter_map(|(name, step)| Some((step, b.cuts.get(name)?))).collect();
    Ok(vec![
        models(&a, &b),
        lines::section(recipe_a.as_deref(), recipe_b.as_deref()),
        figures::section(&a.evaluated(), &b.evaluated()),
        kept::section(&steps, output.verbose),
    ])
}

impl Outcome {
    fn read(folder: &Path) -> Result<Outcome, Failure> {
        let path = folder.join(RESULT_FILE);
        let bytes = input::read(&path, input::PROVENANCE)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Failure::new(Exit::Input, format!("{}: {e}", path.display())))
    }

    fn evaluated(&self) -> Evaluated {
        let mut out = Evaluated::new();
        for e in self.evaluations.values() {
            if let (Some(model), Some(figures)) = (&e.against, &e.against_figures) {
                out.entry(format!("{model} on {}", e.data)).or_insert_with(|| figures.clone());
            }
        }
        // Their own figures last: they also have the divergence.
        for e in self.evaluations.values() {
            out.insert(format!("{} on {}", e.model, e.data), e.figures.clone());
        }
        out
    }
}

/// Every model that both made, and the names of the others.
fn models(a: &Outcome, b: &Outcome) -> Section {
    let mut text = String::new();
    let mut both = Map::new();
    for (name, x) in &a.models {
        let Some(y) = b.models.get(name) else { continue };
        let side = |model| Side { model, dtype: None };
        let section = model::section("model", &format!("model {name}"), &side(x), &side(y));
        text += &format!("{}{}", if text.is_empty() { "" } else { "\n" }, section.text);
        both.insert(name.clone(), section.json);
    }
    let missing = |here: &Outcome, there: &Outcome| -> Vec<String> {
        here.models.keys().filter(|n| !there.models.contains_key(*n)).cloned().collect()
    };
    let (only_a, only_b) = (missing(a, b), missing(b, a));
    for (side, names) in [("a", &only_a), ("b", &only_b)] {
        if !names.is_empty() {
            text += &format!("\nonly in {side}: {}\n", names.join(", "));
        }
    }
    let json = json!({ "both": Value::Object(both), "only_a": only_a, "only_b": only_b });
    Section { name: "models", text, json }
}
