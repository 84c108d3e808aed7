//! What two cuts kept, axis by axis and layer by layer.

use super::{Part, Section};
use crate::table::Table;
use minic_compiler::axes;
use minic_compiler::dim::Dim;
use minic_runtime::provenance::{AxisRecord, Step};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Members by layer, of the model before the cut; no layer where one ranking holds for all.
type Kept = BTreeMap<Option<usize>, BTreeSet<Member>>;

/// A head, where each head has a ranking of its own, and an index.
type Member = (Option<usize>, usize);

/// `steps` are pairs of cuts that belong together; indices can be compared only if both cut the same shape.
pub fn section(steps: &[(&Step, &Step)], verbose: bool) -> Section {
    let mut table = Table::new(&["cut", "axis", "layer", ">a keeps", ">b keeps", ">in common"]);
    let mut json = Vec::new();
    let mut notes = Vec::new();
    for (a, b) in steps {
        if a.before != b.before {
            notes.push(format!("    {}: the models that were cut differ, and so does the numbering", a.name));
            json.push(json!({ "cut": a.name, "comparable": false, "axes": [] }));
            continue;
        }
        let mut axes = Vec::new();
        for (axis, x, y) in pairs(a, b) {
            if of_stream(&axis) && basis(a) != basis(b) {
                notes.push(format!(
                    "    {}: {axis} is cut in two bases of the stream, whose numbers differ",
                    a.name
                ));
                axes.push(json!({ "axis": axis, "layers": [] }));
                continue;
            }
            let (x, y) = (kept(x), kept(y));
            let layers = compare(&x, &y);
            rows(&mut table, &a.name, &axis, &layers, verbose);
            axes.push(
                json!({ "axis": axis, "layers": layers.iter().map(Layer::to_json).collect::<Vec<_>>() }),
            );
        }
        json.push(json!({ "cut": a.name, "comparable": true, "axes": axes }));
    }
    let mut parts = Vec::new();
    if !steps.is_empty() {
        parts.push(Part::Table { title: "kept indices".into(), table });
        parts.extend(notes.into_iter().map(Part::Text));
    }
    Section { name: "kept", parts, json: Value::Array(json) }
}

fn of_stream(axis: &str) -> bool {
    axes::find(axis).is_some_and(|axis| axis.dim == Dim::HiddenSize)
}

fn basis(step: &Step) -> Option<&String> {
    step.rotation.as_ref().map(|rotation| &rotation.basis)
}

/// The axes of both cuts by name; one that is not cut keeps all.
fn pairs<'a>(a: &'a Step, b: &'a Step) -> Vec<(String, Option<&'a AxisRecord>, Option<&'a AxisRecord>)> {
    let find = |step: &'a Step, name: &str| step.axes.iter().find(|r| r.axis == name);
    let mut names: Vec<&String> = a.axes.iter().map(|r| &r.axis).collect();
    names.extend(b.axes.iter().map(|r| &r.axis).filter(|n| find(a, n).is_none()));
    names.into_iter().map(|n| (n.clone(), find(a, n), find(b, n))).collect()
}

fn kept(record: Option<&AxisRecord>) -> Option<Kept> {
    let record = record?;
    let flat = |list: &Vec<usize>| list.iter().map(|i| (None, *i)).collect::<BTreeSet<Member>>();
    let mut kept = Kept::new();
    kept.extend(record.kept.iter().map(|list| (None, flat(list))));
    for (layer, list) in record.kept_by_layer.iter().flatten() {
        kept.insert(Some(*layer), flat(list));
    }
    for (layer, heads) in record.kept_by_head.iter().flatten() {
        let members = heads.iter().enumerate().flat_map(|(h, list)| list.iter().map(move |i| (Some(h), *i)));
        kept.insert(Some(*layer), members.collect());
    }
    Some(kept)
}

struct Layer {
    layer: Option<usize>,
    /// How many are kept; none where the axis, or this layer of it, is not cut.
    a: Option<usize>,
    b: Option<usize>,
    common: Option<usize>,
    only_a: Vec<Member>,
    only_b: Vec<Member>,
}

impl Layer {
    fn to_json(&self) -> Value {
        let members = |list: &[Member]| -> Vec<Value> {
            list.iter().map(|(head, i)| head.map_or(json!(i), |h| json!({ "head": h, "index": i }))).collect()
        };
        json!({
            "layer": self.layer, "a": self.a, "b": self.b, "common": self.common,
            "only_a": members(&self.only_a), "only_b": members(&self.only_b),
        })
    }

    fn is_equal(&self) -> bool {
        self.common.is_some() && self.only_a.is_empty() && self.only_b.is_empty()
    }
}

fn compare(a: &Option<Kept>, b: &Option<Kept>) -> Vec<Layer> {
    let layers: BTreeSet<Option<usize>> = a.iter().chain(b).flat_map(|k| k.keys().copied()).collect();
    let of = |kept: &Option<Kept>, layer| kept.as_ref().and_then(|k| k.get(&layer).cloned());
    let layer = |layer| {
        let (x, y) = (of(a, layer), of(b, layer));
        let both = x.as_ref().zip(y.as_ref());
        Layer {
            layer,
            a: x.as_ref().map(BTreeSet::len),
            b: y.as_ref().map(BTreeSet::len),
            common: both.map(|(x, y)| x.intersection(y).count()),
            only_a: both.map_or(Vec::new(), |(x, y)| x.difference(y).copied().collect()),
            only_b: both.map_or(Vec::new(), |(x, y)| y.difference(x).copied().collect()),
        }
    };
    layers.into_iter().map(layer).collect()
}

/// A row for all layers; with `-v` one for each.
fn rows(table: &mut Table, cut: &str, axis: &str, layers: &[Layer], verbose: bool) {
    let number = |n: Option<usize>| n.map_or("all".to_string(), |n| n.to_string());
    let mut row = |which: String, a: String, b: String, common: String| {
        table.row(vec![cut.to_string(), axis.to_string(), which, a, b, common]);
    };
    if let ([one], _) | ([one, ..], true) = (layers, layers.len() == 1) {
        let which = one.layer.map_or(String::new(), |l| l.to_string());
        row(which, number(one.a), number(one.b), one.common.map_or("-".into(), |n| n.to_string()));
        return;
    }
    let sum = |of: fn(&Layer) -> Option<usize>| layers.iter().map(of).sum::<Option<usize>>();
    let equal = layers.iter().filter(|l| l.is_equal()).count();
    let which = format!("{} layers, {equal} equal", layers.len());
    let common = sum(|l| l.common).map_or("-".into(), |n| n.to_string());
    row(which, number(sum(|l| l.a)), number(sum(|l| l.b)), common);
    for layer in layers.iter().filter(|_| verbose) {
        let which = layer.layer.map_or(String::new(), |l| format!("  {l}"));
        let common = layer.common.map_or("-".into(), |n| n.to_string());
        row(which, number(layer.a), number(layer.b), common);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(layers: &[(usize, &[usize])]) -> AxisRecord {
        let kept = layers.iter().map(|(l, list)| (*l, list.to_vec())).collect();
        AxisRecord { axis: "mamba_num_heads".into(), kept_by_layer: Some(kept), ..AxisRecord::default() }
    }

    #[test]
    fn layers_are_compared_by_what_they_have_in_common() {
        let (a, b) = (record(&[(0, &[0, 1, 4]), (2, &[1])]), record(&[(0, &[1, 4, 5]), (2, &[1])]));
        let layers = compare(&kept(Some(&a)), &kept(Some(&b)));
        assert_eq!(layers.len(), 2);
        assert_eq!((layers[0].common, layers[0].is_equal()), (Some(2), false));
        assert_eq!((&layers[0].only_a[..], &layers[0].only_b[..]), (&[(None, 0)][..], &[(None, 5)][..]));
        assert!(layers[1].is_equal());
        let uncut = compare(&kept(Some(&a)), &kept(None));
        assert_eq!((uncut[0].a, uncut[0].b, uncut[0].common), (Some(3), None, None));
    }
}
