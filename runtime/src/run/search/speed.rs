//! Latency and throughput: measured on the device, and for many candidates fitted to measurements of a few.

use super::super::{Executor, Made, RunError};
use super::entrant::Choice;
use super::outcome::FitRecord;
use super::within::Within;
use crate::decode::{self, Request, Speed};
use crate::linalg;
use crate::provenance::ModelRecord;
use crate::store::Key;
use minic_compiler::check::LayerCounts;
use minic_compiler::cost;
use minic_compiler::hir::{Objective, Quantity};
use minic_compiler::model::ModelDesc;
use petgraph::graph::NodeIndex;
use serde_json::json;

/// Rounds of a measurement, the median of which counts.
const REPEATS: usize = 5;
/// The most candidates of a rung of which every one is measured, and how many are where there are more.
const MEASURED: usize = 24;
/// Raised when speeds are measured in another way.
const VERSION: u32 = 1;

impl Executor<'_> {
    /// As measured. Weights play no part, so that models of one shape are measured once.
    pub(super) fn speed(&self, id: NodeIndex, quantity: &Quantity, made: &Made) -> Result<f64, RunError> {
        let request = request(quantity).ok_or_else(|| RunError::Unplanned { what: quantity.to_string() })?;
        let shape = serde_json::to_value(ModelRecord::of(made.source.desc())).unwrap_or_default();
        let key = Key::new("speed", format!("{quantity} of {}", made.name))
            .field("shape", shape)
            .field("request", json!(request))
            .field("repeats", REPEATS)
            .field("device", json!([self.device.kind(), self.device.name(), rayon::current_num_threads()]))
            .field("version", VERSION);
        let speed = match self.recall::<Speed>(id, &key)? {
            Some(speed) => speed,
            None if self.preview => return Err(RunError::NotStored),
            None => {
                let watch = self.watch(id);
                let speed = decode::measure(self.device, &made.source, request, REPEATS, &watch)?;
                self.store.put(&key, &speed)?;
                speed
            }
        };
        Ok(match quantity {
            Quantity::Latency { .. } => speed.latency.median,
            _ => speed.throughput.median,
        })
    }

    /// For each term of an objective that is a speed of many candidates, a model fitted to some of them: those that
    /// lie evenly in the order of the space.
    pub(super) fn fits(
        &self,
        id: NodeIndex,
        objective: &Objective,
        choices: &[Choice],
        within: &Within,
    ) -> Result<Vec<Option<Fit>>, RunError> {
        let fit = |(_, quantity): &(f64, Quantity)| {
            if request(quantity).is_none() || choices.len() <= MEASURED {
                return Ok(None);
            }
            let mut seconds = Vec::new();
            within.begin(MEASURED * REPEATS);
            for i in 0..MEASURED {
                within.done(i * REPEATS);
                let entrant = self.entrant(id, &choices[i * (choices.len() - 1) / (MEASURED - 1)])?;
                let child = self.beside(id, &entrant, within);
                let made = child.bare(&entrant)?;
                let value = child.speed(entrant.lowered.made, quantity, &made)?;
                seconds.push((made.source.desc().clone(), turned(quantity, value)));
            }
            Ok(Fit::new(quantity, &seconds))
        };
        objective.terms.iter().map(fit).collect()
    }
}

fn request(quantity: &Quantity) -> Option<Request> {
    match *quantity {
        Quantity::Latency { input, batch } => Some(Request { input, output: 1, batch }),
        Quantity::Throughput { input, output, batch } => Some(Request { input, output, batch }),
        _ => None,
    }
}

/// Seconds of a request from its speed, and the other way round.
fn turned(quantity: &Quantity, value: f64) -> f64 {
    match *quantity {
        Quantity::Throughput { output, batch, .. } => (batch * output) as f64 / value,
        _ => value,
    }
}

/// Seconds of a request as a linear function of what the request asks of a model.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    quantity: Quantity,
    weights: Vec<f64>,
    pub record: FitRecord,
}

impl Fit {
    /// By least squares of the relative errors. Its own error is that on each model by a fit to all others.
    fn new(quantity: &Quantity, measured: &[(ModelDesc, f64)]) -> Option<Fit> {
        let rows: Vec<(Vec<f64>, f64)> =
            measured.iter().map(|(desc, seconds)| (features(quantity, desc), *seconds)).collect();
        let errors: Option<Vec<f64>> = (0..rows.len())
            .map(|i| {
                let others: Vec<_> =
                    rows.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, r)| r).collect();
                let weights = least_squares(&others)?;
                Some((dot(&weights, &rows[i].0) / rows[i].1 - 1.0).abs())
            })
            .collect();
        let errors = errors?;
        let record = FitRecord {
            quantity: quantity.to_string(),
            measured: rows.len(),
            mean_error: errors.iter().sum::<f64>() / errors.len() as f64,
            worst_error: errors.iter().copied().fold(0.0, f64::max),
        };
        let weights = least_squares(&rows.iter().collect::<Vec<_>>())?;
        Some(Fit { quantity: quantity.clone(), weights, record })
    }

    pub fn predict(&self, desc: &ModelDesc) -> f64 {
        turned(&self.quantity, dot(&self.weights, &features(&self.quantity, desc)).max(f64::MIN_POSITIVE))
    }
}

/// One, the layers, operations of the first tokens and of those that follow, and for each of the latter the bytes of
/// the weights and of what sequences remember.
fn features(quantity: &Quantity, desc: &ModelDesc) -> Vec<f64> {
    let Some(Request { input, output, batch }) = request(quantity) else { return Vec::new() };
    let counts = LayerCounts::of(&desc.layers).fewest;
    let of = |quantity| cost::Parts::of(&quantity, desc).map_or(0.0, |parts| parts.total(&counts) as f64);
    let steps = (output - 1) as f64;
    vec![
        1.0,
        desc.layers.len() as f64,
        batch as f64 * of(Quantity::Flops { sequence: input }),
        steps * batch as f64 * of(Quantity::DecodeFlops { context: input + output / 2 }),
        steps * of(Quantity::Params),
        steps * of(Quantity::Cache { batch, sequence: input + output / 2 }),
    ]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Weights w that make the sum of (w x / y - 1)^2 over rows (x, y) least. Columns are brought to one size, and a
/// trifle is added to the diagonal: columns may depend on each other, as the layers do on nothing where depth is no
/// axis.
fn least_squares(rows: &[&(Vec<f64>, f64)]) -> Option<Vec<f64>> {
    let n = rows.first()?.0.len();
    let scale: Vec<f64> = (0..n)
        .map(|j| rows.iter().map(|(x, y)| (x[j] / y).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE))
        .collect();
    let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
    for (x, y) in rows {
        let scaled: Vec<f64> = (0..n).map(|j| x[j] / y / scale[j]).collect();
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] += scaled[i] * scaled[j];
            }
            b[i] += scaled[i];
        }
    }
    (0..n).for_each(|i| a[i * n + i] += 1e-9);
    linalg::solve(&mut a, n, &mut b, 1)?;
    Some(b.iter().zip(&scale).map(|(w, scale)| w / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_fit_finds_a_speed_that_is_linear_in_what_is_asked() {
        let quantity = Quantity::Throughput { input: 64, output: 32, batch: 2 };
        let whole = testing::desc(&testing::config());
        let sized = |ffn: usize, hidden: usize| {
            let mut desc = whole.clone();
            desc.dims.insert(minic_compiler::dim::Dim::FfnHiddenSize, ffn);
            desc.dims.insert(minic_compiler::dim::Dim::HiddenSize, hidden);
            desc
        };
        let seconds = |desc: &ModelDesc| {
            let x = features(&quantity, desc);
            1e-3 * x[0] + 2e-9 * x[2] + 5e-9 * x[3] + 1e-8 * x[4]
        };
        let models: Vec<_> = (0..12).map(|i| sized(8 + 3 * i, 8 + (i * 5) % 12)).collect();
        let measured: Vec<_> = models.iter().map(|desc| (desc.clone(), seconds(desc))).collect();
        let fit = Fit::new(&quantity, &measured).unwrap();
        assert!(fit.record.worst_error < 1e-4, "{:?}", fit.record);
        let other = sized(50, 11);
        assert!((fit.predict(&other) * seconds(&other) / 64.0 - 1.0).abs() < 1e-3);
        // A model that is off is told by its error.
        let mut odd = measured.clone();
        odd[5].1 *= 2.0;
        assert!(Fit::new(&quantity, &odd).unwrap().record.worst_error > 0.3);
    }
}
