//! `minic bench kernels`: every shader of a model's blocks at their true sizes, forwards and in reverse.

use crate::device::DeviceArgs;
use crate::output::{Exit, Failure, Output};
use crate::synth::read_config;
use crate::table::{Table, bytes, grouped};
use minic_compiler::autodiff::Recompute;
use minic_compiler::forward::{self, Objective};
use minic_compiler::graph::Op;
use minic_compiler::model::{LayerKind, ModelDesc};
use minic_compiler::schedule::{self, Schedule, Step};
use minic_runtime::device::profile::Total;
use minic_runtime::device::{Bindings, Device, Profile, TrainingState, Weights};
use minic_runtime::run::RunError;
use minic_runtime::synth;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    /// A config.json of a supported family, or a folder with one: one block of every kind that the model has
    config: PathBuf,
    /// Tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    sequence: u32,
    /// Samples that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    runs: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let (whole, _) = read_config(&args.config)?;
    let desc = one_of_each(&whole);
    let device = args.device.open(output)?;
    if !device.start_profile() {
        let message = format!("the device {} keeps no times of its own", device.name());
        return Err(Failure::new(Exit::Input, message)
            .help("name a Vulkan device with `--device`; `cargo bench` measures the kernels of the CPU"));
    }
    let objective = Objective::cross_entropy();
    let sequence = args.sequence as usize;
    let training = forward::training(&desc, None, &objective, sequence, 1, Recompute::Nothing);
    let schedule = schedule::schedule(&training.map_err(RunError::from)?.graph).map_err(RunError::from)?;
    let profile = measure(args, &desc, device.as_ref(), &schedule)?;
    let runs = f64::from(args.runs);
    let counts = counts(&schedule);
    let kind = device.kind();
    if output.json {
        let rows: Vec<_> = profile
            .totals
            .iter()
            .map(|((op, shader), Total { dispatches, seconds })| {
                json!({ "operation": op, "shader": shader, "dispatches": dispatches, "seconds": seconds / runs })
            })
            .collect();
        let operations: BTreeMap<&str, _> = by_op(&profile)
            .into_iter()
            .map(|(op, seconds)| {
                let (products, moved) = counts.get(op).copied().unwrap_or_default();
                (op, json!({ "seconds": seconds / runs, "flops": products, "bytes": moved }))
            })
            .collect();
        let seconds = profile.seconds() / runs;
        output.document(&json!({
            "device": kind, "sequence": sequence, "layers": desc.layers.len(), "seconds": seconds,
            "operations": operations, "shaders": rows,
        }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["operation", ">ms", ">share", ">GFLOP/s of products", ">GB/s of operands"]);
    let mut rows: Vec<(&str, f64)> = by_op(&profile).into_iter().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (op, seconds) in rows {
        let (products, moved) = counts.get(op).copied().unwrap_or_default();
        let rate =
            |n: u64| if n == 0 { "-".into() } else { format!("{:.1}", n as f64 * runs / seconds / 1e9) };
        table.row(vec![
            op.into(),
            format!("{:.3}", 1e3 * seconds / runs),
            format!("{:.1} %", 100.0 * seconds / profile.seconds()),
            rate(products),
            rate(moved),
        ]);
    }
    output.answer(&format!(
        "{kind}\n{} layers and the head, {} parameters, {} tokens, forwards and in reverse: {:.3} ms, {} tokens/s\n\n{}",
        desc.layers.len(),
        grouped(desc.params()),
        grouped(u64::from(args.sequence)),
        1e3 * profile.seconds() / runs,
        grouped((sequence as f64 * runs / profile.seconds()) as u64),
        table.render(|_, line| line)
    ))?;
    let planned = device.memory(&schedule, 1).total() + schedule.average_bytes();
    output.note(&format!("planned to hold {}", bytes(planned)));
    Ok(Exit::Done)
}

/// The model with the first layer of every kind.
fn one_of_each(desc: &ModelDesc) -> ModelDesc {
    let first = |kind: &LayerKind| desc.layers.iter().position(|layer| layer == kind);
    let mut layers: Vec<usize> = LayerKind::ALL.iter().filter_map(first).collect();
    layers.sort_unstable();
    desc.resized(&BTreeMap::new(), &layers)
}

fn measure(
    args: &Args,
    desc: &ModelDesc,
    device: &dyn Device,
    schedule: &Schedule,
) -> Result<Profile, Failure> {
    let weights = synth::weights(desc, 1)
        .map_err(|e| Failure::new(Exit::Input, format!("{}: {e}", args.config.display())))?;
    let state = TrainingState { weights, ..TrainingState::default() };
    let mut training = device.train(Arc::new(schedule.clone()), Weights::default(), state, 1)?;
    let tokens = super::throughput::tokens(desc, args.sequence, 0);
    training.gradients(&[Bindings::of(&tokens)])?;
    device.start_profile();
    for _ in 0..args.runs {
        training.gradients(&[Bindings::of(&tokens)])?;
    }
    let nothing = || Failure::new(Exit::Proof, "nothing was measured");
    device.take_profile().filter(|profile| profile.seconds() > 0.0).ok_or_else(nothing)
}

fn by_op(profile: &Profile) -> BTreeMap<&'static str, f64> {
    let mut sums = BTreeMap::new();
    for ((op, _), total) in &profile.totals {
        *sums.entry(*op).or_default() += total.seconds;
    }
    sums
}

/// Of every operation, the floating-point operations of its products of weights, and the bytes of its operands and
/// its value, as often as a sample runs it.
fn counts(schedule: &Schedule) -> BTreeMap<&'static str, (u64, u64)> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for step in &schedule.steps {
        let (products, moved) = counts.entry(step.op.name()).or_default();
        *products += product_flops(step);
        *moved += step.operands.iter().chain([&step.out]).map(|p| 4 * (p.rows * p.cols) as u64).sum::<u64>();
    }
    counts
}

fn product_flops(step: &Step) -> u64 {
    let len = |i: usize| step.operands.get(i).map_or(0, |place| (place.rows * place.cols) as u64);
    let rows = step.operands.first().map_or(0, |place| place.rows as u64);
    match &step.op {
        Op::Linear { .. } | Op::LinearGrad => 2 * rows * len(1),
        Op::LinearWeightGrad => 2 * rows * len(2),
        // Logits, their gradient by hidden, and that by the head.
        Op::HeadLoss { .. } => 6 * rows * len(1),
        _ => 0,
    }
}
