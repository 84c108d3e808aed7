//! Decoding: first tokens, then one token of every sequence at a time, each with what its sequence remembers; and how
//! fast a model does it on a device.
//!
//! What is remembered is f32, and so are all weights that are not rounded by the device. The speed of a model depends on
//! neither its weights nor its tokens, so that models are measured that nobody has trained yet.

use crate::device::{Bindings, Device, DeviceError, Memory, Session};
use crate::events::Watch;
use crate::run::RunError;
use crate::source::{self, WeightSource};
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Answer, output};
use minic_compiler::graph::Decoding;
use minic_compiler::schedule::{self, Schedule};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What is asked of a model at once; all of it at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// First tokens of a sequence.
    pub input: usize,
    /// Tokens that come after them.
    pub output: usize,
    /// Sequences, side by side.
    pub batch: usize,
}

/// Some sequences of a request on a device.
pub struct Decoder {
    first: Box<dyn Session>,
    step: Box<dyn Session>,
    answer: &'static str,
    request: Request,
    /// Bytes of what the sequences remember.
    pub state_bytes: u64,
    /// What the device is planned to hold.
    pub memory: Memory,
}

impl Decoder {
    /// Binds a model, once it is known that the device has room for everything.
    pub fn new(
        device: &dyn Device,
        model: &WeightSource,
        request: Request,
        answer: Answer,
    ) -> Result<Decoder, RunError> {
        let Request { input, output, batch } = request;
        if input == 0 || output == 0 || batch == 0 {
            return Err(RunError::NoSamples);
        }
        let (desc, capacity) = (model.desc(), input + output);
        let graphs = [
            forward::prefill(desc, input, batch, capacity, answer)?,
            forward::step(desc, batch, capacity, answer)?,
        ];
        let [first, step] = [schedule::schedule(&graphs[0])?, schedule::schedule(&graphs[1])?];
        let (memory, state_bytes) = (planned(device, [&first, &step]), step.state_bytes());
        let has = device.available();
        if memory.total() > has {
            return Err(DeviceError::Decoding { bytes: memory.total(), states: state_bytes, has }.into());
        }
        let weights = source::bind(&first, model)?;
        let [first, step] = device.decode([Arc::new(first), Arc::new(step)], weights)?;
        let answer = match answer {
            Answer::Logits => output::LOGITS,
            Answer::Token => output::TOKEN,
        };
        Ok(Decoder { first, step, answer, request, state_bytes, memory })
    }

    /// The first tokens of a sequence, whatever it remembered before. What comes after the last of them: its logits [V],
    /// or the likeliest token [1].
    pub fn begin(&mut self, sequence: usize, tokens: &[u32]) -> Result<Vec<f32>, DeviceError> {
        assert!(sequence < self.request.batch, "bug: sequence {sequence} of {}", self.request.batch);
        run(self.first.as_mut(), [sequence, 0], tokens, self.answer)
    }

    /// The token at a position of each sequence, whose positions before have been given. What comes after it: logits
    /// [batch, V], or the likeliest tokens [batch].
    pub fn step(&mut self, position: usize, tokens: &[u32]) -> Result<Vec<f32>, DeviceError> {
        let room = self.request.input + self.request.output;
        assert!(position < room, "bug: position {position} of {room}");
        run(self.step.as_mut(), [0, position], tokens, self.answer)
    }
}

fn run(
    session: &mut dyn Session,
    at: [usize; 2],
    tokens: &[u32],
    answer: &str,
) -> Result<Vec<f32>, DeviceError> {
    let at = at.map(|i| i as f32);
    let outputs = session.run(&Bindings { tokens, inputs: [(Decoding::AT, &at[..])].into() })?;
    Ok(outputs.get(answer).map(|value| value.f32().to_vec()).unwrap_or_default())
}

/// Both schedules read the same weights, and share what is remembered.
fn planned(device: &dyn Device, schedules: [&Schedule; 2]) -> Memory {
    let [first, step] = schedules.map(|schedule| device.memory(schedule, 1));
    Memory {
        weights: first.weights.max(step.weights),
        lanes: first.lanes + step.lanes - schedules[1].state_bytes(),
        scratch: first.scratch + step.scratch,
    }
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let middle = [(values.len() - 1) / 2, values.len() / 2].map(|i| values[i]);
        let (min, max) = (values[0], values[values.len() - 1]);
        Spread { median: (middle[0] + middle[1]) / 2.0, min, max }
    }
}

/// How fast a model answers a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// What it ran on, as [`Device::kind`] tells it.
    pub device: String,
    #[serde(flatten)]
    pub request: Request,
    /// Rounds that were measured.
    pub repeats: usize,
    /// Steps that each of them ran. Fewer than the request has: their seconds were interpolated ([`measure`]).
    pub steps: usize,
    /// Seconds until the first token of every sequence is there.
    pub latency: Spread,
    /// Tokens of output a second, over the whole request.
    pub throughput: Spread,
    /// Tokens of input a second, until the first token is there.
    pub prefill: Spread,
    /// Tokens of output a second, from then on.
    pub decode: Spread,
    /// Bytes of what the sequences remember.
    pub state_bytes: u64,
}

/// The speed of a model: `repeats` rounds after one that is not measured.
///
/// A round is the first tokens of one sequence after the other, and then `output` steps with the likeliest tokens of
/// all sequences: throughput = batch * output / (seconds of the first tokens + seconds of the steps). Of more than 24
/// steps only 8 each are run with the shortest, the middle, and the longest context; those in between take, step by
/// step, what lies on the lines between the three means. What was not run is not remembered then, and stays as it was:
/// that changes tokens, and no time.
pub fn measure(
    device: &dyn Device,
    model: &WeightSource,
    request: Request,
    repeats: usize,
    watch: &Watch,
) -> Result<Speed, RunError> {
    if repeats == 0 {
        return Err(RunError::NoSamples);
    }
    let mut decoder = Decoder::new(device, model, request, Answer::Token)?;
    watch.planned(decoder.memory);
    let vocab = model.desc().size(Dim::VocabSize);
    let prompts: Vec<Vec<u32>> = (0..request.batch).map(|s| prompt(vocab, request.input, s)).collect();
    let runs = runs(request.output);
    let (mut latencies, mut decodings) = (Vec::new(), Vec::new());
    for round in 0..=repeats {
        let (latency, decoding) = self::round(&mut decoder, &prompts, &runs, watch)?;
        if round > 0 {
            latencies.push(latency);
            decodings.push(decoding);
        }
        watch.progress(round, repeats);
    }
    let Request { input, output, batch } = request;
    let [read, written] = [input, output].map(|tokens| (batch * tokens) as f64);
    let rate = |tokens: f64, seconds: &[f64]| Spread::of(seconds.iter().map(|s| tokens / s).collect());
    let whole: Vec<f64> = latencies.iter().zip(&decodings).map(|(first, steps)| first + steps).collect();
    Ok(Speed {
        device: device.kind(),
        request,
        repeats,
        steps: runs.iter().map(Range::len).sum(),
        throughput: rate(written, &whole),
        prefill: rate(read, &latencies),
        decode: rate(written, &decodings),
        latency: Spread::of(latencies),
        state_bytes: decoder.state_bytes,
    })
}

/// Seconds until the first tokens are there, and seconds of all steps.
fn round(
    decoder: &mut Decoder,
    prompts: &[Vec<u32>],
    runs: &[Range<usize>],
    watch: &Watch,
) -> Result<(f64, f64), RunError> {
    let began = Instant::now();
    let mut tokens = Vec::new();
    for (sequence, prompt) in prompts.iter().enumerate() {
        goes_on(watch)?;
        tokens.extend(ids(&decoder.begin(sequence, prompt)?)?);
    }
    let latency = began.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    for run in runs {
        let began = Instant::now();
        for i in run.clone() {
            goes_on(watch)?;
            tokens = ids(&decoder.step(decoder.request.input + i, &tokens)?)?;
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok((latency, whole(runs, &seconds)))
}

fn goes_on(watch: &Watch) -> Result<(), RunError> {
    if watch.stop.is_set() { Err(RunError::Stopped) } else { Ok(()) }
}

/// Tokens as the graph tells them.
fn ids(values: &[f32]) -> Result<Vec<u32>, RunError> {
    let id = |x: &f32| match x.is_finite() {
        true => Ok(*x as u32),
        false => Err(RunError::NotFinite { what: "a logit".into() }),
    };
    values.iter().map(id).collect()
}

/// First tokens that every vocabulary has.
fn prompt(vocab: usize, length: usize, sequence: usize) -> Vec<u32> {
    let token = |t: usize| ((7 * t + 13 * sequence + t / 5) % vocab.clamp(1, 256)) as u32;
    (0..length).map(token).collect()
}

/// Steps that are run at one length of the context.
const RUN: usize = 8;

/// The steps that are run, of so many.
fn runs(steps: usize) -> Vec<Range<usize>> {
    if steps <= 3 * RUN {
        return std::iter::once(0..steps).collect();
    }
    let last = steps - RUN;
    [0, last / 2, last].map(|first| first..first + RUN).into()
}

/// Seconds of all steps, from those of runs of them.
fn whole(runs: &[Range<usize>], seconds: &[f64]) -> f64 {
    // The middle of a run, and seconds of a step there.
    let mean = |(run, seconds): (&Range<usize>, &f64)| {
        ((run.start + run.end - 1) as f64 / 2.0, seconds / run.len() as f64)
    };
    let means: Vec<(f64, f64)> = runs.iter().zip(seconds).map(mean).collect();
    let steps = runs.last().map_or(0, |run| run.end);
    let step = |i: usize| {
        let at = |pair: &&[(f64, f64)]| i as f64 <= pair[1].0;
        match means.windows(2).find(at).or(means.windows(2).last()) {
            Some(pair) => {
                let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
                y0 + (y1 - y0) * ((i as f64 - x0) / (x1 - x0)).clamp(0.0, 1.0)
            }
            None => means.first().map_or(0.0, |(_, mean)| *mean),
        }
    };
    (0..steps).map(step).sum()
}

#[cfg(test)]
mod tests;
