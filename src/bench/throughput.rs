//! `minic bench forward` and `minic bench train`: tokens a second of a whole model.

use crate::device::DeviceArgs;
use crate::eval;
use crate::output::{Exit, Failure, Output};
use crate::table::{bytes, grouped};
use minic_compiler::autodiff::Recompute;
use minic_compiler::cost;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Comparison, Objective, TEACHER};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule;
use minic_runtime::device::{Bindings, Memory, TrainingState, Weights};
use minic_runtime::memory;
use minic_runtime::run::RunError;
use minic_runtime::source::{self, WeightSource};
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
    /// Samples of a pass, or of an update
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Passes that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    runs: u32,
    #[command(flatten)]
    device: DeviceArgs,
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
    let samples = samples(&model, args);
    let windows: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
    let mut seconds = Vec::new();
    let mut times = |pass: &mut dyn FnMut() -> Result<(), RunError>| -> Result<(), RunError> {
        for i in 0..=args.runs {
            let began = Instant::now();
            pass()?;
            if i > 0 {
                seconds.push(began.elapsed().as_secs_f64());
            }
        }
        Ok(())
    };
    let planned: Memory;
    let sequence = args.sequence as usize;
    match what {
        What::Forward => {
            let comparison = Comparison { model: "model", against: None };
            let graph = forward::evaluation(&[("model", model.desc())], &[comparison], sequence);
            let schedule = schedule::schedule(&graph.map_err(RunError::from)?).map_err(RunError::from)?;
            planned = device.memory(&schedule, 1);
            let weights = source::bind_scoped(&schedule, &[("model", &model)]).map_err(RunError::from)?;
            let mut session = device.prepare(Arc::new(schedule), weights)?;
            times(&mut || windows.iter().try_for_each(|window| Ok(session.run(window).map(drop)?)))?;
        }
        What::Train => {
            let objective = match teacher {
                Some(_) => Objective::forward_kl(),
                None => Objective::cross_entropy(),
            };
            let of_teacher = teacher.as_ref().map(WeightSource::desc);
            let batch = args.batch as usize;
            let training =
                forward::training(model.desc(), of_teacher, &objective, sequence, batch, Recompute::Cheap);
            let schedule =
                schedule::schedule(&training.map_err(RunError::from)?.graph).map_err(RunError::from)?;
            let own = load(&model)?;
            let beside = teacher.as_ref().map(load).transpose()?.unwrap_or_default().scoped(TEACHER);
            let lanes = forward::lanes(model.desc().params(), batch);
            let memory = device.memory(&schedule, lanes);
            planned = Memory { weights: memory.weights + schedule.average_bytes(), ..memory };
            let state = TrainingState { weights: own, ..TrainingState::default() };
            let mut training = device.train(Arc::new(schedule), beside, state, lanes)?;
            let mut step = 0;
            times(&mut || {
                step += 1;
                training.gradients(&windows)?;
                let scale = 1.0 / training.norm()?.max(1.0);
                let update = Update { beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 1e-5, step, scale };
                Ok(training.update(&update, &|_| 0.0)?)
            })?;
        }
    }
    tell(what, args, &model, teacher.as_ref(), &device.kind(), &mut seconds, planned, output)
}

#[expect(clippy::too_many_arguments, reason = "everything that was measured")]
fn tell(
    what: What,
    args: &Args,
    model: &WeightSource,
    teacher: Option<&WeightSource>,
    device: &str,
    seconds: &mut [f64],
    planned: Memory,
    output: &Output,
) -> Result<Exit, Failure> {
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let tokens = f64::from(args.batch) * f64::from(args.sequence) / median;
    let flops = |model: &WeightSource| cost::flops_per_token(model.desc(), args.sequence as usize) as f64;
    let per_token = match what {
        What::Forward => flops(model),
        What::Train => 3.0 * flops(model) + teacher.map_or(0.0, flops),
    };
    let name = if what == What::Forward { "forward" } else { "train" };
    let (planned, peak) = (planned.total(), memory::peak());
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

fn samples(model: &WeightSource, args: &Args) -> Vec<Vec<u32>> {
    (0..args.batch).map(|s| tokens(model.desc(), args.sequence, s)).collect()
}

/// A sample of tokens that every vocabulary has.
pub fn tokens(desc: &ModelDesc, sequence: u32, sample: u32) -> Vec<u32> {
    let vocab = (desc.size(Dim::VocabSize) as u32).min(256);
    let token = |t: u32| (t.wrapping_mul(7).wrapping_add(sample.wrapping_mul(13)) + t / 5) % vocab;
    (0..sequence).map(token).collect()
}
