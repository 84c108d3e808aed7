//! `minic bench forward` and `minic bench train`: tokens a second of a whole model.

use crate::device::DeviceArgs;
use crate::eval;
use crate::figures::{self, Circumstances, Kind};
use crate::output::{Exit, Failure, Output};
use crate::table::{bytes, grouped};
use minic_compiler::autodiff::Recompute;
use minic_compiler::cost;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Comparison, Objective, TEACHER};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule;
use minic_runtime::device::{Bindings, Device, Memory, TrainingState, Weights};
use minic_runtime::events::Watch;
use minic_runtime::memory;
use minic_runtime::run::RunError;
use minic_runtime::samples::Runner;
use minic_runtime::source::WeightSource;
use minic_runtime::train::optimizer::Update;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint that runs, or that is trained
    checkpoint: PathBuf,
    /// Distil it from this one, by the KL divergence of the logits; without it, cross-entropy of the next token
    #[arg(long, value_name = "CHECKPOINT")]
    teacher: Option<PathBuf>,
    /// Tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    sequence: u32,
    /// Samples of a pass, several side by side as in a run, or of an update
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Passes that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    runs: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Forward,
    Train,
}

pub fn run(what: What, args: &Args, output: &Output) -> Result<Exit, Failure> {
    let device = args.device.open(output)?;
    let model = eval::open(&args.checkpoint, output)?;
    let teacher = args.teacher.as_ref().map(|folder| eval::open(folder, output)).transpose()?;
    let until = Until { runs: args.runs as usize, seconds: f64::INFINITY };
    let own = load(&model)?;
    let mut measured = match what {
        What::Forward => forward(device.as_ref(), model.desc(), own, args.sequence, args.batch, until)?,
        What::Train => {
            let objective = match teacher {
                Some(_) => Objective::forward_kl(),
                None => Objective::cross_entropy(),
            };
            let beside = teacher.as_ref().map(load).transpose()?.unwrap_or_default();
            let training = TrainingOf {
                student: model.desc(),
                teacher: teacher.as_ref().map(WeightSource::desc),
                objective: &objective,
                sequence: args.sequence,
                batch: args.batch,
            };
            training.measure(device.as_ref(), own, beside, until)?
        }
    };
    tell(what, args, &model, teacher.as_ref(), &device.kind(), &mut measured, output)
}

/// When enough was measured: after so many passes, or after one that ends later than so many seconds.
#[derive(Clone, Copy)]
pub struct Until {
    pub runs: usize,
    pub seconds: f64,
}

pub struct Measured {
    /// Of passes or updates, after one that is not measured.
    pub seconds: Vec<f64>,
    pub planned: Memory,
}

impl Measured {
    pub fn median(&mut self) -> f64 {
        self.seconds.sort_by(f64::total_cmp);
        self.seconds[self.seconds.len() / 2]
    }
}

impl Until {
    fn times(self, pass: &mut dyn FnMut() -> Result<(), RunError>) -> Result<Vec<f64>, RunError> {
        pass()?;
        let (began, mut seconds) = (Instant::now(), Vec::new());
        while seconds.is_empty()
            || (seconds.len() < self.runs && began.elapsed().as_secs_f64() < self.seconds)
        {
            let pass_began = Instant::now();
            pass()?;
            seconds.push(pass_began.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

/// Evaluations of samples, as many side by side as in a run.
pub fn forward(
    device: &dyn Device,
    desc: &ModelDesc,
    weights: Weights,
    sequence: u32,
    batch: u32,
    until: Until,
) -> Result<Measured, RunError> {
    let comparison = Comparison { model: MODEL, against: None };
    let schedule =
        schedule::schedule(&forward::evaluation(&[(MODEL, desc)], &[comparison], sequence as usize)?)?;
    let mut runner = Runner::new(device, schedule, weights.scoped(MODEL), batch as usize)?;
    let samples = samples(desc, sequence, batch);
    let samples: Vec<&[u32]> = samples.iter().map(Vec::as_slice).collect();
    let watch = Watch::new("forward", &());
    let seconds = until.times(&mut || runner.all(&samples, &watch, drop))?;
    Ok(Measured { seconds, planned: runner.memory })
}

const MODEL: &str = "model";

/// One update after the other.
pub struct TrainingOf<'a> {
    pub student: &'a ModelDesc,
    pub teacher: Option<&'a ModelDesc>,
    pub objective: &'a Objective,
    pub sequence: u32,
    pub batch: u32,
}

impl TrainingOf<'_> {
    pub fn measure(
        &self,
        device: &dyn Device,
        own: Weights,
        teachers: Weights,
        until: Until,
    ) -> Result<Measured, RunError> {
        let (sequence, batch) = (self.sequence as usize, self.batch as usize);
        let training =
            forward::training(self.student, self.teacher, self.objective, sequence, batch, Recompute::Cheap)?;
        let schedule = schedule::schedule(&training.graph)?;
        let lanes = forward::lanes(self.student.params(), batch);
        let memory = device.memory(&schedule, lanes);
        let planned = Memory { weights: memory.weights + schedule.average_bytes(), ..memory };
        let state = TrainingState { weights: own, ..TrainingState::default() };
        let mut training = device.train(Arc::new(schedule), teachers.scoped(TEACHER), state, lanes)?;
        let samples = samples(self.student, self.sequence, self.batch);
        let windows: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
        let mut step = 0;
        let seconds = until.times(&mut || {
            step += 1;
            training.gradients(&windows)?;
            let scale = 1.0 / training.norm()?.max(1.0);
            let update = Update { beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 1e-5, step, scale };
            Ok(training.update(&update, &|_| 0.0)?)
        })?;
        Ok(Measured { seconds, planned })
    }
}

fn tell(
    what: What,
    args: &Args,
    model: &WeightSource,
    teacher: Option<&WeightSource>,
    device: &str,
    measured: &mut Measured,
    output: &Output,
) -> Result<Exit, Failure> {
    let median = measured.median();
    let seconds = &measured.seconds;
    let tokens = f64::from(args.batch) * f64::from(args.sequence) / median;
    let flops = |model: &WeightSource| cost::flops_per_token(model.desc(), args.sequence as usize) as f64;
    let per_token = match what {
        What::Forward => flops(model),
        What::Train => 3.0 * flops(model) + teacher.map_or(0.0, flops),
    };
    let name = if what == What::Forward { "forward" } else { "train" };
    let (planned, peak) = (measured.planned.total(), memory::peak());
    let kind = if what == What::Forward { Kind::Forward } else { Kind::Train };
    let here = Circumstances::here(kind, device, model.desc().params(), args.sequence as usize);
    figures::keep(here.measured(tokens * per_token, 1.0).into_iter().collect(), output);
    if output.json {
        output.document(&json!({
            "what": name, "device": device, "batch": args.batch, "sequence": args.sequence, "seconds": seconds,
            "tokens_per_second": tokens, "flops_per_token": per_token, "planned": planned, "peak": peak,
        }))?;
        return Ok(Exit::Done);
    }
    output.answer(&format!(
        "{device}\n{name}, {} parameters, {} x {} tokens: median of {} passes {median:.3} s, {} tokens/s, {:.1} \
         GFLOP/s; planned {}, peak of the host {}\n",
        grouped(model.desc().params()),
        args.batch,
        args.sequence,
        seconds.len(),
        grouped(tokens as u64),
        tokens * per_token / 1e9,
        bytes(planned),
        peak.map_or("unknown".into(), bytes)
    ))?;
    Ok(Exit::Done)
}

fn load(model: &WeightSource) -> Result<Weights, RunError> {
    let names = model.desc().weights().into_iter().map(|w| w.name);
    Ok(Weights::load(names, |name| model.read_f32(name))?)
}

fn samples(desc: &ModelDesc, sequence: u32, batch: u32) -> Vec<Vec<u32>> {
    (0..batch).map(|sample| tokens(desc, sequence, sample)).collect()
}

/// A sample of tokens that every vocabulary has.
pub fn tokens(desc: &ModelDesc, sequence: u32, sample: u32) -> Vec<u32> {
    let vocab = (desc.size(Dim::VocabSize) as u32).min(256);
    let token = |t: u32| (t.wrapping_mul(7).wrapping_add(sample.wrapping_mul(13)) + t / 5) % vocab;
    (0..sequence).map(token).collect()
}
