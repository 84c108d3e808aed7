//! Runs that share one store and one recipe: each computes its part of every pass over samples.
//!
//! A part is an object like any other, under the key of its result and the shard that made it; the parts of
//! all shards are joined to the object that a run of one process makes ([`crate::tree`]). What is missing is
//! said and waited for by nobody: the same command goes on when it is there.

use super::{Artifact, Executor, RunError};
use crate::events::Event;
use crate::samples::Saves;
use crate::store::{Key, Store, StoreError};
use minic_compiler::hir::RepairKind;
use minic_compiler::plan::{Needs, Stage};
use petgraph::graph::NodeIndex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of several runs that share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: usize,
    pub of: usize,
}

impl Shard {
    /// Far more than there are machines; a join looks for as many parts.
    const MOST: usize = 65_536;

    /// Its samples: neighbours, and as many as any other shard's, give or take one.
    pub fn share(self, samples: usize) -> Range<usize> {
        let end = |shards: usize| (shards as u128 * samples as u128 / self.of as u128) as usize;
        end(self.index - 1)..end(self.index)
    }

    /// Of jobs that do not depend on each other, those that it does alone.
    pub fn takes(self, job: usize) -> bool {
        job % self.of == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers = text.split_once('/').map(|(index, of)| (index.parse(), of.parse()));
        match numbers {
            Some((Ok(index), Ok(of))) if (1..=of).contains(&index) && of <= Shard::MOST => {
                Ok(Shard { index, of })
            }
            _ => Err(format!("expected I/N, the I-th of N shards as in 3/8; N is {} at most", Shard::MOST)),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What a stage of a shared run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "waits_for", rename_all = "snake_case")]
pub enum Waits {
    /// What these shards have not computed.
    Parts { of: usize, missing: Vec<usize> },
    /// The first shard, which does it alone.
    First,
    /// What it is made from.
    Stages { stages: Vec<String> },
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Waits::Parts { of, missing } => {
                let there = of.saturating_sub(missing.len());
                let are = |n: usize| if n == 1 { "is" } else { "are" };
                let list = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let (is, was) = (are(there), are(missing.len()));
                write!(f, "{there} of {of} parts {is} there, {list} {was} missing")
            }
            Waits::First => f.write_str("left to shard 1"),
            Waits::Stages { stages } => write!(f, "waits for {}", stages.join(", ")),
        }
    }
}

/// A stage that a shared run could not do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    pub stage: String,
    #[serde(flatten)]
    pub waits: Waits,
}

/// Who does a stage that the store does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Every shard: what follows needs it, and beside passes over samples it costs little.
    Each,
    /// Every shard its part.
    Shared,
    /// The first shard.
    First,
}

impl Work {
    fn of(stage: &Stage) -> Work {
        match stage {
            Stage::Calibrate(_) | Stage::Evaluate(_) | Stage::Search(_) | Stage::Sensitivity(_) => {
                Work::Shared
            }
            Stage::Score(score) => match score.needs() {
                Needs::Iterative(_) | Needs::Contiguous(_) => Work::Shared,
                Needs::Residual => Work::First,
                Needs::Request(_) | Needs::Layer(_) | Needs::Covariance | Needs::Nothing => Work::Each,
            },
            Stage::Repair(repairs) if repairs.iter().any(RepairKind::reads_data) => Work::First,
            Stage::Train(_) | Stage::Distill(_) | Stage::Export(_) => Work::First,
            Stage::Load(_) | Stage::Rotate | Stage::Cut(_) | Stage::Repair(_) | Stage::Report => Work::Each,
        }
    }
}

/// What is computed of passes over samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Whole,
    /// One part; then the parts of all are joined, if they are there.
    Part(Shard),
    /// Nothing: the parts of so many shards are joined, if they are there.
    Joined(usize),
}

impl Executor<'_> {
    /// What is not there that a stage is made from. An export records what was done before it, and so waits
    /// for all of that.
    pub(super) fn blocked(&self, id: NodeIndex) -> Option<Waits> {
        let missing = self.plan.inputs(id).into_iter().filter(|(from, _)| !self.done.contains_key(from));
        let inputs: BTreeSet<&str> = missing.map(|(from, _)| self.plan.node(from).name.as_str()).collect();
        let before = self.summary.waits.iter().map(|waiting| waiting.stage.as_str());
        let stages: BTreeSet<&str> = match self.plan.node(id).stage {
            Stage::Export(_) => before.chain(inputs).collect(),
            _ => inputs,
        };
        let stages: Vec<String> = stages.into_iter().map(ToString::to_string).collect();
        (!stages.is_empty()).then_some(Waits::Stages { stages })
    }

    /// A stage as far as it is this run's: what another one does is taken from the store, or waited for.
    pub(super) fn attempt(&mut self, id: NodeIndex) -> Result<(Artifact, String), RunError> {
        let first = matches!(self.share, Share::Part(shard) if shard.index > 1)
            && Work::of(&self.plan.node(id).stage) == Work::First;
        if !first {
            return self.perform(id);
        }
        self.preview = true;
        let found = self.perform(id);
        self.preview = false;
        match found {
            Err(RunError::NotStored) => Err(RunError::Waits(Waits::First)),
            found => found,
        }
    }

    /// The shard that does a job that does not depend on others of its stage; `None`: this run does.
    pub(super) fn other(&self, job: usize) -> Option<usize> {
        match self.share {
            Share::Whole => None,
            Share::Part(shard) => (!shard.takes(job)).then_some(job % shard.of + 1),
            Share::Joined(of) => Some(job % of + 1),
        }
    }

    /// An error where jobs of other shards are not done.
    pub(super) fn all_there(&self, missing: BTreeSet<usize>) -> Result<(), RunError> {
        let of = match self.share {
            Share::Whole => 1,
            Share::Part(shard) => shard.of,
            Share::Joined(of) => of,
        };
        match missing.is_empty() {
            true => Ok(()),
            false => Err(RunError::Waits(Waits::Parts { of, missing: missing.into_iter().collect() })),
        }
    }

    /// The same run by itself, for what every shard does whole; what is the first one's to do is looked up by others.
    pub(super) fn by_itself(&self, first: bool) -> Executor<'_> {
        let other = first && matches!(self.share, Share::Part(shard) if shard.index > 1);
        let Executor { plan, device, settings, store, observer, .. } = *self;
        let mut one = Executor::new(plan, device, settings, store, observer, self.preview || other);
        one.done = self.done.clone();
        one.redo = self.redo.clone();
        one.share = Share::Whole;
        one
    }

    /// What a shared run finds nowhere and may not compute is the first shard's to do.
    pub(super) fn first_does<T>(&self, found: Result<T, RunError>) -> Result<T, RunError> {
        match found {
            Err(RunError::NotStored) if self.share != Share::Whole => Err(RunError::Waits(Waits::First)),
            found => found,
        }
    }

    /// Notes that a stage is not done, and why.
    pub(super) fn wait(&mut self, id: NodeIndex, waits: Waits) {
        let node = self.plan.node(id);
        self.observer.observe(&Event::StageWaits { stage: &node.name, message: &waits.to_string() });
        // The report is the caller's to write: it says what there is.
        if !matches!(node.stage, Stage::Report) {
            self.summary.waits.push(Waiting { stage: node.name.clone(), waits });
        }
    }

    /// Nothing may be computed for a stage: it is looked up, and a merge puts together what shards computed.
    pub(super) fn looks_up(&self, id: NodeIndex) -> bool {
        let joins = matches!(self.share, Share::Joined(_));
        self.preview && !(joins && Work::of(&self.plan.node(id).stage) == Work::Shared)
    }

    /// The sums of all `samples` for results that the store does not hold, each given to `keep`. In a shared
    /// run they are joined of parts; results with parts that are missing are an error after all others are
    /// kept.
    ///
    /// `compute` goes over a range of samples for some of the results, `join` adds what follows to a sum.
    pub(super) fn pass<S: Serialize + DeserializeOwned>(
        &self,
        results: &[Key],
        samples: usize,
        compute: impl FnOnce(&[usize], Range<usize>, Saves) -> Result<Vec<S>, RunError>,
        join: impl Fn(usize, S, S) -> Option<S>,
        mut keep: impl FnMut(usize, S) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let of = match self.share {
            Share::Joined(of) => of,
            _ if self.preview => return Err(RunError::NotStored),
            Share::Whole => {
                let all: Vec<usize> = (0..results.len()).collect();
                return self.saved(results, &all, None, |saves| {
                    let sums = compute(&all, 0..samples, saves)?;
                    sums.into_iter().enumerate().try_for_each(|(i, sum)| keep(i, sum))
                });
            }
            Share::Part(shard) => {
                self.own_parts(results, shard, |own, saves| compute(own, shard.share(samples), saves))?;
                shard.of
            }
        };
        let mut missing = BTreeSet::new();
        for (i, result) in results.iter().enumerate() {
            if let Some(sum) = self.joined(result, of, |left, right| join(i, left, right), &mut missing)? {
                keep(i, sum)?;
            }
        }
        self.all_there(missing)
    }

    /// Computes what this shard adds to results, as far as the store does not hold it.
    fn own_parts<S: Serialize>(
        &self,
        results: &[Key],
        shard: Shard,
        compute: impl FnOnce(&[usize], Saves) -> Result<Vec<S>, RunError>,
    ) -> Result<(), RunError> {
        let own = |i: &usize| !self.store.has(&part(&results[*i], shard));
        let own: Vec<usize> = (0..results.len()).filter(own).collect();
        if own.is_empty() {
            return Ok(());
        }
        self.saved(results, &own, Some(shard), |saves| {
            let sums = compute(&own, saves)?;
            let put = |(&i, sum): (&usize, &S)| self.store.put(&part(&results[i], shard), sum);
            Ok(own.iter().zip(&sums).try_for_each(put)?)
        })
    }

    /// A pass for some of the results that goes on where it was stopped, until the store holds them.
    fn saved(
        &self,
        results: &[Key],
        which: &[usize],
        shard: Option<Shard>,
        pass: impl FnOnce(Saves) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let (digests, subjects): (Vec<String>, Vec<&str>) =
            which.iter().map(|&i| (results[i].digest(), results[i].subject.as_str())).unzip();
        let mut key = Key::new("pass", subjects.join("; ")).field("results", json!(digests));
        if let Some(Shard { index, of }) = shard {
            key = key.field("shard", json!([index, of]));
        }
        pass(Saves { store: self.store, key: &key, every: self.settings.save_every })?;
        self.store.drop_partial(&key);
        Ok(())
    }

    /// The parts of all shards, joined; or the shards whose parts are missing.
    fn joined<S: DeserializeOwned>(
        &self,
        result: &Key,
        of: usize,
        join: impl Fn(S, S) -> Option<S>,
        missing: &mut BTreeSet<usize>,
    ) -> Result<Option<S>, RunError> {
        let there = |index: &usize| self.store.has(&part(result, Shard { index: *index, of }));
        let absent: Vec<usize> = (1..=of).filter(|index| !there(index)).collect();
        if !absent.is_empty() {
            missing.extend(absent);
            return Ok(None);
        }
        let mut joined: Option<S> = None;
        for index in 1..=of {
            // It may be damaged, and is none then.
            let Some(part) = self.store.get(&part(result, Shard { index, of }))? else {
                missing.insert(index);
                return Ok(None);
            };
            joined = match joined {
                Some(left) => join(left, part),
                None => Some(part),
            };
            if joined.is_none() {
                return Err(RunError::Unplanned { what: format!("another part of {}", result.subject) });
            }
        }
        Ok(joined)
    }
}

/// The kind of keys of parts.
const PART: &str = "part";
/// Raised when the form of sums changes.
const VERSION: u32 = 1;

/// The key of what a shard adds to a result.
fn part(result: &Key, shard: Shard) -> Key {
    Key::new(PART, result.place.clone())
        .called(format!("part {shard} of {}", result.subject))
        .field("of", result.digest())
        .field("shard", json!([shard.index, shard.of]))
        .field("version", VERSION)
}

/// Into how many shards runs were divided that left parts in a store.
pub fn divisions(store: &Store) -> Result<BTreeSet<usize>, StoreError> {
    let of = |key: &serde_json::Map<String, serde_json::Value>| {
        (key.get("kind")?.as_str()? == PART).then(|| key.get("shard")?.get(1)?.as_u64())?
    };
    Ok(store.list()?.iter().filter_map(|entry| of(&entry.header.key)).map(|of| of as usize).collect())
}

/// What became of a stage that shards share.
#[derive(Clone, Debug, Serialize)]
pub struct Merged {
    pub stage: String,
    /// Its parts were joined just now.
    pub joined: bool,
    /// Why the store does not hold its result.
    #[serde(flatten)]
    pub waits: Option<Waits>,
}

/// Joins the parts of `executor`'s stages, as far as they are there, without computing anything.
pub(super) fn merge(mut executor: Executor) -> Result<Vec<Merged>, RunError> {
    let mut merged = Vec::new();
    for id in executor.plan.order() {
        let (mut there, mut waits) = (false, executor.blocked(id));
        if waits.is_none() {
            there = executor.cached(id)?;
            match executor.perform(id) {
                Ok((artifact, _)) => _ = executor.done.insert(id, artifact),
                Err(RunError::Waits(parts)) => waits = Some(parts),
                // It is computed by a run.
                Err(RunError::NotStored) => {}
                Err(error) => return Err(error),
            }
        }
        let node = executor.plan.node(id);
        if Work::of(&node.stage) == Work::Shared {
            merged.push(Merged { stage: node.name.clone(), joined: !there && waits.is_none(), waits });
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests;
