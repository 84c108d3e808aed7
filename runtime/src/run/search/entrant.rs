//! A candidate or a control on its way through the rungs.

use super::super::identity::Identity;
use super::super::load::SampleSet;
use super::super::shard::Share;
use super::super::train::{Course, Inputs};
use super::super::{Artifact, Executor, Made, RunError};
use super::within::Within;
use crate::device::Weights;
use crate::evaluate::{self, Figures};
use crate::samples::Pass;
use crate::store::{Key, digest_of};
use minic_compiler::dim::Dim;
use minic_compiler::forward::Comparison;
use minic_compiler::hir::Control;
use minic_compiler::lower::{self, Candidate};
use minic_compiler::plan::{self, Stage, Training};
use petgraph::graph::NodeIndex;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sizes by what decides them, and the stages that make the model.
pub(in super::super) struct Entrant {
    pub name: String,
    /// Of all axes of the space.
    pub sizes: BTreeMap<Dim, usize>,
    pub control: Option<Control>,
    pub lowered: Candidate,
}

impl Entrant {
    /// The stage that trains it by a schedule.
    pub fn training(&self, schedule: usize) -> Result<(NodeIndex, &Training), RunError> {
        let unplanned = || RunError::Unplanned { what: format!("a training of {}", self.name) };
        let id = *self.lowered.trainings.get(schedule).ok_or_else(unplanned)?;
        match &self.lowered.plan.node(id).stage {
            Stage::Train(training) | Stage::Distill(training) => Ok((id, training)),
            _ => Err(unplanned()),
        }
    }

    fn cut(&self) -> Result<&plan::Cut, RunError> {
        match &self.lowered.plan.node(self.lowered.cut).stage {
            Stage::Cut(cut) => Ok(cut),
            _ => Err(RunError::Unplanned { what: format!("the cut of {}", self.name) }),
        }
    }
}

/// How far the training of an entrant is to go, and what it is known by there.
pub(super) struct Trial {
    pub training: NodeIndex,
    pub inputs: Inputs,
    /// Of the whole schedule.
    pub key: Key,
    pub until: u64,
    /// The student as it stands then.
    pub made: Made,
}

impl Trial {
    /// Under which the model is kept if it is chosen: a training that went to its end is one like any other.
    pub fn result(&self, all: u64) -> Key {
        if self.until == all { self.key.clone() } else { self.key.clone().field("until", self.until) }
    }
}

impl Executor<'_> {
    pub(in super::super) fn entrant(
        &self,
        id: NodeIndex,
        name: &str,
        sizes: &BTreeMap<Dim, usize>,
        control: Option<&Control>,
    ) -> Result<Entrant, RunError> {
        let whole = self.space_parent(id)?.source.desc().clone();
        let cut = sizes.iter().filter(|(dim, size)| whole.size(**dim) != **size);
        let cut = cut.map(|(dim, size)| (*dim, *size)).collect();
        let name = format!("{}.{name}", self.plan.node(id).name);
        let unplanned = || RunError::Unplanned { what: format!("the candidate {name}") };
        let lowered = lower::candidate(self.plan, id, &name, &cut, control).ok_or_else(unplanned)?;
        Ok(Entrant { name, sizes: sizes.clone(), control: control.cloned(), lowered })
    }

    /// An executor of an entrant's stages, with everything that feeds the search done.
    pub(in super::super) fn beside<'c>(
        &'c self,
        id: NodeIndex,
        entrant: &'c Entrant,
        observer: &'c Within<'c>,
    ) -> Executor<'c> {
        let plan = &entrant.lowered.plan;
        let (settings, store) = (self.settings, self.store);
        let mut child = Executor::new(plan, self.device, settings, store, observer, self.preview);
        child.share = Share::Whole;
        for copy in plan.graph.node_indices().take(entrant.lowered.given) {
            let made = self.plan.find(&plan.node(copy).name).and_then(|from| self.done.get(&from));
            child.done.extend(made.map(|artifact| (copy, artifact.clone())));
        }
        if self.redo.contains(&id) {
            child.redo.extend(plan.graph.node_indices().skip(entrant.lowered.given));
        }
        child
    }

    /// The entrant as a model that is not proved yet.
    pub(in super::super) fn draft(&mut self, entrant: &Entrant) -> Result<Made, RunError> {
        let Candidate { cut, made, .. } = entrant.lowered;
        let draft = self.drafted(cut, entrant.cut()?)?;
        self.done.insert(cut, Artifact::Model(draft));
        self.complete(cut, made)
    }

    /// The entrant as a model, proved as every cut is. A control that breaks up groups is no cut of its parent, and
    /// its masked model another one: there is nothing to prove.
    pub(super) fn promote(&mut self, entrant: &Entrant) -> Result<Made, RunError> {
        if entrant.control == Some(Control::GroupUnaware) {
            return self.draft(entrant);
        }
        let Candidate { cut, made, .. } = entrant.lowered;
        let (artifact, _) = self.perform(cut)?;
        self.done.insert(cut, artifact);
        self.complete(cut, made)
    }

    fn complete(&mut self, cut: NodeIndex, made: NodeIndex) -> Result<Made, RunError> {
        if made != cut {
            let (artifact, _) = self.perform(made)?;
            self.done.insert(made, artifact);
        }
        match self.done.get(&made) {
            Some(Artifact::Model(made)) => Ok(made.clone()),
            _ => Err(RunError::Unplanned { what: "a candidate's model".into() }),
        }
    }

    /// The training of an entrant that [`Executor::promote`] made, up to so many tokens.
    pub(super) fn trial(
        &self,
        entrant: &Entrant,
        schedule: usize,
        tokens: Option<u64>,
    ) -> Result<Trial, RunError> {
        let (id, training) = entrant.training(schedule)?;
        let inputs = self.training_inputs(id, training)?;
        let key = self.training_key(training, &inputs)?;
        let until = inputs.updates(training, tokens);
        let digest = digest_of(&json!([key.digest(), until]));
        let identity = Identity { digest, origin: key.origin() };
        let Some(Artifact::Model(made)) = self.done.get(&entrant.lowered.made) else {
            return Err(RunError::Unplanned { what: format!("the model {}", entrant.name) });
        };
        let made = Made { identity, ..made.clone() };
        Ok(Trial { training: id, inputs, key, until, made })
    }

    /// Trains an entrant to a place on its way; its weights there.
    pub(super) fn trained_to(
        &self,
        entrant: &Entrant,
        schedule: usize,
        trial: &Trial,
        until: u64,
        shows: bool,
    ) -> Result<Weights, RunError> {
        let (id, training) = entrant.training(schedule)?;
        let course = Course { until: Some(until), most: Some(trial.until), shows };
        Ok(self.advanced(id, training, &trial.inputs, &trial.key, course)?.0)
    }

    /// The figures of a model whose weights are at hand; `weights` are asked for where the store has none.
    pub(super) fn figures_of(
        &self,
        id: NodeIndex,
        samples: &Arc<SampleSet>,
        made: &Made,
        against: Option<&Made>,
        weights: Option<&Weights>,
    ) -> Result<Option<Figures>, RunError> {
        let key = self.keys().figures(made, against, samples)?;
        if let Some(figures) = self.recall::<Figures>(id, &key)? {
            return Ok(Some(figures));
        }
        let Some(weights) = weights else { return Ok(None) };
        let loaded = samples.load(self.store)?;
        let windows: Vec<&[u32]> = loaded.windows().collect();
        let mut models = vec![(made.name.as_str(), made.source.desc())];
        models.extend(against.map(|other| (other.name.as_str(), other.source.desc())));
        let comparison = Comparison { model: &made.name, against: against.map(|other| other.name.as_str()) };
        let watch = self.watch(id);
        let bind = |schedule: &minic_compiler::schedule::Schedule| {
            let mut all = weights.scoped(&made.name);
            if let Some(other) = against {
                let names =
                    schedule.weights.keys().filter(|name| name.starts_with(&format!("{}/", other.name)));
                let read = |name: &str| other.source.read_f32(name.split_once('/').map_or(name, |(_, n)| n));
                all = all.with(&Weights::load(names.cloned(), read)?);
            }
            Ok(all)
        };
        let pass = Pass { answers: loaded.answers(), ..Pass::over(&windows, &watch) };
        let figures = evaluate::measure(self.device, &models, &[comparison], &pass, bind)?;
        let figures = figures.into_iter().next().ok_or(RunError::NoSamples)?;
        self.store.put(&key, &figures)?;
        Ok(Some(figures))
    }
}
