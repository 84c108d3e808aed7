//! How long stages take, by what `minic bench` measured on this machine.

use crate::figures::{Circumstances, Figures, Kind};
use minic_compiler::hir::Quantity;
use minic_compiler::plan::{Bounds, Estimate, Needs, Search, Source, Stage};
use std::collections::BTreeSet;

/// What a stage's time follows from.
pub struct Clock<'a> {
    pub figures: &'a Figures,
    /// The kind of the device.
    pub device: String,
}

/// Of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Time {
    /// `None` where something of it is not measured, or not known before the run.
    pub seconds: Option<Bounds<f64>>,
    /// Measured with a model or samples of another size: a rough guide.
    pub rough: bool,
    /// What no figure is there for.
    pub missing: BTreeSet<Kind>,
}

impl Clock<'_> {
    /// `files`: bytes of the files of a stage that loads data.
    pub fn time(&self, stage: &Stage, estimate: &Estimate, files: Option<u64>) -> Time {
        let Some(work) = work(stage, estimate, files) else { return Time::default() };
        let (params, sequence) =
            (estimate.params.map_or(0, |p| p.min.midpoint(p.max)), estimate.sequence.unwrap_or(0));
        let (mut time, mut sum) = (Time::default(), Bounds { min: 0.0, max: 0.0 });
        for (kind, amount) in work {
            let (params, sequence) = match kind {
                Kind::Forward | Kind::Train => (params, sequence),
                Kind::Data => (0, 0),
                Kind::Load | Kind::Score | Kind::Cut | Kind::Export => (params, 0),
            };
            match self.figures.nearest(&Circumstances::here(kind, &self.device, params, sequence)) {
                Some((figure, near)) => {
                    sum = sum.plus(amount.map(|n| n / figure.rate));
                    time.rough |= !near;
                }
                None => _ = time.missing.insert(kind),
            }
        }
        time.seconds = time.missing.is_empty().then_some(sum);
        time
    }
}

/// Operations and bytes of a stage, by the rate at which they are done; nothing for one that takes no time worth telling,
/// and `None` where it cannot be said.
fn work(stage: &Stage, estimate: &Estimate, files: Option<u64>) -> Option<Vec<(Kind, Bounds<f64>)>> {
    let passed = || Some(vec![(Kind::Forward, estimate.flops?)]);
    let moved = |kind| Some(vec![(kind, estimate.moved?.map(|bytes| bytes as f64))]);
    match stage {
        Stage::Load(Source::Checkpoint { .. }) => moved(Kind::Load),
        Stage::Load(Source::Data(_)) => {
            let bytes = files? as f64;
            Some(vec![(Kind::Data, Bounds { min: bytes, max: bytes })])
        }
        Stage::Calibrate(_) | Stage::Evaluate(_) | Stage::Sensitivity(_) => passed(),
        Stage::Score(score) => match score.needs() {
            Needs::Iterative(_) | Needs::Contiguous(_) | Needs::Residual => passed(),
            Needs::Nothing if !score.score.is_random() => moved(Kind::Score),
            Needs::Request(_) | Needs::Layer(_) | Needs::Covariance | Needs::Nothing => Some(Vec::new()),
        },
        // Of eigenvectors nothing is measured.
        Stage::Rotate => None,
        Stage::Repair(repairs) if repairs.iter().any(|repair| repair.reads_data()) => passed(),
        Stage::Repair(_) | Stage::Report => Some(Vec::new()),
        Stage::Cut(_) => moved(Kind::Cut),
        Stage::Search(search) if measures_speed(search) => None,
        Stage::Search(_) | Stage::Train(_) | Stage::Distill(_) => {
            let (all, trained) = (estimate.flops?, estimate.trained?);
            let passed = Bounds { min: all.min - trained.min, max: all.max - trained.max };
            let both = [(Kind::Forward, passed), (Kind::Train, trained)];
            Some(both.into_iter().filter(|(_, flops)| flops.max > 0.0).collect())
        }
        Stage::Export(_) => moved(Kind::Export),
    }
}

/// How long a measurement of decoding takes is known when it is done.
fn measures_speed(search: &Search) -> bool {
    let terms = search.search.rungs.iter().flat_map(|rung| &rung.by.terms);
    terms
        .into_iter()
        .any(|(_, quantity)| matches!(quantity, Quantity::Latency { .. } | Quantity::Throughput { .. }))
}
