//! An adapter that was opened: what it can do, its queue, its pipelines, and what went wrong with it.

use super::super::{DeviceError, Profile};
use super::buffers::Tensors;
use super::cache::Cache;
use super::extended;
use super::selftest;
use crate::guard::guarded;
use crate::shader::half::is_cooperative;
use crate::shader::{Caps, Dispatch, Precision, check};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wgpu::hal::api::Vulkan;

/// What is asked of [`Gpu::open`] beside the number of the adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes that a binding reaches, where that is to be less than what the device allows.
    pub binding: Option<usize>,
    /// Bytes of memory, likewise.
    pub memory: Option<u64>,
    /// Cooperative matrices are emulated, with as much workgroup memory as they take: for their test.
    pub emulated: bool,
    /// Cooperative matrices are left alone.
    pub scalar: bool,
    /// No compiled pipelines are kept from one run to the next.
    pub uncached: bool,
    /// Matrix units are to multiply bf16 where they can, which takes an extension that wgpu does not know.
    pub bf16: bool,
}

impl Limits {
    /// What is left of capabilities; `bf16` says whether matrix units multiply it.
    fn of(self, mut caps: Caps, bf16: bool) -> Caps {
        if self.emulated {
            let cooperative = vec![[16, 16, 16]];
            let (subgroup, workgroup_memory) = ((32, 32), caps.workgroup_memory.max(48 << 10));
            caps = Caps { emulated: true, f16: true, subgroup, cooperative, workgroup_memory, ..caps };
        }
        if self.scalar {
            caps.cooperative.clear();
        }
        if bf16 {
            caps.cooperative_bf16 = caps.cooperative.clone();
        }
        caps.binding = caps.binding.min(self.binding.unwrap_or(usize::MAX));
        caps
    }
}

/// An adapter that Vulkan names.
#[derive(Clone, Debug)]
pub struct Found {
    pub name: String,
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, or `software`.
    pub kind: &'static str,
    /// Bytes of the largest heap that is the device's own.
    pub memory: u64,
    pub caps: Caps,
}

pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub found: Found,
    pub caps: Caps,
    /// Offsets of uniform bindings are multiples of it.
    pub uniform: usize,
    pub tensors: Tensors,
    /// By what they were made of.
    pipelines: Mutex<BTreeMap<(bool, String), Arc<Pipeline>>>,
    fault: Arc<Mutex<Option<Fault>>>,
    pub(super) profile: Mutex<Option<Profile>>,
    cache: Option<Cache>,
    /// Where shaders tell that they took more rounds than the device allows, and where the host reads it.
    pub spent: wgpu::Buffer,
    spent_read: Mutex<wgpu::Buffer>,
    /// Why the cooperative matrices that it says to have are not used.
    pub distrusted: Option<String>,
}

pub struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

#[derive(Clone, Debug)]
enum Fault {
    Lost(String),
    /// Lost, because its memory was full.
    Full,
    Memory,
    Other(String),
}

/// Storage bindings that a shader may have, that of counted rounds included.
const BINDINGS: u32 = 9;

fn instance() -> wgpu::Instance {
    let mut wanted = wgpu::InstanceDescriptor::new_without_display_handle();
    wanted.backends = wgpu::Backends::VULKAN;
    wanted.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(wanted)
}

fn adapters() -> Vec<wgpu::Adapter> {
    pollster::block_on(instance().enumerate_adapters(wgpu::Backends::VULKAN))
}

/// All adapters, by their numbers.
pub fn adapters_found() -> Vec<Found> {
    adapters().iter().map(describe).collect()
}

fn describe(adapter: &wgpu::Adapter) -> Found {
    let info = adapter.get_info();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu | wgpu::DeviceType::Other => "software",
    };
    let limits = adapter.limits();
    let features = adapter.features();
    let scalar = |kind| kind == wgpu::CooperativeScalarType::F16;
    let cooperative = adapter.cooperative_matrix_properties();
    let cooperative =
        cooperative.iter().filter(|p| scalar(p.ab_type) && p.cr_type == wgpu::CooperativeScalarType::F32);
    let usable = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    let caps = Caps {
        subgroup: (info.subgroup_min_size, info.subgroup_max_size),
        f16: features.contains(wgpu::Features::SHADER_F16),
        cooperative: cooperative.filter(|_| usable).map(|p| [p.m_size, p.n_size, p.k_size]).collect(),
        cooperative_bf16: Vec::new(),
        emulated: false,
        workgroup_memory: limits.max_compute_workgroup_storage_size as usize,
        invocations: limits.max_compute_invocations_per_workgroup as usize,
        binding: limits.max_storage_buffer_binding_size as usize & !3,
        buffer: usize::try_from(limits.max_buffer_size).unwrap_or(usize::MAX),
        alignment: limits.min_storage_buffer_offset_alignment as usize,
        groups: limits.max_compute_workgroups_per_dimension as usize,
        rounds: None,
        software: kind == "software",
        timestamps: features
            .contains(wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
    };
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
    Found { name: info.name, driver, kind, memory: heap(adapter), caps }
}

/// Bytes of the largest heap that is the device's own; zero where the driver does not say.
fn heap(adapter: &wgpu::Adapter) -> u64 {
    // SAFETY: the adapter is alive for as long as the guard, and nothing is destroyed.
    let Some(raw) = (unsafe { adapter.as_hal::<Vulkan>() }) else { return 0 };
    let instance = raw.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance.
    let memory = unsafe { instance.get_physical_device_memory_properties(raw.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    // 1 is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    heaps.filter(|heap| heap.flags.as_raw() & 1 != 0).map(|heap| heap.size).max().unwrap_or(0)
}

/// What is asked for where an adapter has it.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(wgpu::Features::PIPELINE_CACHE)
    .union(wgpu::Features::PASSTHROUGH_SHADERS)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// Refuses an adapter that has less than every shader needs.
fn enough(adapter: &wgpu::Adapter, has: &Caps) -> Result<(), DeviceError> {
    let Caps { buffer, workgroup_memory, invocations, .. } = Caps::least();
    let lacks = has.buffer < buffer
        || has.workgroup_memory < workgroup_memory
        || has.invocations < invocations
        || adapter.limits().max_storage_buffers_per_shader_stage < BINDINGS;
    if !lacks {
        return Ok(());
    }
    Err(DeviceError::NotOpened(format!(
        "buffers of {buffer} bytes and {BINDINGS} of them a shader, workgroups of {invocations} and {workgroup_memory} \
         bytes for each are needed"
    )))
}

/// Takes down what goes wrong with a device.
fn watch(device: &wgpu::Device) -> Arc<Mutex<Option<Fault>>> {
    let fault = Arc::new(Mutex::new(None));
    let seen = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let fault = match &error {
            wgpu::Error::OutOfMemory { .. } => Fault::Memory,
            other => Fault::Other(other.to_string()),
        };
        lock(&seen).get_or_insert(fault);
    }));
    let seen = fault.clone();
    // It comes first: what fails afterwards fails because of it.
    device.set_device_lost_callback(move |_, why| {
        // What wgpu cannot do without memory costs it the device.
        let full = why == wgpu::hal::DeviceError::OutOfMemory.to_string();
        *lock(&seen) = Some(if full { Fault::Full } else { Fault::Lost(why) });
    });
    fault
}

impl Gpu {
    /// Opens the adapter of this number.
    pub fn open(number: usize, limits: Limits) -> Result<Gpu, DeviceError> {
        let all = adapters();
        let Some(adapter) = all.get(number) else {
            return Err(DeviceError::NoAdapter { number, found: all.len() });
        };
        let mut found = describe(adapter);
        found.memory = found.memory.min(limits.memory.unwrap_or(u64::MAX));
        enough(adapter, &found.caps)?;
        // SAFETY: of the experimental features cooperative matrices alone are used, in kernels that were tested
        // against their scalar twins when the device was opened.
        let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        let wanted = wgpu::DeviceDescriptor {
            label: None,
            required_features: WANTED & adapter.features(),
            required_limits: adapter.limits(),
            experimental_features: experimental,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let extended = limits.bf16.then(|| extended::open(adapter, &wanted)).flatten();
        let caps = limits.of(found.caps.clone(), extended.is_some());
        let opened = extended.map_or_else(|| pollster::block_on(adapter.request_device(&wanted)), Ok);
        let (device, queue) = opened.map_err(|e| DeviceError::NotOpened(e.to_string()))?;
        let word = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4,
                usage,
                mapped_at_creation: false,
            })
        };
        let (copied, read) = (wgpu::BufferUsages::COPY_DST, wgpu::BufferUsages::MAP_READ);
        let spent = word(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | copied);
        let spent_read = Mutex::new(word(read | copied));
        let cache = (!limits.uncached).then(|| Cache::open(&device, &adapter.get_info())).flatten();
        let mut gpu = Gpu {
            fault: watch(&device),
            uniform: device.limits().min_uniform_buffer_offset_alignment as usize,
            device,
            queue,
            found,
            caps,
            tensors: Tensors::default(),
            pipelines: Mutex::default(),
            profile: Mutex::default(),
            cache,
            spent,
            spent_read,
            distrusted: None,
        };
        if gpu.caps.software && !selftest::loops_end(&gpu)? {
            gpu.caps.rounds = Some(selftest::ROUNDS);
        }
        gpu.tested(number, limits)
    }

    /// The same, if its cooperative matrices are right; else without them.
    fn tested(self, number: usize, limits: Limits) -> Result<Gpu, DeviceError> {
        let wrong = |precision: Precision| {
            let is_tested = is_cooperative(&self.caps, precision);
            let why =
                is_tested.then(|| selftest::fault(&self, &self.caps, precision, selftest::size(&self.caps)));
            why.flatten().map(|why| format!("{}: {why}", precision.name()))
        };
        let Some(why) = [Precision::F16, Precision::Bf16].into_iter().find_map(wrong) else {
            return Ok(self);
        };
        // What a fault leaves of a device may be nothing.
        let mut other = match self.check() {
            Ok(()) => self,
            Err(_) => Gpu::open(number, Limits { scalar: true, ..limits })?,
        };
        other.caps.cooperative.clear();
        other.caps.cooperative_bf16.clear();
        other.distrusted = Some(why);
        Ok(other)
    }

    /// The first thing that went wrong since the last question, if anything did.
    pub fn check(&self) -> Result<(), DeviceError> {
        let mut fault = lock(&self.fault);
        match fault.clone() {
            None => Ok(()),
            // A device that is lost stays lost.
            Some(Fault::Lost(why)) => Err(DeviceError::Lost { name: self.found.name.clone(), why }),
            Some(Fault::Full) => Err(DeviceError::DeviceFull { held: self.tensors.bytes() }),
            Some(Fault::Memory) => {
                *fault = None;
                Err(DeviceError::DeviceFull { held: self.tensors.bytes() })
            }
            Some(Fault::Other(what)) => {
                *fault = None;
                Err(DeviceError::Refused(what))
            }
        }
    }

    /// Gives up the device, as a driver does that was reset.
    #[cfg(test)]
    pub fn lose(&self) {
        self.device.destroy();
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }

    /// Waits for what was submitted.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), DeviceError> {
        let until = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        self.poll(until)?;
        if self.caps.rounds.is_some() { self.count() } else { Ok(()) }
    }

    /// wgpu panics where the device is lost while it is waited for; its callback has told of it by then.
    pub(super) fn poll(&self, until: wgpu::PollType) -> Result<(), DeviceError> {
        let waited = guarded(|| self.device.poll(until));
        self.check()?;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(DeviceError::Refused(error.to_string())),
            Err(why) => Err(DeviceError::Refused(why)),
        }
    }

    /// Whether a shader was ended by the device before it was done.
    fn count(&self) -> Result<(), DeviceError> {
        let read = lock(&self.spent_read);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.spent, 0, &read, 0, 4);
        encoder.clear_buffer(&self.spent, 0, None);
        let submitted = self.queue.submit([encoder.finish()]);
        let slice = read.slice(..);
        slice.map_async(wgpu::MapMode::Read, |_| {});
        self.poll(wgpu::PollType::Wait { submission_index: Some(submitted), timeout: None })?;
        let mapped = slice.get_mapped_range().map_err(|e| DeviceError::Refused(e.to_string()))?;
        let spent = mapped.iter().any(|byte| *byte != 0);
        drop(mapped);
        read.unmap();
        if spent { Err(DeviceError::Rounds { name: self.found.name.clone() }) } else { Ok(()) }
    }

    /// A shader that has passed the gate.
    fn module(&self, dispatch: &Dispatch) -> Result<wgpu::ShaderModule, DeviceError> {
        let checked = check(dispatch, &self.caps).map_err(|e| DeviceError::Refused(e.to_string()))?;
        if dispatch.bf16 {
            let entry_points = [wgpu::PassthroughShaderEntryPoint {
                name: "main".into(),
                workgroup_size: checked.invocations,
            }];
            let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
                label: Some(dispatch.name),
                entry_points: (&entry_points).into(),
                spirv: Some(checked.words().map_err(|e| DeviceError::Refused(e.to_string()))?.into()),
                ..Default::default()
            };
            // SAFETY: naga has written and validated it for f16, which it handles as bf16 may be.
            return Ok(unsafe { self.device.create_shader_module_passthrough(descriptor) });
        }
        let source = wgpu::ShaderSource::Naga(Cow::Owned(checked.module));
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(dispatch.name), source };
        Ok(if self.caps.software {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: kernels index within their operands, which the same tests prove with checks on; their loops
            // end, and they divide by numbers that are not zero.
            unsafe {
                self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        })
    }

    /// The pipeline of a shader; made once.
    pub fn pipeline(&self, dispatch: &Dispatch) -> Result<Arc<Pipeline>, DeviceError> {
        let key = (dispatch.bf16, dispatch.text.clone());
        if let Some(pipeline) = lock(&self.pipelines).get(&key) {
            return Ok(pipeline.clone());
        }
        let module = self.module(dispatch)?;
        let entry = |(i, kind): (usize, wgpu::BufferBindingType)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty: kind, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let storage = dispatch
            .binds
            .iter()
            .map(|mat| wgpu::BufferBindingType::Storage { read_only: !mat.memory.is_written() });
        let storage =
            storage.chain(dispatch.counts.then_some(wgpu::BufferBindingType::Storage { read_only: false }));
        let entries: Vec<wgpu::BindGroupLayoutEntry> =
            std::iter::once(wgpu::BufferBindingType::Uniform).chain(storage).enumerate().map(entry).collect();
        let layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let of_all = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(dispatch.name),
            layout: Some(&of_all),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.cache.as_ref().map(|cache| &cache.cache),
        });
        self.check()?;
        let pipeline = Arc::new(Pipeline { pipeline, layout });
        lock(&self.pipelines).insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

/// A lock whose holder cannot leave anything half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
