//! Two checkpoints side by side.

use super::figures::{self, Evaluated};
use super::model::{self, Side};
use super::{Part, Section, kept, lines};
use crate::output::{Exit, Failure, Output};
use crate::table::Table;
use minic_runtime::checkpoint::{self, Checkpoint, CheckpointError};
use minic_runtime::compare::{self, TensorDifference};
use minic_runtime::input;
use minic_runtime::provenance::{ModelRecord, Provenance, ProvenanceError};
use serde_json::{Value, json};
use std::path::Path;

/// A folder, as far as it can be read.
struct Folder {
    model: ModelRecord,
    dtype: Option<String>,
    /// Absent where there are no weights.
    weights: Option<Checkpoint>,
    provenance: Option<Provenance>,
    recipe: Option<String>,
}

pub fn compare(a: &Path, b: &Path, output: &Output) -> Result<Vec<Section>, Failure> {
    let (a, b) = (Folder::read(a, output)?, Folder::read(b, output)?);
    let mut sections = vec![
        model::section("model", "model", &a.side(), &b.side()),
        lines::section(a.recipe.as_deref(), b.recipe.as_deref()),
    ];
    if let (Some(x), Some(y)) = (&a.provenance, &b.provenance) {
        sections.push(origins(x, y));
        sections.push(figures::section(&evaluated(x), &evaluated(y)));
        let steps: Vec<_> = x.steps.iter().zip(&y.steps).collect();
        sections.push(kept::section(&steps, output.verbose));
    }
    if let (Some(x), Some(y)) = (&a.weights, &b.weights) {
        sections.push(tensors(&compare::tensors(x, y)?, output.verbose));
    }
    Ok(sections)
}

impl Folder {
    fn side(&self) -> Side<'_> {
        Side { model: &self.model, dtype: self.dtype.clone() }
    }

    fn read(folder: &Path, output: &Output) -> Result<Folder, Failure> {
        let weights = match Checkpoint::open(folder) {
            Ok(open) => Some(open),
            Err(CheckpointError::NoWeights { .. }) => {
                output.note(&format!(
                    "{}: no weights are there, only config.json is compared",
                    folder.display()
                ));
                None
            }
            Err(error) => return Err(error.into()),
        };
        let desc = match &weights {
            Some(open) => open.desc().clone(),
            None => checkpoint::read_desc(folder)?,
        };
        let provenance = match Provenance::read(folder) {
            Ok(provenance) => Some(provenance),
            Err(ProvenanceError::Absent { .. }) => None,
            Err(error) => {
                output.warn(&error.to_string());
                None
            }
        };
        let dtype = weights.as_ref().and_then(Checkpoint::main_dtype).or(desc.dtype);
        Ok(Folder {
            model: ModelRecord::of(&desc),
            dtype: dtype.map(|d| d.recipe_name().to_string()),
            weights,
            provenance,
            recipe: recipe_of(folder)?,
        })
    }
}

/// The copy of the recipe in an exported folder.
fn recipe_of(folder: &Path) -> Result<Option<String>, Failure> {
    let path = folder.join("recipe.mrecipe");
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = input::read(&path, input::RECIPE)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(Exit::Input, format!("{}: is not UTF-8 text", path.display())))?;
    Ok(Some(text))
}

fn evaluated(provenance: &Provenance) -> Evaluated {
    let named =
        provenance.evaluations.iter().map(|e| (format!("{} on {}", e.model, e.on), e.figures.clone()));
    named.collect()
}

/// What went in, by digest.
fn origins(a: &Provenance, b: &Provenance) -> Section {
    let digests = |p: &Provenance| -> Vec<(String, String)> {
        let recipe = [("recipe".to_string(), p.recipe.digest.clone())];
        let parents = p.parents.iter().map(|x| (format!("model {}", x.name), x.digest.clone()));
        let data = p.data.iter().map(|x| (format!("data {}", x.name), x.digest.clone()));
        recipe.into_iter().chain(parents).chain(data).collect()
    };
    let (x, y) = (digests(a), digests(b));
    let find = |list: &[(String, String)], name: &str| {
        list.iter().find(|(n, _)| n == name).map(|(_, digest)| digest.clone())
    };
    let mut names: Vec<&String> = x.iter().map(|(n, _)| n).collect();
    names.extend(y.iter().map(|(n, _)| n).filter(|n| find(&x, n).is_none()));
    let mut table = Table::new(&["input", "a", "b", ""]);
    let mut json = serde_json::Map::new();
    for name in names {
        let (a, b) = (find(&x, name), find(&y, name));
        let short = |digest: &Option<String>| {
            digest.as_ref().map_or("-".to_string(), |d| d.chars().take(12).collect())
        };
        let equal = if a == b { "=" } else { "differs" };
        table.row(vec![name.clone(), short(&a), short(&b), equal.into()]);
        json.insert(name.clone(), json!({ "a": a, "b": b, "equal": a == b }));
    }
    let parts = vec![Part::Table { title: "inputs, by digest".into(), table }];
    Section { name: "inputs", parts, json: Value::Object(json) }
}

/// Without `-v`, the weights that differ most.
const SHOWN: usize = 12;

fn tensors(found: &[TensorDifference], verbose: bool) -> Section {
    let mut different: Vec<&TensorDifference> = found.iter().filter(|t| !t.is_equal()).collect();
    let identical = found.iter().filter(|t| t.is_identical()).count();
    let equal = found.len() - different.len() - identical;
    let mut text = format!("weights: {} in all, {identical} equal bytes", found.len());
    if equal > 0 {
        text += &format!(", {equal} equal values of another element type");
    }
    text += &format!(", {} differ", different.len());
    let most = |t: &TensorDifference| t.values.map_or(f64::INFINITY, |v| v.max_abs);
    if !verbose {
        different.sort_by(|a, b| most(b).total_cmp(&most(a)));
    }
    let shown = if verbose { different.len() } else { SHOWN };
    let mut table = Table::new(&["weight", "a", "b", ">elements that differ", ">largest difference"]);
    for tensor in different.iter().take(shown) {
        table.row(row(tensor));
    }
    let mut parts = vec![match different.is_empty() {
        true => Part::Text(text),
        false => Part::Table { title: text, table },
    }];
    if different.len() > shown {
        let more = different.len() - shown;
        parts.push(Part::Text(format!("    {more} more: -v shows them, in the order of the model")));
    }
    let json = json!({
        "count": found.len(),
        "identical": identical,
        "different": different.len(),
        "tensors": found.iter().map(to_json).collect::<Vec<_>>(),
    });
    Section { name: "weights", parts, json }
}

fn row(tensor: &TensorDifference) -> Vec<String> {
    let stored = |s: &Option<compare::Stored>| {
        s.as_ref().map_or("-".to_string(), |s| format!("{} {:?}", s.dtype, s.shape))
    };
    let (count, most) = match tensor.values {
        None => (String::new(), String::new()),
        Some(v) if v.not_finite > 0 => {
            (v.different.to_string(), format!("{:.3e}, {} not finite", v.max_abs, v.not_finite))
        }
        Some(v) => (v.different.to_string(), format!("{:.3e}", v.max_abs)),
    };
    vec![tensor.name.clone(), stored(&tensor.a), stored(&tensor.b), count, most]
}

fn to_json(tensor: &TensorDifference) -> Value {
    json!({
        "name": tensor.name,
        "a": tensor.a,
        "b": tensor.b,
        "identical": tensor.is_identical(),
        "equal": tensor.is_equal(),
        "values": tensor.values,
    })
}
