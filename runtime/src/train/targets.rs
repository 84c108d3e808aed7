//! A teacher's targets, made once for every window that a training sees, and kept in the store.
//!
//! Windows lie in the order of the first epoch, so that a training of less than an epoch needs the beginning of
//! them and no more; so many windows are a block, which is one object. A training goes on making them where it was
//! stopped, and all trainings on the same windows beside the same teacher share them. While it trains, it reads
//! them window by window out of the blocks' files, which memory keeps as far as there is room.

use super::{Feed, Job, Phase, RunError};
use crate::convert;
use crate::device::Weights;
use crate::events::Watch;
use crate::samples::Runner;
use crate::store::{Key, Payload, Store};
use minic_compiler::forward::{self, Objective, output};
use minic_compiler::graph::TopK;
use minic_compiler::schedule;
use std::collections::{BTreeMap, BTreeSet};

/// Raised when blocks are laid out anew.
pub const VERSION: u32 = 1;

/// Bytes of a block: what a training that is stopped has to make again at most.
pub const BLOCK: usize = 4 << 20;

/// Where targets are kept.
#[derive(Clone, Copy)]
pub struct Shelf<'a> {
    pub store: &'a Store,
    /// Of the targets of a phase, of all that decides them but the block.
    pub key: &'a dyn Fn(&Phase, TopK) -> Result<Key, RunError>,
    /// The most bytes of a block of more than one window.
    pub block: usize,
}

/// The targets of one phase for one loss.
pub struct Targets {
    /// The input of the graph that reads them.
    pub input: String,
    /// Of every sample, its place in the first epoch.
    places: Vec<usize>,
    /// Windows of a block, and bytes of a window.
    windows: usize,
    bytes: usize,
    blocks: BTreeMap<usize, Payload>,
}

impl Targets {
    /// Those of a sample, row by row.
    pub fn of(&self, sample: usize) -> Result<Vec<f32>, RunError> {
        let place = self.places[sample];
        let Some(block) = self.blocks.get(&(place / self.windows)) else {
            return Err(RunError::Unplanned { what: format!("targets of window {place}") });
        };
        let mut bytes = vec![0; self.bytes];
        block.read((place % self.windows * self.bytes) as u64, &mut bytes).map_err(RunError::from)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    }
}

/// Those of every phase that is not done after `done` updates. `teacher` is asked for its weights only where some
/// are not in the store.
pub(super) fn of_phases(
    job: &Job,
    feeds: &mut [Feed],
    done: u64,
    watch: &Watch,
) -> Result<Vec<Vec<Targets>>, RunError> {
    let mut teacher = None;
    let mut before = 0;
    let mut all = Vec::new();
    for phase in &job.phases {
        let begin = done.saturating_sub(before).min(phase.updates);
        before += phase.updates;
        let objective = Objective::new(&phase.phase.loss, &job.origins);
        let wanted = if begin < phase.updates { objective.targets(job.vocab()) } else { Vec::new() };
        let feed = &mut feeds[phase.feed];
        let made = wanted
            .into_iter()
            .map(|wanted| Maker { job, phase, wanted, watch }.targets(feed, begin, &mut teacher));
        all.push(made.collect::<Result<_, _>>()?);
    }
    Ok(all)
}

struct Maker<'a> {
    job: &'a Job<'a>,
    phase: &'a Phase<'a>,
    wanted: TopK,
    watch: &'a Watch<'a>,
}

impl Maker<'_> {
    /// The targets of the windows from the `begin`-th update of the phase on.
    fn targets(
        &self,
        feed: &mut Feed,
        begin: u64,
        teacher: &mut Option<Weights>,
    ) -> Result<Targets, RunError> {
        let bytes = self.phase.sequence * self.wanted.columns().size() * size_of::<f32>();
        let windows = (self.job.shelf.block / bytes).max(1);
        let order = feed.order(0);
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, sample)| places[*sample] = place);

        let (mut blocks, mut missing) = (BTreeMap::new(), Vec::new());
        let key = (self.job.shelf.key)(self.phase, self.wanted)?.field("windows", windows);
        for block in self.needed(feed, begin, windows, &places) {
            let subject = format!("{}, block {}", key.subject, block + 1);
            let key = key.clone().called(subject).field("block", block);
            match self.job.shelf.store.payload(&key)? {
                Some(payload) => _ = blocks.insert(block, payload),
                None => missing.push((block, key)),
            }
        }
        let of_block = |block: usize| &order[block * windows..((block + 1) * windows).min(order.len())];
        if !missing.is_empty() {
            let blocks: Vec<_> = missing.iter().map(|(block, key)| (key, of_block(*block))).collect();
            self.make(feed, &blocks, teacher)?;
        }
        for (block, key) in missing {
            blocks.extend(self.job.shelf.store.payload(&key)?.map(|payload| (block, payload)));
        }
        Ok(Targets { input: self.wanted.input(), places, windows, bytes, blocks })
    }

    /// Makes blocks and stores them.
    fn make(
        &self,
        feed: &Feed,
        blocks: &[(&Key, &[usize])],
        teacher: &mut Option<Weights>,
    ) -> Result<(), RunError> {
        let total = blocks.iter().map(|(_, samples)| samples.len()).sum();
        let mut runner = self.runner(total, teacher)?;
        self.watch.note(&format!("the teacher's {} of {total} windows are written down", self.wanted));
        // Told of by blocks, and heard between windows.
        let quiet = Watch { stop: self.watch.stop.clone(), ..Watch::new(self.watch.stage, &()) };
        let mut done = 0;
        for (key, samples) in blocks {
            let windows: Vec<&[u32]> = samples.iter().map(|s| feed.samples().window(*s)).collect();
            let mut bytes = Vec::new();
            runner.all(&windows, &quiet, |outputs| {
                if let Some(targets) = outputs.get(output::TARGETS) {
                    bytes.extend_from_slice(&convert::f32_bytes(targets.f32()));
                }
            })?;
            self.job.shelf.store.put_bytes(key, &bytes)?;
            done += samples.len();
            self.watch.progress(done, total);
            if self.watch.stop.is_set() {
                return Err(RunError::Stopped);
            }
        }
        Ok(())
    }

    /// The blocks of the windows that are yet to be seen.
    fn needed(&self, feed: &mut Feed, begin: u64, windows: usize, places: &[usize]) -> BTreeSet<usize> {
        let batch = self.phase.phase.batch as u64;
        let (first, end) = (self.phase.first + begin * batch, self.phase.first + self.phase.updates * batch);
        // So many in a row hold one whole epoch, wherever they begin, and that has all.
        let end = end.min(first + 2 * places.len() as u64);
        (first..end).map(|n| places[feed.index(n)] / windows).collect()
    }

    fn runner(&self, windows: usize, teacher: &mut Option<Weights>) -> Result<Runner, RunError> {
        let Some(beside) = &self.job.teacher else {
            return Err(RunError::Unplanned { what: "a teacher".into() });
        };
        let graph = forward::targets(beside.desc, self.phase.sequence, self.wanted)?;
        let schedule = schedule::schedule(&graph)?;
        let weights = match teacher {
            Some(weights) => weights.clone(),
            None => teacher.insert((beside.weights)()?).clone(),
        };
        let runner = Runner::new(self.job.device, schedule, weights, windows)?;
        self.watch.planned(runner.memory);
        Ok(runner)
    }
}
