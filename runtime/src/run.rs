//! The executor: the stages of a plan, one after the other, with what flows between them.

mod cut;
mod error;
mod evaluate;
mod export;
pub mod folder;
mod identity;
mod kept;
mod load;
mod passes;
pub mod ranking;
mod repair;
mod rotate;
pub mod search;
pub mod sensitivity;
mod shard;
mod summary;
mod train;

pub use error::RunError;
pub use export::refuse_occupied_folders;
pub use shard::{Merged, Shard, Waiting, Waits, divisions};
pub use summary::{
    CostRecord, EvaluationSummary, ExportSummary, LintRecord, ProofRecord, ResultError, RunRecord,
    StageSummary, Summary,
};

use crate::calibrate::Gathered;
use crate::device::Device;
use crate::events::{Event, Observer, Stop, Watch};
use crate::importance::DepthRule;
use crate::memory;
use crate::provenance::{Parent, SearchRecord, Step, TrainingRecord};
use crate::residual;
use crate::score::{By, Ranked, Scorer};
use crate::source::WeightSource;
use crate::store::{Difference, Key, Store};
use crate::walk::Walk;
use identity::{Identity, Keys};
use load::SampleSet;
use minic_compiler::axes::Scope;
use minic_compiler::forward::Gather;
use minic_compiler::model::DType;
use minic_compiler::plan::{self, Plan, Source, Stage, Value};
use petgraph::graph::NodeIndex;
use rotate::Turned;
use serde::de::DeserializeOwned;
use shard::Share;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// What the command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As the user wrote it, for messages.
    pub recipe: String,
    pub recipe_text: String,
    /// `--set` arguments, as written.
    pub overrides: Vec<String>,
    /// What the checker warned of, for the result.
    pub lints: Vec<LintRecord>,
    /// Relative inputs are relative to it.
    pub base: PathBuf,
    /// Relative export folders are relative to it.
    pub out: PathBuf,
    /// Where trainings leave their records, the run folder ([`crate::record`]); absent: nowhere.
    pub records: Option<PathBuf>,
    /// Replace export folders that hold something else.
    pub overwrite: bool,
    /// Bytes that the proof of a cut may hold; beyond, it goes block by block.
    pub proof_memory: u64,
    /// Stages that are done again whatever the store holds.
    pub redo: Vec<String>,
    /// One of several runs that share the store and the work.
    pub shard: Option<Shard>,
    /// Longest time between two saves of an unfinished pass.
    pub save_every: Duration,
    pub stop: Stop,
}

/// Of a trained model whose folder is not as it was written.
pub const DAMAGED: &str = "what the store holds of it is damaged";

/// Of passes that are not finished.
pub const SAVE_EVERY: Duration = Duration::from_secs(30);

impl Settings {
    /// Nothing replaced, nothing done again. `base` is the recipe's folder.
    pub fn new(recipe: &str, text: &str, base: PathBuf, out: PathBuf) -> Settings {
        Settings {
            recipe: recipe.into(),
            recipe_text: text.into(),
            overrides: Vec::new(),
            lints: Vec::new(),
            base,
            out,
            records: None,
            overwrite: false,
            proof_memory: 2 << 30,
            redo: Vec::new(),
            shard: None,
            save_every: SAVE_EVERY,
            stop: Stop::default(),
        }
    }
}

/// What a stage leaves behind.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are as many as stages")]
enum Artifact {
    Model(Made),
    Samples(Arc<SampleSet>),
    Partials(Arc<Gathered>),
    Scores(Ranked, Identity),
    /// Its result is in the summary.
    Told,
}

/// A model, and how it came about.
#[derive(Clone)]
struct Made {
    /// As the recipe names it.
    name: String,
    source: WeightSource,
    identity: Identity,
    /// The checkpoints that went in; the first is the one that it was cut from.
    parents: Vec<Parent>,
    /// What its weights were stored in there.
    dtype: Option<DType>,
    /// The layers of the first parent that are left.
    layers: Vec<usize>,
    /// Its cuts, the first one first.
    steps: Vec<Step>,
    trainings: Vec<TrainingRecord>,
    searches: Vec<SearchRecord>,
    /// Its stream is rotated, and not yet cut.
    turned: Option<Turned>,
}

struct Executor<'a> {
    plan: &'a Plan,
    device: &'a dyn Device,
    settings: &'a Settings,
    store: &'a Store,
    observer: &'a dyn Observer,
    done: BTreeMap<NodeIndex, Artifact>,
    /// Stages that do not look into the store.
    redo: BTreeSet<NodeIndex>,
    /// Nothing is computed: what is not in the store is an error.
    preview: bool,
    share: Share,
    summary: Summary,
}

/// Notes what passes are planned to hold, and hands everything on.
struct Noting<'a> {
    observer: &'a dyn Observer,
    planned: AtomicU64,
}

impl Observer for Noting<'_> {
    fn observe(&self, event: &Event) {
        if let Event::Planned { weights, lanes, scratch, .. } = event {
            self.planned.fetch_max(weights + lanes + scratch, Ordering::Relaxed);
        }
        self.observer.observe(event);
    }
}

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its result is in the store, or stands where it would be published.
    Cached,
    /// It is computed; why, where the store holds something like it.
    Run(Option<String>),
}

/// Runs every stage of a plan. What the store holds is not computed again.
pub fn run(
    plan: &Plan,
    device: &dyn Device,
    settings: &Settings,
    store: &Store,
    observer: &dyn Observer,
) -> Result<Summary, RunError> {
    let started = Instant::now();
    observer.observe(&Event::RunStarted {
        recipe: &settings.recipe,
        version: env!("CARGO_PKG_VERSION"),
        device: &device.kind(),
        threads: rayon::current_num_threads(),
    });
    let noting = Noting { observer, planned: AtomicU64::new(0) };
    let mut executor = Executor::new(plan, device, settings, store, &noting, false);
    refuse_occupied_folders(plan, settings)?;
    for id in plan.order() {
        executor.stage(id, &noting.planned)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    observer.observe(&Event::RunFinished { seconds });
    let summary = Summary {
        format: summary::FORMAT,
        run: record(device, settings, seconds),
        plan: plan.records(),
        seconds,
        ..executor.summary
    };
    Ok(summary)
}

/// A run that ends now.
fn record(device: &dyn Device, settings: &Settings, seconds: f64) -> RunRecord {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    RunRecord {
        minic: env!("CARGO_PKG_VERSION").into(),
        recipe: settings.recipe.clone(),
        text: settings.recipe_text.clone(),
        overrides: settings.overrides.clone(),
        device: device.kind(),
        threads: rayon::current_num_threads(),
        started: now.saturating_sub(Duration::from_secs_f64(seconds)).as_millis() as u64,
        lints: settings.lints.clone(),
    }
}

/// What a run would do, by stage. Nothing is computed; stages that cannot be known, because something before
/// them must run, are left out.
pub fn preview(
    plan: &Plan,
    device: &dyn Device,
    settings: &Settings,
    store: &Store,
) -> BTreeMap<NodeIndex, State> {
    let mut executor = Executor::new(plan, device, settings, store, &(), true);
    let mut states = BTreeMap::new();
    for id in plan.order() {
        let reason = executor.reason(id).unwrap_or_default();
        match executor.perform(id) {
            Ok((artifact, _)) => {
                executor.done.insert(id, artifact);
                let kept =
                    !matches!(plan.node(id).stage, Stage::Report | Stage::Load(Source::Checkpoint { .. }));
                states.insert(id, if kept { State::Cached } else { State::Run(None) });
            }
            Err(RunError::NotStored) => _ = states.insert(id, State::Run(reason)),
            // Whatever it is, the run will say it in full.
            Err(_) => {}
        }
    }
    states
}

/// Joins what runs of `shards` shards computed, where the parts of all are there, and says of every stage
/// that they share where it stands. Nothing is computed.
pub fn merge(
    plan: &Plan,
    device: &dyn Device,
    settings: &Settings,
    store: &Store,
    shards: usize,
) -> Result<Vec<Merged>, RunError> {
    let executor = Executor::new(plan, device, settings, store, &(), true);
    shard::merge(Executor { share: Share::Joined(shards), ..executor })
}

/// The keys of a stage's results, each with the reason for which the store has none; `None` for a stage whose
/// inputs are not known, and empty for one whose result is not kept in the store.
pub fn explain(
    plan: &Plan,
    device: &dyn Device,
    settings: &Settings,
    store: &Store,
    id: NodeIndex,
) -> Result<Option<Vec<Explained>>, RunError> {
    let mut executor = Executor::new(plan, device, settings, store, &(), true);
    let before = plan.ancestors(id);
    for earlier in plan.order().into_iter().filter(|n| before.contains(n) && *n != id) {
        match executor.perform(earlier) {
            Ok((artifact, _)) => _ = executor.done.insert(earlier, artifact),
            Err(RunError::NotStored) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut explained = Vec::new();
    for key in executor.keys_of(id)? {
        let stored = executor.holds(&key)?;
        let damaged = !stored && store.has(&key);
        let differs = if stored || damaged { None } else { store.why(&key)? };
        let (subject, digest) = (key.subject.clone(), key.digest());
        explained.push(Explained { subject, digest, stored, damaged, differs });
    }
    Ok(Some(explained))
}

/// One result of a stage, and where it stands.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Explained {
    pub subject: String,
    /// The digest of its key.
    pub digest: String,
    pub stored: bool,
    /// Of a trained model: something of it is gone or changed.
    pub damaged: bool,
    /// The first field in which what the store holds differs.
    pub differs: Option<Difference>,
}

impl<'a> Executor<'a> {
    fn new(
        plan: &'a Plan,
        device: &'a dyn Device,
        settings: &'a Settings,
        store: &'a Store,
        observer: &'a dyn Observer,
        preview: bool,
    ) -> Executor<'a> {
        let redo = settings.redo.iter().filter_map(|name| plan.find(name)).collect();
        let share = settings.shard.map_or(Share::Whole, Share::Part);
        let (done, summary) = (BTreeMap::new(), Summary::default());
        Executor { plan, device, settings, store, observer, done, redo, preview, share, summary }
    }

    fn stage(&mut self, id: NodeIndex, planned: &AtomicU64) -> Result<(), RunError> {
        let node = self.plan.node(id);
        let (stage, kind) = (node.name.as_str(), node.stage.name());
        if self.settings.stop.is_set() {
            self.observer.observe(&Event::RunStopped { stage });
            return Err(RunError::Stopped);
        }
        if let Some(waits) = self.blocked(id) {
            self.wait(id, waits);
            return Ok(());
        }
        self.observer.observe(&Event::StageStarted { stage, kind });
        let started = Instant::now();
        memory::reset_peak();
        planned.store(0, Ordering::Relaxed);
        match self.cached(id).and_then(|cached| Ok((cached, self.attempt(id)?))) {
            Ok((cached, (artifact, result))) => {
                let (seconds, peak) = (started.elapsed().as_secs_f64(), memory::peak());
                self.observer.observe(&Event::StageFinished {
                    stage,
                    seconds,
                    cached,
                    peak,
                    result: &result,
                });
                let planned = Some(planned.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0);
                let summary = StageSummary { seconds, cached, planned, peak };
                self.summary.stages.insert(stage.to_string(), summary);
                self.done.insert(id, artifact);
                Ok(())
            }
            Err(RunError::Waits(waits)) => {
                self.wait(id, waits);
                Ok(())
            }
            Err(RunError::Stopped) => {
                self.observer.observe(&Event::RunStopped { stage });
                Err(RunError::Stopped)
            }
            Err(error) => {
                self.observer.observe(&Event::RunFailed { stage, message: &error.to_string() });
                Err(error)
            }
        }
    }

    /// Whether the store holds all results of a stage; tells why not.
    fn cached(&self, id: NodeIndex) -> Result<bool, RunError> {
        let keys = self.keys_of(id)?;
        if self.redo.contains(&id) {
            return Ok(false);
        }
        if let Some(reason) = self.reason(id)? {
            self.observer.observe(&Event::Missed { stage: &self.plan.node(id).name, reason: &reason });
        }
        for key in &keys {
            if !self.holds(key)? {
                return Ok(false);
            }
        }
        Ok(!keys.is_empty())
    }

    /// How the first result that is missing differs from what is there.
    fn reason(&self, id: NodeIndex) -> Result<Option<String>, RunError> {
        if self.redo.contains(&id) {
            return Ok(Some("asked for by --redo".into()));
        }
        for key in self.keys_of(id)? {
            if !self.holds(&key)? {
                return Ok(match self.store.has(&key) {
                    true => Some(DAMAGED.into()),
                    false => self.store.why(&key)?.map(|difference| difference.to_string()),
                });
            }
        }
        Ok(None)
    }

    /// The keys of what a stage puts into the store.
    fn keys_of(&self, id: NodeIndex) -> Result<Vec<Key>, RunError> {
        Ok(match &self.plan.node(id).stage {
            Stage::Load(Source::Data(data)) => vec![self.data_key(id, data)?],
            Stage::Calibrate(calibrate) => {
                let (model, samples) = (self.model(id, Value::Model)?, self.samples(id)?);
                let items = self.items(&model, &samples, &calibrate.gather())?;
                items.into_iter().map(|(key, _)| key).collect()
            }
            Stage::Score(score) => vec![self.score_key(id, score)?],
            Stage::Cut(cut) => vec![self.cut_key(id, &self.model(id, Value::Model)?, cut)?],
            Stage::Evaluate(evaluations) => {
                let samples = self.samples(id)?;
                self.evaluation_keys(&samples, evaluations)?
            }
            Stage::Rotate => vec![self.rotation_key(id, &self.model(id, Value::Model)?)?],
            Stage::Repair(repairs) => vec![self.repair_key(id, repairs)?],
            Stage::Load(Source::Checkpoint { .. })
            | Stage::Export(_)
            | Stage::Report
            | Stage::Sensitivity(_) => Vec::new(),
            Stage::Search(search) => vec![self.search_key(id, search)?],
            Stage::Train(training) | Stage::Distill(training) => {
                vec![self.training_key(training, &self.training_inputs(id, training)?)?]
            }
        })
    }

    fn keys(&self) -> Keys<'_> {
        Keys { device: self.device }
    }

    /// A result out of the store, unless the stage is to be done again.
    fn recall<T: DeserializeOwned>(&self, id: NodeIndex, key: &Key) -> Result<Option<T>, RunError> {
        if self.redo.contains(&id) {
            return Ok(None);
        }
        Ok(self.store.get(key)?)
    }

    /// The artifact of a stage, and one line about it.
    fn perform(&mut self, id: NodeIndex) -> Result<(Artifact, String), RunError> {
        let node = self.plan.node(id);
        match &node.stage {
            Stage::Load(source) => self.load(id, source),
            Stage::Calibrate(calibrate) => self.calibrate(id, calibrate),
            Stage::Score(score) => self.score(id, score),
            Stage::Cut(cut) => self.cut(id, cut),
            Stage::Evaluate(evaluations) => self.evaluate(id, evaluations),
            Stage::Export(export) => self.export(id, export),
            // The summary is the caller's to write: it is complete only after the last stage.
            Stage::Report => Ok((Artifact::Told, String::new())),
            Stage::Train(training) | Stage::Distill(training) => self.train(id, training),
            Stage::Rotate => self.rotate(id),
            Stage::Repair(repairs) => self.repair(id, repairs),
            Stage::Search(search) => self.search(id, search),
            Stage::Sensitivity(sensitivity) => self.sensitivity(id, sensitivity),
        }
    }

    fn calibrate(
        &mut self,
        id: NodeIndex,
        calibrate: &plan::Calibrate,
    ) -> Result<(Artifact, String), RunError> {
        let (model, samples) = (self.model(id, Value::Model)?, self.samples(id)?);
        let gathered = self.gathered(id, &model, &samples, &calibrate.gather())?;
        if let Some(figures) = &gathered.figures {
            for evaluation in &calibrate.evaluations {
                self.summary.evaluation(evaluation, figures, None);
            }
        }
        let what = gathered.metrics.len() + gathered.layers.iter().map(|(_, s)| s.len()).sum::<usize>();
        let (count, sequence) = (samples.record.samples, samples.sequence());
        let what = what + usize::from(gathered.covariance.is_some());
        let told = format!("{what} scores over {count} samples of {sequence} tokens");
        Ok((Artifact::Partials(Arc::new(gathered)), told))
    }

    fn score(&mut self, id: NodeIndex, score: &plan::Score) -> Result<(Artifact, String), RunError> {
        let model = self.model(id, Value::Model)?;
        let key = self.score_key(id, score)?;
        let by = match self.recall::<By>(id, &key)? {
            Some(by) => by,
            None if self.looks_up(id) => return Err(RunError::NotStored),
            None => {
                let by = self.scored(id, &model, score)?;
                model.source.base().unchanged()?;
                self.store.put(&key, &by)?;
                by
            }
        };
        let ranked = Ranked::new(score, by);
        let identity = Identity::scores(&ranked, &key);
        Ok((Artifact::Scores(ranked, identity), String::new()))
    }

    fn scored(&self, id: NodeIndex, model: &Made, score: &plan::Score) -> Result<By, RunError> {
        let gathered = self.partials(id);
        let depths = self.depth_rules(id, &model.source, score)?;
        let gather = |gather: &Gather| self.gathered(id, model, &*self.samples(id)?, gather);
        let watch = self.watch(id);
        let residual = |damping| {
            let loaded = self.samples(id)?.load(self.store)?;
            let windows: Vec<&[u32]> = loaded.windows().collect();
            let walk =
                Walk { device: self.device.exact(), samples: &windows, store: self.store, watch: &watch };
            residual::rank(&walk, &model.source, score.axis, damping)
        };
        let scorer = Scorer {
            model: &model.source,
            gathered: gathered.as_deref(),
            gather: &gather,
            residual: &residual,
            depths: &depths,
            watch: &watch,
        };
        scorer.score(score)
    }

    /// What the calibration that comes in gathered.
    fn partials(&self, id: NodeIndex) -> Option<Arc<Gathered>> {
        self.plan.source(id, Value::Partials).and_then(|from| match self.done.get(&from) {
            Some(Artifact::Partials(gathered)) => Some(gathered.clone()),
            _ => None,
        })
    }

    fn score_key(&self, id: NodeIndex, score: &plan::Score) -> Result<Key, RunError> {
        let model = self.model(id, Value::Model)?;
        let samples = self.score_samples(id);
        let depths = self.depth_rules(id, &model.source, score)?;
        self.keys().score(&model, samples.as_deref(), score, &depths)
    }

    /// The samples behind a score: its own, or those of the calibration that it reads.
    fn score_samples(&self, id: NodeIndex) -> Option<Arc<SampleSet>> {
        let calibration = self.plan.source(id, Value::Partials);
        self.samples(id).ok().or_else(|| self.samples(calibration?).ok())
    }

    /// What those who read these scores ask of the surviving layers, the fewest layers first.
    fn depth_rules(
        &self,
        id: NodeIndex,
        model: &WeightSource,
        score: &plan::Score,
    ) -> Result<Vec<DepthRule>, RunError> {
        let mut rules: Vec<DepthRule> = Vec::new();
        if score.axis.scope != Scope::Depth {
            return Ok(rules);
        }
        for (reader, _) in self.plan.outputs(id) {
            let (depths, constraints) = match &self.plan.node(reader).stage {
                Stage::Cut(cut) => {
                    let own = cut.axes.iter().filter(|a| a.axis.name == score.axis.name);
                    (own.map(|axis| axis.size).collect(), &cut.constraints)
                }
                Stage::Search(search) => (search.space.depths().to_vec(), &search.space.constraints),
                Stage::Sensitivity(of) => (of.space.depths().to_vec(), &of.space.constraints),
                _ => continue,
            };
            for depth in depths {
                let rule = DepthRule::new(&model.desc().layers, depth, constraints)?;
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules.sort_by_key(DepthRule::target);
        Ok(rules)
    }

    fn watch(&self, id: NodeIndex) -> Watch<'_> {
        let stop = self.settings.stop.clone();
        Watch { stage: &self.plan.node(id).name, observer: self.observer, stop }
    }

    /// The model that comes along an edge.
    fn model(&self, id: NodeIndex, value: Value) -> Result<Made, RunError> {
        let from = self.plan.source(id, value).and_then(|from| self.done.get(&from));
        match from {
            Some(Artifact::Model(made)) => Ok(made.clone()),
            _ => Err(RunError::Unplanned {
                what: format!("the {} of {}", value.name(), self.plan.node(id).name),
            }),
        }
    }

    /// A declared model.
    fn named(&self, name: &str) -> Result<Made, RunError> {
        match self.plan.maker(name).and_then(|id| self.done.get(&id)) {
            // A stage that makes a model under several names made one model.
            Some(Artifact::Model(made)) => Ok(Made { name: name.to_string(), ..made.clone() }),
            _ => Err(RunError::Unplanned { what: format!("the model `{name}`") }),
        }
    }

    fn samples(&self, id: NodeIndex) -> Result<Arc<SampleSet>, RunError> {
        match self.plan.source(id, Value::Samples).and_then(|from| self.done.get(&from)) {
            Some(Artifact::Samples(samples)) => Ok(samples.clone()),
            _ => Err(RunError::Unplanned { what: format!("the samples of {}", self.plan.node(id).name) }),
        }
    }
}
