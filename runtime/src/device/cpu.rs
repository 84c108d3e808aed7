//! The CPU device: the reference, and the default where there is no GPU. Arithmetic is f32, accumulators f64.

mod training;

pub(super) use training::told;

use super::{
    Bindings, Device, DeviceError, Memory, Output, Outputs, Session, Training, TrainingState, Weights, bound,
    length,
};
use crate::kernels::{self, Arg, Call, Kernel, Out, View, ViewMut};
use crate::memory;
use minic_compiler::graph::Op;
use minic_compiler::schedule::{Home, Leaf, Place, Schedule, Step};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub struct Cpu;

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn kind(&self) -> String {
        format!("cpu {}", kernels::instructions())
    }

    fn version(&self, op: &Op) -> u32 {
        kernels::find(op).map_or(0, |kernel| kernel.version)
    }

    fn exact(&self) -> &dyn Device {
        self
    }

    fn lanes(&self) -> usize {
        rayon::current_num_threads()
    }

    fn memory(&self, schedule: &Schedule, lanes: usize) -> Memory {
        let scratch = |step: &Step| {
            let shapes: Vec<(usize, usize)> = step.operands.iter().map(|p| (p.rows, p.cols)).collect();
            kernels::scratch_bytes(&step.op, &shapes) as u64
        };
        let worker = schedule.steps.iter().map(scratch).max().unwrap_or(0);
        Memory {
            weights: schedule.weight_bytes(),
            lanes: schedule.lane_bytes() * lanes as u64 + schedule.state_bytes(),
            scratch: worker * rayon::current_num_threads() as u64,
        }
    }

    fn available(&self) -> u64 {
        memory::available()
    }

    fn prepare(&self, schedule: Arc<Schedule>, weights: Weights) -> Result<Box<dyn Session>, DeviceError> {
        Ok(Box::new(session(schedule, weights, &Arc::default())?))
    }

    fn decode(
        &self,
        schedules: [Arc<Schedule>; 2],
        weights: Weights,
    ) -> Result<[Box<dyn Session>; 2], DeviceError> {
        let states = Arc::default();
        let [first, step] = schedules.map(|schedule| session(schedule, weights.clone(), &states));
        Ok([Box::new(first?), Box::new(step?)])
    }

    fn train(
        &self,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
        lanes: usize,
    ) -> Result<Box<dyn Training>, DeviceError> {
        bound(&schedule, &frozen.clone().with(&state.weights))?;
        let lanes = (0..lanes.max(1)).map(|_| Lane::new(schedule.clone())).collect::<Result<_, _>>()?;
        Ok(Box::new(training::CpuTraining::new(lanes, frozen, state)))
    }
}

/// What is remembered between runs, by name.
type States = BTreeMap<String, Vec<f32>>;

struct CpuSession {
    lane: Lane,
    weights: Weights,
    /// With whoever else shares them, while this session does not run.
    states: Arc<Mutex<States>>,
}

/// A session that remembers in `states`; what is not there yet begins at zero.
fn session(
    schedule: Arc<Schedule>,
    weights: Weights,
    states: &Arc<Mutex<States>>,
) -> Result<CpuSession, DeviceError> {
    bound(&schedule, &weights)?;
    let lane = Lane::new(schedule)?;
    let mut there = states.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, &len) in &lane.schedule.states {
        there.entry(name.clone()).or_insert_with(|| vec![0.0; len]);
    }
    Ok(CpuSession { lane, weights, states: states.clone() })
}

impl Session for CpuSession {
    fn run(&mut self, bindings: &Bindings) -> Result<Outputs, DeviceError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut self.lane.states, &mut states);
        let outputs = self.lane.run(Bound { frozen: &self.weights, own: &self.weights }, bindings);
        std::mem::swap(&mut self.lane.states, &mut states);
        outputs
    }
}

/// Where weights are found: those of a model in training, then those that stay as they are.
#[derive(Clone, Copy)]
struct Bound<'a> {
    own: &'a Weights,
    frozen: &'a Weights,
}

impl<'a> Bound<'a> {
    fn get(&self, name: &str) -> &'a [f32] {
        self.own.get(name).or_else(|| self.frozen.get(name)).unwrap_or(&[])
    }
}

/// A schedule with its buffers.
struct Lane {
    schedule: Arc<Schedule>,
    /// One a step.
    kernels: Vec<&'static Kernel>,
    arena: Vec<f32>,
    results: Vec<Vec<f64>>,
    gradients: BTreeMap<String, Vec<f32>>,
    states: States,
}

impl Lane {
    fn new(schedule: Arc<Schedule>) -> Result<Lane, DeviceError> {
        let kernels =
            schedule.steps.iter().map(|s| kernels::find(&s.op).ok_or(DeviceError::NoKernel(s.op.name())));
        let kernels = kernels.collect::<Result<_, _>>()?;
        // Asked for first, because a vector that cannot be had ends the process.
        let bytes = schedule.lane_bytes() + schedule.state_bytes();
        let had = Vec::<u8>::new().try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX)).is_ok();
        if !had || bytes > memory::available() {
            return Err(DeviceError::Memory { bytes });
        }
        let arena = vec![0.0; schedule.arena];
        let results = schedule.results.iter().map(|&n| vec![0.0; n]).collect();
        let gradients = schedule.gradients.iter().map(|(name, &n)| (name.clone(), vec![0.0; n])).collect();
        Ok(Lane { schedule, kernels, arena, results, gradients, states: States::new() })
    }

    fn run(&mut self, weights: Bound, bindings: &Bindings) -> Result<Outputs, DeviceError> {
        self.run_each(weights, bindings, |_, _| true)
    }

    /// `each` sees every step once it is done, and may end the run.
    fn run_each(
        &mut self,
        weights: Bound,
        bindings: &Bindings,
        mut each: impl FnMut(&Lane, &Step) -> bool,
    ) -> Result<Outputs, DeviceError> {
        let schedule = self.schedule.clone();
        length("tokens", "tokens", bindings.tokens.len(), schedule.sequence)?;
        for (name, &expected) in &schedule.inputs {
            let Some(input) = bindings.inputs.get(name.as_str()) else {
                return Err(DeviceError::Unbound { what: "input", name: name.clone() });
            };
            length("input", name, input.len(), expected)?;
        }
        for (index, step) in schedule.steps.iter().enumerate() {
            self.step(step, self.kernels[index], weights, bindings);
            if !each(self, step) {
                break;
            }
        }
        let output = |(name, place): &(String, Place)| (name.clone(), self.output(place, weights, bindings));
        Ok(schedule.outputs.iter().map(output).collect())
    }

    fn step(&mut self, step: &Step, kernel: &Kernel, weights: Bound, bindings: &Bindings) {
        let in_place = step.op.in_place_operand();
        if let (Some(position), None) = (in_place, step.in_place) {
            self.copy(&step.operands[position], &step.out, weights, bindings);
        }
        let arena = Base(self.arena.as_mut_ptr());
        let (operands, last) = match step.operands.split_last() {
            Some((last, before)) if step.op.changes() => (before, Some(last)),
            _ => (&step.operands[..], None),
        };
        // Away from the others while the kernel runs, which reads them.
        let mut leaf = last.and_then(|place| self.changeable(place)).map(std::mem::take);
        let given = operands.iter().enumerate().filter(|(i, _)| Some(*i) != in_place);
        let read = |place| arg(place, &arena, weights, bindings, &self.states);
        let args: Vec<Arg> = given.map(|(_, place)| read(place)).collect();
        let changed = last.zip(leaf.as_mut());
        let changed = changed.map(|(at, data)| ViewMut::new(data, at.rows, at.cols, at.stride));
        let out = match step.out.home {
            Home::Result(i) => Out::F64(&mut self.results[i]),
            _ => {
                // SAFETY: the schedule was verified: `out` lies inside the arena and overlaps no operand but
                // the one that it works in place on, which is not among `args`.
                let data = unsafe { arena.slice_mut(&step.out) };
                Out::F32(ViewMut::new(data, step.out.rows, step.out.cols, step.out.stride))
            }
        };
        (kernel.cpu)(Call { op: &step.op, args: &args, out, changed });
        if let (Some(there), Some(leaf)) = (last.and_then(|place| self.changeable(place)), leaf) {
            *there = leaf;
        }
    }

    /// The gradient or the state at a place.
    fn changeable(&mut self, place: &Place) -> Option<&mut Vec<f32>> {
        match &place.home {
            Home::Leaf(Leaf::Gradient(name)) => self.gradients.get_mut(name),
            Home::Leaf(Leaf::State(name)) => self.states.get_mut(name),
            _ => None,
        }
    }

    /// Puts an operand where the kernel will update it.
    fn copy(&mut self, from: &Place, to: &Place, weights: Bound, bindings: &Bindings) {
        let arena = Base(self.arena.as_mut_ptr());
        let Arg::F32(source) = arg(from, &arena, weights, bindings, &self.states) else { return };
        // SAFETY: as in `step`: the two places do not overlap.
        let target = unsafe { arena.slice_mut(to) };
        for (r, row) in target.chunks_mut(to.stride.max(1)).enumerate().take(to.rows) {
            row[..to.cols].copy_from_slice(source.row(r));
        }
    }

    fn output(&self, place: &Place, weights: Bound, bindings: &Bindings) -> Output {
        if let Home::Result(i) = place.home {
            return Output::F64(self.results[i].clone());
        }
        let data = match &place.home {
            Home::Arena { at, .. } => &self.arena[*at..],
            Home::Leaf(leaf) => leaf_data(leaf, weights, bindings, &self.states),
            Home::Result(_) => &[],
        };
        let rows = (0..place.rows).map(|r| place.offset + r * place.stride);
        Output::F32(rows.flat_map(|start| data[start..start + place.cols].iter().copied()).collect())
    }
}

/// The arena's base, so that one step can read some of its ranges and write another.
struct Base(*mut f32);

impl Base {
    fn start(&self, place: &Place) -> *mut f32 {
        match place.home {
            // SAFETY: a verified place lies inside the arena.
            Home::Arena { at, .. } => unsafe { self.0.add(at + place.offset) },
            _ => self.0,
        }
    }

    /// SAFETY: `place` is a verified arena place that nothing writes while the slice lives.
    unsafe fn slice<'a>(&self, place: &Place) -> &'a [f32] {
        unsafe { std::slice::from_raw_parts(self.start(place), place.span()) }
    }

    /// SAFETY: `place` is a verified arena place that nothing else reads or writes while the slice lives.
    unsafe fn slice_mut<'a>(&self, place: &Place) -> &'a mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.start(place), place.span()) }
    }
}

fn arg<'a>(
    place: &Place,
    arena: &Base,
    weights: Bound<'a>,
    bindings: &'a Bindings,
    states: &'a States,
) -> Arg<'a> {
    let data = match &place.home {
        Home::Leaf(Leaf::Tokens) => return Arg::U32(bindings.tokens),
        Home::Leaf(leaf) => &leaf_data(leaf, weights, bindings, states)[place.offset..],
        // SAFETY: the schedule was verified: the step writes no operand that it reads.
        _ => unsafe { arena.slice(place) },
    };
    Arg::F32(View::new(data, place.rows, place.cols, place.stride))
}

fn leaf_data<'a>(leaf: &Leaf, weights: Bound<'a>, bindings: &'a Bindings, states: &'a States) -> &'a [f32] {
    match leaf {
        Leaf::Weight(name) => weights.get(name),
        Leaf::Input(name) => bindings.inputs.get(name.as_str()).copied().unwrap_or(&[]),
        Leaf::State(name) => states.get(name).map_or(&[], Vec::as_slice),
        // Gradients are written, and read by nobody while a schedule runs.
        Leaf::Tokens | Leaf::Gradient(_) => &[],
    }
}
