//! Training on the CPU: every lane adds up the gradients of its samples, then the lanes' are added.

use super::super::{Bindings, DeviceError, Outputs, Training, TrainingState, Weights};
use super::{Bound, Lane};
use crate::train::optimizer::{Update, adamw, square_sum, sum_into};
use minic_compiler::graph::Op;
use minic_compiler::schedule::{Home, Leaf, Step};
use rayon::prelude::*;
use std::borrow::Cow;

pub(super) struct CpuTraining {
    lanes: Vec<Lane>,
    frozen: Weights,
    state: TrainingState,
}

impl CpuTraining {
    /// Averages that the state does not have yet begin at zero.
    pub fn new(lanes: Vec<Lane>, frozen: Weights, mut state: TrainingState) -> CpuTraining {
        let gradients = lanes.first().map(|lane| &lane.gradients);
        for (name, gradient) in gradients.into_iter().flatten() {
            for average in [&mut state.mean, &mut state.square] {
                average.entry(name.clone()).or_insert_with(|| vec![0.0; gradient.len()]);
            }
        }
        CpuTraining { lanes, frozen, state }
    }

    /// Adds the gradients of all lanes into those of the first: neighbors, then neighbors of the sums.
    fn merge(&mut self) {
        let mut step = 1;
        while step < self.lanes.len() {
            for pair in self.lanes.chunks_mut(2 * step).filter(|pair| pair.len() > step) {
                let (left, right) = pair.split_at_mut(step);
                for (into, from) in left[0].gradients.values_mut().zip(right[0].gradients.values()) {
                    sum_into(into, from);
                }
            }
            step *= 2;
        }
    }
}

impl Training for CpuTraining {
    /// Sample i is of lane i modulo their number.
    fn gradients(&mut self, samples: &[Bindings]) -> Result<Vec<Outputs>, DeviceError> {
        let (count, weights) = (self.lanes.len(), Bound { own: &self.state.weights, frozen: &self.frozen });
        let of_lane = |(first, lane): (usize, &mut Lane)| -> Result<Vec<Outputs>, DeviceError> {
            lane.gradients.values_mut().for_each(|gradient| gradient.fill(0.0));
            let own = samples.iter().skip(first).step_by(count);
            own.map(|sample| lane.run(weights, sample)).collect()
        };
        let outputs: Vec<_> = self.lanes.par_iter_mut().with_max_len(1).enumerate().map(of_lane).collect();
        let outputs = outputs.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.merge();
        let mut turns: Vec<_> = outputs.into_iter().map(Vec::into_iter).collect();
        Ok((0..samples.len()).filter_map(|i| turns[i % count].next()).collect())
    }

    fn norm(&mut self) -> Result<f64, DeviceError> {
        let gradients = self.lanes.first().map(|lane| &lane.gradients);
        Ok(gradients.into_iter().flat_map(|g| g.values()).map(|g| square_sum(g)).sum::<f64>().sqrt())
    }

    fn update(&mut self, update: &Update, decay: &dyn Fn(&str) -> f64) -> Result<(), DeviceError> {
        let gradients = self.lanes.first().map(|lane| &lane.gradients);
        let TrainingState { weights, mean, square } = &mut self.state;
        for (name, gradient) in gradients.into_iter().flatten() {
            let averages = (mean.get_mut(name), square.get_mut(name));
            let (Some(weight), (Some(mean), Some(square))) = (weights.get_mut(name), averages) else {
                continue;
            };
            adamw(weight, gradient, mean, square, decay(name), update);
        }
        Ok(())
    }

    fn first_non_finite(&mut self, samples: &[Bindings]) -> Result<Option<String>, DeviceError> {
        let (weights, lane) = (Bound { own: &self.state.weights, frozen: &self.frozen }, &mut self.lanes[0]);
        lane.gradients.values_mut().for_each(|gradient| gradient.fill(0.0));
        let of = |sample| {
            let mut found = None;
            lane.run_each(weights, sample, |lane, step| {
                found = non_finite(lane, step).then(|| told(step));
                found.is_none()
            })?;
            Ok(found)
        };
        samples.iter().map(of).find_map(Result::transpose).transpose()
    }

    fn gradient(&self, weight: &str) -> Result<Option<Cow<'_, [f32]>>, DeviceError> {
        let gradient = self.lanes.first().and_then(|lane| lane.gradients.get(weight));
        Ok(gradient.map(|gradient| Cow::Borrowed(gradient.as_slice())))
    }

    fn weights(&self) -> Result<Cow<'_, Weights>, DeviceError> {
        Ok(Cow::Borrowed(&self.state.weights))
    }

    fn state(&self) -> Result<Cow<'_, TrainingState>, DeviceError> {
        Ok(Cow::Borrowed(&self.state))
    }

    fn into_state(self: Box<Self>) -> Result<TrainingState, DeviceError> {
        Ok(self.state)
    }
}

/// The step has put something that is not a number, or infinite, into its value or its gradient.
fn non_finite(lane: &Lane, step: &Step) -> bool {
    let place = &step.out;
    if let Home::Arena { at, .. } = place.home {
        let rows = (0..place.rows).map(|r| at + place.offset + r * place.stride);
        if rows.into_iter().any(|start| lane.arena[start..start + place.cols].iter().any(|x| !x.is_finite()))
        {
            return true;
        }
    }
    gradient_of(step)
        .and_then(|name| lane.gradients.get(name))
        .is_some_and(|g| g.iter().any(|x| !x.is_finite()))
}

fn gradient_of(step: &Step) -> Option<&str> {
    match step.operands.last().map(|place| &place.home) {
        Some(Home::Leaf(Leaf::Gradient(name))) => Some(name),
        _ => None,
    }
}

/// `the value of linear with backbone.layers.3.mixer.in_proj.weight`
pub(in crate::device) fn told(step: &Step) -> String {
    let weight = step.operands.iter().find_map(|place| match &place.home {
        Home::Leaf(Leaf::Weight(name)) => Some(name.as_str()),
        _ => None,
    });
    let op = step.op.name();
    match (gradient_of(step), weight, &step.op) {
        (_, _, Op::HeadLoss { .. }) => "the loss".to_string(),
        (Some(name), ..) => format!("the gradient of `{name}`"),
        (None, Some(name), _) => format!("the value of {op} with `{name}`"),
        (None, None, _) => format!("a value of {op}"),
    }
}
