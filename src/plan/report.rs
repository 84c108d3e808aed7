//! The answer of `minic plan`: the shape of every model, the state and the cost of every stage, and its sums.

use super::limits::Ahead;
use super::time::{Clock, Time};
use crate::inspect::DIMS;
use crate::output::Failure;
use crate::recipe::World;
use minic_compiler::check::Environment;
use minic_compiler::cost::SEQUENCE;
use minic_compiler::dim::Dim;
use minic_compiler::hir::{self, Recipe};
use minic_compiler::plan::{
    Bounds, Estimate, Plan, PlanNode, RungEstimate, Shape, Shapes, Source, Stage, StageId, Training,
};
use minic_runtime::checkpoint::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use minic_runtime::hub::Remote;
use minic_runtime::run::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a report is made of.
pub struct Parts<'a> {
    pub plan: &'a Plan,
    /// The same, with the numbers of samples that are known beforehand.
    pub counted: &'a Plan,
    pub shapes: &'a Shapes,
    pub recipe: &'a Recipe,
    pub world: &'a World,
    /// Those that a look into the store gave.
    pub states: &'a BTreeMap<StageId, State>,
    pub clock: &'a Clock<'a>,
    /// Bytes of the files of stages that load data.
    pub files: &'a BTreeMap<StageId, u64>,
}

pub struct Report<'a> {
    pub plan: &'a Plan,
    pub shapes: &'a Shapes,
    /// The longest sequence of the recipe's data.
    pub sequence: usize,
    pub stages: Vec<StageReport<'a>>,
    pub device: &'a str,
    /// What would stop a run.
    pub problems: Vec<Failure>,
}

pub struct StageReport<'a> {
    pub node: &'a PlanNode,
    id: StageId,
    pub state: Standing,
    pub estimate: Estimate,
    pub time: Time,
    /// Of a training.
    pub phases: Vec<Phase>,
}

/// What a phase of a training does.
#[derive(Debug, Serialize)]
pub struct Phase {
    pub name: String,
    pub data: String,
    pub updates: u64,
    /// Sequences of an update, and tokens of each.
    pub batch: usize,
    pub sequence: usize,
    pub tokens: u64,
}

/// The sums over the stages that are still to be run.
pub struct Totals {
    pub run: usize,
    pub cached: usize,
    pub blocked: usize,
    /// Of the stages whose time is known.
    pub seconds: Bounds<f64>,
    pub rough: bool,
    /// Stages whose time is not.
    pub untimed: usize,
    pub flops: Bounds<f64>,
    /// Stages that compute, and nobody knows how much.
    pub uncounted: usize,
    pub memory: Option<Bounds>,
    pub disk: Bounds,
    pub updates: u64,
    pub tokens: u64,
}

/// Where a stage stands, and why.
pub enum Standing {
    /// It is computed; why, where that is known.
    Run(Option<String>),
    Cached,
    Blocked(String),
}

impl Standing {
    pub fn name(&self) -> &'static str {
        match self {
            Standing::Run(_) => "run",
            Standing::Cached => "cached",
            Standing::Blocked(_) => "blocked",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Standing::Run(reason) => reason.as_deref(),
            Standing::Cached => None,
            Standing::Blocked(reason) => Some(reason),
        }
    }
}

impl<'a> Report<'a> {
    pub fn new(parts: Parts<'a>) -> Report<'a> {
        let Parts { plan, counted, shapes, recipe, world, states, clock, files } = parts;
        let sequence = recipe.data.values().map(|d| d.sequence).max().unwrap_or(SEQUENCE);
        let mut blocked: BTreeMap<StageId, String> = BTreeMap::new();
        let mut stages = Vec::new();
        for id in plan.order() {
            let node = plan.node(id);
            let waits = || {
                let first = plan.inputs(id).into_iter().find(|(from, _)| blocked.contains_key(from))?;
                Some(format!("waits for `{}`", plan.node(first.0).name))
            };
            let state = match (obstacle(plan, id, world).or_else(waits), states.get(&id)) {
                (Some(why), _) => {
                    blocked.insert(id, why.clone());
                    Standing::Blocked(why)
                }
                (None, Some(State::Cached)) => Standing::Cached,
                (None, Some(State::Run(reason))) => Standing::Run(reason.clone()),
                (None, None) => Standing::Run(after(plan, states, id)),
            };
            let estimate = counted.estimate(shapes, id);
            let time = clock.time(&node.stage, &estimate, files.get(&id).copied());
            stages.push(StageReport { node, id, state, estimate, time, phases: phases(plan, id) });
        }
        Report { plan, shapes, sequence, stages, device: &clock.device, problems: Vec::new() }
    }

    /// The stages that are not stored, in the order of the run.
    fn ahead(&self) -> impl Iterator<Item = &StageReport<'a>> {
        self.stages.iter().filter(|stage| !matches!(stage.state, Standing::Cached))
    }

    pub fn stages_ahead(&self) -> Vec<Ahead<'_>> {
        self.ahead()
            .map(|s| Ahead { name: &s.node.name, stage: &s.node.stage, estimate: &s.estimate })
            .collect()
    }

    /// What benchmarks would have to measure for times that are missing.
    pub fn missing(&self) -> BTreeSet<String> {
        self.ahead().flat_map(|stage| &stage.time.missing).map(ToString::to_string).collect()
    }

    pub fn totals(&self) -> Totals {
        let count = |state: &str| self.stages.iter().filter(|s| s.state.name() == state).count();
        let none = Bounds { min: 0.0, max: 0.0 };
        let sum = |of: &dyn Fn(&StageReport) -> Option<Bounds<f64>>| {
            self.ahead().filter_map(of).fold(none, Bounds::plus)
        };
        let disk = self.ahead().filter_map(|s| s.estimate.disk);
        Totals {
            run: count("run"),
            cached: count("cached"),
            blocked: count("blocked"),
            seconds: sum(&|s| s.time.seconds),
            rough: self.ahead().any(|s| s.time.rough),
            untimed: self.ahead().filter(|s| s.time.seconds.is_none()).count(),
            flops: sum(&|s| s.estimate.flops),
            uncounted: self.ahead().filter(|s| s.computes() && s.estimate.flops.is_none()).count(),
            memory: self.ahead().filter_map(|s| s.estimate.memory).reduce(Bounds::larger),
            disk: disk.fold(Bounds::default(), |a, b| Bounds { min: a.min + b.min, max: a.max + b.max }),
            updates: self.ahead().filter_map(|s| s.estimate.updates).sum(),
            tokens: self.ahead().filter_map(|s| s.estimate.tokens).sum(),
        }
    }

    pub fn to_json(&self) -> Value {
        let models: Map<String, Value> = self
            .shapes
            .models
            .iter()
            .map(|(name, shape)| (name.clone(), self.model_json(shape.as_ref())))
            .collect();
        let nodes: Vec<Value> = self.stages.iter().map(|stage| stage.to_json(self.plan)).collect();
        let problems: Vec<Value> = self.problems.iter().map(Failure::to_json).collect();
        json!({
            "nodes": nodes,
            "models": models,
            "sequence": self.sequence,
            "device": self.device,
            "totals": self.totals().to_json(),
            "not_measured": self.missing(),
            "problems": problems,
        })
    }

    /// Exact numbers as numbers, ranges as `{min, max}`, `null` without a config.json.
    fn model_json(&self, shape: Option<&Shape>) -> Value {
        let Some(shape) = shape else { return Value::Null };
        let mut dims = Map::new();
        for dim in DIMS.iter().chain([&Dim::NumLayers]) {
            let sizes = shape.sizes(*dim).into_iter().map(|n| n as u64);
            dims.insert(dim.name().into(), Bounds::of(sizes).map_or(Value::Null, bounds_json));
        }
        let pattern: Option<String> =
            shape.layers.as_ref().map(|layers| layers.iter().map(|k| k.letter()).collect());
        json!({
            "from": shape.from,
            "family": shape.family(),
            "params": bounds_json(shape.params()),
            "layers": dims["num_layers"],
            "pattern": pattern,
            "dims": dims,
            "flops_per_token": bounds_json(shape.flops_per_token(self.sequence)),
            "memory": bounds_json(shape.memory(1, self.sequence)),
            "points": shape.points.map(|p| json!({ "all": p.all, "feasible": bounds_json(p.feasible) })),
        })
    }
}

impl Totals {
    fn to_json(&self) -> Value {
        json!({
            "run": self.run,
            "cached": self.cached,
            "blocked": self.blocked,
            "seconds": bounds_json(self.seconds),
            "rough": self.rough,
            "untimed": self.untimed,
            "flops": bounds_json(self.flops),
            "uncounted": self.uncounted,
            "memory": self.memory.map(bounds_json),
            "disk": bounds_json(self.disk),
            "updates": self.updates,
            "tokens": self.tokens,
        })
    }
}

impl StageReport<'_> {
    /// It runs a model.
    fn computes(&self) -> bool {
        match &self.node.stage {
            Stage::Load(_) | Stage::Cut(_) | Stage::Export(_) | Stage::Report | Stage::Rotate => false,
            Stage::Score(_) | Stage::Repair(_) => self.estimate.passes.is_some(),
            Stage::Calibrate(_)
            | Stage::Search(_)
            | Stage::Sensitivity(_)
            | Stage::Train(_)
            | Stage::Distill(_)
            | Stage::Evaluate(_) => true,
        }
    }

    fn to_json(&self, plan: &Plan) -> Value {
        let e = &self.estimate;
        let inputs: Vec<Value> = plan
            .inputs(self.id)
            .into_iter()
            .map(|(from, value)| json!({ "from": plan.node(from).name, "value": value.name() }))
            .collect();
        json!({
            "name": self.node.name,
            "stage": self.node.stage.name(),
            "state": self.state.name(),
            "reason": self.state.reason(),
            "detail": self.node.stage.detail(),
            "aliases": self.node.aliases,
            "makes": self.node.makes,
            "inputs": inputs,
            "samples": e.samples,
            "passes": e.passes.map(|p| json!({ "whole": p.whole, "partial": p.partial })),
            "updates": e.updates,
            "tokens": e.tokens,
            "flops_per_sample": e.sample_flops.map(bounds_json),
            "flops": e.flops.map(bounds_json),
            "memory": e.memory.map(bounds_json),
            "disk": e.disk.map(bounds_json),
            "seconds": self.time.seconds.map(bounds_json),
            "rough": self.time.rough,
            "params": e.params.map(bounds_json),
            "phases": self.phases,
            "rungs": e.rungs.iter().map(rung_json).collect::<Vec<_>>(),
        })
    }
}

/// The first stage that must run before anything can be said of this one.
fn after(plan: &Plan, states: &BTreeMap<StageId, State>, id: StageId) -> Option<String> {
    if states.is_empty() {
        return None;
    }
    let known = |from: &StageId| matches!(states.get(from), Some(State::Cached));
    let load = |from: &StageId| matches!(plan.node(*from).stage, Stage::Load(Source::Checkpoint { .. }));
    let first = plan.inputs(id).into_iter().map(|(from, _)| from).find(|f| !known(f) && !load(f))?;
    Some(format!("after `{}`", plan.node(first).name))
}

/// What the phases of a training do; empty for other stages.
fn phases(plan: &Plan, id: StageId) -> Vec<Phase> {
    let (Stage::Train(training) | Stage::Distill(training)) = &plan.node(id).stage else { return Vec::new() };
    training.schedule.phases.iter().filter_map(|phase| phase_of(plan, id, training, phase)).collect()
}

fn phase_of(plan: &Plan, id: StageId, training: &Training, phase: &hir::Phase) -> Option<Phase> {
    let data = phase.data.as_ref().unwrap_or(&training.data);
    let Stage::Load(Source::Data(loaded)) = &plan.node(plan.samples_of(id, data)?).stage else { return None };
    Some(Phase {
        name: phase.name.clone(),
        data: data.clone(),
        updates: phase.updates(loaded.sequence),
        batch: phase.batch,
        sequence: phase.window(loaded.sequence),
        tokens: phase.trained(loaded.sequence),
    })
}

/// What stands in the way of a stage by itself.
pub fn obstacle(plan: &Plan, id: StageId, world: &World) -> Option<String> {
    match &plan.node(id).stage {
        Stage::Load(Source::Checkpoint { path, .. }) => no_checkpoint(path, plan.reads_weights(id), world),
        Stage::Load(Source::Data(data)) => no_data(data, world),
        _ => None,
    }
}

fn no_checkpoint(path: &str, weights: bool, world: &World) -> Option<String> {
    let folder = match Remote::parse(path) {
        Some(Ok(remote)) if world.hub().cached_whole(&remote).is_none() => {
            return Some(format!("{path} is not fetched yet: `minic run` does"));
        }
        Some(Ok(_)) => return None,
        Some(Err(error)) => return Some(error.to_string()),
        None => world.base.join(path),
    };
    let has = |file: &str| folder.join(file).is_file();
    match (has(CONFIG_FILE), has(WEIGHTS_FILE) || has(INDEX_FILE)) {
        (false, _) => Some(format!("{} is not there", folder.join(CONFIG_FILE).display())),
        (true, false) if weights => Some(format!("{} holds no weights", folder.display())),
        (true, _) => None,
    }
}

fn no_data(data: &hir::Data, world: &World) -> Option<String> {
    let facts = data.mix.iter().map(|source| (source, world.data(&source.files)));
    let unfetched = data.mix.iter().flat_map(|s| &s.files).find(|file| world.is_unfetched(file));
    if let Some(file) = unfetched {
        return Some(format!("{file} is not fetched yet: `minic run` does"));
    }
    for (source, facts) in facts {
        let facts = facts?;
        if let Some(pattern) = facts.unmatched.first() {
            return Some(format!("no file matches `{pattern}`"));
        }
        if let Some(why) = world.unread(&source.files) {
            return Some(why);
        }
    }
    None
}

fn bounds_json<T: Copy + PartialEq + Serialize>(bounds: Bounds<T>) -> Value {
    match bounds.exact() {
        Some(n) => json!(n),
        None => json!({ "min": bounds.min, "max": bounds.max }),
    }
}

fn rung_json(rung: &RungEstimate) -> Value {
    json!({
        "candidates": bounds_json(rung.candidates),
        "passes": rung.passes,
        "samples": rung.samples,
        "tokens": rung.tokens,
        "flops": rung.flops.map(bounds_json),
        "memory": rung.memory.map(bounds_json),
    })
}
