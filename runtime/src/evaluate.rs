//! Loss, perplexity, top-1 accuracy and divergence over samples.
//!
//! Each sample's sums are f64 and are added in a fixed binary tree over the sample index, so that figures are
//! the same bits for any number of threads.

use crate::device::{Device, Output};
use crate::events::Watch;
use crate::run::RunError;
use crate::samples::{Runner, Saves};
use crate::source::{self, WeightSource};
use crate::tree::Tree;
use minic_compiler::forward::{self, output};
use minic_compiler::schedule;
use serde::{Deserialize, Serialize};

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
}

/// Sums over positions, in the tree's partials.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    nll: f64,
    hits: f64,
    predicted: u64,
    kl: f64,
    positions: u64,
}

impl Sums {
    fn of(loss: &Output, divergence: Option<&Output>) -> Sums {
        let mut sums = Sums::default();
        for row in loss.f64().chunks_exact(2) {
            sums.nll += row[0];
            sums.hits += row[1];
            sums.predicted += 1;
        }
        for row in divergence.map_or(&[][..], Output::f64).chunks_exact(2) {
            sums.kl += row[0];
            sums.positions += 1;
        }
        sums
    }

    fn add(&mut self, other: Sums) {
        self.nll += other.nll;
        self.hits += other.hits;
        self.predicted += other.predicted;
        self.kl += other.kl;
        self.positions += other.positions;
    }

    fn figures(self) -> Figures {
        let loss = self.nll / self.predicted as f64;
        Figures {
            loss,
            perplexity: loss.exp(),
            top1: self.hits / self.predicted as f64,
            kl: (self.positions > 0).then(|| self.kl / self.positions as f64),
            tokens: self.predicted,
        }
    }
}

/// Gathers the figures of a run sample by sample.
#[derive(Default, Serialize, Deserialize)]
pub struct Meter {
    tree: Tree<Sums>,
}

impl Meter {
    pub fn push(&mut self, loss: &Output, divergence: Option<&Output>) {
        self.tree.push(Sums::of(loss, divergence), Sums::add);
    }

    /// `None` before the first sample.
    pub fn figures(self) -> Option<Figures> {
        self.tree.finish(Sums::add).map(Sums::figures)
    }
}

/// One model beside another, by name.
pub use minic_compiler::forward::Comparison;

/// The figures that each comparison asks for, in their order; `kl` where there is something to compare with.
/// Every model is run once over `samples`, which are of equal length.
pub fn evaluate(
    device: &dyn Device,
    models: &[(&str, &WeightSource)],
    comparisons: &[Comparison],
    samples: &[&[u32]],
    watch: &Watch,
    saves: Option<Saves>,
) -> Result<Vec<Figures>, RunError> {
    let sequence = samples.first().map_or(0, |s| s.len());
    let descs: Vec<_> = models.iter().map(|(name, source)| (*name, source.desc())).collect();
    let graph = forward::evaluation(&descs, comparisons, sequence)?;
    let schedule = schedule::schedule(&graph)?;
    let weights = source::bind_scoped(&schedule, models)?;
    let names: Vec<(String, Option<String>)> = comparisons
        .iter()
        .map(|c| (output::loss(c.model), c.against.map(|a| output::divergence(c.model, a))))
        .collect();
    let meters: Vec<Meter> = comparisons.iter().map(|_| Meter::default()).collect();
    let mut runner = Runner::new(device, schedule, weights, samples.len())?;
    let meters = runner.gather(samples, watch, saves, meters, |meters, outputs| {
        for (meter, (loss, divergence)) in meters.iter_mut().zip(&names) {
            if let Some(loss) = outputs.get(loss) {
                meter.push(loss, divergence.as_ref().and_then(|d| outputs.get(d)));
            }
        }
    })?;
    let figures = meters.into_iter().map(|meter| meter.figures().ok_or(RunError::NoSamples));
    let figures: Vec<Figures> = figures.collect::<Result<_, _>>()?;
    match figures.iter().zip(comparisons).find(|(f, _)| !f.loss.is_finite()) {
        Some((_, c)) => Err(RunError::NotFinite { what: format!("the loss of `{}`", c.model) }),
        None => Ok(figures),
    }
}
