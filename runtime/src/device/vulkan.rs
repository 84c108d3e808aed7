//! The Vulkan device: schedules as compute shaders, through wgpu. Arithmetic is f32; sums that the CPU keeps in f64
//! are pairs of f32.

mod buffers;
mod cache;
mod clock;
mod extended;
mod gpu;
mod lane;
#[cfg(test)]
pub mod once;
mod program;
mod selftest;
mod training;

pub use gpu::{Found, Gpu, Limits, adapters_found};

use super::{
    Bindings, Device, DeviceError, Memory, Outputs, Profile, Session, Training, TrainingState, Weights,
};
use crate::kernels;
use crate::memory;
use crate::shader::half::is_cooperative;
use crate::shader::{Caps, Dispatch, Precision};
use lane::{Lane, States};
use minic_compiler::autodiff::Recompute;
use minic_compiler::forward::{self, Answer, Objective};
use minic_compiler::graph::Op;
use minic_compiler::schedule::{self, Schedule};
use minic_compiler::{config, families};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub struct Vulkan {
    gpu: Arc<Gpu>,
    precision: Precision,
    /// The same, rounding nothing; none where this is it.
    exact: Option<Box<Vulkan>>,
}

impl Vulkan {
    pub fn new(gpu: Arc<Gpu>, precision: Precision) -> Vulkan {
        let rounds = precision != Precision::F32;
        let exact = rounds.then(|| Box::new(Vulkan::new(gpu.clone(), Precision::F32)));
        Vulkan { gpu, precision, exact }
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    fn session(
        &self,
        schedule: Arc<Schedule>,
        weights: &Weights,
        states: &States,
    ) -> Result<VulkanSession, DeviceError> {
        let lane = Lane::new(self.gpu.clone(), self.precision, schedule, weights, None, states)?;
        Ok(VulkanSession { lane })
    }

    /// What a schedule needs beside weights that are there already, and `more`, is free. Said before anything is
    /// uploaded, with what would fit: all that a sample needs grows with its length.
    fn has_room(&self, schedule: &Schedule, frozen: &Weights, more: u64) -> Result<(), DeviceError> {
        let planned = lane::plan(&self.gpu.caps, self.precision, schedule)?;
        let Memory { weights, lanes, scratch } = planned.memory(schedule);
        let there = |name: &str, form| frozen.shared(name).is_some_and(|host| self.gpu.holds(host, form));
        let packed = planned.prepared.iter();
        let packed = packed.filter(|of| there(&of.packing.weight, Some(lane::form(of, self.precision))));
        let packed: usize = packed.map(|of| of.words).sum();
        let whole = schedule.weights.iter().filter(|(name, _)| planned.reads(name) && there(name, None));
        let whole: usize = whole.map(|(_, len)| len).sum();
        // While a weight is packed, it is there as it was, too.
        let beside = planned.prepared.iter().filter_map(|of| schedule.weights.get(&of.packing.weight)).max();
        let beside = beside.copied().unwrap_or(0);
        let fixed = weights.saturating_sub(4 * (packed + whole) as u64) + 4 * beside as u64 + more;
        let (sample, has) = (lanes + scratch, self.available());
        if fixed + sample <= has {
            return Ok(());
        }
        let share = has.saturating_sub(fixed) as f64 / sample.max(1) as f64;
        let fits = (schedule.sequence as f64 * share) as usize;
        Err(DeviceError::DeviceMemory { bytes: fixed + sample, has, fits })
    }
}

/// The dispatches of every step of a schedule, as a device of these capabilities runs them.
pub fn dispatches(
    caps: &Caps,
    precision: Precision,
    schedule: &Schedule,
) -> Result<Vec<Vec<Dispatch>>, DeviceError> {
    let lane::Planned { ends, mut dispatches, .. } = lane::plan(caps, precision, schedule)?;
    let mut steps: Vec<Vec<Dispatch>> =
        ends.iter().rev().skip(1).map(|end| dispatches.split_off(*end)).collect();
    steps.push(dispatches);
    steps.reverse();
    Ok(steps)
}

/// The shaders that operations run on a device of these capabilities, by operation: those of training a small hybrid, and
/// of decoding with it.
pub fn variants(caps: &Caps, precision: Precision) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut variants: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for schedule in small_schedules().unwrap_or_default() {
        for (step, dispatches) in
            schedule.steps.iter().zip(dispatches(caps, precision, &schedule).unwrap_or_default())
        {
            variants.entry(step.op.name()).or_default().extend(dispatches.iter().map(|d| d.name));
        }
    }
    variants
}

/// Schedules with every kind of block: forward and in reverse, of first tokens, and of a step.
fn small_schedules() -> Option<Vec<Schedule>> {
    let config = config::parse(SMALL).ok()?;
    let desc = families::describe(&config).ok()?;
    let objective = Objective::cross_entropy();
    let training = forward::training(&desc, None, &objective, 32, 1, Recompute::Cheap).ok()?;
    let first = forward::prefill(&desc, 32, 1, 64, Answer::Token).ok()?;
    let step = forward::step(&desc, 1, 64, Answer::Token).ok()?;
    [training.graph, first, step].iter().map(|graph| schedule::schedule(graph).ok()).collect()
}

const SMALL: &str = r#"{ "model_type": "nemotron_h", "hybrid_override_pattern": "M-*", "vocab_size": 32,
    "hidden_size": 16, "intermediate_size": 32, "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2,
    "ssm_state_size": 8, "conv_kernel": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8 }"#;

impl Device for Vulkan {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn kind(&self) -> String {
        let Found { name, driver, .. } = &self.gpu.found;
        let by = if is_cooperative(&self.gpu.caps, self.precision) { " cooperative" } else { "" };
        format!("vulkan {name} {driver} {}{by}", self.precision.name())
    }

    fn version(&self, op: &Op) -> u32 {
        kernels::find(op).map_or(0, |kernel| kernel.shaders.version)
    }

    fn exact(&self) -> &dyn Device {
        self.exact.as_deref().unwrap_or(self)
    }

    fn start_profile(&self) -> bool {
        self.gpu.start_profile()
    }

    fn take_profile(&self) -> Option<Profile> {
        self.gpu.take_profile()
    }

    /// A queue runs one sample after the other.
    fn lanes(&self) -> usize {
        1
    }

    /// One lane serves all samples.
    fn memory(&self, schedule: &Schedule, _: usize) -> Memory {
        let planned = lane::plan(&self.gpu.caps, self.precision, schedule);
        planned.map_or(
            Memory { weights: schedule.weight_bytes(), lanes: schedule.lane_bytes(), scratch: 0 },
            |planned| planned.memory(schedule),
        )
    }

    /// Of the device, where it has memory of its own; others share the host's. A driver that does not say is believed to
    /// have enough.
    fn available(&self) -> u64 {
        let Found { memory: own, kind, .. } = &self.gpu.found;
        let own = if *own == 0 { u64::MAX } else { own.saturating_sub(self.gpu.tensors.bytes()) };
        if *kind == "discrete" || *kind == "virtual" { own } else { own.min(memory::available()) }
    }

    fn prepare(&self, schedule: Arc<Schedule>, weights: Weights) -> Result<Box<dyn Session>, DeviceError> {
        super::bound(&schedule, &weights)?;
        self.has_room(&schedule, &weights, 0)?;
        let states = lane::states(&self.gpu, &schedule)?;
        Ok(Box::new(self.session(schedule, &weights, &states)?))
    }

    fn decode(
        &self,
        schedules: [Arc<Schedule>; 2],
        weights: Weights,
    ) -> Result<[Box<dyn Session>; 2], DeviceError> {
        for [one, other] in [[0, 1], [1, 0]].map(|pair| pair.map(|i| &schedules[i])) {
            super::bound(one, &weights)?;
            self.has_room(one, &weights, other.lane_bytes())?;
        }
        let states = lane::states(&self.gpu, &schedules[1])?;
        let [first, step] = schedules.map(|schedule| self.session(schedule, &weights, &states));
        Ok([Box::new(first?), Box::new(step?)])
    }

    fn train(
        &self,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
        _: usize,
    ) -> Result<Box<dyn Training>, DeviceError> {
        super::bound(&schedule, &frozen.clone().with(&state.weights))?;
        self.has_room(&schedule, &frozen, schedule.average_bytes())?;
        Ok(Box::new(training::VulkanTraining::new(
            self.gpu.clone(),
            self.precision,
            schedule,
            frozen,
            state,
        )?))
    }
}

struct VulkanSession {
    lane: Lane,
}

impl Session for VulkanSession {
    fn run(&mut self, bindings: &Bindings) -> Result<Outputs, DeviceError> {
        self.lane.run(bindings)
    }
}

#[cfg(test)]
mod tests;
