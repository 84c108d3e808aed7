//! Each axis of a space by itself: what every size of it does (arXiv:2504.11409, figure 7).

use super::search::{Look, Within};
use super::{Artifact, Executor, Made, RunError};
use crate::chart::{COLORS, Chart, Mark, Panel, Point, Series};
use minic_compiler::hir::{Objective, Quantity};
use minic_compiler::plan;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One `sensitivity` statement, in `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SensitivitySummary {
    pub space: String,
    pub on: String,
    /// Quantities of the model that the space is cut from.
    pub parent: BTreeMap<String, f64>,
    /// By axis, from the least removed on.
    pub axes: BTreeMap<String, Vec<SizeRecord>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeRecord {
    pub size: usize,
    /// Share of the axis that is removed.
    pub removed: f64,
    pub params: u64,
    /// Absent where the family cannot express the size by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, f64>,
}

impl Executor<'_> {
    pub(super) fn sensitivity(
        &mut self,
        id: NodeIndex,
        stage: &plan::Sensitivity,
    ) -> Result<(Artifact, String), RunError> {
        let name = self.plan.node(id).name.clone();
        let within = Within::new(self.observer, &name);
        let parent = self.space_parent(id)?;
        let one = self.by_itself(false);
        let looks = stage.sensitivity.quantities.iter().map(|quantity| {
            let objective = Objective::of(quantity.clone());
            Ok((quantity, one.look(id, &objective, Some(&stage.sensitivity.on))?))
        });
        let looks: Vec<(&Quantity, Look)> = looks.collect::<Result<_, RunError>>()?;
        let steps: usize = stage.space.axes.iter().map(|axis| axis.values.len()).sum();
        let samples = self.samples_named(id, &stage.sensitivity.on)?.record.samples;
        within.begin((steps + 1) * samples);
        let (mut job, mut missing) = (0, BTreeSet::new());
        let whole = parent.source.desc();
        let mut summary = SensitivitySummary {
            space: stage.sensitivity.space.clone(),
            on: stage.sensitivity.on.clone(),
            parent: self.first_does(one.looked_at(id, &looks, &parent))?,
            axes: BTreeMap::new(),
        };
        for axis in &stage.space.axes {
            let (dim, all) = (axis.axis.dim, whole.size(axis.axis.dim));
            for &size in axis.values.iter().rev().filter(|size| **size < all) {
                let other = self.other(job);
                job += 1;
                within.done(job * samples);
                let sizes = BTreeMap::from([(dim, size)]);
                let choice = self.choice(id, &format!("{}.{size}", axis.axis.name), &sizes, None);
                let entrant = self.entrant(id, &choice)?;
                let mut child = self.beside(id, &entrant, &within);
                child.preview |= other.is_some();
                let made = match (child.draft(&entrant), other) {
                    (Err(RunError::NotStored), Some(shard)) => {
                        missing.insert(shard);
                        continue;
                    }
                    (made, _) => made?,
                };
                let desc = made.source.desc();
                let values = match desc.family().constraint(desc) {
                    Ok(()) => child.looked_at(entrant.lowered.made, &looks, &made),
                    Err(_) => Ok(BTreeMap::new()),
                };
                let values = match (values, other) {
                    (Err(RunError::NotStored), Some(shard)) => {
                        missing.insert(shard);
                        continue;
                    }
                    (values, _) => values?,
                };
                let removed = 1.0 - size as f64 / all as f64;
                let record = SizeRecord { size, removed, params: desc.params(), values };
                summary.axes.entry(axis.axis.name.to_string()).or_default().push(record);
            }
        }
        drop(one);
        self.all_there(missing)?;
        let told = summary.told();
        self.summary.sensitivities.insert(name, summary);
        Ok((Artifact::Told, told))
    }

    fn looked_at(
        &self,
        id: NodeIndex,
        looks: &[(&Quantity, Look)],
        made: &Made,
    ) -> Result<BTreeMap<String, f64>, RunError> {
        let value =
            |(quantity, look): &(&Quantity, Look)| Ok((quantity.to_string(), self.seen(id, look, made)?));
        looks.iter().map(value).collect()
    }
}

impl SensitivitySummary {
    fn told(&self) -> String {
        let points: usize = self.axes.values().map(Vec::len).sum();
        format!("{points} sizes of {} axes", self.axes.len())
    }

    /// A panel for each quantity, a line for each axis.
    pub fn chart(&self, name: &str) -> Chart {
        let line = |quantity: &str, whole: f64, (i, (axis, sizes)): (usize, (&String, &Vec<SizeRecord>))| {
            let told = |size: usize, value: f64| format!("{axis} {size}: {value:.4}");
            let cut = sizes.iter().filter_map(|s| Some((s.removed, s.size, *s.values.get(quantity)?)));
            let mut points = vec![Point { x: 0.0, y: whole, told: format!("whole: {whole:.4}") }];
            points.extend(cut.map(|(x, size, y)| Point { x: 100.0 * x, y, told: told(size, y) }));
            Series { name: axis.clone(), color: i % COLORS.len(), mark: Mark::Line, points }
        };
        let panel = |(quantity, whole): (&String, &f64)| Panel {
            title: quantity.clone(),
            x: "% of the axis removed".into(),
            y: quantity.clone(),
            series: self.axes.iter().enumerate().map(|axis| line(quantity, *whole, axis)).collect(),
        };
        let title = format!("{name}: each axis of {} by itself, on {}", self.space, self.on);
        Chart { title, panels: self.parent.iter().map(panel).collect() }
    }
}
