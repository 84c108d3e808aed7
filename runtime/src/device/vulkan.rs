//! The Vulkan device: schedules as compute shaders, through wgpu. Arithmetic is f32; sums that the CPU keeps in f64
//! are pairs of f32.

mod buffers;
mod gpu;
mod lane;
#[cfg(test)]
pub mod once;
mod program;
mod training;

pub use gpu::{Found, Gpu, Limits, adapters_found};

use super::{Bindings, Device, DeviceError, Memory, Outputs, Session, Training, TrainingState, Weights};
use crate::kernels;
use lane::Lane;
use minic_compiler::graph::Op;
use minic_compiler::schedule::Schedule;
use std::sync::Arc;

pub struct Vulkan {
    gpu: Arc<Gpu>,
}

impl Vulkan {
    /// The adapter of this number, in the order in which Vulkan names them.
    pub fn open(number: usize) -> Result<Vulkan, DeviceError> {
        Vulkan::limited(number, Limits::default())
    }

    /// One that uses less than the adapter has, for tests.
    pub fn limited(number: usize, limits: Limits) -> Result<Vulkan, DeviceError> {
        Ok(Vulkan { gpu: Arc::new(Gpu::open(number, limits)?) })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

impl Device for Vulkan {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn kind(&self) -> String {
        format!("vulkan {} {}", self.gpu.found.name, self.gpu.found.driver)
    }

    fn version(&self, op: &Op) -> u32 {
        kernels::find(op).and_then(|kernel| kernel.shaders).map_or(0, |shaders| shaders.version)
    }

    /// A queue runs one sample after the other.
    fn lanes(&self) -> usize {
        1
    }

    fn memory(&self, schedule: &Schedule, lanes: usize) -> Memory {
        let scratch = lane::plan(&self.gpu.caps, schedule).map_or(0, |planned| planned.scratch);
        Memory {
            weights: schedule.weight_bytes(),
            lanes: schedule.lane_bytes() * lanes as u64,
            scratch: 4 * scratch as u64,
        }
    }

    fn prepare(&self, schedule: Arc<Schedule>, weights: Weights) -> Result<Box<dyn Session>, DeviceError> {
        super::bound(&schedule, &weights)?;
        Ok(Box::new(VulkanSession { lane: Lane::new(self.gpu.clone(), schedule, &weights, None)? }))
    }

    fn train(
        &self,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
        _: usize,
    ) -> Result<Box<dyn Training>, DeviceError> {
        super::bound(&schedule, &frozen.clone().with(&state.weights))?;
        Ok(Box::new(training::VulkanTraining::new(self.gpu.clone(), schedule, frozen, state)?))
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
