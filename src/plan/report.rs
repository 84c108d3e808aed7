//! The answer of `minic plan`: the shape of every model, the state and the cost of every stage.

use crate::inspect::DIMS;
use crate::output::Output;
use crate::recipe::{self, World};
use crate::table::{Table, bytes, grouped, operations};
use minic_compiler::check::Environment;
use minic_compiler::dim::Dim;
use minic_compiler::hir::{self, Recipe};
use minic_compiler::model::LayerKind;
use minic_compiler::plan::{
    self, Bounds, Estimate, Plan, PlanNode, Points, RungEstimate, Shape, Shapes, Source, Stage, StageId,
};
use minic_runtime::checkpoint::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use minic_runtime::hub::Remote;
use minic_runtime::run::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The sequence of figures of a model where the recipe has no data.
const SEQUENCE: usize = 4096;

pub struct Report<'a> {
    plan: &'a Plan,
    shapes: &'a Shapes,
    /// The longest sequence of the recipe's data.
    sequence: usize,
    stages: Vec<StageReport<'a>>,
}

struct StageReport<'a> {
    node: &'a PlanNode,
    id: StageId,
    state: Standing,
    estimate: Estimate,
}

/// Where a stage stands, and why.
enum Standing {
    /// It is computed; why, where that is known.
    Run(Option<String>),
    Cached,
    Blocked(String),
}

impl Standing {
    fn name(&self) -> &'static str {
        match self {
            Standing::Run(_) => "run",
            Standing::Cached => "cached",
            Standing::Blocked(_) => "blocked",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Standing::Run(reason) => reason.as_deref(),
            Standing::Cached => None,
            Standing::Blocked(reason) => Some(reason),
        }
    }

    fn is_blocked(&self) -> bool {
        matches!(self, Standing::Blocked(_))
    }
}

impl<'a> Report<'a> {
    /// `states` are those that a look into the store gave.
    pub fn new(
        plan: &'a Plan,
        shapes: &'a Shapes,
        recipe: &Recipe,
        world: &World,
        states: &BTreeMap<StageId, State>,
    ) -> Report<'a> {
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
            stages.push(StageReport { node, id, state, estimate: plan.estimate(shapes, id) });
        }
        Report { plan, shapes, sequence, stages }
    }

    pub fn to_json(&self) -> Value {
        let models: Map<String, Value> = self
            .shapes
            .models
            .iter()
            .map(|(name, shape)| (name.clone(), self.model_json(shape.as_ref())))
            .collect();
        let nodes: Vec<Value> = self.stages.iter().map(|stage| stage.to_json(self.plan)).collect();
        json!({ "nodes": nodes, "models": models, "sequence": self.sequence })
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

    pub fn to_text(&self, output: &Output) -> String {
        let bold = |text: String| if output.styled { format!("\x1b[1m{text}\x1b[0m") } else { text };
        let mut out = String::new();
        for (name, shape) in &self.shapes.models {
            out += &bold(name.clone());
            match shape {
                Some(shape) => out += &self.model_text(shape),
                None => out += "  config.json is not at hand\n",
            }
            out.push('\n');
        }
        let mut table =
            Table::new(&["state", "stage", "name", ">passes", ">operations", ">memory", ">disk", "what"]);
        for stage in &self.stages {
            table.row(stage.cells(output.verbose));
        }
        let styled = |number: usize, line: String| match number {
            0 => bold(line),
            n if output.styled && self.stages[n - 1].state.is_blocked() => format!("\x1b[33m{line}\x1b[0m"),
            _ => line,
        };
        out += &table.render(styled);
        for stage in &self.stages {
            if let Stage::Search(search) = &stage.node.stage {
                out += &bold(format!("\n{}, rung by rung\n", stage.node.name));
                out += &stage.rungs(search);
            }
        }
        out + &self.legend()
    }

    fn legend(&self) -> String {
        let count = |state: &str| self.stages.iter().filter(|s| s.state.name() == state).count();
        format!(
            "\n{} stages: {} run, {} cached, {} blocked. Passes are forward passes over each sample, or updates of a training; memory is that of \
             the weights in f32 and of one lane's buffers; of a training, of all its lanes, their gradients and the averages of AdamW, the \
             least where the backward pass computes blocks again.\n",
            self.stages.len(),
            count("run"),
            count("cached"),
            count("blocked"),
        )
    }

    fn model_text(&self, shape: &Shape) -> String {
        let mut out = match &shape.from {
            Some(from) => format!("  from {from}"),
            None => format!("  {}", shape.family()),
        };
        let made_from = shape.from.as_deref().and_then(|from| self.shapes.get(from));
        if made_from.is_some_and(|from| from.is_same(shape)) {
            return out + ", of the same shape\n";
        }
        let before = self.reference(shape);
        let mut table = Table::new(&["", ""]);
        let mut line = |name: &str, value: &dyn Fn(&Shape) -> String, remark: String| {
            let new = value(shape);
            let change = match before.map(|(_, shape)| value(shape)) {
                Some(old) if old != new => format!("{old} -> {new}"),
                _ => new,
            };
            let gap = if remark.is_empty() { "" } else { "  " };
            table.row(vec![format!("    {name}"), format!("{change}{gap}{remark}")]);
        };
        let of = |(name, whole): (&str, &Shape)| {
            share(whole.params(), shape.params()).map(|share| format!("{share} of {name}"))
        };
        if let Some(points) = shape.points {
            line("points", &|_| points_of(points), String::new());
        }
        line("parameters", &|s| ranged(s.params(), grouped), before.and_then(of).unwrap_or_default());
        line("layers", &layers, shape.layers.as_ref().map(|l| pattern(l)).unwrap_or_default());
        for dim in DIMS.iter().filter(|dim| !shape.sizes(**dim).is_empty()) {
            let size = |s: &Shape| sizes(&s.sizes(*dim));
            if before.is_none_or(|(_, p)| size(p) != size(shape)) {
                line(dim.name(), &size, String::new());
            }
        }
        let at = format!("sequence {}", self.sequence);
        let flops = |s: &Shape| ranged(s.flops_per_token(self.sequence).map(|f| f as f64), operations);
        line("operations", &flops, format!("per token, {at}"));
        line("deployed", &|s| ranged(s.memory(1, self.sequence), bytes), format!("bf16, batch 1, {at}"));
        let text = table.render(|_, text| text);
        out.push('\n');
        out + text.split_once('\n').map_or("", |(_, rows)| rows)
    }

    /// The nearest model before this one whose parameters are known exactly.
    fn reference(&self, shape: &Shape) -> Option<(&'a str, &'a Shape)> {
        let mut from = shape.from.as_deref()?;
        // A model is never made from itself, so that each is passed once.
        for _ in 0..=self.shapes.models.len() {
            let (name, known) = self.shapes.models.get_key_value(from)?;
            let known = known.as_ref()?;
            match (known.params().exact(), known.from.as_deref()) {
                (Some(_), _) | (None, None) => return Some((name, known)),
                (None, Some(next)) => from = next,
            }
        }
        None
    }
}

impl StageReport<'_> {
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
            "rungs": e.rungs.iter().map(rung_json).collect::<Vec<_>>(),
        })
    }

    /// The rungs of a search, one line each.
    fn rungs(&self, search: &plan::Search) -> String {
        let titles = ["", "rung", ">candidates", ">passes", ">training", ">operations", ">memory", "by"];
        let mut table = Table::new(&titles);
        for (number, (rung, e)) in search.search.rungs.iter().zip(&self.estimate.rungs).enumerate() {
            let passes = match (e.passes, e.samples) {
                (0, _) => String::new(),
                (passes, Some(samples)) => format!("{passes} over {samples} samples"),
                (passes, None) => passes.to_string(),
            };
            table.row(vec![
                String::new(),
                (number + 1).to_string(),
                ranged(e.candidates, grouped),
                passes,
                e.tokens.map(|tokens| format!("{} tokens", grouped(tokens))).unwrap_or_default(),
                e.flops.filter(|flops| flops.max > 0.0).map(|f| ranged(f, operations)).unwrap_or_default(),
                e.memory.map(|held| ranged(held, bytes)).unwrap_or_default(),
                rung.to_string(),
            ]);
        }
        table.render(|_, line| line)
    }

    fn cells(&self, verbose: bool) -> Vec<String> {
        let e = &self.estimate;
        let passes = e.passes.map(|p| match p.partial {
            0 => p.whole.to_string(),
            partial => format!("{} + {partial} partial", p.whole),
        });
        let passes = passes.or(e.updates.map(|n| recipe::count(n as usize, "update")));
        let work = match (e.flops, e.sample_flops) {
            (Some(flops), _) => ranged(flops, operations),
            (None, Some(one)) => format!("{} a sample", ranged(one, operations)),
            (None, None) => String::new(),
        };
        let what = match self.state.reason() {
            Some(reason) if verbose => format!("{reason}; {}", self.node.stage.detail()),
            Some(reason) => reason.to_string(),
            None if verbose => self.node.stage.detail(),
            None => brief(&self.node.stage),
        };
        vec![
            self.state.name().into(),
            self.node.stage.name().into(),
            self.node.name.clone(),
            passes.unwrap_or_default(),
            work,
            e.memory.map(|m| ranged(m, bytes)).unwrap_or_default(),
            e.disk.map(|d| ranged(d, bytes)).unwrap_or_default(),
            what,
        ]
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

/// What stands in the way of a stage by itself.
fn obstacle(plan: &Plan, id: StageId, world: &World) -> Option<String> {
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

/// The detail that fits a line: paths and sizes, but no lists of requests.
fn brief(stage: &Stage) -> String {
    match stage {
        Stage::Load(Source::Data(_)) | Stage::Search(_) | Stage::Sensitivity(_) | Stage::Evaluate(_) => {
            String::new()
        }
        stage => stage.detail(),
    }
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

/// `9,600, of which 147 .. 1,614 are feasible`
fn points_of(points: Points) -> String {
    match points.feasible.exact() {
        Some(feasible) if feasible == points.all => grouped(points.all),
        _ => format!("{}, of which {} are feasible", grouped(points.all), ranged(points.feasible, grouped)),
    }
}

fn ranged<T>(bounds: Bounds<T>, show: fn(T) -> String) -> String {
    let (min, max) = (show(bounds.min), show(bounds.max));
    if min == max { min } else { format!("{min} .. {max}") }
}

/// `55.4 %`; nothing where nothing was cut.
fn share(whole: Bounds, part: Bounds) -> Option<String> {
    let percent = |n: u64| n as f64 * 100.0 / whole.max.max(1) as f64;
    let percent = part.map(|n| format!("{:.1}", percent(n)));
    match (whole == part, percent.min == percent.max) {
        (true, _) => None,
        (_, true) => Some(format!("{} %", percent.min)),
        _ => Some(format!("{} .. {} %", percent.min, percent.max)),
    }
}

fn pattern(layers: &[LayerKind]) -> String {
    layers.iter().map(|k| k.letter()).collect()
}

fn layers(shape: &Shape) -> String {
    let kinds = LayerKind::ALL.iter().map(|kind| (kind.name(), shape.count(*kind)));
    let kinds: Vec<String> =
        kinds.filter(|(_, n)| n.max > 0).map(|(name, n)| format!("{} {name}", ranged(n, grouped))).collect();
    format!("{} ({})", sizes(&shape.sizes(Dim::NumLayers)), kinds.join(", "))
}

/// One size, a few, or the ends of many.
fn sizes(sizes: &[usize]) -> String {
    match sizes {
        [] => "none".into(),
        [one] => one.to_string(),
        few if few.len() <= 6 => {
            format!("{{{}}}", few.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        [first, .., last] => format!("{first} .. {last}"),
    }
}
