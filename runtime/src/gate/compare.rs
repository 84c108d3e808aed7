//! Two models on the same inputs: the whole one, masked or not, and what was made of it.

use super::{GateError, SAMPLES, SEQUENCE};
use crate::device::{Device, Outputs, Weights};
use crate::mask;
use crate::random::SplitMix64;
use crate::samples::Runner;
use crate::source::{self, Rotation, SourceError, WeightSource};
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, output};
use minic_compiler::graph::{Graph, Masks};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule;
use std::ops::Range;

/// Tokens of the vocabulary whose rows of the embedding and of the head are held at once.
const TOKENS: usize = 4096;

/// The largest difference seen, where, and the largest magnitude there.
#[derive(Default)]
pub struct Compared {
    pub difference: f64,
    pub magnitude: f64,
    pub place: String,
}

impl Compared {
    /// Keeps the pair whose difference is the largest share of its magnitude.
    fn see(&mut self, place: &str, whole: &[f32], made: &[f32]) -> Result<(), GateError> {
        if whole.iter().chain(made).any(|v| !v.is_finite()) || whole.len() != made.len() {
            return Err(GateError::NotFinite { place: place.into() });
        }
        let difference = whole.iter().zip(made).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) as f64;
        let magnitude = whole.iter().map(|v| v.abs()).fold(0.0, f32::max) as f64;
        if self.place.is_empty() || difference * self.magnitude > self.difference * magnitude {
            *self = Compared { difference, magnitude, place: place.into() };
        }
        Ok(())
    }
}

/// How the model that was made writes what a stream of the whole one holds.
pub enum Frame<'a> {
    /// Only the hidden channels that survive.
    Kept(Vec<usize>),
    /// In another basis.
    Turned(&'a Rotation),
}

impl Frame<'_> {
    fn carry(&self, stream: &[f32], width: usize) -> Vec<f32> {
        match self {
            Frame::Kept(kept) => stream.chunks(width).flat_map(|row| kept.iter().map(|&c| row[c])).collect(),
            Frame::Turned(rotation) => rotation.apply(stream),
        }
    }

    /// A seeded stream in which only what can be carried is not zero, and the same carried.
    fn streams(&self, seed: u64, width: usize) -> (Vec<f32>, Vec<f32>) {
        let all: Vec<usize>;
        let channels = match self {
            Frame::Kept(kept) => kept,
            Frame::Turned(_) => {
                all = (0..width).collect();
                &all
            }
        };
        let mut random = SplitMix64::new(seed);
        let mut full = vec![0.0; SEQUENCE * width];
        for row in full.chunks_mut(width) {
            for &channel in channels {
                // Uniform in -1..1: the norm of the block scales it.
                row[channel] = (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            }
        }
        let carried = self.carry(&full, width);
        (full, carried)
    }
}

/// Two models that should compute the same.
pub struct Pair<'a> {
    device: &'a dyn Device,
    pub whole: &'a WeightSource,
    pub made: &'a WeightSource,
    /// What the whole model is masked by.
    plan: CutPlan,
    masks: Masks,
    hidden: usize,
    frame: Frame<'a>,
}

impl<'a> Pair<'a> {
    pub fn cut(
        device: &'a dyn Device,
        whole: &'a WeightSource,
        cut: &'a WeightSource,
        plan: &CutPlan,
    ) -> Pair<'a> {
        let hidden = whole.desc().size(Dim::HiddenSize);
        let kept = plan.model.get(&Dim::HiddenSize).cloned().unwrap_or_else(|| (0..hidden).collect());
        let (plan, masks) = (plan.clone(), mask::masks(whole.desc(), plan));
        Pair { device, whole, made: cut, plan, masks, hidden, frame: Frame::Kept(kept) }
    }

    pub fn rotated(
        device: &'a dyn Device,
        whole: &'a WeightSource,
        rotated: &'a WeightSource,
        rotation: &'a Rotation,
    ) -> Pair<'a> {
        let (plan, frame) = (CutPlan::identity(whole.desc()), Frame::Turned(rotation));
        Pair { frame, ..Pair::cut(device, whole, rotated, &plan) }
    }

    /// What is wrong where they differ.
    pub fn fault(&self) -> &'static str {
        match self.frame {
            Frame::Kept(_) => "the cut model does not compute what the masked model computes",
            Frame::Turned(_) => "the rotated model does not compute what the whole model computes",
        }
    }

    pub fn logits(&self) -> Result<Compared, GateError> {
        let graph = forward::logits(self.whole.desc(), SEQUENCE, self.masks.clone())?;
        let mut whole = self.runner(&graph, self.whole, None)?;
        let graph = forward::logits(self.made.desc(), SEQUENCE, Masks::default())?;
        let mut made = self.runner(&graph, self.made, None)?;
        let vocab = self.whole.desc().size(Dim::VocabSize) as u64;
        let mut compared = Compared::default();
        for sample in 0..SAMPLES {
            let tokens = tokens(sample, vocab);
            let (a, b) = (whole.once(&tokens)?, made.once(&tokens)?);
            compared.see("logits", a[output::LOGITS].f32(), b[output::LOGITS].f32())?;
        }
        Ok(compared)
    }

    /// The embedding, every block, and the last norm with the head, each by itself. Memory holds one block of
    /// one model, or some thousand rows of the embedding or the head.
    pub fn blocks(&self) -> Result<Compared, GateError> {
        let mut compared = Compared::default();
        self.embedding(&mut compared)?;
        for (after, &before) in self.plan.layers.iter().enumerate() {
            self.block(&mut compared, before, after)?;
        }
        self.head(&mut compared)?;
        Ok(compared)
    }

    /// Every row of it.
    fn embedding(&self, compared: &mut Compared) -> Result<(), GateError> {
        for rows in self.vocabulary() {
            let (whole, made) = (with_vocabulary(self.whole, &rows), with_vocabulary(self.made, &rows));
            let tokens: Vec<u32> = (0..rows.len() as u32).collect();
            let graph = forward::embedding(&whole, rows.len(), self.masks.clone())?;
            let a = self.once(&graph, self.whole, Some(&rows), None, &tokens)?;
            let graph = forward::embedding(&made, rows.len(), Masks::default())?;
            let b = self.once(&graph, self.made, Some(&rows), None, &tokens)?;
            let a = self.frame.carry(a[output::STREAM].f32(), self.hidden);
            compared.see(&format!("embeddings of tokens {rows:?}"), &a, b[output::STREAM].f32())?;
        }
        Ok(())
    }

    /// On a seeded stream of its own.
    fn block(&self, compared: &mut Compared, before: usize, after: usize) -> Result<(), GateError> {
        let (full, carried) = self.frame.streams(before as u64, self.hidden);
        let graph = forward::block(self.whole.desc(), before, SEQUENCE, self.masks.clone())?;
        let a = self.once(&graph, self.whole, None, Some(full), &[])?;
        let graph = forward::block(self.made.desc(), after, SEQUENCE, Masks::default())?;
        let b = self.once(&graph, self.made, None, Some(carried), &[])?;
        let a = self.frame.carry(a[output::STREAM].f32(), self.hidden);
        compared.see(&format!("streams after layer {before}"), &a, b[output::STREAM].f32())
    }

    /// With the last norm, on one more stream: all logits, in chunks of the vocabulary.
    fn head(&self, compared: &mut Compared) -> Result<(), GateError> {
        let (full, carried) = self.frame.streams(self.whole.desc().layers.len() as u64, self.hidden);
        for rows in self.vocabulary() {
            let (whole, made) = (with_vocabulary(self.whole, &rows), with_vocabulary(self.made, &rows));
            let graph = forward::head(&whole, SEQUENCE, self.masks.clone())?;
            let a = self.once(&graph, self.whole, Some(&rows), Some(full.clone()), &[])?;
            let graph = forward::head(&made, SEQUENCE, Masks::default())?;
            let b = self.once(&graph, self.made, Some(&rows), Some(carried.clone()), &[])?;
            let place = format!("logits of tokens {rows:?}");
            compared.see(&place, a[output::LOGITS].f32(), b[output::LOGITS].f32())?;
        }
        Ok(())
    }

    fn vocabulary(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.whole.desc().size(Dim::VocabSize);
        (0..tokens).step_by(TOKENS).map(move |at| at..tokens.min(at + TOKENS))
    }

    /// One graph, once; its weights are gone when it has run.
    fn once(
        &self,
        graph: &Graph,
        source: &WeightSource,
        vocabulary: Option<&Range<usize>>,
        stream: Option<Vec<f32>>,
        tokens: &[u32],
    ) -> Result<Outputs, GateError> {
        let mut runner = self.runner(graph, source, vocabulary)?;
        if let Some(stream) = stream {
            runner.set_input(output::STREAM, stream);
        }
        Ok(runner.once(tokens)?)
    }

    /// A graph with its weights; of those with a row for every token, only the rows `vocabulary` if there are any.
    fn runner(
        &self,
        graph: &Graph,
        source: &WeightSource,
        vocabulary: Option<&Range<usize>>,
    ) -> Result<Runner, GateError> {
        let schedule = schedule::schedule(graph)?;
        let weights = match vocabulary {
            None => source::bind(&schedule, source)?,
            Some(rows) => bind_rows(schedule.weights.keys().cloned(), source, rows)?,
        };
        let inputs = mask::vectors(&schedule.masks, &self.plan);
        Ok(Runner::new(self.device, schedule, weights, 1)?.with_inputs(inputs))
    }
}

/// The same model with a vocabulary of these rows only.
fn with_vocabulary(source: &WeightSource, rows: &Range<usize>) -> ModelDesc {
    let mut desc = source.desc().clone();
    desc.dims.insert(Dim::VocabSize, rows.len());
    desc
}

fn bind_rows(
    names: impl Iterator<Item = String>,
    source: &WeightSource,
    rows: &Range<usize>,
) -> Result<Weights, SourceError> {
    Weights::load(names, |name| {
        let slice = source.slice(name)?;
        // The last norm is a vector, and read whole.
        let rows = if slice.shape().len() == 2 { rows.clone() } else { 0..slice.rows() };
        slice.read_rows_f32(rows)
    })
}

fn tokens(sample: u64, vocab: u64) -> Vec<u32> {
    let mut random = SplitMix64::stream(1, sample);
    (0..SEQUENCE).map(|_| random.below(vocab.max(1)) as u32).collect()
}
