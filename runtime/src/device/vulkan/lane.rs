//! A schedule with its memory on the device.

use super::super::{Bindings, DeviceError, Output, Outputs, Weights, length};
use super::buffers::{Form, Pages, Readback, bytes_of, bytes_of_u32};
use super::gpu::Gpu;
use super::program::Commands;
use crate::device;
use crate::kernels;
use crate::shader::half::{MADE, Preparation};
use crate::shader::{Call, Caps, Dispatch, Elem, Mat, Memory, PAGE, Packing, Plan, Precision, page_of};
use minic_compiler::schedule::{Home, Leaf, Place, Schedule, Step};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The dispatches of a schedule.
pub struct Planned {
    /// Of every step, the dispatches behind which it ends.
    pub ends: Vec<usize>,
    pub dispatches: Vec<Dispatch>,
    /// What is made of weights before.
    pub prepared: Vec<Preparation>,
    /// Words that the hungriest step needs for itself.
    pub scratch: usize,
}

/// How a weight is packed.
pub fn form(of: &Preparation, precision: Precision) -> Form {
    (of.packing.transposed, of.packing.of, precision)
}

impl Planned {
    /// Bytes that it holds: weights as they are read, one lane, and what the hungriest step needs for itself.
    pub fn memory(&self, schedule: &Schedule) -> device::Memory {
        let packed: usize = self.prepared.iter().map(|packed| packed.words).sum();
        let whole = |name: &str| self.reads(name) || schedule.gradients.contains_key(name);
        let read = schedule.weights.iter().filter(|(name, _)| whole(name)).map(|(_, len)| len).sum::<usize>();
        device::Memory {
            weights: 4 * (packed + read) as u64,
            lanes: schedule.lane_bytes() + schedule.state_bytes(),
            scratch: 4 * self.scratch as u64,
        }
    }

    /// Whether a weight is read as it is, and not as a packed factor alone.
    pub fn reads(&self, weight: &str) -> bool {
        let is_it = |mat: &Mat| matches!(&mat.memory, Memory::Weight(name) if name == weight);
        self.dispatches.iter().flat_map(|dispatch| &dispatch.binds).any(is_it)
    }
}

pub fn plan(caps: &Caps, precision: Precision, schedule: &Schedule) -> Result<Planned, DeviceError> {
    let mut plan = Plan::new(caps).rounding(precision);
    let mut ends = Vec::new();
    for step in &schedule.steps {
        let kernel = kernels::find(&step.op).ok_or(DeviceError::NoKernel(step.op.name()))?;
        let args: Vec<Mat> = step.operands.iter().map(mat).collect();
        let call = Call { op: &step.op, args: &args, out: &mat(&step.out) };
        plan.for_a_while(|plan| (kernel.shaders.plan)(plan, call))?;
        ends.push(plan.dispatches.len());
    }
    let Plan { dispatches, prepared, scratch, .. } = plan;
    let scratch = prepared.iter().map(|p| p.scratch).fold(scratch, usize::max);
    Ok(Planned { ends, dispatches, prepared, scratch })
}

/// Where a value of the schedule lies on the device.
pub fn mat(place: &Place) -> Mat {
    let (memory, elem, at, page) = match &place.home {
        Home::Leaf(Leaf::Tokens) => (Memory::Tokens, Elem::U32, 0, PAGE),
        Home::Leaf(Leaf::Input(name)) => (Memory::Input(name.clone()), Elem::F32, 0, page_of(place.stride)),
        Home::Leaf(Leaf::Weight(name)) => (Memory::Weight(name.clone()), Elem::F32, 0, page_of(place.stride)),
        Home::Leaf(Leaf::State(name)) => (Memory::State(name.clone()), Elem::F32, 0, page_of(place.stride)),
        Home::Leaf(Leaf::Gradient(name)) => {
            (Memory::Gradient(name.clone()), Elem::F32, 0, page_of(place.stride))
        }
        Home::Arena { at, .. } => (Memory::Arena, Elem::F32, *at, PAGE),
        Home::Result(i) => (Memory::Result(*i), Elem::Pair, 0, PAGE / 2),
    };
    Mat::new(memory, elem, at + place.offset, place.rows, place.cols, place.stride).paged(page)
}

pub struct Lane {
    gpu: Arc<Gpu>,
    pub schedule: Arc<Schedule>,
    memory: Held,
    commands: Commands,
    ends: Vec<usize>,
    /// What is made of weights that are trained.
    made: Vec<Commands>,
    readback: Readback,
    /// Of every output, its first word in the readback.
    shown: Vec<usize>,
    is_long: bool,
}

/// The memory of a lane.
struct Held {
    tokens: Pages,
    inputs: BTreeMap<String, Pages>,
    weights: BTreeMap<String, Arc<Pages>>,
    packed: Packs,
    gradients: Option<Arc<BTreeMap<String, Pages>>>,
    states: States,
    arena: Pages,
    results: Vec<Pages>,
    scratch: Pages,
}

/// What is remembered between runs, by name; sessions may share it.
pub type States = Arc<BTreeMap<String, Pages>>;

/// Memory for what a schedule remembers, zero at first.
pub fn states(gpu: &Gpu, schedule: &Schedule) -> Result<States, DeviceError> {
    let of = |(name, len): (&String, &usize)| {
        Ok((name.clone(), Pages::new(gpu, *len, page_of(schedule.columns_of(name)))?))
    };
    Ok(Arc::new(schedule.states.iter().map(of).collect::<Result<_, DeviceError>>()?))
}

/// Packed weights.
type Packs = BTreeMap<Packing, Arc<Made>>;

/// A packed weight, and its scale.
pub struct Made {
    data: Pages,
    scale: Pages,
}

impl Made {
    fn new(gpu: &Gpu, of: &Preparation) -> Result<Made, DeviceError> {
        Ok(Made { data: Pages::new(gpu, of.words, page_of(of.row))?, scale: Pages::new(gpu, 1, PAGE)? })
    }

    fn commands(
        &self,
        gpu: &Gpu,
        of: &Preparation,
        weight: &Pages,
        scratch: &Pages,
    ) -> Result<Commands, DeviceError> {
        Commands::new(gpu, &of.dispatches, |memory| match memory {
            Memory::Weight(_) => Some(weight),
            Memory::Scratch => Some(scratch),
            _ if *memory == MADE[0] => Some(&self.data),
            _ if *memory == MADE[1] => Some(&self.scale),
            _ => None,
        })
    }
}

impl Held {
    fn find(&self, memory: &Memory) -> Option<&Pages> {
        match memory {
            Memory::Tokens => Some(&self.tokens),
            Memory::Input(name) => self.inputs.get(name),
            Memory::Weight(name) => self.weights.get(name).map(Arc::as_ref),
            Memory::Packed(packing) => self.packed.get(packing).map(|made| &made.data),
            Memory::Scale(packing) => self.packed.get(packing).map(|made| &made.scale),
            Memory::Gradient(name) => self.gradients.as_ref()?.get(name),
            Memory::State(name) => self.states.get(name),
            Memory::Arena => Some(&self.arena),
            Memory::Result(i) => self.results.get(*i),
            Memory::Scratch => Some(&self.scratch),
            Memory::Trained(_) | Memory::Mean(_) | Memory::Square(_) => None,
        }
    }
}

/// What training holds of a model on the device: the weights that change, and their gradients.
pub struct Own {
    pub weights: BTreeMap<String, Arc<Pages>>,
    pub gradients: Arc<BTreeMap<String, Pages>>,
}

/// Where a schedule's weights come from.
struct Models<'a> {
    gpu: &'a Gpu,
    schedule: &'a Schedule,
    frozen: &'a Weights,
    own: Option<&'a Own>,
}

impl Models<'_> {
    /// A weight in training, or one that stays as it is.
    fn weight(&self, name: &str) -> Result<Arc<Pages>, DeviceError> {
        match self.own.and_then(|own| own.weights.get(name)) {
            Some(pages) => Ok(pages.clone()),
            None => self.gpu.tensor(self.host(name)?, self.schedule.columns_of(name)),
        }
    }

    fn host(&self, name: &str) -> Result<&Arc<Vec<f32>>, DeviceError> {
        let unbound = || DeviceError::Unbound { what: "weight", name: name.into() };
        self.frozen.shared(name).ok_or_else(unbound)
    }

    /// The packed weights of a plan. Those in training are packed by the commands, whenever they have changed.
    fn packed(
        &self,
        planned: &Planned,
        precision: Precision,
        scratch: &Pages,
    ) -> Result<(Packs, Vec<Commands>), DeviceError> {
        let (mut packed, mut commands) = (BTreeMap::new(), Vec::new());
        for of in &planned.prepared {
            let name = &of.packing.weight;
            let there = if self.own.is_some_and(|own| own.weights.contains_key(name)) {
                let made = Made::new(self.gpu, of)?;
                commands.push(made.commands(self.gpu, of, self.weight(name)?.as_ref(), scratch)?);
                Arc::new(made)
            } else {
                self.gpu.made(self.host(name)?, form(of, precision), || {
                    let (made, weight) = (Made::new(self.gpu, of)?, self.weight(name)?);
                    made.commands(self.gpu, of, &weight, scratch)?.run(self.gpu)?;
                    Ok(made)
                })?
            };
            packed.insert(of.packing.clone(), there);
        }
        Ok((packed, commands))
    }
}

impl Lane {
    /// Weights that are not the training's own are uploaded once, and shared by lanes. Of those that are read as
    /// packed factors alone, nothing else stays on the device.
    pub fn new(
        gpu: Arc<Gpu>,
        precision: Precision,
        schedule: Arc<Schedule>,
        frozen: &Weights,
        own: Option<&Own>,
        states: &States,
    ) -> Result<Lane, DeviceError> {
        let planned = plan(&gpu.caps, precision, &schedule)?;
        let page = |len: usize| Pages::new(&gpu, len, PAGE);
        let scratch = page(planned.scratch)?;
        let models = Models { gpu: &gpu, schedule: &schedule, frozen, own };
        let (packed, made) = models.packed(&planned, precision, &scratch)?;
        let read = schedule.weights.keys().filter(|name| planned.reads(name));
        let weights = read.map(|name| Ok::<_, DeviceError>((name.clone(), models.weight(name)?)));
        let weights = weights.collect::<Result<_, _>>()?;
        let inputs = schedule.inputs.iter().map(|(name, len)| {
            Ok((name.clone(), Pages::new(&gpu, *len, page_of(schedule.columns_of(name)))?))
        });
        let memory = Held {
            tokens: page(schedule.sequence)?,
            inputs: inputs.collect::<Result<_, DeviceError>>()?,
            weights,
            packed,
            gradients: own.map(|own| own.gradients.clone()),
            states: states.clone(),
            arena: page(schedule.arena)?,
            results: schedule.results.iter().map(|len| page(2 * len)).collect::<Result<_, _>>()?,
            scratch,
        };
        let commands = Commands::new(&gpu, &planned.dispatches, |wanted| memory.find(wanted))?;
        let (mut words, mut shown) = (0, Vec::new());
        for (_, place) in &schedule.outputs {
            shown.push(words);
            words += mat(place).span() * mat(place).elem.words();
        }
        // Outputs beyond a page are read one after the other, in pieces.
        let is_long = words > PAGE;
        let readback = Readback::new(&gpu, if is_long { 1 } else { words })?;
        let lane =
            Lane { gpu, schedule, memory, commands, ends: planned.ends, made, readback, shown, is_long };
        lane.changed()?;
        Ok(lane)
    }

    /// Makes again what is made of weights that are trained.
    pub fn changed(&self) -> Result<(), DeviceError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.made.iter().for_each(|made| made.encode(&mut encoder, 0..made.list.len()));
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Uploads what a sample consists of.
    pub fn bind(&self, bindings: &Bindings) -> Result<(), DeviceError> {
        length("tokens", "tokens", bindings.tokens.len(), self.schedule.sequence)?;
        self.memory.tokens.write(&self.gpu, 0, bytes_of_u32(bindings.tokens));
        for (name, &expected) in &self.schedule.inputs {
            let Some(input) = bindings.inputs.get(name.as_str()) else {
                return Err(DeviceError::Unbound { what: "input", name: name.clone() });
            };
            length("input", name, input.len(), expected)?;
            if let Some(pages) = self.memory.inputs.get(name) {
                pages.write(&self.gpu, 0, bytes_of(input));
            }
        }
        Ok(())
    }

    pub fn run(&mut self, bindings: &Bindings) -> Result<Outputs, DeviceError> {
        self.bind(bindings)?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let count = self.commands.list.len();
        let clock = self.gpu.clock(count)?;
        self.commands.encode_timed(&mut encoder, 0..count, clock.as_ref());
        clock.iter().for_each(|clock| clock.resolve(&mut encoder));
        for ((_, place), at) in self.schedule.outputs.iter().zip(&self.shown).filter(|_| !self.is_long) {
            self.show(&mut encoder, place, &self.readback, *at);
        }
        let submitted = self.gpu.queue.submit([encoder.finish()]);
        if let Some(clock) = clock {
            self.gpu.record(clock, submitted.clone(), self.names())?;
        }
        if self.is_long {
            self.gpu.wait(submitted)?;
            let of = |(name, place): &(String, Place)| Ok((name.clone(), self.long(place)?));
            return self.schedule.outputs.iter().map(of).collect();
        }
        let outputs = self.schedule.outputs.iter().zip(&self.shown);
        self.readback.read(&self.gpu, submitted, |words| {
            outputs.map(|((name, place), at)| (name.clone(), output(place, &words[*at..]))).collect()
        })
    }

    /// Of every dispatch, its operation and its shader.
    fn names(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let firsts = std::iter::once(0).chain(self.ends.iter().copied());
        let steps = self.schedule.steps.iter().zip(firsts.zip(&self.ends));
        steps.flat_map(|(step, (first, end))| {
            self.commands.list[first..*end].iter().map(|command| (step.op.name(), command.name))
        })
    }

    /// A value by itself.
    fn long(&self, place: &Place) -> Result<Output, DeviceError> {
        let mat = mat(place);
        let Some(pages) = self.memory.find(&mat.memory) else { return Ok(Output::F32(Vec::new())) };
        let words = mat.elem.words();
        let data = pages.read(&self.gpu, mat.at * words, mat.span() * words)?;
        Ok(output(place, &data))
    }

    /// Copies a value to where the host reads it.
    fn show(&self, encoder: &mut wgpu::CommandEncoder, place: &Place, to: &Readback, at: usize) {
        let mat = mat(place);
        if let Some(pages) = self.memory.find(&mat.memory) {
            let words = mat.elem.words();
            pages.copy(encoder, mat.at * words, mat.span() * words, &to.buffer, 4 * at as u64);
        }
    }

    /// Runs step by step; `each` sees the step, its value and the gradient that it adds to, and may end the run.
    pub fn run_each(
        &mut self,
        bindings: &Bindings,
        mut each: impl FnMut(&Step, &[f32]) -> bool,
    ) -> Result<(), DeviceError> {
        self.bind(bindings)?;
        let mut first = 0;
        for (step, &end) in self.schedule.steps.iter().zip(&self.ends) {
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            self.commands.encode(&mut encoder, first..end);
            first = end;
            let gradient = step.op.accumulates().then(|| step.operands.last()).flatten();
            let shown: Vec<&Place> = [&step.out].into_iter().chain(gradient).collect();
            let words = |place: &Place| place.span() * mat(place).elem.words();
            let readback = Readback::new(&self.gpu, shown.iter().map(|place| words(place)).sum())?;
            let mut at = 0;
            for place in &shown {
                self.show(&mut encoder, place, &readback, at);
                at += words(place);
            }
            let submitted = self.gpu.queue.submit([encoder.finish()]);
            let goes_on = readback.read(&self.gpu, submitted, |found| {
                let mut rest = found;
                let mut data = Vec::new();
                for place in &shown {
                    let (own, after) = rest.split_at(words(place));
                    rest = after;
                    if let Output::F32(values) = output(place, own) {
                        data.extend(values);
                    }
                }
                each(step, &data)
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

/// A value from the words of its span.
fn output(place: &Place, words: &[u32]) -> Output {
    let rows = (0..place.rows).map(|r| r * place.stride);
    let real = |word: &u32| f32::from_bits(*word);
    match mat(place).elem {
        Elem::Pair => {
            let element = |i: usize| f64::from(real(&words[2 * i])) + f64::from(real(&words[2 * i + 1]));
            Output::F64(rows.flat_map(|start| (start..start + place.cols).map(element)).collect())
        }
        _ => Output::F32(rows.flat_map(|start| words[start..start + place.cols].iter().map(real)).collect()),
    }
}
