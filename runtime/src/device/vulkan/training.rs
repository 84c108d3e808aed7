//! Training on the device: weights, gradients and AdamW's averages stay there between updates.

use super::super::cpu::told;
use super::super::{Bindings, DeviceError, Outputs, Training, TrainingState, Weights};
use super::buffers::{Pages, Readback};
use super::gpu::Gpu;
use super::lane::{Lane, Own, States};
use super::program::Commands;
use crate::kernels::adamw::shader;
use crate::shader::{Elem, Mat, Memory, Plan, Precision, page_of};
use crate::train::optimizer::Update;
use minic_compiler::schedule::Schedule;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct VulkanTraining {
    gpu: Arc<Gpu>,
    lane: Lane,
    own: Own,
    mean: BTreeMap<String, Pages>,
    square: BTreeMap<String, Pages>,
    /// Weights that are not trained.
    still: Weights,
    norm: Norm,
    /// One step of AdamW for all weights.
    step: Commands,
}

/// The sums of squares of all gradients.
struct Norm {
    commands: Commands,
    sums: Pages,
    readback: Readback,
}

impl VulkanTraining {
    /// Averages that the state does not have yet begin at zero.
    pub fn new(
        gpu: Arc<Gpu>,
        precision: Precision,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
    ) -> Result<VulkanTraining, DeviceError> {
        let (mut weights, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        let (mut mean, mut square) = (BTreeMap::new(), BTreeMap::new());
        for (name, &len) in &schedule.gradients {
            let page = page_of(schedule.columns_of(name));
            let there = Pages::new(&gpu, len, page)?;
            let unbound = || DeviceError::Unbound { what: "weight", name: name.clone() };
            there.upload(&gpu, state.weights.get(name).ok_or_else(unbound)?)?;
            weights.insert(name.clone(), Arc::new(there));
            gradients.insert(name.clone(), Pages::new(&gpu, len, page)?);
            for (averages, known) in [(&mut mean, &state.mean), (&mut square, &state.square)] {
                let there = Pages::new(&gpu, len, page)?;
                if let Some(known) = known.get(name) {
                    there.upload(&gpu, known)?;
                }
                averages.insert(name.clone(), there);
            }
        }
        let own = Own { weights, gradients: Arc::new(gradients) };
        let all = frozen.with(&state.weights);
        let lane = Lane::new(gpu.clone(), precision, schedule, &all, Some(&own), &States::default())?;
        let norm = Norm::new(&gpu, &own)?;
        let still = Update { beta1: 0.0, beta2: 0.0, eps: 1.0, rate: 0.0, step: 1, scale: 0.0 };
        let plan = steps(&gpu, &own, &still, &|_| 0.0);
        let step = Commands::new(&gpu, &plan.dispatches, |memory| match memory {
            Memory::Trained(name) => own.weights.get(name).map(Arc::as_ref),
            Memory::Gradient(name) => own.gradients.get(name),
            Memory::Mean(name) => mean.get(name),
            Memory::Square(name) => square.get(name),
            _ => None,
        })?;
        let still = state.weights.without(|name| own.weights.contains_key(name));
        Ok(VulkanTraining { gpu, lane, own, mean, square, still, norm, step })
    }
}

impl VulkanTraining {
    /// Sets all gradients to zero.
    fn forget(&self) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.own.gradients.values().for_each(|gradient| gradient.clear(&mut encoder));
        self.gpu.queue.submit([encoder.finish()]);
    }
}

/// A step of AdamW for every weight, which `decay` says how much of it decays.
fn steps<'g>(gpu: &'g Gpu, own: &Own, update: &Update, decay: &dyn Fn(&str) -> f64) -> Plan<'g> {
    let mut plan = Plan::new(&gpu.caps);
    for (name, pages) in &own.weights {
        let memory = [Memory::Trained, Memory::Gradient, Memory::Mean, Memory::Square];
        let [w, g, m, v] = memory.map(|memory| flat(pages, memory(name.clone())));
        shader::adamw(&mut plan, [&w, &g, &m, &v], decay(name), update);
    }
    plan
}

/// Matrices of one row over a tensor's memory.
fn flat(pages: &Pages, memory: Memory) -> Mat {
    Mat::new(memory, Elem::F32, 0, 1, pages.len(), pages.len()).paged(pages.page)
}

impl Norm {
    fn new(gpu: &Gpu, own: &Own) -> Result<Norm, DeviceError> {
        let mut plan = Plan::new(&gpu.caps);
        let mats: Vec<Mat> =
            own.gradients.iter().map(|(name, pages)| flat(pages, Memory::Gradient(name.clone()))).collect();
        let sums = shader::square_sums(&mut plan, &mats);
        let there = Pages::new(gpu, 2 * sums, crate::shader::PAGE)?;
        let commands = Commands::new(gpu, &plan.dispatches, |memory| match memory {
            Memory::Gradient(name) => own.gradients.get(name),
            _ => Some(&there),
        })?;
        Ok(Norm { commands, sums: there, readback: Readback::new(gpu, 2 * sums)? })
    }
}

impl Training for VulkanTraining {
    fn gradients(&mut self, samples: &[Bindings]) -> Result<Vec<Outputs>, DeviceError> {
        self.forget();
        samples.iter().map(|sample| self.lane.run(sample)).collect()
    }

    fn norm(&mut self) -> Result<f64, DeviceError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.norm.commands.encode(&mut encoder, 0..self.norm.commands.list.len());
        let sums = &self.norm.sums;
        sums.copy(&mut encoder, 0, sums.len(), &self.norm.readback.buffer, 0);
        let submitted = self.gpu.queue.submit([encoder.finish()]);
        let sum = |words: &[u32]| words.iter().map(|word| f64::from(f32::from_bits(*word))).sum::<f64>();
        Ok(self.norm.readback.read(&self.gpu, submitted, sum)?.sqrt())
    }

    fn update(&mut self, update: &Update, decay: &dyn Fn(&str) -> f64) -> Result<(), DeviceError> {
        self.step.set(&self.gpu, &steps(&self.gpu, &self.own, update, decay).dispatches);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.step.encode(&mut encoder, 0..self.step.list.len());
        self.gpu.queue.submit([encoder.finish()]);
        self.lane.changed()
    }

    fn first_non_finite(&mut self, samples: &[Bindings]) -> Result<Option<String>, DeviceError> {
        self.forget();
        let of = |sample| {
            let mut found = None;
            self.lane.run_each(sample, |step, value| {
                found = value.iter().any(|x| !x.is_finite()).then(|| told(step));
                found.is_none()
            })?;
            Ok(found)
        };
        samples.iter().map(of).find_map(Result::transpose).transpose()
    }

    fn gradient(&self, weight: &str) -> Result<Option<Cow<'_, [f32]>>, DeviceError> {
        let gradient = self.own.gradients.get(weight).map(|pages| pages.download(&self.gpu));
        Ok(gradient.transpose()?.map(Cow::Owned))
    }

    fn weights(&self) -> Result<Cow<'_, Weights>, DeviceError> {
        let mut weights = self.still.clone();
        for (name, pages) in &self.own.weights {
            weights.insert(name.clone(), pages.download(&self.gpu)?);
        }
        Ok(Cow::Owned(weights))
    }

    fn state(&self) -> Result<Cow<'_, TrainingState>, DeviceError> {
        let weights = self.weights()?.into_owned();
        let mut state = TrainingState { weights, ..TrainingState::default() };
        for (averages, there) in [(&mut state.mean, &self.mean), (&mut state.square, &self.square)] {
            for (name, pages) in there {
                averages.insert(name.clone(), pages.download(&self.gpu)?);
            }
        }
        Ok(Cow::Owned(state))
    }

    fn into_state(self: Box<Self>) -> Result<TrainingState, DeviceError> {
        Ok(self.state()?.into_owned())
    }
}
