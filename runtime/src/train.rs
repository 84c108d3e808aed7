//! Training: a student's weights changed update by update, beside a teacher or alone.
//!
//! One update takes `batch` windows. Each is one run of the training graph, which adds the gradient of the mean
//! over the whole batch; a fixed number of lanes, decided by shapes, sum the gradients of their windows first.
//! So neither threads, nor memory, nor where a training was interrupted changes a bit. A save holds weights and
//! averages and the number of updates; all else follows from that number.

mod error;
pub mod feed;
pub mod optimizer;
pub mod rate;
mod save;
pub mod targets;

pub use error::TrainError;
pub use feed::Feed;

use crate::device::{Bindings, Device, Memory, Outputs, Training, TrainingState, Weights};
use crate::evaluate;
use crate::events::Watch;
use crate::record::{self, Record};
use crate::run::RunError;
use crate::samples::{Pass, Saves};
use crate::store::StoreError;
use minic_compiler::autodiff::Recompute;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Beside, Comparison, Objective, Reading, TEACHER};
use minic_compiler::hir::{self, LossTerm};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule::{self, Schedule};
use optimizer::Update;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use targets::{Shelf, Targets};

/// Raised when the same training gives other weights.
pub const VERSION: u32 = 1;

/// What is trained, on what, and how.
pub struct Job<'a> {
    pub device: &'a dyn Device,
    pub student: &'a ModelDesc,
    pub teacher: Option<Teacher<'a>>,
    /// The teacher's layers from which the student's were cut.
    pub origins: Vec<usize>,
    pub phases: Vec<Phase<'a>>,
    pub heldout: Option<Heldout<'a>>,
    /// Where the teacher's targets are kept, for losses that read them.
    pub shelf: Shelf<'a>,
    /// Updates after which it stops, and is saved.
    pub until: Option<u64>,
    /// A save after more updates than these is left alone.
    pub most: Option<u64>,
    /// The teacher runs over each window once, for several students: what their losses read of it is written down.
    /// That changes no bit.
    pub shows: bool,
}

/// Reads the weights whose names are wanted.
pub type Reader<'a> = dyn Fn(&dyn Fn(&str) -> bool) -> Result<Weights, RunError> + 'a;

/// A teacher whose weights are read where they are needed: to run beside the student, to be compared with on
/// data that is held out, and to make targets.
pub struct Teacher<'a> {
    pub desc: &'a ModelDesc,
    /// Those whose names are wanted.
    pub weights: &'a Reader<'a>,
}

/// A phase, and the windows that it takes: the feed's from `first` on.
pub struct Phase<'a> {
    pub phase: &'a hir::Phase,
    pub feed: usize,
    pub first: u64,
    /// Tokens of a window.
    pub sequence: usize,
    pub updates: u64,
}

/// Evaluations on data that is not trained on.
pub struct Heldout<'a> {
    pub windows: Vec<&'a [u32]>,
    pub answers: Option<&'a [Range<usize>]>,
    /// Tokens of training from one to the next.
    pub every: u64,
}

/// How a training went, beside its weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    pub updates: u64,
    /// Tokens of all updates.
    pub tokens: u64,
    /// The weighted loss of the last update, before it.
    pub loss: f64,
    pub heldout: Vec<record::Heldout>,
    #[serde(default)]
    pub curve: record::Curve,
}

impl Job<'_> {
    fn updates(&self) -> u64 {
        self.phases.iter().map(|phase| phase.updates).sum()
    }

    /// Updates that are made.
    fn end(&self) -> u64 {
        self.until.map_or(self.updates(), |until| until.min(self.updates()))
    }

    /// Of every phase, those of its updates that are yet to be made after `done`.
    fn ahead(&self, done: u64) -> Vec<(&Phase<'_>, Range<u64>)> {
        let mut before = 0;
        let mut all = Vec::new();
        for phase in &self.phases {
            let within = |n: u64| n.saturating_sub(before).min(phase.updates);
            all.push((phase, within(done)..within(self.end()).max(within(done))));
            before += phase.updates;
        }
        all
    }

    /// Takes what was written down of the teacher for the updates after `done` out of the store.
    pub fn forget(&self, feeds: &mut [Feed], done: u64, watch: &Watch) -> Result<(), RunError> {
        targets::forget(self, feeds, done, watch)
    }

    fn vocab(&self) -> usize {
        self.student.size(Dim::VocabSize)
    }

    /// The models that held-out data is evaluated with.
    fn compared(&self) -> (Vec<(&'static str, &ModelDesc)>, Comparison<'static>) {
        let teacher = self.teacher.as_ref().map(|teacher| (TEACHER, teacher.desc));
        let against = teacher.map(|(name, _)| name);
        let models = std::iter::once((STUDENT, self.student)).chain(teacher).collect();
        (models, Comparison { model: STUDENT, against })
    }

    /// Bytes that an evaluation on held-out data holds beside a training, which has the teacher's weights already.
    fn evaluation_bytes(&self) -> Result<u64, RunError> {
        let Some(window) = self.heldout.as_ref().and_then(|heldout| heldout.windows.first()) else {
            return Ok(0);
        };
        let (models, comparison) = self.compared();
        let graph = forward::evaluation(&models, &[comparison], window.len())?;
        let memory = self.device.memory(&schedule::schedule(&graph)?, self.device.lanes());
        Ok(4 * self.student.params() + memory.lanes + memory.scratch)
    }

    /// The teacher's weights that are read beside the student: none where its targets are enough, its head where
    /// the rest is written down.
    fn beside(&self) -> Result<Weights, RunError> {
        let Some(teacher) = &self.teacher else { return Ok(Weights::default()) };
        let mut read = BTreeSet::new();
        for phase in &self.phases {
            let setup = Setup::with(self, phase, Recompute::Cheap)?;
            let names = setup.schedule.weights.keys().filter_map(|name| name.strip_prefix(TEACHER));
            read.extend(names.map(|name| name.trim_start_matches('/').to_string()));
        }
        match self.heldout.is_some() {
            true => (teacher.weights)(&|_| true),
            false if read.is_empty() => Ok(Weights::default()),
            false => (teacher.weights)(&|name| read.contains(name)),
        }
    }

    /// Trains `begin`, or goes on from the last save, to the end or as far as is asked for. `feeds` are those that
    /// the phases name.
    pub fn train(
        &self,
        feeds: &mut [Feed],
        begin: impl FnOnce() -> Result<Weights, RunError>,
        watch: &Watch,
        saves: Option<Saves>,
        record: impl FnOnce(u64) -> Result<Option<Record>, RunError>,
    ) -> Result<(Weights, Trained), RunError> {
        let saved = saves.map_or(Ok(None), |saves| save::load(&saves))?;
        let saved = saved.filter(|(_, trained)| self.most.is_none_or(|most| trained.updates <= most));
        let done = saved.as_ref().map_or(0, |(_, trained)| trained.updates);
        let targets = targets::of_phases(self, feeds, done, watch)?;
        let (state, trained) = match saved {
            Some((state, trained)) => {
                if done < self.end() {
                    watch.note(&format!("goes on after {done} of {} updates", self.updates()));
                }
                (state, trained)
            }
            None => (TrainingState { weights: begin()?, ..TrainingState::default() }, Trained::default()),
        };
        let decay = self.student.weights().into_iter().filter(optimizer::decays).map(|w| w.name).collect();
        let record = record(trained.updates)?;
        let (beside, saver) = (self.beside()?, Saver::new());
        let mut run = Run { job: self, watch, saves, record, decay, beside, trained, saver };
        let state = run.phases(feeds, &targets, state)?;
        if let Some(record) = run.record.take() {
            record.finish()?;
        }
        Ok((state.weights, run.trained))
    }
}

/// What the student is called where it is compared with its teacher.
const STUDENT: &str = "student";

/// What is not finite where a training ends for it.
const HELDOUT: &str = "the held-out loss";

/// A training that goes on.
struct Run<'a> {
    job: &'a Job<'a>,
    watch: &'a Watch<'a>,
    saves: Option<Saves<'a>>,
    record: Option<Record>,
    /// Weights that decay.
    decay: BTreeSet<String>,
    /// The teacher, or nothing where its targets are enough.
    beside: Weights,
    trained: Trained,
    saver: Saver,
}

/// When to save: after the time that was asked for, but never so often that saving takes more than a
/// twentieth of the time.
struct Saver {
    last: Instant,
    took: Duration,
}

impl Saver {
    fn new() -> Saver {
        Saver { last: Instant::now(), took: Duration::ZERO }
    }

    fn is_due(&self, every: Duration) -> bool {
        self.last.elapsed() >= every.max(20 * self.took)
    }
}

impl Run<'_> {
    /// Every phase that is not done.
    fn phases(
        &mut self,
        feeds: &mut [Feed],
        targets: &[Vec<Targets>],
        mut state: TrainingState,
    ) -> Result<TrainingState, RunError> {
        let (mut before, begun) = (0, self.trained.updates);
        for (phase, targets) in self.job.phases.iter().zip(targets) {
            let end = (before + phase.updates).min(self.job.end());
            if self.trained.updates < end {
                let setup = Setup::new(self.job, phase)?;
                self.watch.planned(setup.memory(self.job));
                let mut training = setup.start(self.job, &self.beside, state)?;
                while self.trained.updates < end {
                    self.evaluate(training.as_ref())?;
                    let index = self.trained.updates - before;
                    let windows = windows(phase, index, &mut feeds[phase.feed], targets)?;
                    self.update(&setup, training.as_mut(), phase, index, &windows)?;
                    self.pause(training.as_ref())?;
                }
                state = training.into_state()?;
            }
            before += phase.updates;
        }
        if self.job.end() == self.job.updates() {
            self.evaluate_state(&state)?;
        }
        if self.job.until.is_some() && self.trained.updates > begun {
            self.save(&state)?;
        }
        Ok(state)
    }

    /// One update, the `index`-th of its phase.
    fn update(
        &mut self,
        setup: &Setup,
        training: &mut dyn Training,
        phase: &Phase,
        index: u64,
        windows: &[Window],
    ) -> Result<(), RunError> {
        let began = Instant::now();
        let hir::Phase { optimizer, rate, batch, name, .. } = phase.phase;
        let samples: Vec<Bindings> = windows.iter().map(Window::bindings).collect();
        let outputs = training.gradients(&samples)?;
        let losses = setup.losses(&outputs);
        let loss =
            losses.iter().zip(setup.objective.weights()).map(|(loss, weight)| weight * loss).sum::<f64>();
        let norm = training.norm()?;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(self.diverged(training, &samples));
        }
        let clipped = optimizer.clip.filter(|clip| norm > *clip).map_or(1.0, |clip| clip / norm);
        let update = Update {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            rate: rate::rate(rate, index, phase.updates),
            step: self.trained.updates + 1,
            scale: clipped,
        };
        let decay = |name: &str| if self.decay.contains(name) { optimizer.weight_decay } else { 0.0 };
        training.update(&update, &decay)?;
        let tokens = (*batch * phase.sequence) as u64;
        self.trained.updates += 1;
        self.trained.tokens += tokens;
        self.trained.loss = loss;
        let row = record::Update {
            phase: name.clone(),
            update: self.trained.updates,
            tokens: self.trained.tokens,
            loss,
            losses: setup.names.iter().cloned().zip(losses).collect(),
            rate: update.rate,
            grad_norm: norm,
            tokens_per_second: tokens as f64 / began.elapsed().as_secs_f64().max(1e-9),
        };
        self.trained.curve.push(&row);
        if let Some(record) = &mut self.record {
            record.update(row)?;
        }
        self.watch.progress(self.trained.updates as usize, self.job.end() as usize);
        Ok(())
    }

    /// What went wrong first is named.
    fn diverged(&mut self, training: &mut dyn Training, samples: &[Bindings]) -> RunError {
        match training.first_non_finite(samples) {
            Ok(found) => {
                let what = found.unwrap_or_else(|| "the norm of all gradients together".into());
                match training.state() {
                    Ok(state) => self.ended(&state, what),
                    Err(error) => error.into(),
                }
            }
            Err(error) => error.into(),
        }
    }

    /// There is no next update; the model as it was before it is kept.
    fn ended(&mut self, state: &TrainingState, what: String) -> RunError {
        if let Err(error) = self.save(state) {
            return error;
        }
        let update = self.trained.updates + 1;
        TrainError::Diverged { stage: self.watch.stage.into(), update, what }.into()
    }

    /// Saves when it is time, and stops when that was asked for.
    fn pause(&mut self, training: &dyn Training) -> Result<(), RunError> {
        let (stop, done) = (self.watch.stop.is_set(), self.trained.updates == self.job.end());
        let due = self.saves.is_some_and(|saves| self.saver.is_due(saves.every));
        if !done && (stop || due) {
            self.save(training.state()?.as_ref())?;
        }
        if stop && !done { Err(RunError::Stopped) } else { Ok(()) }
    }

    fn save(&mut self, state: &TrainingState) -> Result<(), RunError> {
        let Some(saves) = self.saves else { return Ok(()) };
        let began = Instant::now();
        if let Some(record) = &mut self.record {
            record.sync()?;
        }
        save::store(&saves, state, &self.trained)?;
        self.watch.saved(self.trained.updates as usize);
        self.saver = Saver { last: Instant::now(), took: began.elapsed() };
        Ok(())
    }

    /// Evaluates before the first update, and whenever so many tokens more were seen.
    fn evaluate(&mut self, training: &dyn Training) -> Result<(), RunError> {
        let Some(heldout) = &self.job.heldout else { return Ok(()) };
        let due = match self.trained.heldout.last() {
            Some(last) => last.tokens / heldout.every < self.trained.tokens / heldout.every,
            None => true,
        };
        if !due || self.evaluate_with(heldout, training.weights()?.as_ref())? {
            return Ok(());
        }
        Err(self.ended(training.state()?.as_ref(), HELDOUT.into()))
    }

    /// Evaluates after the last update.
    fn evaluate_state(&mut self, state: &TrainingState) -> Result<(), RunError> {
        let Some(heldout) = &self.job.heldout else { return Ok(()) };
        let done = self.trained.heldout.last().is_some_and(|last| last.update == self.trained.updates);
        if done || self.evaluate_with(heldout, &state.weights)? {
            return Ok(());
        }
        Err(self.ended(state, HELDOUT.into()))
    }

    /// False where the loss is not finite.
    fn evaluate_with(&mut self, heldout: &Heldout, weights: &Weights) -> Result<bool, RunError> {
        let (models, comparison) = self.job.compared();
        let weights = weights.scoped(STUDENT).with(&self.beside.scoped(TEACHER));
        // Whoever stops meanwhile is heard after the next update.
        let quiet = Watch::new(self.watch.stage, &());
        let Heldout { windows, answers, .. } = heldout;
        let device = self.job.device;
        let pass = Pass { answers: *answers, ..Pass::over(windows, &quiet) };
        let figures = evaluate::measure(device, &models, &[comparison], &pass, |_| Ok(weights));
        let figures = match figures {
            Err(RunError::NotFinite { .. }) => return Ok(false),
            figures => figures?,
        };
        for figures in figures {
            let row = record::Heldout {
                update: self.trained.updates,
                tokens: self.trained.tokens,
                heldout_loss: figures.loss,
                heldout_top1: Some(figures.top1),
                heldout_kl: figures.kl,
            };
            if let Some(record) = &mut self.record {
                record.heldout(row.clone())?;
            }
            self.trained.heldout.push(row);
        }
        Ok(true)
    }
}

/// A window of an update, and the inputs that belong to it.
struct Window<'a> {
    tokens: Vec<u32>,
    inputs: Vec<(&'a str, Vec<f32>)>,
}

impl Window<'_> {
    fn bindings(&self) -> Bindings<'_> {
        let inputs = self.inputs.iter().map(|(name, data)| (*name, data.as_slice())).collect();
        Bindings { tokens: &self.tokens, inputs }
    }
}

/// Those of the `index`-th update of a phase.
fn windows<'a>(
    phase: &Phase,
    index: u64,
    feed: &mut Feed,
    targets: &'a [Targets],
) -> Result<Vec<Window<'a>>, RunError> {
    let batch = phase.phase.batch as u64;
    let first = phase.first + index * batch;
    let window = |n| {
        let sample = feed.index(n);
        let inputs = targets.iter().map(|targets| Ok((targets.input.as_str(), targets.of(sample)?)));
        let inputs = inputs.collect::<Result<_, RunError>>()?;
        Ok(Window { tokens: feed.window(n).to_vec(), inputs })
    };
    (first..first + batch).map(window).collect()
}

/// What the updates of one phase have in common.
struct Setup {
    objective: Objective,
    /// Of the terms.
    names: Vec<String>,
    readings: Vec<Reading>,
    schedule: Arc<Schedule>,
    lanes: usize,
}

impl Setup {
    /// Keeps of the forward pass what memory allows; that changes no bit.
    fn new(job: &Job, phase: &Phase) -> Result<Setup, RunError> {
        let (setup, blocks) = (Setup::with(job, phase, Recompute::Cheap)?, Recompute::Blocks);
        let fits = setup.memory(job).total() + job.evaluation_bytes()? <= job.device.available();
        if fits { Ok(setup) } else { Setup::with(job, phase, blocks) }
    }

    fn with(job: &Job, phase: &Phase, recompute: Recompute) -> Result<Setup, RunError> {
        let hir::Phase { loss, batch, .. } = phase.phase;
        let objective = Objective::new(loss, &job.origins);
        let beside = if job.shows { Beside::Written } else { Beside::Running };
        let teacher = job.teacher.as_ref().map(|teacher| beside(teacher.desc));
        let forward::Training { graph, readings } =
            forward::training_beside(job.student, teacher, &objective, phase.sequence, *batch, recompute)?;
        let schedule = Arc::new(schedule::schedule(&graph)?);
        let lanes = forward::lanes(job.student.params(), *batch);
        Ok(Setup { objective, names: names(loss), readings, schedule, lanes })
    }

    fn memory(&self, job: &Job) -> Memory {
        let planned = job.device.memory(&self.schedule, self.lanes);
        Memory { weights: planned.weights + self.schedule.average_bytes(), ..planned }
    }

    fn start(
        &self,
        job: &Job,
        teacher: &Weights,
        state: TrainingState,
    ) -> Result<Box<dyn Training>, RunError> {
        Ok(job.device.train(self.schedule.clone(), teacher.scoped(TEACHER), state, self.lanes)?)
    }

    /// The terms of the loss, each a mean over the update.
    fn losses(&self, outputs: &[Outputs]) -> Vec<f64> {
        let mut losses = vec![0.0; self.names.len()];
        for outputs in outputs {
            for Reading { term, output, column, scale } in &self.readings {
                let Some(values) = outputs.get(output).map(|output| output.f32()) else { continue };
                let width = (values.len() / self.schedule.sequence.max(1)).max(1);
                let sum: f64 = values.iter().skip(*column).step_by(width).map(|x| f64::from(*x)).sum();
                losses[*term] += sum * scale;
            }
        }
        losses.iter().map(|loss| loss / outputs.len().max(1) as f64).collect()
    }
}

/// The terms' names, told apart where two have the same.
fn names(terms: &[LossTerm]) -> Vec<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let name = |term: &LossTerm| {
        let count = count.entry(term.loss).or_default();
        *count += 1;
        if *count == 1 { term.loss.to_string() } else { format!("{} {count}", term.loss) }
    };
    terms.iter().map(name).collect()
}

#[cfg(test)]
mod tests;
