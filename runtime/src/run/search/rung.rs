//! One rung: every entrant scored, as it is cut or after a short training.

use super::super::load::SampleSet;
use super::super::{Executor, Made, RunError};
use super::entrant::{Choice, Entrant, Trial};
use super::outcome::{RungRecord, ScoreRecord, TieRecord};
use super::schedule_of;
use super::space::Points;
use super::speed::Fit;
use super::within::Within;
use crate::device::Weights;
use crate::evaluate::Figures;
use crate::stats;
use crate::train::TrainError;
use minic_compiler::check::LayerCounts;
use minic_compiler::cost::Parts;
use minic_compiler::hir::{Measure, Objective, Quantity, Rung};
use minic_compiler::pareto;
use minic_compiler::plan;
use petgraph::graph::NodeIndex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a teacher's values that are written down at once, for all candidates to train on.
const WRITTEN: u64 = 8 << 30;

/// What an entrant is scored with.
#[derive(Clone)]
pub(in super::super) struct Look {
    objective: Objective,
    samples: Option<Arc<SampleSet>>,
    /// For the divergence from it.
    against: Option<Made>,
    /// Values of the parent, by which those of a sum are divided.
    units: Vec<f64>,
    /// Of terms that are predicted.
    fits: Vec<Option<Fit>>,
}

impl Executor<'_> {
    /// The scores of a rung, not yet ranked.
    pub(super) fn rung(
        &self,
        id: NodeIndex,
        stage: &plan::Search,
        rung: &Rung,
        choices: &[Choice],
        within: &Within,
    ) -> Result<RungRecord, RunError> {
        let one = self.by_itself(false);
        let mut look = one.look(id, &rung.by, rung.on.as_deref())?;
        let mut record = RungRecord::new(rung, one.parent_score(id, &look)?);
        look.fits = self.by_itself(true).fits(id, &look.objective, choices, within)?;
        record.fits = look.fits.iter().flatten().map(|fit| fit.record.clone()).collect();
        match schedule_of(stage, rung) {
            Some(schedule) => self.trained_scores(id, &look, schedule, rung, choices, within, &mut record)?,
            None => self.cut_scores(id, &look, choices, within, &mut record)?,
        }
        Ok(record)
    }

    /// `on`: the data of what is measured on data.
    pub(in super::super) fn look(
        &self,
        id: NodeIndex,
        objective: &Objective,
        on: Option<&str>,
    ) -> Result<Look, RunError> {
        let samples = on.map(|data| self.samples_named(id, data)).transpose()?;
        let objective = objective.clone();
        let compares = objective.terms.iter().any(|(_, q)| *q == Quantity::Measured(Measure::Kl));
        let against = compares.then(|| self.space_parent(id)).transpose()?;
        let (units, fits) = (vec![1.0; objective.terms.len()], vec![None; objective.terms.len()]);
        let mut look = Look { objective, samples, against, units, fits };
        if look.objective.alone().is_none() {
            let parent = self.space_parent(id)?;
            let figures = self.figures_as_made(id, &look, &parent)?;
            look.units = self.values(id, &look, &parent, figures.as_ref())?;
        }
        Ok(look)
    }

    /// Of the model that the space is cut from; it has no divergence from itself.
    fn parent_score(&self, id: NodeIndex, look: &Look) -> Result<Option<f64>, RunError> {
        if look.against.is_some() {
            return Ok(None);
        }
        Ok(Some(self.seen(id, look, &self.space_parent(id)?)?))
    }

    /// The score of a model as it is made.
    pub(in super::super) fn seen(&self, id: NodeIndex, look: &Look, made: &Made) -> Result<f64, RunError> {
        let figures = self.figures_as_made(id, look, made)?;
        Ok(look.score(&self.values(id, look, made, figures.as_ref())?))
    }

    fn figures_as_made(&self, id: NodeIndex, look: &Look, made: &Made) -> Result<Option<Figures>, RunError> {
        let Some(samples) = &look.samples else { return Ok(None) };
        let figures = self.figures(id, samples, &[(made, look.against.as_ref())])?;
        Ok(figures.into_iter().next())
    }

    /// Of each term of the objective.
    fn values(
        &self,
        id: NodeIndex,
        look: &Look,
        made: &Made,
        figures: Option<&Figures>,
    ) -> Result<Vec<f64>, RunError> {
        let value = |((_, quantity), fit): (&(f64, Quantity), &Option<Fit>)| match fit {
            Some(fit) => Ok(fit.predict(made.source.desc())),
            None => self.quantity(id, quantity, made, figures),
        };
        look.objective.terms.iter().zip(&look.fits).map(value).collect()
    }

    fn quantity(
        &self,
        id: NodeIndex,
        quantity: &Quantity,
        made: &Made,
        figures: Option<&Figures>,
    ) -> Result<f64, RunError> {
        let unplanned = || RunError::Unplanned { what: format!("the {quantity} of {}", made.name) };
        match quantity {
            Quantity::Measured(measure) => {
                let figures = figures.ok_or_else(unplanned)?;
                let value = match measure {
                    Measure::Loss => Some(figures.loss),
                    Measure::Perplexity => Some(figures.perplexity),
                    Measure::Top1 => Some(figures.top1),
                    Measure::Kl => figures.kl,
                    Measure::Accuracy => figures.accuracy,
                };
                value.ok_or_else(unplanned)
            }
            Quantity::Latency { .. } | Quantity::Throughput { .. } => self.speed(id, quantity, made),
            analytic => {
                let desc = made.source.desc();
                let counts = LayerCounts::of(&desc.layers).fewest;
                Ok(Parts::of(analytic, desc).ok_or_else(unplanned)?.total(&counts) as f64)
            }
        }
    }

    /// Entrants as they are cut.
    fn cut_scores(
        &self,
        id: NodeIndex,
        look: &Look,
        choices: &[Choice],
        within: &Within,
        record: &mut RungRecord,
    ) -> Result<(), RunError> {
        let steps = look.samples.as_ref().map_or(1, |samples| samples.record.samples);
        let mut missing = BTreeSet::new();
        within.begin(steps * choices.len());
        for (i, choice) in choices.iter().enumerate() {
            if self.settings.stop.is_set() {
                return Err(RunError::Stopped);
            }
            within.done(i * steps);
            let other = self.other(i);
            let entrant = self.entrant(id, choice)?;
            let mut child = self.beside(id, &entrant, within);
            child.preview |= other.is_some();
            let stage = entrant.lowered.made;
            let made = match look.samples {
                Some(_) => child.draft(&entrant),
                // Its sizes are all that counts.
                None => child.bare(&entrant),
            };
            let scored = made.and_then(|made| {
                let figures = child.figures_as_made(stage, look, &made)?;
                Ok((child.values(stage, look, &made, figures.as_ref())?, figures))
            });
            match (scored, other) {
                (Err(RunError::NotStored), Some(shard)) => _ = missing.insert(shard),
                (scored, _) => record.enter(look, choice, scored)?,
            }
        }
        within.done(steps * choices.len());
        self.all_there(missing)
    }

    /// Entrants after so many tokens of a schedule. All see the same windows; what is read of the teacher is
    /// written down once for all of them, a stretch of updates at a time.
    #[expect(clippy::too_many_arguments, reason = "each says something else of the same rung")]
    fn trained_scores(
        &self,
        id: NodeIndex,
        look: &Look,
        schedule: usize,
        rung: &Rung,
        choices: &[Choice],
        within: &Within,
        record: &mut RungRecord,
    ) -> Result<(), RunError> {
        let entrants = choices.iter().map(|choice| self.entrant(id, choice));
        let entrants: Vec<Entrant> = entrants.collect::<Result<_, _>>()?;
        let (mut open, mut missing) = (Vec::new(), BTreeSet::new());
        for (i, entrant) in entrants.iter().enumerate() {
            let other = self.other(i);
            let mut child = self.beside(id, entrant, within);
            child.preview |= other.is_some();
            match (child.promote(entrant), other) {
                (Err(RunError::NotStored), Some(shard)) => {
                    missing.insert(shard);
                    continue;
                }
                (made, _) => _ = made?,
            }
            let trial = child.trial(entrant, schedule, rung.tokens)?;
            let (_, training) = entrant.training(schedule)?;
            record.updates = Some(trial.until);
            record.tokens = Some(trial.inputs.tokens(training, trial.until));
            let run = Run { entrant, child, schedule, trial, done: 0 };
            match (run.figures(look, None)?, other) {
                (Some(figures), _) => record.enter(look, &entrant.choice, run.scored(look, figures))?,
                (None, Some(shard)) => _ = missing.insert(shard),
                (None, None) => open.push(run),
            }
        }
        self.train_on(look, open, within, record)?;
        self.all_there(missing)
    }

    /// Trains what has no score yet to the end of the rung.
    fn train_on<'c>(
        &self,
        look: &Look,
        mut open: Vec<Run<'c>>,
        within: &Within,
        record: &mut RungRecord,
    ) -> Result<(), RunError> {
        let Some(first) = open.first() else { return Ok(()) };
        let (until, shows) = (first.trial.until, open.len() > 1);
        let written = first.trial.inputs.written(first.entrant.training(first.schedule)?.1);
        let stretch = if shows && written > 0 { (WRITTEN / written).max(1) } else { until };
        within.begin(until as usize * open.len());
        let mut begin = 0;
        while begin < until && !open.is_empty() {
            let end = (begin + stretch).min(until);
            let mut going_on = Vec::new();
            let mut ahead: Vec<Run> = open;
            ahead.reverse();
            while let Some(mut run) = ahead.pop() {
                let others = going_on.iter().chain(&ahead).map(|other: &Run| other.done);
                within.done(others.sum::<u64>() as usize);
                match run.advance(look, end, shows) {
                    Ok(None) => {}
                    Ok(Some(figures)) => {
                        record.enter(look, &run.entrant.choice, run.scored(look, figures))?
                    }
                    Err(error) => {
                        record.enter(look, &run.entrant.choice, Err(error))?;
                        continue;
                    }
                }
                going_on.push(run);
            }
            if let Some(run) = going_on.first().filter(|_| shows) {
                run.forget_written(begin, end)?;
            }
            (open, begin) = (going_on, end);
        }
        Ok(())
    }

    /// Among those that the last rung cannot tell apart the one that the ties say.
    pub(super) fn untie(
        &self,
        id: NodeIndex,
        stage: &plan::Search,
        choices: &[Choice],
        record: &mut RungRecord,
    ) -> Result<Vec<TieRecord>, RunError> {
        let first = self.by_itself(true);
        let mut ties = Vec::new();
        let mut values = record.scores_of_candidates();
        let mut rises = record.descending;
        for tie in &stage.search.ties {
            let best = best_of(&values, rises);
            values.retain(|_, value| (*value - best).abs() <= tie.within);
            if values.len() < 2 {
                break;
            }
            let names: Vec<String> = values.into_keys().collect();
            values = BTreeMap::new();
            for choice in choices.iter().filter(|choice| names.contains(&choice.name)) {
                let within = Within::new(self.observer, &self.plan.node(id).name);
                let entrant = first.entrant(id, choice)?;
                let child = first.beside(id, &entrant, &within);
                let made = child.bare(&entrant)?;
                let value = child.quantity(entrant.lowered.made, &tie.by, &made, None)?;
                values.insert(choice.name.clone(), value);
            }
            rises = tie.by.rises();
            ties.push(TieRecord { by: tie.by.to_string(), within: tie.within, values: values.clone() });
        }
        if !ties.is_empty() {
            let best = best_of(&values, rises);
            let chosen = record.kept.iter().find(|name| values.get(*name) == Some(&best)).cloned();
            let chosen =
                chosen.or_else(|| values.into_iter().find(|(_, v)| *v == best).map(|(name, _)| name));
            if let Some(chosen) = chosen {
                let keep = record.kept.len();
                record.kept.retain(|name| *name != chosen);
                record.kept.insert(0, chosen);
                record.kept.truncate(keep);
            }
        }
        Ok(ties)
    }
}

fn best_of(values: &BTreeMap<String, f64>, rises: bool) -> f64 {
    let all = values.values().copied();
    if rises { all.fold(f64::NEG_INFINITY, f64::max) } else { all.fold(f64::INFINITY, f64::min) }
}

/// An entrant in training.
struct Run<'c> {
    entrant: &'c Entrant,
    child: Executor<'c>,
    schedule: usize,
    trial: Trial,
    /// Updates.
    done: u64,
}

impl Run<'_> {
    /// Those after the last update, where they are stored or the weights are at hand.
    fn figures(&self, look: &Look, weights: Option<&Weights>) -> Result<Option<Figures>, RunError> {
        let unplanned = || RunError::Unplanned { what: "the data of a rung".into() };
        let samples = look.samples.as_ref().ok_or_else(unplanned)?;
        let Trial { training, made, .. } = &self.trial;
        self.child.figures_of(*training, samples, made, look.against.as_ref(), weights)
    }

    fn scored(&self, look: &Look, figures: Figures) -> Result<(Vec<f64>, Option<Figures>), RunError> {
        let Trial { training, made, .. } = &self.trial;
        Ok((self.child.values(*training, look, made, Some(&figures))?, Some(figures)))
    }

    /// Trains on to `end`; the figures where that is the end of the rung.
    fn advance(&mut self, look: &Look, end: u64, shows: bool) -> Result<Option<Figures>, RunError> {
        let weights = self.child.trained_to(self.entrant, self.schedule, &self.trial, end, shows)?;
        self.done = end;
        if end < self.trial.until { Ok(None) } else { self.figures(look, Some(&weights)) }
    }

    fn forget_written(&self, begin: u64, end: u64) -> Result<(), RunError> {
        let (id, training) = self.entrant.training(self.schedule)?;
        self.child.forget_written(id, training, &self.trial.inputs, begin, end)
    }
}

impl Look {
    fn score(&self, values: &[f64]) -> f64 {
        match self.objective.alone() {
            Some(_) => values.iter().sum(),
            None => {
                let terms = self.objective.terms.iter().zip(values).zip(&self.units);
                terms.map(|(((weight, _), value), unit)| weight * value / unit).sum()
            }
        }
    }
}

impl RungRecord {
    fn new(rung: &Rung, parent: Option<f64>) -> RungRecord {
        RungRecord {
            by: rung.by.to_string(),
            descending: rung.descending || rung.by.rises(),
            on: rung.on.clone(),
            after: rung.after.clone(),
            parent,
            ..RungRecord::default()
        }
    }

    /// A candidate whose loss is not finite has failed, and the search goes on.
    fn enter(
        &mut self,
        look: &Look,
        choice: &Choice,
        scored: Result<(Vec<f64>, Option<Figures>), RunError>,
    ) -> Result<(), RunError> {
        let record = match scored {
            Ok((values, figures)) => ScoreRecord { score: Some(look.score(&values)), figures, failed: None },
            Err(error @ (RunError::NotFinite { .. } | RunError::Train(TrainError::Diverged { .. }))) => {
                ScoreRecord { failed: Some(error.to_string()), ..ScoreRecord::default() }
            }
            Err(error) => return Err(error),
        };
        self.scores.insert(choice.name.clone(), record);
        Ok(())
    }

    fn scores_of_candidates(&self) -> BTreeMap<String, f64> {
        self.scores.iter().filter_map(|(name, record)| Some((name.clone(), record.score?))).collect()
    }

    /// Orders what is scored, the best first, of equals in the order of the space; keeps as many as are to go on.
    pub(super) fn rank(
        &mut self,
        points: &Points,
        keep: usize,
        before: Option<&RungRecord>,
    ) -> Result<(), RunError> {
        let place = |name: &str| name.rsplit_once('.').and_then(|(_, place)| place.parse::<u64>().ok());
        let mut order: Vec<(f64, &String)> =
            self.scores.iter().filter_map(|(name, record)| Some((record.score?, name))).collect();
        let sign = if self.descending { -1.0 } else { 1.0 };
        order.sort_by(|a, b| (sign * a.0).total_cmp(&(sign * b.0)).then(place(a.1).cmp(&place(b.1))));
        if order.is_empty() {
            let why = self.scores.values().find_map(|record| record.failed.clone()).unwrap_or_default();
            return Err(RunError::NoCandidate { by: self.by.clone(), why });
        }
        let both = order.iter().filter_map(|(score, name)| Some((before?.scores.get(*name)?.score?, *score)));
        let (then, now): (Vec<f64>, Vec<f64>) = both.unzip();
        self.correlation = stats::spearman(&then, &now);
        let costs = order.iter().map(|(score, name)| (points.params(name).unwrap_or(0) as f64, sign * score));
        let front = pareto::front(&costs.collect::<Vec<_>>())
            .map_err(|_| RunError::NotFinite { what: "a score".into() })?;
        self.front = front.into_iter().map(|i| order[i].1.clone()).collect();
        self.kept = order.into_iter().take(keep).map(|(_, name)| name.clone()).collect();
        Ok(())
    }

    pub(super) fn told(&self, number: usize) -> String {
        let after = self.after.as_ref().map(|schedule| format!(" after {schedule}")).unwrap_or_default();
        let failed = self.scores.values().filter(|record| record.failed.is_some()).count();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let best = self.kept.first().and_then(|name| Some((name, self.scores.get(name)?.score?)));
        let best =
            best.map(|(name, score)| format!("; the best, {name}, has {score:.4}")).unwrap_or_default();
        let rho = self.correlation.map(|rho| format!("; rank correlation with the rung before {rho:.2}"));
        format!(
            "rung {number}, {}{after}: {} scored{failed}, {} go on{best}{}",
            self.by,
            self.scores.len(),
            self.kept.len(),
            rho.unwrap_or_default()
        )
    }
}
