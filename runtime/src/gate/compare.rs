//! The masked model and the cut one on the same inputs.

use super::{GateError, SAMPLES, SEQUENCE};
use crate::device::{Device, Outputs, Weights};
use crate::mask;
use crate::random::SplitMix64;
use crate::samples::Runner;
use crate::source::{self, SourceError, WeightSource};
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
    fn see(&mut self, place: &str, masked: &[f32], cut: &[f32]) -> Result<(), GateError> {
        if masked.iter().chain(cut).any(|v| !v.is_finite()) || masked.len() != cut.len() {
            return Err(GateError::NotFinite { place: place.into() });
        }
        let difference = masked.iter().zip(cut).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) as f64;
        let magnitude = masked.iter().map(|v| v.abs()).fold(0.0, f32::max) as f64;
        if self.place.is_empty() || difference * self.magnitude > self.difference * magnitude {
            *self = Compared { difference, magnitude, place: place.into() };
        }
        Ok(())
    }
}

pub fn logits(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
) -> Result<Compared, GateError> {
    let masks = mask::masks(whole.desc(), plan);
    let mut masked = runner(device, &forward::logits(whole.desc(), SEQUENCE, masks)?, whole, None, plan)?;
    let graph = forward::logits(cut.desc(), SEQUENCE, Masks::default())?;
    let mut sliced = runner(device, &graph, cut, None, plan)?;
    let vocab = whole.desc().size(Dim::VocabSize) as u64;
    let mut compared = Compared::default();
    for sample in 0..SAMPLES {
        let tokens = tokens(sample, vocab);
        let (a, b) = (masked.once(&tokens)?, sliced.once(&tokens)?);
        compared.see("logits", a[output::LOGITS].f32(), b[output::LOGITS].f32())?;
    }
    Ok(compared)
}

/// The embedding, every block, and the last norm with the head, each by itself. Memory holds one block of one
/// model, or some thousand rows of the embedding or the head.
pub fn blocks(
    device: &dyn Device,
    whole: &WeightSource,
    cut: &WeightSource,
    plan: &CutPlan,
) -> Result<Compared, GateError> {
    let parts = Parts::new(device, whole, cut, plan);
    let mut compared = Compared::default();
    parts.embedding(&mut compared)?;
    for (after, &before) in plan.layers.iter().enumerate() {
        parts.block(&mut compared, before, after)?;
    }
    parts.head(&mut compared)?;
    Ok(compared)
}

/// Two models that are compared part by part.
struct Parts<'a> {
    device: &'a dyn Device,
    whole: &'a WeightSource,
    cut: &'a WeightSource,
    plan: &'a CutPlan,
    masks: Masks,
    hidden: usize,
    /// Hidden channels that survive.
    kept: Vec<usize>,
}

impl<'a> Parts<'a> {
    fn new(
        device: &'a dyn Device,
        whole: &'a WeightSource,
        cut: &'a WeightSource,
        plan: &'a CutPlan,
    ) -> Parts<'a> {
        let hidden = whole.desc().size(Dim::HiddenSize);
        let kept = plan.model.get(&Dim::HiddenSize).cloned().unwrap_or_else(|| (0..hidden).collect());
        Parts { device, whole, cut, plan, masks: mask::masks(whole.desc(), plan), hidden, kept }
    }

    /// Every row of it.
    fn embedding(&self, compared: &mut Compared) -> Result<(), GateError> {
        for rows in self.vocabulary() {
            let (whole, cut) = (with_vocabulary(self.whole, &rows), with_vocabulary(self.cut, &rows));
            let tokens: Vec<u32> = (0..rows.len() as u32).collect();
            let graph = forward::embedding(&whole, rows.len(), self.masks.clone())?;
            let a = self.once(&graph, self.whole, Some(&rows), None, &tokens)?;
            let graph = forward::embedding(&cut, rows.len(), Masks::default())?;
            let b = self.once(&graph, self.cut, Some(&rows), None, &tokens)?;
            let a = columns(a[output::STREAM].f32(), self.hidden, &self.kept);
            compared.see(&format!("embeddings of tokens {rows:?}"), &a, b[output::STREAM].f32())?;
        }
        Ok(())
    }

    /// On a seeded stream of its own.
    fn block(&self, compared: &mut Compared, before: usize, after: usize) -> Result<(), GateError> {
        let (full, narrow) = streams(before as u64, self.hidden, &self.kept);
        let graph = forward::block(self.whole.desc(), before, SEQUENCE, self.masks.clone())?;
        let a = self.once(&graph, self.whole, None, Some(full), &[])?;
        let graph = forward::block(self.cut.desc(), after, SEQUENCE, Masks::default())?;
        let b = self.once(&graph, self.cut, None, Some(narrow), &[])?;
        let a = columns(a[output::STREAM].f32(), self.hidden, &self.kept);
        compared.see(&format!("streams after layer {before}"), &a, b[output::STREAM].f32())
    }

    /// With the last norm, on one more stream: all logits, in chunks of the vocabulary.
    fn head(&self, compared: &mut Compared) -> Result<(), GateError> {
        let (full, narrow) = streams(self.whole.desc().layers.len() as u64, self.hidden, &self.kept);
        for rows in self.vocabulary() {
            let (whole, cut) = (with_vocabulary(self.whole, &rows), with_vocabulary(self.cut, &rows));
            let graph = forward::head(&whole, SEQUENCE, self.masks.clone())?;
            let a = self.once(&graph, self.whole, Some(&rows), Some(full.clone()), &[])?;
            let graph = forward::head(&cut, SEQUENCE, Masks::default())?;
            let b = self.once(&graph, self.cut, Some(&rows), Some(narrow.clone()), &[])?;
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
        let mut runner = runner(self.device, graph, source, vocabulary, self.plan)?;
        if let Some(stream) = stream {
            runner.set_input(output::STREAM, stream);
        }
        Ok(runner.once(tokens)?)
    }
}

/// The same model with a vocabulary of these rows only.
fn with_vocabulary(source: &WeightSource, rows: &Range<usize>) -> ModelDesc {
    let mut desc = source.desc().clone();
    desc.dims.insert(Dim::VocabSize, rows.len());
    desc
}

/// A graph with its weights; of those with a row for every token, only the rows `vocabulary` if there are any.
fn runner(
    device: &dyn Device,
    graph: &Graph,
    source: &WeightSource,
    vocabulary: Option<&Range<usize>>,
    plan: &CutPlan,
) -> Result<Runner, GateError> {
    let schedule = schedule::schedule(graph)?;
    let weights = match vocabulary {
        None => source::bind(&schedule, source)?,
        Some(rows) => bind_rows(schedule.weights.keys().cloned(), source, rows)?,
    };
    let inputs = mask::vectors(&schedule.masks, plan);
    Ok(Runner::new(device, schedule, weights, 1)?.with_inputs(inputs))
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

/// A stream of the whole width whose dropped channels are zero, and the same without them.
fn streams(seed: u64, hidden: usize, kept: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let mut random = SplitMix64::new(seed);
    let mut full = vec![0.0; SEQUENCE * hidden];
    for row in full.chunks_mut(hidden) {
        for &channel in kept {
            // Uniform in -1..1: the norm of the block scales it.
            row[channel] = (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        }
    }
    let narrow = columns(&full, hidden, kept);
    (full, narrow)
}

fn columns(data: &[f32], width: usize, kept: &[usize]) -> Vec<f32> {
    data.chunks(width).flat_map(|row| kept.iter().map(|&c| row[c])).collect()
}

fn tokens(sample: u64, vocab: u64) -> Vec<u32> {
    let mut random = SplitMix64::stream(1, sample);
    (0..SEQUENCE).map(|_| random.below(vocab.max(1)) as u32).collect()
}
