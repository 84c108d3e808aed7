//! The dispatches of a schedule, ready to be encoded: pipelines, bind groups and parameters are made once.

use super::super::DeviceError;
use super::buffers::{Pages, Readback, bytes_of_u32};
use super::clock::Clock;
use super::gpu::{Gpu, Pipeline};
use crate::shader::{Dispatch, Mat, Memory, PAGE, Plan};
use std::ops::Range;
use std::sync::Arc;

/// One dispatch.
pub struct Command {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    groups: [u32; 2],
    pub name: &'static str,
}

impl Command {
    fn encode(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.groups[0], self.groups[1], 1);
    }
}

/// Dispatches with their parameters.
pub struct Commands {
    pub list: Vec<Command>,
    params: wgpu::Buffer,
}

impl Commands {
    /// Binds dispatches to memory, which `memory` finds.
    pub fn new<'m>(
        gpu: &Gpu,
        dispatches: &[Dispatch],
        memory: impl Fn(&Memory) -> Option<&'m Pages>,
    ) -> Result<Commands, DeviceError> {
        let (words, places) = parameters(gpu, dispatches);
        let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: (4 * words.len()).max(4) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&params, 0, bytes_of_u32(&words));
        let make = |(dispatch, at): (&Dispatch, usize)| -> Result<Command, DeviceError> {
            let pipeline = gpu.pipeline(dispatch)?;
            let uniform = wgpu::BufferBinding {
                buffer: &params,
                offset: at as u64,
                size: wgpu::BufferSize::new(4 * dispatch.params.len() as u64),
            };
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
            for (i, mat) in dispatch.binds.iter().enumerate() {
                let unbound =
                    || DeviceError::Unbound { what: "memory of", name: format!("{:?}", mat.memory) };
                let pages = memory(&mat.memory).ok_or_else(unbound)?;
                let resource = wgpu::BindingResource::Buffer(window(gpu, mat, pages));
                entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
            }
            if dispatch.counts {
                let binding = entries.len() as u32;
                entries.push(wgpu::BindGroupEntry { binding, resource: gpu.spent.as_entire_binding() });
            }
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.name),
                layout: &pipeline.layout,
                entries: &entries,
            });
            Ok(Command { pipeline, group, groups: dispatch.groups, name: dispatch.name })
        };
        let list = dispatches.iter().zip(places).map(make).collect::<Result<_, _>>()?;
        gpu.check()?;
        Ok(Commands { list, params })
    }

    /// Other parameters for the same dispatches, for whatever is submitted next.
    pub fn set(&self, gpu: &Gpu, dispatches: &[Dispatch]) {
        gpu.queue.write_buffer(&self.params, 0, bytes_of_u32(&parameters(gpu, dispatches).0));
    }

    /// All of them at once.
    pub fn run(&self, gpu: &Gpu) -> Result<(), DeviceError> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.encode(&mut encoder, 0..self.list.len());
        let submitted = gpu.queue.submit([encoder.finish()]);
        gpu.wait(submitted)
    }

    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, which: Range<usize>) {
        self.encode_timed(encoder, which, None);
    }

    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        which: Range<usize>,
        clock: Option<&Clock>,
    ) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let tick = |pass: &mut wgpu::ComputePass, i| clock.into_iter().for_each(|clock| clock.tick(pass, i));
        let count = which.len();
        for (i, command) in self.list[which].iter().enumerate() {
            tick(&mut pass, i);
            command.encode(&mut pass);
        }
        tick(&mut pass, count);
    }
}

/// Runs a plan over memory that holds `given` before, one vector of words each; what they hold afterwards. Scratch holds
/// numbers that are none, because nothing may rely on it.
pub fn run_once(gpu: &Gpu, plan: &Plan, given: &[(Memory, Vec<u32>)]) -> Result<Vec<Vec<u32>>, DeviceError> {
    let page = |words: &[u32]| -> Result<Pages, DeviceError> {
        let pages = Pages::new(gpu, words.len().max(1), PAGE)?;
        pages.write(gpu, 0, bytes_of_u32(words));
        Ok(pages)
    };
    let memory = given.iter().map(|(_, words)| page(words)).collect::<Result<Vec<_>, _>>()?;
    let scratch = page(&vec![f32::NAN.to_bits(); plan.scratch])?;
    let find = |wanted: &Memory| match wanted {
        Memory::Scratch => Some(&scratch),
        _ => given.iter().position(|(there, _)| there == wanted).map(|i| &memory[i]),
    };
    let commands = Commands::new(gpu, &plan.dispatches, find)?;
    let readback = Readback::new(gpu, given.iter().map(|(_, words)| words.len()).sum())?;
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    commands.encode(&mut encoder, 0..commands.list.len());
    let mut at = 0;
    for ((_, words), pages) in given.iter().zip(&memory) {
        pages.copy(&mut encoder, 0, words.len(), &readback.buffer, 4 * at as u64);
        at += words.len();
    }
    let submitted = gpu.queue.submit([encoder.finish()]);
    readback.read(gpu, submitted, |words| {
        let mut rest = words;
        let take = |(_, given): &(Memory, Vec<u32>)| {
            let (own, after) = rest.split_at(given.len());
            rest = after;
            own.to_vec()
        };
        given.iter().map(take).collect()
    })
}

/// The parameters of all dispatches, and the byte at which each of them begins.
fn parameters(gpu: &Gpu, dispatches: &[Dispatch]) -> (Vec<u32>, Vec<usize>) {
    let (mut words, mut places) = (Vec::new(), Vec::new());
    for dispatch in dispatches {
        places.push(4 * words.len());
        words.extend(&dispatch.params);
        words.resize((4 * words.len()).next_multiple_of(gpu.uniform) / 4, 0);
    }
    (words, places)
}

/// The bytes of a matrix, from the last place before it that a binding may begin at.
fn window<'p>(gpu: &Gpu, mat: &Mat, pages: &'p Pages) -> wgpu::BufferBinding<'p> {
    let words = mat.elem.words();
    let (first, span) = (mat.at * words, mat.span().max(1) * words);
    let (page, inside) = (first / pages.page, first % pages.page);
    let start = 4 * inside / gpu.caps.alignment * gpu.caps.alignment;
    let bytes = 4 * (inside + span) - start;
    wgpu::BufferBinding {
        buffer: &pages.buffers[page.min(pages.buffers.len() - 1)],
        offset: start as u64,
        size: wgpu::BufferSize::new(bytes as u64),
    }
}
