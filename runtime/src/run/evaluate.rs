//! Figures of models.

use super::load::SampleSet;
use super::{Artifact, Executor, Made, RunError};
use crate::store::Key;
use minic_compiler::plan::Evaluation;
use petgraph::graph::NodeIndex;

/// Models of one `evaluate` line.
type Pair = (Made, Option<Made>);

impl Executor<'_> {
    /// Every model that is named runs once, whatever is compared with it.
    pub(super) fn evaluate(
        &mut self,
        id: NodeIndex,
        evaluations: &[Evaluation],
    ) -> Result<(Artifact, String), RunError> {
        let samples = self.samples(id)?;
        let pairs = self.pairs(evaluations)?;
        let wanted = wanted(&pairs);
        let figures = self.figures(id, &samples, &wanted)?;
        let of = |model: &Made, against: Option<&Made>| {
            let same = |w: &(&Made, Option<&Made>)| {
                w.0.name == model.name && w.1.map(|a| &a.name) == against.map(|a| &a.name)
            };
            wanted.iter().position(same).and_then(|i| figures.get(i))
        };
        let mut told = Vec::new();
        for (evaluation, (model, against)) in evaluations.iter().zip(&pairs) {
            let Some(own) = of(model, against.as_ref()) else { continue };
            told.push(format!("{} loss {:.4}", evaluation.model, own.loss));
            let beside = against.as_ref().and_then(|against| of(against, None));
            self.summary.evaluation(evaluation, own, beside);
        }
        Ok((Artifact::Told, told.join(", ")))
    }

    pub(super) fn evaluation_keys(
        &self,
        samples: &SampleSet,
        evaluations: &[Evaluation],
    ) -> Result<Vec<Key>, RunError> {
        let pairs = self.pairs(evaluations)?;
        self.figure_keys(samples, &wanted(&pairs))
    }

    fn pairs(&self, evaluations: &[Evaluation]) -> Result<Vec<Pair>, RunError> {
        let pair = |e: &Evaluation| {
            let against = e.against.as_ref().map(|name| self.named(name)).transpose()?;
            Ok((self.named(&e.model)?, against))
        };
        evaluations.iter().map(pair).collect()
    }
}

/// Each comparison, and each model that something is compared with by itself; once.
fn wanted(pairs: &[Pair]) -> Vec<(&Made, Option<&Made>)> {
    let mut wanted: Vec<(&Made, Option<&Made>)> = Vec::new();
    for (model, against) in pairs {
        let alone = against.as_ref().map(|against| (against, None));
        for one in [Some((model, against.as_ref())), alone].into_iter().flatten() {
            let same = |w: &(&Made, Option<&Made>)| {
                w.0.name == one.0.name && w.1.map(|a| &a.name) == one.1.map(|a: &Made| &a.name)
            };
            if !wanted.iter().any(same) {
                wanted.push(one);
            }
        }
    }
    wanted
}
