//! HIR to plan: one stage a step, nothing shared yet (see [`crate::passes`]).
//!
//! Every declaration is lowered, whatever it depends on first. The checker has seen to it that names resolve
//! and that nothing depends on itself; where that is not so, an input is missing and [`Plan::verify`] says which.

mod candidate;

pub use candidate::{Candidate, candidate};

use crate::hir::{self, Origin, Recipe};
use crate::plan::{
    Calibrate, Cut, CutAxis, Evaluation, Export, Needs, Plan, PlanNode, Score, Search, Sensitivity, Source,
    Stage, Training, Value,
};
use minic_grammar::Span;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

/// The whole recipe as a plan, before any pass.
pub fn lower(recipe: &Recipe) -> Plan {
    let mut lowering =
        Lowering { recipe, plan: Plan::default(), models: BTreeMap::new(), spaces: BTreeMap::new() };
    for name in recipe.models.keys().chain(recipe.prunes.keys()) {
        lowering.model(name);
    }
    for name in recipe.searches.keys().chain(recipe.distills.keys()) {
        lowering.model(name);
    }
    lowering.sensitivities();
    lowering.evaluations();
    lowering.exports();
    lowering.report();
    lowering.plan
}

struct Lowering<'a> {
    recipe: &'a Recipe,
    plan: Plan,
    /// `None` while a model is being lowered, and where there is no such model.
    models: BTreeMap<String, Option<NodeIndex>>,
    /// What spaces are made of.
    spaces: BTreeMap<String, Space>,
}

/// The stages that the models of a space have in common.
#[derive(Clone, Default)]
struct Space {
    parent: Option<NodeIndex>,
    /// Its stream, for an axis that keeps leading directions.
    rotated: Option<NodeIndex>,
    samples: Option<NodeIndex>,
    /// In the order of the axes.
    scores: Vec<NodeIndex>,
}

impl Lowering<'_> {
    fn add(
        &mut self,
        name: String,
        stage: Stage,
        span: Span,
        inputs: &[(Option<NodeIndex>, Value)],
    ) -> NodeIndex {
        let id = self.plan.add(PlanNode::new(name, stage, span));
        for (from, value) in inputs {
            if let Some(from) = from {
                self.plan.connect(*from, id, *value);
            }
        }
        id
    }

    /// The stage that completes a model; `None` for a space, and where a name means nothing.
    fn model(&mut self, name: &str) -> Option<NodeIndex> {
        if let Some(done) = self.models.get(name) {
            return *done;
        }
        self.models.insert(name.to_string(), None);
        let made = match self.recipe.origin(name)? {
            Origin::Model(model) => Some(self.checkpoint(name, model)),
            Origin::Prune(prune) => self.prune(name, prune),
            Origin::Search(search) => Some(self.search(name, search)),
            Origin::Distill(distill) => Some(self.distill(name, distill)),
        };
        if let Some(id) = made {
            self.plan.graph[id].makes.push(name.to_string());
        }
        self.models.insert(name.to_string(), made);
        made
    }

    fn checkpoint(&mut self, name: &str, model: &hir::Model) -> NodeIndex {
        let source = Source::Checkpoint { path: model.checkpoint.clone(), dt_floor: model.dt_floor };
        self.add(name.to_string(), Stage::Load(source), model.span, &[])
    }

    /// The declared model at the bottom of `name`, whose tokenizer its data takes.
    fn root(&self, name: &str) -> Option<String> {
        let mut name = name.to_string();
        // A chain longer than there are declarations is a cycle.
        let longest = self.recipe.prunes.len() + self.recipe.searches.len() + self.recipe.distills.len();
        for _ in 0..=longest {
            name = match self.recipe.origin(&name)? {
                Origin::Model(_) => return Some(name),
                Origin::Prune(prune) => prune.from.clone(),
                Origin::Search(search) => search.space.clone(),
                Origin::Distill(distill) => distill.from.clone(),
            };
        }
        None
    }

    /// Data as the tokenizer of `model` reads it. The second tokenizer that reads the same data is named.
    fn data(&mut self, name: &str, model: &str) -> Option<NodeIndex> {
        let data = self.recipe.data.get(name)?;
        let root = if data.tokenizer.is_some() { None } else { Some(self.root(model)?) };
        let tokenizer = root.as_deref().and_then(|r| self.model(r));
        for named in [name.to_string(), self.second(name, root.as_deref())] {
            let Some(id) = self.plan.find(&named) else {
                let placeless = hir::Data { span: Span::default(), ..data.clone() };
                let stage = Stage::Load(Source::Data(placeless));
                return Some(self.add(named, stage, data.span, &[(tokenizer, Value::Tokenizer)]));
            };
            if self.plan.source(id, Value::Tokenizer) == tokenizer {
                return Some(id);
            }
        }
        None
    }

    fn second(&self, data: &str, root: Option<&str>) -> String {
        format!("{data}.{}", root.unwrap_or_default())
    }

    /// Calibration and scores, and then the cut unless it is a space.
    fn prune(&mut self, name: &str, prune: &hir::Prune) -> Option<NodeIndex> {
        let parent = self.model(&prune.from);
        let samples = prune.calibrate.as_ref().and_then(|data| self.data(data, &prune.from));
        let scores: Vec<Score> = prune.axes.iter().map(|cut| self.score_of(cut)).collect();
        let wanted = calibration(&scores);
        let partials = (!wanted.is_empty()).then(|| {
            let inputs = [(parent, Value::Model), (samples, Value::Samples)];
            self.add(format!("{name}.calibrate"), Stage::Calibrate(wanted), prune.span, &inputs)
        });
        let ranked: Vec<NodeIndex> = scores
            .iter()
            .zip(&prune.axes)
            .filter(|(score, _)| score.score != hir::Score::Pca)
            .map(|(score, cut)| self.score(name, score, cut.span, parent, partials, samples))
            .collect();
        let rotated = prune.axes.iter().any(|cut| cut.score == hir::Score::Pca).then(|| {
            let inputs = [(parent, Value::Model), (partials, Value::Partials)];
            self.add(format!("{name}.rotate"), Stage::Rotate, prune.span, &inputs)
        });
        let space = Space { parent, rotated, samples, scores: ranked };
        self.spaces.insert(name.to_string(), space.clone());
        prune.is_model().then(|| self.cut(name, prune, &space))
    }

    fn score_of(&self, cut: &hir::AxisCut) -> Score {
        let program = metric(&cut.score).and_then(|m| self.recipe.metrics.get(m)).map(|m| m.program.clone());
        Score { axis: cut.axis, score: cut.score.clone(), program, tap: cut.tap }
    }

    fn score(
        &mut self,
        prune: &str,
        score: &Score,
        span: Span,
        parent: Option<NodeIndex>,
        partials: Option<NodeIndex>,
        samples: Option<NodeIndex>,
    ) -> NodeIndex {
        let mut inputs = vec![(parent, Value::Model)];
        match score.needs() {
            Needs::Request(_) | Needs::Layer(_) | Needs::Covariance => {
                inputs.push((partials, Value::Partials))
            }
            Needs::Iterative(_) | Needs::Contiguous(_) | Needs::Residual => {
                inputs.push((samples, Value::Samples))
            }
            Needs::Nothing => {}
        }
        self.add(format!("{prune}.score.{}", score.axis.name), Stage::Score(score.clone()), span, &inputs)
    }

    fn cut(&mut self, name: &str, prune: &hir::Prune, space: &Space) -> NodeIndex {
        let axes: Vec<CutAxis> = prune.axes.iter().filter_map(cut_axis).collect();
        let source = space.rotated.or(space.parent);
        let mut inputs = vec![(source, Value::Model)];
        inputs.extend(space.scores.iter().map(|id| (Some(*id), Value::Scores)));
        let stage = Stage::Cut(Cut { axes, constraints: prune.constraints.clone(), control: None });
        let cut = self.add(format!("{name}.cut"), stage, prune.span, &inputs);
        if prune.repairs.is_empty() {
            return cut;
        }
        let repairs = prune.repairs.iter().map(|r| r.kind.clone()).collect();
        let inputs = [(Some(cut), Value::Model), (source, Value::Teacher), (space.samples, Value::Samples)];
        self.add(format!("{name}.repair"), Stage::Repair(repairs), prune.span, &inputs)
    }

    fn search(&mut self, name: &str, search: &hir::Search) -> NodeIndex {
        let prune = self.recipe.prunes.get(&search.space).cloned();
        let mut inputs = self.space_inputs(&search.space);
        let training = search.training.clone();
        if let Some(training) = &training {
            let teacher = training.teacher.as_ref().and_then(|teacher| self.model(teacher));
            inputs.push((teacher, Value::Teacher));
        }
        let mut schedules: Vec<(String, hir::Schedule)> = Vec::new();
        for rung in &search.rungs {
            if let Some(data) = &rung.on {
                inputs.push((self.data(data, &search.space), Value::Samples));
            }
            let schedule = rung.after.as_ref().and_then(|s| Some((s, self.recipe.schedules.get(s)?)));
            if let Some((schedule_name, schedule)) = schedule {
                let default = training.iter().filter(|_| schedule.phases.iter().any(|p| p.data.is_none()));
                inputs.extend(default.map(|t| (self.data(&t.data, &search.space), Value::Samples)));
                inputs.extend(self.phases(schedule, &search.space));
                if schedules.iter().all(|(known, _)| known != schedule_name) {
                    schedules.push((schedule_name.clone(), schedule.clone()));
                }
            }
        }
        let space = prune.unwrap_or_else(|| empty_space(search.span));
        let stage = Stage::Search(Box::new(Search { search: search.clone(), space, schedules }));
        self.add(name.to_string(), stage, search.span, &inputs)
    }

    /// What the models of a space are made from.
    fn space_inputs(&mut self, name: &str) -> Vec<(Option<NodeIndex>, Value)> {
        self.model(name);
        let space = self.spaces.get(name).cloned().unwrap_or_default();
        let mut inputs = vec![(space.parent, Value::Model), (space.rotated, Value::Model)];
        inputs.extend(space.scores.iter().map(|id| (Some(*id), Value::Scores)));
        let repairs = self.recipe.prunes.get(name).map_or(&[][..], |prune| &prune.repairs);
        if repairs.iter().any(|repair| repair.kind.reads_data()) {
            inputs.push((space.samples, Value::Samples));
        }
        inputs
    }

    fn sensitivities(&mut self) {
        let recipe = self.recipe;
        for (name, sensitivity) in &recipe.sensitivities {
            let Some(space) = recipe.prunes.get(&sensitivity.space) else { continue };
            let mut inputs = self.space_inputs(&sensitivity.space);
            inputs.push((self.data(&sensitivity.on, &space.from), Value::Samples));
            let stage = Sensitivity { sensitivity: sensitivity.clone(), space: space.clone() };
            self.add(name.clone(), Stage::Sensitivity(Box::new(stage)), sensitivity.span, &inputs);
        }
    }

    /// The data that phases name for themselves.
    fn phases(&mut self, schedule: &hir::Schedule, model: &str) -> Vec<(Option<NodeIndex>, Value)> {
        let named = schedule.phases.iter().filter_map(|phase| phase.data.as_ref());
        named.map(|data| (self.data(data, model), Value::Samples)).collect()
    }

    fn distill(&mut self, name: &str, distill: &hir::Distill) -> NodeIndex {
        let mut inputs = vec![(self.model(&distill.from), Value::Model)];
        if let Some(teacher) = &distill.teacher {
            inputs.push((self.model(teacher), Value::Teacher));
        }
        inputs.push((self.data(&distill.data, &distill.from), Value::Samples));
        let schedule = self.recipe.schedules.get(&distill.schedule).cloned();
        let schedule = schedule.unwrap_or_else(|| hir::Schedule { phases: Vec::new(), span: distill.span });
        inputs.extend(self.phases(&schedule, &distill.from));
        if let Some(heldout) = &distill.heldout {
            inputs.push((self.data(&heldout.data, &distill.from), Value::Samples));
        }
        let training = Training {
            name: name.to_string(),
            schedule_name: distill.schedule.clone(),
            data: distill.data.clone(),
            schedule,
            weights: distill.weights,
            heldout: distill.heldout.clone(),
        };
        let stage = if distill.teacher.is_some() { Stage::Distill(training) } else { Stage::Train(training) };
        self.add(name.to_string(), stage, distill.span, &inputs)
    }

    fn evaluations(&mut self) {
        let recipe = self.recipe;
        let forms = |e: &hir::Evaluation| {
            let short = format!("evaluate {}", e.model);
            let against = e.against.as_ref().map(|a| format!(" against {a}")).unwrap_or_default();
            vec![short.clone(), format!("{short} on {}", e.on), format!("{short}{against} on {}", e.on)]
        };
        let names = distinct(recipe.evaluations.iter().map(forms).collect());
        for (evaluation, name) in recipe.evaluations.iter().zip(names) {
            let mut inputs = vec![(self.model(&evaluation.model), Value::Model)];
            if let Some(teacher) = &evaluation.against {
                inputs.push((self.model(teacher), Value::Teacher));
            }
            inputs.push((self.data(&evaluation.on, &evaluation.model), Value::Samples));
            let stage = Stage::Evaluate(vec![Evaluation {
                name: name.clone(),
                model: evaluation.model.clone(),
                against: evaluation.against.clone(),
                data: evaluation.on.clone(),
                measures: evaluation.measures.clone(),
            }]);
            self.add(name, stage, evaluation.span, &inputs);
        }
    }

    fn exports(&mut self) {
        let recipe = self.recipe;
        let forms = |e: &hir::Export| {
            let short = format!("export {}", e.model);
            vec![short.clone(), format!("{short} to {}", e.to)]
        };
        let names = distinct(recipe.exports.iter().map(forms).collect());
        for (export, name) in recipe.exports.iter().zip(names) {
            let inputs = [(self.model(&export.model), Value::Model)];
            let stage = Stage::Export(Export {
                model: export.model.clone(),
                to: export.to.clone(),
                dtype: export.dtype,
                shard: export.shard,
            });
            self.add(name, stage, export.span, &inputs);
        }
    }

    /// One report of everything that is measured or published.
    fn report(&mut self) {
        let value = |id: NodeIndex| match self.plan.node(id).stage {
            Stage::Evaluate(_) | Stage::Sensitivity(_) => Some((Some(id), Value::Figures)),
            Stage::Export(_) => Some((Some(id), Value::Folder)),
            _ => None,
        };
        let inputs: Vec<_> = self.plan.graph.node_indices().filter_map(value).collect();
        self.add("report".into(), Stage::Report, Span::default(), &inputs);
    }
}

/// The declared metric at the bottom of a score.
fn metric(score: &hir::Score) -> Option<&str> {
    match score {
        hir::Score::Metric(name) => Some(name),
        hir::Score::Reverse(inner) => metric(inner),
        hir::Score::Layer(_)
        | hir::Score::Iterative(_)
        | hir::Score::Contiguous(_)
        | hir::Score::Residual { .. }
        | hir::Score::Random { .. }
        | hir::Score::Pca => None,
    }
}

/// Everything that these scores want of one pass.
fn calibration(scores: &[Score]) -> Calibrate {
    let mut wanted = Calibrate::default();
    for score in scores {
        let one = match score.needs() {
            Needs::Request(request) => Calibrate { requests: vec![request], ..Calibrate::default() },
            Needs::Layer(metric) => Calibrate { layers: vec![metric], ..Calibrate::default() },
            Needs::Covariance => Calibrate { covariance: true, ..Calibrate::default() },
            Needs::Iterative(_) | Needs::Contiguous(_) | Needs::Residual | Needs::Nothing => {
                Calibrate::default()
            }
        };
        wanted.absorb(&one);
    }
    wanted
}

fn cut_axis(cut: &hir::AxisCut) -> Option<CutAxis> {
    let size = *cut.values.first()?;
    Some(CutAxis { axis: cut.axis, size, leading: cut.score == hir::Score::Pca })
}

fn empty_space(span: Span) -> hir::Prune {
    hir::Prune {
        from: String::new(),
        calibrate: None,
        axes: Vec::new(),
        constraints: hir::Constraints::default(),
        repairs: Vec::new(),
        span,
    }
}

/// For every item the first of its names, from short to long, that no other item's name of that length
/// equals; numbered where all are taken.
fn distinct(forms: Vec<Vec<String>>) -> Vec<String> {
    let alone = |i: usize, level: usize| {
        let name = &forms[i][level];
        forms.iter().enumerate().all(|(j, other)| j == i || other.get(level) != Some(name))
    };
    let mut names: Vec<String> = Vec::new();
    for (i, own) in forms.iter().enumerate() {
        let level = (0..own.len()).find(|&level| alone(i, level)).unwrap_or(own.len() - 1);
        let mut name = own[level].clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{} ({number})", own[level]);
            number += 1;
        }
        names.push(name);
    }
    names
}
