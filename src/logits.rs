//! `minic logits CHECKPOINT --tokens FILE.json --output FILE.safetensors`: the door for other programs' checks.

use crate::device::DeviceArgs;
use crate::eval;
use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use minic_compiler::autodiff::Recompute;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Answer, Objective, output as names};
use minic_compiler::graph::Masks;
use minic_compiler::model::DType;
use minic_compiler::schedule;
use minic_runtime::convert;
use minic_runtime::decode::{Decoder, Request};
use minic_runtime::device::{Bindings, Device, Training, TrainingState, Weights};
use minic_runtime::error::IoError;
use minic_runtime::input;
use minic_runtime::run::RunError;
use minic_runtime::safetensors::{Entry, Writer};
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder, or `hf://org/name@revision`
    checkpoint: PathBuf,
    /// Token ids, `[[ids], ..]` of equal length
    #[arg(long, value_name = "FILE.json")]
    tokens: PathBuf,
    /// Where to write tensor `logits` [batch, sequence, vocab] in f32
    #[arg(long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// Write the gradient of the mean next-token cross-entropy, too, for every weight under its own name
    #[arg(long)]
    grads: bool,
    /// Compute the last N positions token by token, all samples side by side, with what is remembered of those before
    /// (KV cache, convolution windows, SSM states); the position before them is the end of what is remembered first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    decode: Option<u32>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::here().computes(&mut self.device)
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let device = args.device.open(output)?;
    let model = eval::open(&args.checkpoint, output)?;
    let vocab = model.desc().size(Dim::VocabSize);
    let samples = read_tokens(&args.tokens, vocab)?;
    let sequence = samples[0].len();
    let steps = args.decode.map_or(0, |n| n as usize);
    if steps >= sequence {
        let message =
            format!("--decode {steps}: samples of {sequence} tokens have fewer positions after the first");
        return Err(Failure::new(Exit::Input, message).help(format!("at most --decode {}", sequence - 1)));
    }
    let graph = forward::logits(model.desc(), sequence, Masks::default()).map_err(RunError::from)?;
    let schedule = schedule::schedule(&graph).map_err(RunError::from)?;
    let weights = source::bind(&schedule, &model).map_err(RunError::from)?;
    let mut runner = Runner::new(device.as_ref(), schedule, weights, 1).map_err(RunError::from)?;

    let shape = vec![samples.len(), sequence, vocab];
    let entry = |name: String, shape| Entry { name, dtype: DType::F32, shape };
    let mut entries = vec![entry(names::LOGITS.into(), shape.clone())];
    let cached = (steps > 0).then(|| decoded(device.as_ref(), &model, &samples, steps)).transpose()?;
    let training = args.grads.then(|| gradients(device.as_ref(), &model, &samples)).transpose()?;
    let table = if args.grads { model.desc().weights() } else { Vec::new() };
    entries.extend(table.iter().map(|weight| entry(weight.name.clone(), weight.sizes())));
    // Written beside its name and renamed, so that no half of it is ever taken for the whole.
    let partial = args.output.with_extension("partial");
    let mut write = || -> Result<(), RunError> {
        let mut writer = Writer::create(&partial, &entries).map_err(RunError::Safetensors)?;
        for (i, tokens) in samples.iter().enumerate() {
            let outputs = runner.once(tokens)?;
            let (whole, cached) =
                (outputs[names::LOGITS].f32(), cached.as_ref().map_or(&[][..], |all| &all[i]));
            for rows in [&whole[..whole.len() - cached.len()], cached] {
                writer.write(&convert::f32_bytes(rows)).map_err(RunError::Safetensors)?;
            }
        }
        for weight in &table {
            let gradient = training.as_ref().map(|t| t.gradient(&weight.name)).transpose()?.flatten();
            writer
                .write(&convert::f32_bytes(&gradient.unwrap_or_default()))
                .map_err(RunError::Safetensors)?;
        }
        writer.finish().map_err(RunError::Safetensors)?;
        Ok(std::fs::rename(&partial, &args.output).map_err(IoError::at(&args.output, "write"))?)
    };
    if let Err(error) = write() {
        // The error matters more than a left-over that cannot be removed.
        let _ = std::fs::remove_file(&partial);
        return Err(error.into());
    }
    let file = args.output.display().to_string();
    if output.json {
        output.document(&json!({ "file": file, "shape": shape }))?;
    } else {
        output.answer(&format!("{file}: logits {shape:?}\n"))?;
    }
    Ok(Exit::Done)
}

/// Of each sample, the logits of its last `steps` positions, and of the one before them.
fn decoded(
    device: &dyn Device,
    model: &WeightSource,
    samples: &[Vec<u32>],
    steps: usize,
) -> Result<Vec<Vec<f32>>, RunError> {
    let input = samples[0].len() - steps;
    let request = Request { input, output: steps, batch: samples.len() };
    let mut decoder = Decoder::new(device, model, request, Answer::Logits)?;
    let first = |(i, tokens): (usize, &Vec<u32>)| decoder.begin(i, &tokens[..input]);
    let mut all = samples.iter().enumerate().map(first).collect::<Result<Vec<_>, _>>()?;
    for position in input..input + steps {
        let tokens: Vec<u32> = samples.iter().map(|tokens| tokens[position]).collect();
        let logits = decoder.step(position, &tokens)?;
        let rows = logits.chunks(logits.len() / samples.len());
        all.iter_mut().zip(rows).for_each(|(all, row)| all.extend(row));
    }
    Ok(all)
}

/// A training of which nothing but the gradients is asked.
fn gradients(
    device: &dyn Device,
    model: &WeightSource,
    samples: &[Vec<u32>],
) -> Result<Box<dyn Training>, RunError> {
    let (sequence, batch) = (samples[0].len(), samples.len());
    if sequence < 2 {
        return Err(RunError::NoSamples);
    }
    let objective = Objective::cross_entropy();
    let graph = forward::training(model.desc(), None, &objective, sequence, batch, Recompute::Cheap)?.graph;
    let schedule = schedule::schedule(&graph)?;
    let state = TrainingState { weights: source::bind(&schedule, model)?, ..TrainingState::default() };
    let mut training = device.train(Arc::new(schedule), Weights::default(), state, 1)?;
    training.gradients(&samples.iter().map(|tokens| Bindings::of(tokens)).collect::<Vec<_>>())?;
    Ok(training)
}

fn read_tokens(path: &Path, vocab: usize) -> Result<Vec<Vec<u32>>, Failure> {
    let wrong = |reason: String| Failure::new(Exit::Input, format!("{}: {reason}", path.display()));
    let bytes = input::read(path, input::TOKENS)?;
    let samples: Vec<Vec<u32>> =
        serde_json::from_slice(&bytes).map_err(|e| wrong(format!("expected [[ids], ..]: {e}")))?;
    let Some(length) = samples.first().map(Vec::len).filter(|n| *n > 0) else {
        return Err(wrong("holds no token".into()));
    };
    if let Some(i) = samples.iter().position(|s| s.len() != length) {
        return Err(wrong(format!("row {i} has {} tokens, row 0 has {length}", samples[i].len())));
    }
    match samples.iter().flatten().find(|id| **id as usize >= vocab) {
        Some(id) => Err(wrong(format!("id {id} is outside of the vocabulary of {vocab}"))),
        None => Ok(samples),
    }
}
