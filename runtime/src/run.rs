//! The executor: the stages of a plan, one after the other, with what flows between them.

mod cut;
mod error;
mod evaluate;
mod export;
mod load;
mod summary;

pub use error::RunError;
pub use summary::{EvaluationSummary, ExportSummary, Summary};

use crate::calibrate::{self, Gathered};
use crate::data::Samples;
use crate::device::Device;
use crate::events::{Event, Observer, Watch};
use crate::importance::DepthRule;
use crate::provenance::{DataRecord, Step};
use crate::score::{Ranked, Scorer};
use crate::source::WeightSource;
use minic_compiler::axes::Scope;
use minic_compiler::plan::{self, Plan, Stage, Value};
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What the command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As the user wrote it, for messages.
    pub recipe: String,
    pub recipe_text: String,
    /// `--set` arguments, as written.
    pub overrides: Vec<String>,
    /// Relative inputs are relative to it.
    pub base: PathBuf,
    /// Relative export folders are relative to it.
    pub out: PathBuf,
    /// Replace export folders that hold something else.
    pub overwrite: bool,
    /// Bytes that the proof of a cut may hold; beyond, it goes block by block.
    pub proof_memory: u64,
}

/// What a stage leaves behind.
#[expect(clippy::large_enum_variant, reason = "there are as many as stages")]
enum Artifact {
    Model(Made),
    Samples(Arc<Samples>),
    Partials(Arc<Gathered>),
    Scores(Ranked),
    /// Its result is in the summary.
    Told,
}

/// A model, and how it came about.
#[derive(Clone)]
struct Made {
    source: WeightSource,
    /// The declared checkpoint at its bottom.
    root: String,
    /// Its cuts, the first one first.
    steps: Vec<Step>,
}

struct Executor<'a> {
    plan: &'a Plan,
    device: &'a dyn Device,
    settings: &'a Settings,
    observer: &'a dyn Observer,
    done: BTreeMap<NodeIndex, Artifact>,
    /// Data that was read, for the records of what it went into.
    data: Vec<DataRecord>,
    summary: Summary,
}

/// Runs every stage of a plan that [`Plan::unsupported`] finds nothing in.
pub fn run(
    plan: &Plan,
    device: &dyn Device,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<Summary, RunError> {
    if let Some(node) = plan.unsupported().first() {
        return Err(RunError::Unsupported { stage: node.name.clone(), kind: node.stage.name() });
    }
    let started = Instant::now();
    observer.observe(&Event::RunStarted {
        recipe: &settings.recipe,
        version: env!("CARGO_PKG_VERSION"),
        device: device.name(),
        threads: rayon::current_num_threads(),
    });
    let summary = Summary::default();
    let mut executor =
        Executor { plan, device, settings, observer, done: BTreeMap::new(), data: Vec::new(), summary };
    executor.refuse_occupied_folders()?;
    for id in plan.order() {
        executor.stage(id)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    observer.observe(&Event::RunFinished { seconds });
    executor.summary.seconds = seconds;
    Ok(executor.summary)
}

impl Executor<'_> {
    fn stage(&mut self, id: NodeIndex) -> Result<(), RunError> {
        let node = self.plan.node(id);
        let (stage, kind) = (node.name.as_str(), node.stage.name());
        self.observer.observe(&Event::StageStarted { stage, kind });
        let started = Instant::now();
        match self.perform(id) {
            Ok((artifact, result)) => {
                let seconds = started.elapsed().as_secs_f64();
                self.observer.observe(&Event::StageFinished { stage, seconds, result: &result });
                self.done.insert(id, artifact);
                Ok(())
            }
            Err(error) => {
                self.observer.observe(&Event::RunFailed { stage, message: &error.to_string() });
                Err(error)
            }
        }
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
            Stage::Rotate | Stage::Repair(_) | Stage::Search(_) | Stage::Train(_) | Stage::Distill(_) => {
                Err(RunError::Unsupported { stage: node.name.clone(), kind: node.stage.name() })
            }
        }
    }

    fn calibrate(
        &mut self,
        id: NodeIndex,
        calibrate: &plan::Calibrate,
    ) -> Result<(Artifact, String), RunError> {
        let (model, samples) = (self.model(id, Value::Model)?, self.samples(id)?);
        let windows: Vec<&[u32]> = samples.windows().collect();
        let watch = self.watch(id);
        let gathered =
            calibrate::calibrate(self.device, &model.source, &calibrate.gather(), &windows, &watch)?;
        if let Some(figures) = &gathered.figures {
            for evaluation in &calibrate.evaluations {
                self.summary.evaluation(evaluation, figures, None);
            }
        }
        let what = gathered.metrics.len() + gathered.layers.iter().map(|(_, s)| s.len()).sum::<usize>();
        let told = format!("{what} scores over {} samples of {} tokens", samples.len(), samples.sequence());
        Ok((Artifact::Partials(Arc::new(gathered)), told))
    }

    fn score(&mut self, id: NodeIndex, score: &plan::Score) -> Result<(Artifact, String), RunError> {
        let model = self.model(id, Value::Model)?;
        let gathered = self.plan.source(id, Value::Partials).and_then(|from| match self.done.get(&from) {
            Some(Artifact::Partials(gathered)) => Some(gathered.clone()),
            _ => None,
        });
        let samples = self.samples(id).ok();
        let windows: Vec<&[u32]> = samples.iter().flat_map(|s| s.windows()).collect();
        let depth = self.depth_rule(id, &model.source, score)?;
        let watch = self.watch(id);
        let scorer = Scorer {
            device: self.device,
            model: &model.source,
            gathered: gathered.as_deref(),
            samples: &windows,
            depth: depth.as_ref(),
            watch: &watch,
        };
        Ok((Artifact::Scores(scorer.score(score)?), String::new()))
    }

    /// What the cut that reads these scores asks of the surviving layers.
    fn depth_rule(
        &self,
        id: NodeIndex,
        model: &WeightSource,
        score: &plan::Score,
    ) -> Result<Option<DepthRule>, RunError> {
        if score.axis.scope != Scope::Depth {
            return Ok(None);
        }
        for (reader, _) in self.plan.outputs(id) {
            let Stage::Cut(cut) = &self.plan.node(reader).stage else { continue };
            if let Some(axis) = cut.axes.iter().find(|a| a.axis.name == score.axis.name) {
                return Ok(Some(DepthRule::new(&model.desc().layers, axis.size, &cut.constraints)?));
            }
        }
        Ok(None)
    }

    fn watch(&self, id: NodeIndex) -> Watch<'_> {
        Watch { stage: &self.plan.node(id).name, observer: self.observer }
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
            Some(Artifact::Model(made)) => Ok(made.clone()),
            _ => Err(RunError::Unplanned { what: format!("the model `{name}`") }),
        }
    }

    fn samples(&self, id: NodeIndex) -> Result<Arc<Samples>, RunError> {
        match self.plan.source(id, Value::Samples).and_then(|from| self.done.get(&from)) {
            Some(Artifact::Samples(samples)) => Ok(samples.clone()),
            _ => Err(RunError::Unplanned { what: format!("the samples of {}", self.plan.node(id).name) }),
        }
    }
}
