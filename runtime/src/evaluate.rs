//! Loss, perplexity, top-1 accuracy and divergence over samples.
//!
//! Each sample's sums are f64 and are added in a fixed binary tree over the sample index, so that figures are
//! the same bits for any number of threads.

use crate::device::{Device, Output, Weights};
use crate::run::RunError;
use crate::samples::{Pass, Runner};
use crate::source::{self, WeightSource};
use crate::tree::Tree;
use minic_compiler::forward::{self, output};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule::{self, Schedule};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Figures of one model on one set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean over all predicted positions, nats per token.
    pub loss: f64,
    pub perplexity: f64,
    /// Share of predicted positions whose most likely token is the right one.
    pub top1: f64,
    /// KL(teacher || model), mean over all positions, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Predicted positions.
    pub tokens: u64,
    /// Of questions: the share whose every answer token is the likeliest one after what stands before it,
    /// which is what greedy decoding writes. All other figures are of answer tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions: Option<u64>,
}

/// Sums over positions, in the tree's partials.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    nll: f64,
    hits: f64,
    predicted: u64,
    kl: f64,
    positions: u64,
    questions: u64,
    answered: u64,
}

impl Sums {
    /// A row of the loss and of the divergence is of the token that follows; of a question, those that are
    /// followed by a token of the answer count.
    fn of(loss: &Output, divergence: Option<&Output>, answer: Option<&Range<usize>>) -> Sums {
        let mut sums = Sums::default();
        let counts = |row: usize| answer.is_none_or(|answer| answer.contains(&(row + 1)));
        for (_, row) in loss.f64().chunks_exact(2).enumerate().filter(|(i, _)| counts(*i)) {
            sums.nll += row[0];
            sums.hits += row[1];
            sums.predicted += 1;
        }
        let divergence = divergence.map_or(&[][..], Output::f64).chunks_exact(2);
        for (_, row) in divergence.enumerate().filter(|(i, _)| counts(*i)) {
            sums.kl += row[0];
            sums.positions += 1;
        }
        if answer.is_some() {
            sums.questions = 1;
            sums.answered = u64::from(sums.hits == sums.predicted as f64);
        }
        sums
    }

    fn add(&mut self, other: Sums) {
        self.nll += other.nll;
        self.hits += other.hits;
        self.predicted += other.predicted;
        self.kl += other.kl;
        self.positions += other.positions;
        self.questions += other.questions;
        self.answered += other.answered;
    }

    fn figures(self) -> Figures {
        let loss = self.nll / self.predicted as f64;
        Figures {
            loss,
            perplexity: loss.exp(),
            top1: self.hits / self.predicted as f64,
            kl: (self.positions > 0).then(|| self.kl / self.positions as f64),
            tokens: self.predicted,
            accuracy: (self.questions > 0).then(|| self.answered as f64 / self.questions as f64),
            questions: (self.questions > 0).then_some(self.questions),
        }
    }
}

/// Gathers the figures of a run sample by sample.
#[derive(Default, Serialize, Deserialize)]
pub struct Meter {
    tree: Tree<Sums>,
}

impl Meter {
    /// Begins with this sample.
    pub fn at(begin: u64) -> Meter {
        Meter { tree: Tree::at(begin) }
    }

    /// With those of the samples that follow; `None` where `right` is of others.
    pub fn join(self, right: Meter) -> Option<Meter> {
        Some(Meter { tree: self.tree.join(right.tree, Sums::add)? })
    }

    /// The next sample's. `answers` are those of all samples, where these are questions.
    pub fn push(&mut self, loss: &Output, divergence: Option<&Output>, answers: Option<&[Range<usize>]>) {
        let answer = answers.and_then(|answers| answers.get(self.tree.end() as usize));
        self.tree.push(Sums::of(loss, divergence, answer), Sums::add);
    }

    /// `None` before the first sample.
    pub fn figures(self) -> Option<Figures> {
        self.tree.finish(Sums::add).map(Sums::figures)
    }
}

/// One model beside another, by name.
pub use minic_compiler::forward::Comparison;

/// The figures that each comparison asks for, in their order; `kl` where there is something to compare with.
/// Every model is run once over all samples of a pass.
pub fn evaluate(
    device: &dyn Device,
    models: &[(&str, &WeightSource)],
    comparisons: &[Comparison],
    pass: &Pass,
) -> Result<Vec<Figures>, RunError> {
    finish_all(comparisons, meters(device, models, comparisons, pass)?)
}

/// What the samples of a pass add to the figures of each comparison.
pub fn meters(
    device: &dyn Device,
    models: &[(&str, &WeightSource)],
    comparisons: &[Comparison],
    pass: &Pass,
) -> Result<Vec<Meter>, RunError> {
    let descs: Vec<_> = models.iter().map(|(name, source)| (*name, source.desc())).collect();
    gather(device, &descs, comparisons, pass, |schedule| Ok(source::bind_scoped(schedule, models)?))
}

/// The figures of models whose weights `bind` gives, those of model `half` as `half/NAME`.
pub fn measure(
    device: &dyn Device,
    models: &[(&str, &ModelDesc)],
    comparisons: &[Comparison],
    pass: &Pass,
    bind: impl FnOnce(&Schedule) -> Result<Weights, RunError>,
) -> Result<Vec<Figures>, RunError> {
    finish_all(comparisons, gather(device, models, comparisons, pass, bind)?)
}

fn gather(
    device: &dyn Device,
    models: &[(&str, &ModelDesc)],
    comparisons: &[Comparison],
    pass: &Pass,
    bind: impl FnOnce(&Schedule) -> Result<Weights, RunError>,
) -> Result<Vec<Meter>, RunError> {
    let meters: Vec<Meter> = comparisons.iter().map(|_| Meter::at(pass.range.start as u64)).collect();
    if pass.range.is_empty() {
        return Ok(meters);
    }
    let graph = forward::evaluation(models, comparisons, pass.sequence()?)?;
    let schedule = schedule::schedule(&graph)?;
    let weights = bind(&schedule)?;
    let names: Vec<(String, Option<String>)> = comparisons
        .iter()
        .map(|c| (output::loss(c.model), c.against.map(|a| output::divergence(c.model, a))))
        .collect();
    let mut runner = Runner::new(device, schedule, weights, pass.range.len())?;
    runner.gather(pass, meters, |meters, outputs| {
        for (meter, (loss, divergence)) in meters.iter_mut().zip(&names) {
            if let Some(loss) = outputs.get(loss) {
                meter.push(loss, divergence.as_ref().and_then(|d| outputs.get(d)), pass.answers);
            }
        }
    })
}

/// The figures of a meter that saw all samples.
pub fn finish(comparison: &Comparison, meter: Meter) -> Result<Figures, RunError> {
    let figures = meter.figures().ok_or(RunError::NoSamples)?;
    let wrong = [("loss", Some(figures.loss)), ("perplexity", Some(figures.perplexity)), ("kl", figures.kl)]
        .into_iter()
        .find(|(_, value)| value.is_some_and(|value| !value.is_finite()));
    match wrong {
        None => Ok(figures),
        Some((what, _)) => Err(RunError::NotFinite { what: format!("the {what} of `{}`", comparison.model) }),
    }
}

/// All of them.
fn finish_all(comparisons: &[Comparison], meters: Vec<Meter>) -> Result<Vec<Figures>, RunError> {
    comparisons.iter().zip(meters).map(|(comparison, meter)| finish(comparison, meter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of (loss, hit) of a sample of six tokens, and of (divergence, unused).
    fn outputs(hits: [f64; 5]) -> (Output, Output) {
        let loss = hits.iter().enumerate().flat_map(|(i, hit)| [i as f64, *hit]).collect();
        let divergence = (0..6).flat_map(|i| [10.0 * f64::from(i), 0.0]).collect();
        (Output::F64(loss), Output::F64(divergence))
    }

    #[test]
    fn of_a_question_only_the_tokens_of_its_answer_count() {
        // Tokens 3 and 4 are the answer; they are predicted in rows 2 and 3.
        let answers = [3..5, 3..5, 5..6];
        let mut meter = Meter::default();
        for hits in [[0.0, 0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0]] {
            let (loss, divergence) = outputs(hits);
            meter.push(&loss, Some(&divergence), Some(&answers));
        }
        let figures = meter.figures().unwrap();
        assert_eq!((figures.accuracy, figures.questions), (Some(2.0 / 3.0), Some(3)));
        assert_eq!((figures.tokens, figures.top1), (5, 4.0 / 5.0));
        assert_eq!(figures.loss, (2.0 + 3.0 + 2.0 + 3.0 + 4.0) / 5.0);
        assert_eq!(figures.kl, Some((20.0 + 30.0 + 20.0 + 30.0 + 40.0) / 5.0));
    }

    #[test]
    fn of_a_text_every_token_counts_but_the_first() {
        let mut meter = Meter::default();
        let (loss, divergence) = outputs([1.0, 0.0, 1.0, 0.0, 0.0]);
        meter.push(&loss, Some(&divergence), None);
        let figures = meter.figures().unwrap();
        assert_eq!((figures.accuracy, figures.questions), (None, None));
        assert_eq!((figures.tokens, figures.top1, figures.loss), (5, 0.4, 2.0));
        assert_eq!(figures.kl, Some(25.0));
    }
}
