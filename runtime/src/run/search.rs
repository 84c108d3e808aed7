//! The best architecture of a space: enumerated, ranked rung by rung, the winner made physical.
//!
//! A candidate is a plan of its own ([`minic_compiler::lower::candidate`]) of the stages that every model has, and
//! what they make is stored under their own keys. So a search that is stopped finds every score that it has made,
//! and the winner is a model like any other.

mod entrant;
mod outcome;
mod picture;
mod rung;
mod space;
mod speed;
mod within;

pub use outcome::{CandidateRecord, FitRecord, RungRecord, ScoreRecord, SearchSummary, TieRecord};

pub(super) use rung::Look;
pub(super) use within::Within;

use super::train::Course;
use super::{Artifact, Executor, Made, RunError};
use crate::store::{Key, digest_of};
use entrant::Entrant;
use minic_compiler::dim::Dim;
use minic_compiler::hir::{self, Control};
use minic_compiler::plan::{self, Value};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Raised when the same search may choose another model.
const VERSION: u32 = 1;

/// What the store keeps of a search.
#[derive(Serialize, Deserialize)]
struct Outcome {
    summary: SearchSummary,
    /// Of the winner: its name within the search, and its sizes.
    place: String,
    sizes: BTreeMap<Dim, usize>,
    /// The schedule that it was trained by last, and for how many tokens.
    trained: Option<(usize, Option<u64>)>,
}

impl Executor<'_> {
    pub(super) fn search(
        &mut self,
        id: NodeIndex,
        stage: &plan::Search,
    ) -> Result<(Artifact, String), RunError> {
        let key = self.search_key(id, stage)?;
        let outcome = match self.recall::<Outcome>(id, &key)? {
            Some(outcome) => outcome,
            None if self.looks_up(id) => return Err(RunError::NotStored),
            None => {
                let outcome = self.first_does(self.sought(id, stage))?;
                self.store.put(&key, &outcome)?;
                outcome
            }
        };
        let won = self.winner(id, &outcome);
        let (made, told) = self.first_does(won)?;
        let name = self.plan.node(id).name.clone();
        self.summary.searches.insert(name, outcome.summary);
        Ok((Artifact::Model(made), told))
    }

    /// Everything that decides what is chosen. A training of the parent stands for those of the candidates.
    pub(super) fn search_key(&self, id: NodeIndex, stage: &plan::Search) -> Result<Key, RunError> {
        let parent = self.space_parent(id)?;
        let mut key = Key::new("search", self.plan.node(id).name.clone())
            .input("parent", &parent.identity.digest, parent.identity.origin.clone())
            .field("search", stage.search.to_string())
            .field("space", stage.space.to_string())
            .field("version", VERSION);
        for (from, value) in self.plan.inputs(id) {
            if let (Value::Scores, Some(Artifact::Scores(ranked, identity))) = (value, self.done.get(&from)) {
                key = key.input(
                    &format!("scores of {}", ranked.axis.name),
                    &identity.digest,
                    identity.origin.clone(),
                );
            }
        }
        let mut figures = Vec::new();
        for rung in &stage.search.rungs {
            if let Some(data) = &rung.on {
                let samples = self.samples_named(id, data)?;
                figures.push(self.keys().figures(&parent, None, &samples)?.digest());
            }
        }
        let whole = self.entrant(id, "whole", &BTreeMap::new(), None)?;
        let within = Within::new(&(), "");
        let mut child = self.beside(id, &whole, &within);
        child.done.insert(whole.lowered.made, Artifact::Model(parent));
        let mut trainings = Vec::new();
        for schedule in 0..whole.lowered.trainings.len() {
            trainings.push(child.trial(&whole, schedule, None)?.key.digest());
        }
        let trained = if trainings.is_empty() { String::new() } else { digest_of(&json!(trainings)) };
        Ok(key
            .field("figures", digest_of(&json!(figures)))
            .field("trainings", trained)
            .field("device", self.device.kind()))
    }

    /// The model that the space is cut from, as it stands before any rotation.
    pub(super) fn space_parent(&self, id: NodeIndex) -> Result<Made, RunError> {
        let models = self.plan.sources(id, Value::Model);
        let plain = models.iter().find_map(|from| match self.done.get(from) {
            Some(Artifact::Model(made)) if made.turned.is_none() => Some(made.clone()),
            _ => None,
        });
        plain.ok_or_else(|| RunError::Unplanned { what: format!("the model of {}", self.plan.node(id).name) })
    }

    /// Every rung, and the choice among what the last one cannot tell apart; then the controls, which change nothing.
    fn sought(&self, id: NodeIndex, stage: &plan::Search) -> Result<Outcome, RunError> {
        let name = self.plan.node(id).name.clone();
        let (watch, within) = (self.watch(id), Within::new(self.observer, &name));
        let points = self.points(id, stage)?;
        watch.note(&points.told());
        let mut left = Vec::new();
        for (index, sizes) in &points.feasible {
            left.push(self.entrant(id, &index.to_string(), sizes, None)?);
        }
        let (mut rungs, mut trained): (Vec<RungRecord>, Vec<Entrant>) = (Vec::new(), Vec::new());
        let mut ties = Vec::new();
        for (number, rung) in stage.search.rungs.iter().enumerate() {
            let mut record = self.rung(id, stage, rung, &left, &within)?;
            record.rank(&points, rung.keep, rungs.last())?;
            if number + 1 == stage.search.rungs.len() {
                ties = self.untie(id, stage, &left, &mut record)?;
            }
            watch.note(&record.told(number + 1));
            rungs.push(record);
            let kept = &rungs[number].kept;
            let place = |entrant: &Entrant| kept.iter().position(|name| *name == entrant.name);
            let (stay, go) = left.into_iter().partition(|entrant| place(entrant).is_some());
            left = stay;
            left.sort_by_key(place);
            trained.extend(Vec::into_iter(go).filter(|_| rung.after.is_some()));
        }
        let Some(chosen) = left.first() else {
            return Err(RunError::Unplanned { what: format!("a candidate of {name}") });
        };
        let controls = self.controls(id, stage, &chosen.sizes, &within, &mut rungs)?;
        let trained_by = stage.search.rungs.iter().rev().find(|rung| rung.after.is_some());
        let outcome = Outcome {
            place: chosen.name.trim_start_matches(&format!("{name}.")).to_string(),
            sizes: chosen.sizes.clone(),
            trained: trained_by.and_then(|rung| Some((schedule_of(stage, rung)?, rung.tokens))),
            summary: points.summary(stage, rungs, ties, chosen, &controls),
        };
        for entrant in trained.iter().chain(&left[1..]).chain(&controls) {
            self.forget_saves(id, entrant)?;
        }
        Ok(outcome)
    }

    /// The baselines, in the winner's sizes, through every rung.
    fn controls(
        &self,
        id: NodeIndex,
        stage: &plan::Search,
        sizes: &BTreeMap<Dim, usize>,
        within: &Within,
        rungs: &mut [RungRecord],
    ) -> Result<Vec<Entrant>, RunError> {
        let name = |control: &Control| match control {
            Control::Random { seed } => format!("random.{seed}"),
            control => control.to_string(),
        };
        let made = |control| self.entrant(id, &name(control), sizes, Some(control));
        let controls: Vec<Entrant> = stage.search.controls.iter().map(made).collect::<Result<_, _>>()?;
        for (rung, record) in stage.search.rungs.iter().zip(rungs).filter(|_| !controls.is_empty()) {
            let scored = self.rung(id, stage, rung, &controls, within)?;
            record.scores.extend(scored.scores);
        }
        Ok(controls)
    }

    /// Takes what was saved of trainings of an entrant that was not chosen out of the store.
    fn forget_saves(&self, id: NodeIndex, entrant: &Entrant) -> Result<(), RunError> {
        let within = Within::new(&(), "");
        let mut child = self.beside(id, entrant, &within);
        child.promote(entrant)?;
        for schedule in 0..entrant.lowered.trainings.len() {
            let trial = child.trial(entrant, schedule, None)?;
            child.forget_save(trial.training, &trial.key);
        }
        Ok(())
    }

    /// The chosen candidate as a model: cut and proved, mended, and with the weights that it was last scored with.
    fn winner(&mut self, id: NodeIndex, outcome: &Outcome) -> Result<(Made, String), RunError> {
        let mut entrant = self.entrant(id, &outcome.place, &outcome.sizes, None)?;
        let last = match outcome.trained {
            Some((schedule, _)) => entrant.training(schedule)?.0,
            None => entrant.lowered.made,
        };
        entrant.lowered.plan.graph[last].makes = self.plan.node(id).makes.clone();
        let name = self.plan.node(id).name.clone();
        let within = Within::new(self.observer, &name);
        let first = self.by_itself(true);
        let mut child = first.beside(id, &entrant, &within);
        let mut made = child.promote(&entrant)?;
        if let Some((schedule, tokens)) = outcome.trained {
            made = child.trained_winner(&entrant, schedule, tokens)?;
        }
        let found = std::mem::take(&mut child.summary);
        drop(child);
        drop(first);
        self.summary.absorb(found);
        made.searches.push(outcome.summary.record(&name));
        Ok((made, outcome.summary.told()))
    }

    fn trained_winner(
        &mut self,
        entrant: &Entrant,
        schedule: usize,
        tokens: Option<u64>,
    ) -> Result<Made, RunError> {
        let (id, training) = entrant.training(schedule)?;
        let trial = self.trial(entrant, schedule, tokens)?;
        let key = trial.result(trial.inputs.updates(training, None));
        let kept = match self.recall_folder(id, &key)? {
            Some(kept) => kept,
            None if self.preview => return Err(RunError::NotStored),
            None => {
                let course = Course { until: Some(trial.until), most: Some(trial.until), shows: false };
                let (weights, trained) = self.advanced(id, training, &trial.inputs, &trial.key, course)?;
                let kept = self.keep_trained(id, &trial.inputs, &key, &weights, trained)?;
                self.forget_save(id, &trial.key);
                kept
            }
        };
        match self.became(id, trial.inputs, &key, kept)?.0 {
            Artifact::Model(made) => Ok(made),
            _ => Err(RunError::Unplanned { what: format!("the model {}", entrant.name) }),
        }
    }
}

/// The place of a rung's schedule among those of its search.
fn schedule_of(stage: &plan::Search, rung: &hir::Rung) -> Option<usize> {
    let after = rung.after.as_ref()?;
    stage.schedules.iter().position(|(name, _)| name == after)
}
