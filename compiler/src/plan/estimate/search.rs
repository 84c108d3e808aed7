//! What a search will cost, rung by rung, and what a sensitivity will.

use super::{Estimate, held, over_samples};
use crate::cost::Passes;
use crate::forward;
use crate::hir::{self, Measure, Quantity};
use crate::plan::{Bounds, Plan, Search, Sensitivity, Shape, Shapes};
use crate::schedule;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

/// One rung of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RungEstimate {
    /// Candidates that are ranked.
    pub candidates: Bounds,
    /// Forward passes over each sample that every candidate takes; those of a model that it is compared with count.
    pub passes: u64,
    /// Windows that are passed over; `None` where that depends on how the files are tokenised.
    pub samples: Option<u64>,
    /// Tokens that every candidate is trained on, beyond those of an earlier rung of the schedule.
    pub tokens: Option<u64>,
    /// Of all candidates together, and those that updates take among them.
    pub flops: Option<Bounds<f64>>,
    pub trained: Option<Bounds<f64>>,
    /// Of one candidate at a time, see [`Estimate::memory`]: at least its weights, at most what the model takes that
    /// the space is cut from.
    pub memory: Option<Bounds>,
}

/// The models behind a search: what is cut, what it may come to, and the teacher, where a loss looks at one.
struct Models<'a> {
    parent: &'a Shape,
    candidate: &'a Shape,
    teacher: Option<&'a Shape>,
}

impl Plan {
    pub(super) fn search(&self, shapes: &Shapes, id: NodeIndex, search: &Search) -> Estimate {
        let parent = shapes.get(&search.space.from);
        let candidate = self.node(id).makes.first().and_then(|winner| shapes.get(winner));
        let (Some(parent), Some(candidate)) = (parent, candidate) else { return Estimate::default() };
        let training = search.search.training.as_ref();
        let teacher = training.and_then(|training| training.teacher.as_ref()).map(|name| shapes.get(name));
        let (None | Some(Some(_))) = teacher else { return Estimate::default() };
        let models = Models { parent, candidate, teacher: teacher.flatten() };
        let mut candidates = candidate.points.map_or(Bounds { min: 1, max: 1 }, |points| points.feasible);
        let mut trained: BTreeMap<&str, u64> = BTreeMap::new();
        let mut rungs = Vec::new();
        for rung in &search.search.rungs {
            let before = rung.after.as_deref().map(|name| trained.get(name).copied().unwrap_or(0));
            rungs.push(self.rung(id, search, rung, &models, candidates, before.unwrap_or(0)));
            if let Some(name) = &rung.after {
                trained.insert(name, rung.tokens.unwrap_or(u64::MAX));
            }
            candidates = candidates.map(|n| n.min(rung.keep as u64));
        }
        let none = Some(Bounds { min: 0.0, max: 0.0 });
        let flops = rungs.iter().fold(none, |sum, rung| Some(sum?.plus(rung.flops?)));
        let trained = rungs.iter().fold(none, |sum, rung| Some(sum?.plus(rung.trained?)));
        let memory = rungs.iter().filter_map(|rung| rung.memory).reduce(Bounds::larger);
        let params = Some(models.candidate.params());
        let ranks = search.search.rungs.iter().filter_map(|rung| rung.on.as_ref());
        let windows = ranks.filter_map(|on| Some(self.loaded(self.samples_of(id, on)?)?.sequence));
        Estimate { flops, trained, params, sequence: windows.max(), memory, rungs, ..Estimate::default() }
    }

    /// `before`: tokens of the schedule that its candidates have been trained on.
    fn rung(
        &self,
        id: NodeIndex,
        search: &Search,
        rung: &hir::Rung,
        models: &Models,
        candidates: Bounds,
        before: u64,
    ) -> RungEstimate {
        let mut estimate = RungEstimate {
            candidates,
            flops: Some(Bounds { min: 0.0, max: 0.0 }),
            ..RungEstimate::default()
        };
        if let Some(name) = &rung.after {
            self.trained_rung(id, search, (name, rung.tokens, before), models, &mut estimate);
        }
        estimate.trained = estimate.flops;
        let measures = |measure: Measure| move |(_, q): &(f64, Quantity)| *q == Quantity::Measured(measure);
        let measured = |(_, quantity): &(f64, Quantity)| matches!(quantity, Quantity::Measured(_));
        if rung.by.terms.iter().any(measured) {
            let against = rung.by.terms.iter().any(measures(Measure::Kl));
            let data =
                rung.on.as_ref().and_then(|on| self.samples_of(id, on)).and_then(|from| self.loaded(from));
            evaluated(data, against, models, &mut estimate);
        }
        let all = |one: Bounds<f64>| Bounds {
            min: one.min * candidates.min as f64,
            max: one.max * candidates.max as f64,
        };
        (estimate.flops, estimate.trained) = (estimate.flops.map(all), estimate.trained.map(all));
        estimate
    }

    /// Adds what one candidate's training takes: three times its forward pass, and the teacher's.
    fn trained_rung(
        &self,
        id: NodeIndex,
        search: &Search,
        (name, until, before): (&str, Option<u64>, u64),
        models: &Models,
        estimate: &mut RungEstimate,
    ) {
        let schedule = search.schedules.iter().find(|(known, _)| known == name).map(|(_, schedule)| schedule);
        let (mut tokens, mut passed) = (Some(0), 0);
        for phase in schedule.iter().flat_map(|schedule| &schedule.phases) {
            let own = search.search.training.as_ref().map(|training| training.data.as_str());
            let data = phase.data.as_deref().or(own).and_then(|data| self.samples_of(id, data));
            let Some(data) = data.and_then(|from| self.loaded(from)) else {
                (tokens, estimate.flops, estimate.memory) = (None, None, None);
                break;
            };
            let part = |until: u64| hir::Phase {
                tokens: until.saturating_sub(passed).min(phase.tokens),
                ..phase.clone()
            };
            let (sequence, earlier) = (phase.window(data.sequence), part(before).trained(data.sequence));
            let more = part(until.unwrap_or(u64::MAX)).trained(data.sequence).saturating_sub(earlier);
            passed = passed.saturating_add(phase.tokens);
            tokens = tokens.map(|sum: u64| sum.saturating_add(more));
            let all = |shape: &Shape, times: f64| {
                shape.flops_per_token(sequence).map(|flops| flops as f64 * times * more as f64)
            };
            let both = [Some(all(models.candidate, 3.0)), models.teacher.map(|teacher| all(teacher, 1.0))];
            estimate.flops =
                both.into_iter().flatten().fold(estimate.flops, |sum, more| sum.map(|sum| sum.plus(more)));
            let most = held(models.parent, models.teacher, phase, sequence).map(|held| held.max);
            // Weights, gradients and two averages, and the teacher's weights.
            let least =
                4 * (4 * models.candidate.params().min + models.teacher.map_or(0, |t| t.params().min));
            let memory = most.map(|max| Bounds { min: least.min(max), max });
            estimate.memory = memory.map(|held| estimate.memory.map_or(held, |known| known.larger(held)));
        }
        estimate.tokens = tokens;
    }

    /// A model for every value of every axis, and the model itself.
    pub(super) fn sensitivity(&self, shapes: &Shapes, id: NodeIndex, of: &Sensitivity) -> Estimate {
        let (Some(parent), Some(data)) = (shapes.get(&of.space.from), self.data(id)) else {
            return Estimate::default();
        };
        let quantities = &of.sensitivity.quantities;
        if !quantities.iter().any(|quantity| matches!(quantity, Quantity::Measured(_))) {
            return Estimate::default();
        }
        let per_token = |shape: &Shape| shape.flops_per_token(data.sequence).map(|flops| flops as f64);
        let whole = per_token(parent);
        let (mut models, mut sum) = (1, whole);
        for axis in &of.space.axes {
            for value in &axis.values {
                let cut = hir::AxisCut { values: vec![*value], ..axis.clone() };
                let one = parent.pruned(&hir::Prune { axes: vec![cut], ..of.space.clone() }, None);
                if !one.is_empty() {
                    (models, sum) = (models + 1, sum.plus(per_token(&one)));
                }
            }
        }
        if quantities.contains(&Quantity::Measured(Measure::Kl)) {
            sum = (1..models).fold(sum, |sum, _| sum.plus(whole));
        }
        let of_sample = sum.map(|flops| flops * data.sequence as f64);
        let memory = evaluation_bytes(parent, data.sequence).and_then(|bytes| Bounds::of([bytes]));
        let passes = Some(Passes { whole: models, partial: 0 });
        Estimate { passes, params: Some(parent.params()), memory, ..over_samples(data, Some(of_sample)) }
    }
}

/// Adds what one candidate's figures take.
fn evaluated(data: Option<&hir::Data>, against: bool, models: &Models, estimate: &mut RungEstimate) {
    estimate.passes = 1 + u64::from(against);
    estimate.samples = data.and_then(|data| data.samples).map(|n| n as u64);
    let Some((data, samples)) = data.zip(estimate.samples) else {
        estimate.flops = None;
        return;
    };
    let tokens = samples as f64 * data.sequence as f64;
    let all = |shape: &Shape| shape.flops_per_token(data.sequence).map(|flops| flops as f64 * tokens);
    let own = all(models.candidate);
    let each = if against { own.plus(all(models.parent)) } else { own };
    estimate.flops = estimate.flops.map(|sum| sum.plus(each));
    let least = 4 * models.candidate.params().min;
    // Of a training of which nothing is known, an evaluation is the least part.
    let known = estimate.flops.and_then(|_| evaluation_bytes(models.parent, data.sequence));
    if let Some(max) = known {
        let held = Bounds { min: least.min(max), max };
        estimate.memory = Some(estimate.memory.map_or(held, |known| known.larger(held)));
    }
}

/// Weights and one lane's buffers of an evaluation of the largest model that may come.
fn evaluation_bytes(model: &Shape, sequence: usize) -> Option<u64> {
    let [_, most] = model.ends()?;
    let graph = forward::evaluation(&[("model", most)], &[], sequence).ok()?;
    let schedule = schedule::schedule(&graph).ok()?;
    Some(schedule.weight_bytes() + schedule.lane_bytes())
}

#[cfg(test)]
mod tests;
