//! One cut of a model.

use super::ModelRecord;
use crate::gate::CutProof;
use crate::repair::{Mended, Powers};
use minic_compiler::axes::{self, AXES, Axis, Scope};
use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::model::ModelDesc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The name of the model that it makes, and of the one that it cuts.
    pub name: String,
    pub from: String,
    pub before: ModelRecord,
    pub after: ModelRecord,
    /// The residual stream was rotated first: hidden channels are directions then, the leading ones first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRecord>,
    /// In the order of the cuts.
    pub axes: Vec<AxisRecord>,
    pub proof: CutProof,
    /// What was mended after the proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairRecord>,
}

/// A rotation of the residual stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationRecord {
    /// Digest of the basis: f32, row-major, a column for every direction.
    pub basis: String,
    /// Norms whose weights went into the matrices that read them, and are one since: those of all blocks, and
    /// the last.
    pub folded: usize,
    /// Share of the stream's variance on the calibration set along the directions that are kept.
    pub variance: f64,
    /// The uncut rotated model computes what the model before it computes.
    pub proof: CutProof,
}

/// A repair of a cut model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairRecord {
    /// As the recipe writes them.
    pub lines: Vec<String>,
    /// Norms of another width were scaled by these powers of (old width / new width); and the factors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powers: Option<Powers>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub norms: BTreeMap<String, f64>,
    /// Matrices that were solved, in order, with the digest of the file that they were kept in, in f32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Mended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// One axis of a cut: how it was ranked, and what was kept. Exactly one of the lists is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisRecord {
    pub axis: String,
    pub from: usize,
    pub to: usize,
    /// As the recipe writes it, and where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Digest of the scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<String>,
    /// Kept indices, one ranking for the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<usize>>,
    /// Layer to kept indices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by_layer: Option<BTreeMap<usize, Vec<usize>>>,
    /// Layer to one list for each head that survives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by_head: Option<BTreeMap<usize, Vec<Vec<usize>>>>,
}

impl AxisRecord {
    fn of(axis: &Axis, before: &ModelDesc, after: &ModelDesc, plan: &CutPlan) -> Option<AxisRecord> {
        let (mut by_layer, mut by_head) = (BTreeMap::new(), BTreeMap::new());
        let kept = match axis.scope {
            Scope::Depth => (plan.layers.len() < before.layers.len()).then(|| plan.layers.clone()),
            Scope::Model => plan.model.get(&axis.dim).cloned(),
            Scope::Layer(_) => None,
        };
        for (&layer, dims) in &plan.by_layer {
            match dims.get(&axis.dim) {
                Some(Keep::Flat(kept)) => _ = by_layer.insert(layer, kept.clone()),
                Some(Keep::PerHead(lists)) => _ = by_head.insert(layer, lists.clone()),
                Some(Keep::All) | None => {}
            }
        }
        let record = AxisRecord {
            axis: axis.name.to_string(),
            from: before.size(axis.dim),
            to: after.size(axis.dim),
            kept,
            kept_by_layer: (!by_layer.is_empty()).then_some(by_layer),
            kept_by_head: (!by_head.is_empty()).then_some(by_head),
            ..AxisRecord::default()
        };
        let lists = [record.kept.is_some(), record.kept_by_layer.is_some(), record.kept_by_head.is_some()];
        lists.contains(&true).then_some(record)
    }
}

impl Step {
    /// A cut with an entry for every axis that it touches; metrics, taps and scores are left to be entered.
    pub fn new(
        name: &str,
        from: &str,
        before: &ModelDesc,
        after: &ModelDesc,
        plan: &CutPlan,
        proof: CutProof,
    ) -> Step {
        Step {
            name: name.to_string(),
            from: from.to_string(),
            before: ModelRecord::of(before),
            after: ModelRecord::of(after),
            axes: AXES.iter().filter_map(|axis| AxisRecord::of(axis, before, after, plan)).collect(),
            rotation: None,
            proof,
            repair: None,
        }
    }

    /// What was kept. The error names the axis at fault.
    pub fn plan(&self) -> Result<CutPlan, String> {
        let mut plan = CutPlan { layers: (0..self.before.pattern.len()).collect(), ..CutPlan::default() };
        for record in &self.axes {
            let axis =
                axes::find(&record.axis).ok_or_else(|| format!("axis `{}` is unknown", record.axis))?;
            match (axis.scope, &record.kept, &record.kept_by_layer, &record.kept_by_head) {
                (Scope::Depth, Some(kept), None, None) => plan.layers = kept.clone(),
                (Scope::Model, Some(kept), None, None) => _ = plan.model.insert(axis.dim, kept.clone()),
                (Scope::Layer(_), None, Some(layers), None) => {
                    for (&layer, kept) in layers {
                        let dims = plan.by_layer.entry(layer).or_default();
                        dims.insert(axis.dim, Keep::Flat(kept.clone()));
                    }
                }
                (Scope::Layer(_), None, None, Some(layers)) => {
                    for (&layer, lists) in layers {
                        let dims = plan.by_layer.entry(layer).or_default();
                        dims.insert(axis.dim, Keep::PerHead(lists.clone()));
                    }
                }
                _ => {
                    return Err(format!(
                        "axis `{}` has not the lists of kept indices that it must",
                        axis.name
                    ));
                }
            }
        }
        Ok(plan)
    }
}
