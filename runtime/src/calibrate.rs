//! One pass of a model over a calibration set, for everything that is asked of it.

use crate::device::{Device, Output};
use crate::evaluate::{Figures, Meter};
use crate::events::Watch;
use crate::linalg;
use crate::run::RunError;
use crate::samples::{Runner, Saves};
use crate::source::{self, WeightSource};
use crate::tree::Tree;
use minic_compiler::forward::{self, Gather, output};
use minic_compiler::hir::LayerMetric;
use minic_compiler::metrics::{Partial, Program};
use minic_compiler::schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a calibration gathered.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Partials of all samples together, by [`output::metric`].
    pub metrics: BTreeMap<String, Partial>,
    /// One score for each of [`Gather::places`]: what the model loses without the layer, or the block that begins there.
    pub layers: Vec<(LayerMetric, Vec<f64>)>,
    /// The mean covariance of the normalised stream over all norms and positions, [E, E].
    pub covariance: Option<Arc<Vec<f64>>>,
    /// Of the model itself, where its loss was asked for.
    pub figures: Option<Figures>,
}

impl Gathered {
    pub fn layer_scores(&self, metric: LayerMetric) -> Option<&[f64]> {
        self.layers.iter().find(|(m, _)| *m == metric).map(|(_, scores)| scores.as_slice())
    }
}

/// Runs `model` once over `samples` of equal length.
pub fn calibrate(
    device: &dyn Device,
    model: &WeightSource,
    gather: &Gather,
    samples: &[&[u32]],
    watch: &Watch,
    saves: Option<Saves>,
) -> Result<Gathered, RunError> {
    let sequence = samples.first().ok_or(RunError::NoSamples)?.len();
    let graph = forward::calibration(model.desc(), sequence, gather)?;
    let schedule = schedule::schedule(&graph)?;
    let weights = source::bind(&schedule, model)?;
    let sink = Sink::new(model, gather);
    let mut runner = Runner::new(device, schedule, weights, samples.len())?;
    let sums = runner.gather(samples, watch, saves, Sums::default(), |sums, outputs| {
        for (name, value) in &outputs {
            sink.push(sums, name, value, sequence);
        }
    })?;
    sink.finish(sums)
}

/// Sums of one layer metric: of the values of all positions, and the positions.
type LayerSum = (f64, u64);

/// One tree an output; what a pass that is not finished is saved as.
#[derive(Default, Serialize, Deserialize)]
struct Sums {
    metrics: BTreeMap<String, Tree<Partial>>,
    layers: BTreeMap<String, Tree<LayerSum>>,
    /// The sum of the samples' in their order: a tree would hold several, and each is as large as a layer.
    covariance: Vec<f64>,
    /// Rows of streams that are in it.
    rows: u64,
    meter: Meter,
}

/// What to make of the outputs.
struct Sink {
    programs: BTreeMap<String, Arc<Program>>,
    /// The column of each output that is a layer's.
    columns: BTreeMap<String, usize>,
    /// Names of outputs, a list for each layer metric.
    order: Vec<(LayerMetric, Vec<String>)>,
    /// Norms that read the stream.
    norms: usize,
}

impl Sink {
    fn new(model: &WeightSource, gather: &Gather) -> Sink {
        let all = (0..model.desc().layers.len()).map(Some).chain([None]);
        let places = all.flat_map(|layer| gather.metrics.iter().map(move |(tap, p)| (layer, tap, p)));
        let programs =
            places.map(|(layer, tap, p)| (output::metric(tap, &p.name, layer), p.clone())).collect();
        let places = gather.places(model.desc().layers.len());
        let names = |m: LayerMetric| places.iter().map(|&l| output::layer(m, l)).collect::<Vec<_>>();
        let order: Vec<(LayerMetric, Vec<String>)> = gather.layers.iter().map(|&m| (m, names(m))).collect();
        let column = |m: LayerMetric| usize::from(m == LayerMetric::Mse);
        let columns = order.iter().flat_map(|(m, names)| names.iter().map(move |n| (n.clone(), column(*m))));
        let norms = model.desc().layers.len() + 1;
        Sink { programs, columns: columns.collect(), order, norms }
    }

    fn push(&self, sums: &mut Sums, name: &str, value: &Output, sequence: usize) {
        if name == output::LOSS {
            sums.meter.push(value, None, None);
        } else if name == output::COVARIANCE {
            sums.covariance.resize(value.f64().len(), 0.0);
            sums.covariance.iter_mut().zip(value.f64()).for_each(|(sum, v)| *sum += v);
            sums.rows += (sequence * self.norms) as u64;
        } else if let Some(program) = self.programs.get(name) {
            let partial = Partial::of_sample(sequence, value.f64().to_vec());
            let tree = sums.metrics.entry(name.to_string()).or_default();
            tree.push(partial, |left, right| program.merge(left, &right));
        } else if let Some(column) = self.columns.get(name) {
            let width = value.f64().len() / sequence.max(1);
            let values = value.f64().iter().skip(*column).step_by(width.max(1));
            let tree = sums.layers.entry(name.to_string()).or_default();
            tree.push((values.sum(), sequence as u64), |a, b| *a = (a.0 + b.0, a.1 + b.1));
        }
    }

    fn finish(self, mut sums: Sums) -> Result<Gathered, RunError> {
        let mut gathered = Gathered { figures: sums.meter.figures(), ..Gathered::default() };
        for (name, tree) in sums.metrics {
            let Some(program) = self.programs.get(&name) else { continue };
            if let Some(total) = tree.finish(|left, right| program.merge(left, &right)) {
                gathered.metrics.insert(name, total);
            }
        }
        if sums.rows > 0 {
            let mut mean = sums.covariance;
            mean.iter_mut().for_each(|sum| *sum /= sums.rows as f64);
            if mean.iter().any(|v| !v.is_finite()) {
                return Err(RunError::NotFinite { what: "the covariance of the stream".into() });
            }
            let width = mean.len().isqrt();
            linalg::mirror(&mut mean, width);
            gathered.covariance = Some(Arc::new(mean));
        }
        for (metric, names) in self.order {
            let mut scores = Vec::with_capacity(names.len());
            for name in names {
                let tree = sums.layers.remove(&name).unwrap_or_default();
                let (sum, positions) =
                    tree.finish(|a, b| *a = (a.0 + b.0, a.1 + b.1)).ok_or(RunError::NoSamples)?;
                let score = sum / positions as f64;
                if !score.is_finite() {
                    return Err(RunError::NotFinite { what: format!("the score of {name}") });
                }
                scores.push(score);
            }
            gathered.layers.push((metric, scores));
        }
        Ok(gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::device::cpu::Cpu;
    use crate::events::{Event, Observer, Stop};
    use crate::store::{Key, Store};
    use minic_compiler::metrics;
    use minic_grammar::ast::Declaration;
    use std::path::Path;
    use std::time::Duration;

    /// Stops a pass once so many samples are through.
    struct StopAfter(usize, Stop);

    impl Observer for StopAfter {
        fn observe(&self, event: &Event) {
            if matches!(event, Event::Progress { done, .. } if *done >= self.0) {
                self.1.set();
            }
        }
    }

    #[test]
    fn a_pass_that_is_stopped_anywhere_goes_on_with_the_same_bits() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance"));
        let model = WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()));
        let program = program("mrecipe 1\nmetric m(x) = l2(mean(abs(x), over = sequence), over = batch)\n");
        let gather = Gather {
            metrics: vec![("mamba.x", Arc::new(program))],
            layers: vec![LayerMetric::Kld, LayerMetric::Cosine],
            covariance: true,
            loss: true,
            ..Gather::default()
        };
        let tokens: Vec<Vec<u32>> =
            (0..11).map(|i| (0..24).map(|t| (i * 7 + t * 5) % 40).collect()).collect();
        let samples: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let quiet = Watch::new("test", &());
        let whole = calibrate(&Cpu, &model, &gather, &samples, &quiet, None).unwrap();
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        for stop_after in 1..samples.len() {
            let key = Key::new("pass", format!("{stop_after}"));
            let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
            let observer = StopAfter(stop_after, Stop::default());
            let watch = Watch { stop: observer.1.clone(), ..Watch::new("test", &observer) };
            let stopped = calibrate(&Cpu, &model, &gather, &samples, &watch, Some(saves));
            // The last samples in flight may be the last of all.
            if let Err(error) = stopped {
                assert!(matches!(error, RunError::Stopped), "{error}");
                let resumed = calibrate(&Cpu, &model, &gather, &samples, &quiet, Some(saves)).unwrap();
                assert_eq!(format!("{resumed:?}"), format!("{whole:?}"), "stopped after {stop_after}");
            }
        }
    }

    fn program(recipe: &str) -> Program {
        match minic_grammar::parse(recipe).0.declarations.first() {
            Some(Declaration::Metric(metric)) => metrics::compile(metric).expect("compiles"),
            other => panic!("{other:?}"),
        }
    }
}
