//! One pass of a model over a calibration set, for everything that is asked of it.

use crate::device::{Device, Output};
use crate::evaluate::{Figures, Meter};
use crate::linalg;
use crate::run::RunError;
use crate::samples::{Pass, Runner};
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

/// One thing that a calibration gathers.
#[derive(Clone, Debug)]
pub enum Item {
    /// At a tap, of every layer that has it, and after the last norm.
    Metric(&'static str, Arc<Program>),
    Layers(LayerMetric),
    Covariance,
    Figures,
}

impl Item {
    pub fn all(gather: &Gather) -> Vec<Item> {
        let metrics = gather.metrics.iter().map(|(tap, program)| Item::Metric(tap, program.clone()));
        let layers = gather.layers.iter().map(|metric| Item::Layers(*metric));
        let rest = [gather.covariance.then_some(Item::Covariance), gather.loss.then_some(Item::Figures)];
        metrics.chain(layers).chain(rest.into_iter().flatten()).collect()
    }

    /// Adds what gathers it.
    pub fn add_to(&self, gather: &mut Gather) {
        match self {
            Item::Metric(tap, program) => gather.metrics.push((*tap, program.clone())),
            Item::Layers(metric) => gather.layers.push(*metric),
            Item::Covariance => gather.covariance = true,
            Item::Figures => gather.loss = true,
        }
    }
}

/// Runs `model` once over all samples of a pass.
pub fn calibrate(
    device: &dyn Device,
    model: &WeightSource,
    gather: &Gather,
    pass: &Pass,
) -> Result<Gathered, RunError> {
    let mut gathered = Gathered::default();
    for (item, sum) in Item::all(gather).iter().zip(sums(device, model, gather, pass)?) {
        sum.finish(item, &mut gathered)?;
    }
    Ok(gathered)
}

/// What the samples of a pass add to every item of `gather`, in the order of [`Item::all`].
pub fn sums(
    device: &dyn Device,
    model: &WeightSource,
    gather: &Gather,
    pass: &Pass,
) -> Result<Vec<Sum>, RunError> {
    let sequence = pass.sequence()?;
    let sink = Sink::new(model.desc().layers.len(), gather, pass.range.start, sequence);
    if pass.range.is_empty() {
        return Ok(sink.empty());
    }
    let graph = forward::calibration(model.desc(), sequence, gather)?;
    let schedule = schedule::schedule(&graph)?;
    let weights = source::bind(&schedule, model)?;
    let mut runner = Runner::new(device, schedule, weights, pass.range.len())?;
    runner.gather(pass, sink.empty(), |sums, outputs| {
        for (name, value) in &outputs {
            sink.push(sums, name, value);
        }
    })
}

/// A sum over rows, and how many they are.
type Counted<T> = (T, u64);

fn add_scalar(left: &mut Counted<f64>, right: Counted<f64>) {
    *left = (left.0 + right.0, left.1 + right.1);
}

fn add_matrix(left: &mut Counted<Vec<f64>>, right: Counted<Vec<f64>>) {
    left.0.iter_mut().zip(right.0).for_each(|(sum, v)| *sum += v);
    left.1 += right.1;
}

/// What neighbouring samples add to an [`Item`]; what a pass that is not finished is saved as.
#[derive(Serialize, Deserialize)]
pub enum Sum {
    /// By layer; `None` is after the last norm.
    Metric(BTreeMap<Option<usize>, Tree<Partial>>),
    /// By layer that was not removed: of the values of all positions.
    Layers(BTreeMap<usize, Tree<Counted<f64>>>),
    /// The lower triangle of [E, E], row by row, over the rows of streams before all norms.
    Covariance(Tree<Counted<Vec<f64>>>),
    Figures(Meter),
}

impl Sum {
    /// With that of the samples that follow; `None` where `right` is of others, or of another item.
    pub fn join(self, right: Sum, item: &Item) -> Option<Sum> {
        Some(match (item, self, right) {
            (Item::Metric(_, program), Sum::Metric(left), Sum::Metric(right)) => {
                Sum::Metric(join_all(left, right, |a, b| program.merge(a, &b))?)
            }
            (Item::Layers(_), Sum::Layers(left), Sum::Layers(right)) => {
                Sum::Layers(join_all(left, right, add_scalar)?)
            }
            (Item::Covariance, Sum::Covariance(left), Sum::Covariance(right)) => {
                Sum::Covariance(left.join(right, add_matrix)?)
            }
            (Item::Figures, Sum::Figures(left), Sum::Figures(right)) => Sum::Figures(left.join(right)?),
            _ => return None,
        })
    }

    /// The sum of all samples as what it is gathered for.
    pub fn finish(self, item: &Item, into: &mut Gathered) -> Result<(), RunError> {
        match (item, self) {
            (Item::Metric(tap, program), Sum::Metric(trees)) => {
                for (layer, tree) in trees {
                    let total = tree.finish(|a, b| program.merge(a, &b)).ok_or(RunError::NoSamples)?;
                    into.metrics.insert(output::metric(tap, &program.name, layer), total);
                }
            }
            (Item::Layers(metric), Sum::Layers(trees)) => {
                let scores = trees.into_iter().map(|(layer, tree)| score(*metric, layer, tree));
                into.layers.push((*metric, scores.collect::<Result<_, _>>()?));
            }
            (Item::Covariance, Sum::Covariance(tree)) => into.covariance = Some(Arc::new(covariance(tree)?)),
            (Item::Figures, Sum::Figures(meter)) => into.figures = meter.figures(),
            (item, _) => {
                return Err(RunError::Unplanned { what: format!("a sum of another kind than {item:?}") });
            }
        }
        Ok(())
    }
}

/// Trees of the same places, each with its neighbour.
fn join_all<K: Ord, T>(
    mut left: BTreeMap<K, Tree<T>>,
    right: BTreeMap<K, Tree<T>>,
    merge: impl Fn(&mut T, T),
) -> Option<BTreeMap<K, Tree<T>>> {
    for (place, tree) in right {
        let joined = match left.remove(&place) {
            Some(before) => before.join(tree, &merge)?,
            // The samples before were none.
            None => tree,
        };
        left.insert(place, joined);
    }
    Some(left)
}

fn score(metric: LayerMetric, layer: usize, tree: Tree<Counted<f64>>) -> Result<f64, RunError> {
    let (sum, positions) = tree.finish(add_scalar).ok_or(RunError::NoSamples)?;
    let score = sum / positions as f64;
    match score.is_finite() {
        true => Ok(score),
        false => Err(RunError::NotFinite { what: format!("the score of {}", output::layer(metric, layer)) }),
    }
}

/// [E, E], the mean over all rows.
fn covariance(tree: Tree<Counted<Vec<f64>>>) -> Result<Vec<f64>, RunError> {
    let (sums, rows) = tree.finish(add_matrix).ok_or(RunError::NoSamples)?;
    if sums.iter().any(|v| !v.is_finite()) {
        return Err(RunError::NotFinite { what: "the covariance of the stream".into() });
    }
    // E (E + 1) / 2 of them.
    let width = (2 * sums.len()).isqrt();
    let mut mean = vec![0.0; width * width];
    let places = (0..width).flat_map(|row| (0..=row).map(move |column| row * width + column));
    places.zip(sums).for_each(|(place, sum)| mean[place] = sum / rows as f64);
    linalg::mirror(&mut mean, width);
    Ok(mean)
}

/// Of a square matrix: a tree holds several, so that half of each counts.
fn lower_triangle(square: &[f64]) -> Vec<f64> {
    let width = square.len().isqrt();
    (0..width).flat_map(|row| square[row * width..=row * width + row].iter().copied()).collect()
}

/// Where the outputs of a calibration's graph go.
struct Sink {
    items: Vec<Item>,
    /// Of each output, its item, and its layer where items have several.
    places: BTreeMap<String, (usize, Option<usize>)>,
    /// Layers that are not removed.
    left: Vec<usize>,
    /// The first sample.
    begin: u64,
    /// Positions of a sample.
    sequence: usize,
    /// Rows of streams that norms read of a sample.
    rows: u64,
}

impl Sink {
    fn new(layers: usize, gather: &Gather, begin: usize, sequence: usize) -> Sink {
        let items = Item::all(gather);
        let left = gather.places(layers);
        let all = || (0..layers).map(Some).chain([None]);
        let mut places = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            match item {
                Item::Metric(tap, p) => {
                    places.extend(all().map(|l| (output::metric(tap, &p.name, l), (i, l))))
                }
                Item::Layers(m) => places.extend(left.iter().map(|&l| (output::layer(*m, l), (i, Some(l))))),
                Item::Covariance => _ = places.insert(output::COVARIANCE.into(), (i, None)),
                Item::Figures => _ = places.insert(output::LOSS.into(), (i, None)),
            }
        }
        let rows = (sequence * (layers + 1)) as u64;
        Sink { items, places, left, begin: begin as u64, sequence, rows }
    }

    /// The sums before the first sample.
    fn empty(&self) -> Vec<Sum> {
        let begin = self.begin;
        let empty = |item: &Item| match item {
            Item::Metric(..) => Sum::Metric(BTreeMap::new()),
            Item::Layers(_) => Sum::Layers(self.left.iter().map(|&l| (l, Tree::at(begin))).collect()),
            Item::Covariance => Sum::Covariance(Tree::at(begin)),
            Item::Figures => Sum::Figures(Meter::at(begin)),
        };
        self.items.iter().map(empty).collect()
    }

    fn push(&self, sums: &mut [Sum], name: &str, value: &Output) {
        let Some((i, layer)) = self.places.get(name) else { return };
        let Some((item, sum)) = self.items.get(*i).zip(sums.get_mut(*i)) else { return };
        match (item, sum, layer) {
            (Item::Metric(_, program), Sum::Metric(trees), layer) => {
                let partial = Partial::of_sample(self.sequence, value.f64().to_vec());
                let tree = trees.entry(*layer).or_insert_with(|| Tree::at(self.begin));
                tree.push(partial, |left, right| program.merge(left, &right));
            }
            (Item::Layers(metric), Sum::Layers(trees), Some(layer)) => {
                let width = value.f64().len() / self.sequence.max(1);
                let column = usize::from(*metric == LayerMetric::Mse);
                let values = value.f64().iter().skip(column).step_by(width.max(1));
                let tree = trees.entry(*layer).or_insert_with(|| Tree::at(self.begin));
                tree.push((values.sum(), self.sequence as u64), add_scalar);
            }
            (Item::Covariance, Sum::Covariance(tree), _) => {
                tree.push((lower_triangle(value.f64()), self.rows), add_matrix)
            }
            (Item::Figures, Sum::Figures(meter), _) => meter.push(value, None, None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
