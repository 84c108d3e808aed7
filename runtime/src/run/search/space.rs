//! The points of a space once the surviving layers are known, and those that meet every requirement.

use super::super::{Executor, RunError};
use super::entrant::Choice;
use super::outcome::{CandidateRecord, RungRecord, SearchSummary, TieRecord};
use super::within::Within;
use crate::provenance::ModelRecord;
use minic_compiler::axes::Scope;
use minic_compiler::check::{LayerCounts, Outline};
use minic_compiler::dim::Dim;
use minic_compiler::model::LayerKind;
use minic_compiler::model::ModelDesc;
use minic_compiler::plan;
use minic_compiler::space::Space;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

pub(super) struct Points {
    parent: ModelDesc,
    /// Layers of the parent that survive, for each number of them.
    layers: BTreeMap<usize, Vec<usize>>,
    all: u64,
    models: u64,
    /// With their places in the space.
    pub feasible: Vec<(u64, BTreeMap<Dim, usize>)>,
}

impl Executor<'_> {
    pub(super) fn points(&self, id: NodeIndex, stage: &plan::Search) -> Result<Points, RunError> {
        let parent = self.space_parent(id)?.source.desc().clone();
        let mut layers = BTreeMap::from([(parent.layers.len(), (0..parent.layers.len()).collect())]);
        for axis in stage.space.axes.iter().filter(|axis| axis.axis.scope == Scope::Depth) {
            for &depth in axis.values.iter().filter(|depth| **depth < parent.layers.len()) {
                layers.insert(depth, self.survivors(id, depth)?);
            }
        }
        let space = Space::of(&Outline::of(parent.clone()), &stage.space);
        let counts = |depth: usize| {
            let kinds: Vec<LayerKind> = layers
                .get(&depth)
                .into_iter()
                .flatten()
                .filter_map(|layer| parent.layers.get(*layer))
                .copied()
                .collect();
            LayerCounts::of(&kinds).fewest
        };
        let found = space.feasible_exact(&stage.search.require, counts);
        if found.points.is_empty() {
            let require = stage.search.require.iter().map(ToString::to_string).collect();
            return Err(RunError::EmptySpace { search: self.plan.node(id).name.clone(), require });
        }
        let feasible = found.points.iter().map(|point| (*point, space.sizes(*point))).collect();
        Ok(Points { layers, all: space.len(), models: found.legal, feasible, parent })
    }

    /// Which layers survive where so many are kept.
    fn survivors(&self, id: NodeIndex, depth: usize) -> Result<Vec<usize>, RunError> {
        let sizes = BTreeMap::from([(Dim::NumLayers, depth)]);
        let entrant = self.entrant(id, &self.choice(id, "depth", &sizes, None))?;
        let within = Within::new(&(), "");
        let child = self.beside(id, &entrant, &within);
        let made = child.bare(&entrant)?;
        Ok(made.source.cuts().last().map(|(plan, _)| plan.layers.clone()).unwrap_or_default())
    }
}

impl Points {
    /// The description of a candidate.
    pub fn model(&self, sizes: &BTreeMap<Dim, usize>) -> ModelDesc {
        let depth = sizes.get(&Dim::NumLayers).copied().unwrap_or(self.parent.layers.len());
        let none = Vec::new();
        let widths = sizes.iter().filter(|(dim, _)| **dim != Dim::NumLayers);
        let widths = widths.map(|(dim, size)| (*dim, *size)).collect();
        self.parent.resized(&widths, self.layers.get(&depth).unwrap_or(&none))
    }

    /// `place`: as in the name of a candidate after the search's.
    pub fn params(&self, name: &str) -> Option<u64> {
        let place: u64 = name.rsplit_once('.')?.1.parse().ok()?;
        let at = self.feasible.binary_search_by_key(&place, |(index, _)| *index).ok()?;
        Some(self.model(&self.feasible[at].1).params())
    }

    pub fn told(&self) -> String {
        format!(
            "{} points, {} of them are models, {} meet every requirement",
            self.all,
            self.models,
            self.feasible.len()
        )
    }

    pub fn summary(
        &self,
        stage: &plan::Search,
        rungs: Vec<RungRecord>,
        ties: Vec<TieRecord>,
        chosen: &Choice,
        controls: &[Choice],
    ) -> SearchSummary {
        let scored = |name: &str| rungs.iter().any(|rung| rung.scores.contains_key(name));
        let prefix = chosen.name.rsplit_once('.').map_or("", |(prefix, _)| prefix);
        let own = self.feasible.iter().map(|(index, sizes)| (format!("{prefix}.{index}"), sizes));
        let others = controls.iter().map(|control| (control.name.clone(), &control.sizes));
        let candidates = own.chain(others).filter(|(name, _)| scored(name) || *name == chosen.name);
        let record = |sizes: &BTreeMap<Dim, usize>| CandidateRecord {
            model: ModelRecord::of(&self.model(sizes)),
            axes: sizes.iter().map(|(dim, size)| (dim.to_string(), *size)).collect(),
            layers: sizes.get(&Dim::NumLayers).and_then(|n| self.layers.get(n)).cloned(),
        };
        SearchSummary {
            space: stage.search.space.clone(),
            parent: ModelRecord::of(&self.parent),
            axes: stage.space.axes.iter().map(|a| (a.axis.name.to_string(), a.values.clone())).collect(),
            points: self.all,
            models: self.models,
            feasible: self.feasible.len() as u64,
            require: stage.search.require.iter().map(ToString::to_string).collect(),
            candidates: candidates.map(|(name, sizes)| (name, record(sizes))).collect(),
            rungs,
            ties,
            chosen: chosen.name.clone(),
            controls: controls
                .iter()
                .filter_map(|c| Some((c.name.clone(), c.control.as_ref()?.to_string())))
                .collect(),
        }
    }
}
