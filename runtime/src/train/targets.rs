//! What is written down of a teacher, once for every window that trainings see, and kept in the store: its targets,
//! and for several students that train on the same windows what their losses read of it.
//!
//! Windows lie in the order of the first epoch, so that a training of less than an epoch needs the beginning of
//! them and no more; so many windows are a block, which is one object. A training goes on making them where it was
//! stopped, and all trainings on the same windows beside the same teacher share them. While it trains, it reads
//! them window by window out of the blocks' files, which memory keeps as far as there is room.

use super::{Feed, Job, Phase, RunError, Teacher};
use crate::convert;
use crate::device::Weights;
use crate::events::Watch;
use crate::samples::Runner;
use crate::store::{Key, Payload, Store};
use minic_compiler::forward::{self, Objective, Written, output};
use minic_compiler::schedule;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Raised when blocks are laid out anew.
pub const VERSION: u32 = 1;

/// Bytes of a block: what a training that is stopped has to make again at most.
pub const BLOCK: usize = 4 << 20;

/// Where targets are kept.
#[derive(Clone, Copy)]
pub struct Shelf<'a> {
    pub store: &'a Store,
    /// Of the targets of a phase, of all that decides them but the block.
    pub key: &'a dyn Fn(&Phase, &Written) -> Result<Key, RunError>,
    /// The most bytes of a block of more than one window.
    pub block: usize,
}

/// What is written down for one phase.
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

/// Those of every phase that is not done after `done` updates, up to where the job ends. The teacher is asked for
/// its weights only where some are not in the store.
pub(super) fn of_phases(
    job: &Job,
    feeds: &mut [Feed],
    done: u64,
    watch: &Watch,
) -> Result<Vec<Vec<Targets>>, RunError> {
    let mut teacher = None;
    let mut all = Vec::new();
    for (phase, updates) in job.ahead(done) {
        let feed = &mut feeds[phase.feed];
        let made = makers(job, phase, &updates, watch)
            .into_iter()
            .map(|maker| maker.targets(feed, updates.clone(), &mut teacher));
        all.push(made.collect::<Result<_, _>>()?);
    }
    Ok(all)
}

/// Takes out of the store what was written down for the updates after `done`.
pub(super) fn forget(job: &Job, feeds: &mut [Feed], done: u64, watch: &Watch) -> Result<(), RunError> {
    for (phase, updates) in job.ahead(done) {
        for maker in makers(job, phase, &updates, watch) {
            let layout = maker.layout(&feeds[phase.feed])?;
            for block in maker.needed(&mut feeds[phase.feed], updates.clone(), &layout) {
                job.shelf.store.forget(&maker.key(&layout, block)?);
            }
        }
    }
    Ok(())
}

fn makers<'a>(job: &'a Job, phase: &'a Phase, updates: &Range<u64>, watch: &'a Watch) -> Vec<Maker<'a>> {
    let objective = Objective::new(&phase.phase.loss, &job.origins);
    let wanted = if updates.is_empty() { Vec::new() } else { objective.written(job.vocab(), job.shows) };
    wanted.into_iter().map(|wanted| Maker { job, phase, wanted, watch }).collect()
}

/// How windows lie in blocks.
struct Layout {
    /// Of every sample, its place in the first epoch.
    places: Vec<usize>,
    /// The samples in the order of the first epoch.
    order: Vec<usize>,
    /// Windows of a block, and bytes of a window.
    windows: usize,
    bytes: usize,
}

impl Layout {
    fn samples(&self, block: usize) -> &[usize] {
        &self.order[block * self.windows..((block + 1) * self.windows).min(self.order.len())]
    }
}

struct Maker<'a> {
    job: &'a Job<'a>,
    phase: &'a Phase<'a>,
    wanted: Written,
    watch: &'a Watch<'a>,
}

impl Maker<'_> {
    fn layout(&self, feed: &Feed) -> Result<Layout, RunError> {
        let columns = self.wanted.columns(self.teacher()?.desc).size();
        let bytes = self.phase.sequence * columns * size_of::<f32>();
        let order = feed.order(0);
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, sample)| places[*sample] = place);
        Ok(Layout { places, order, windows: (self.job.shelf.block / bytes).max(1), bytes })
    }

    fn key(&self, layout: &Layout, block: usize) -> Result<Key, RunError> {
        let key = (self.job.shelf.key)(self.phase, &self.wanted)?.field("windows", layout.windows);
        let subject = format!("{}, block {}", key.subject, block + 1);
        Ok(key.called(subject).field("block", block))
    }

    /// The targets of the windows of some updates of the phase.
    fn targets(
        &self,
        feed: &mut Feed,
        updates: Range<u64>,
        teacher: &mut Option<Weights>,
    ) -> Result<Targets, RunError> {
        let layout = self.layout(feed)?;
        let (mut blocks, mut missing) = (BTreeMap::new(), Vec::new());
        for block in self.needed(feed, updates, &layout) {
            let key = self.key(&layout, block)?;
            match self.job.shelf.store.payload(&key)? {
                Some(payload) => _ = blocks.insert(block, payload),
                None => missing.push((block, key)),
            }
        }
        if !missing.is_empty() {
            let wanted: Vec<_> = missing.iter().map(|(block, key)| (key, layout.samples(*block))).collect();
            self.make(feed, &wanted, teacher)?;
        }
        for (block, key) in missing {
            blocks.extend(self.job.shelf.store.payload(&key)?.map(|payload| (block, payload)));
        }
        let Layout { places, windows, bytes, .. } = layout;
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
                if let Some(targets) = outputs.get(output::WRITTEN) {
                    bytes.extend_from_slice(&convert::f32_bytes(targets.f32()));
                }
            })?;
            self.job.shelf.store.put_bytes(key, &bytes)?;
            done += samples.len();
            if !self.job.shows {
                self.watch.progress(done, total);
            }
            if self.watch.stop.is_set() {
                return Err(RunError::Stopped);
            }
        }
        Ok(())
    }

    /// The blocks of the windows that some updates see.
    fn needed(&self, feed: &mut Feed, updates: Range<u64>, layout: &Layout) -> BTreeSet<usize> {
        let batch = self.phase.phase.batch as u64;
        let (first, end) = (self.phase.first + updates.start * batch, self.phase.first + updates.end * batch);
        // So many in a row hold one whole epoch, wherever they begin, and that has all.
        let end = end.min(first + 2 * layout.places.len() as u64);
        (first..end).map(|n| layout.places[feed.index(n)] / layout.windows).collect()
    }

    fn teacher(&self) -> Result<&Teacher<'_>, RunError> {
        self.job.teacher.as_ref().ok_or_else(|| RunError::Unplanned { what: "a teacher".into() })
    }

    fn runner(&self, windows: usize, teacher: &mut Option<Weights>) -> Result<Runner, RunError> {
        let beside = self.teacher()?;
        let graph = forward::written(beside.desc, self.phase.sequence, &self.wanted)?;
        let schedule = schedule::schedule(&graph)?;
        let weights = match teacher {
            Some(weights) => weights.clone(),
            None => teacher.insert((beside.weights)(&|_| true)?).clone(),
        };
        let runner = Runner::new(self.job.device, schedule, weights, windows)?;
        self.watch.planned(runner.memory);
        Ok(runner)
    }
}
