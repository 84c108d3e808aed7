//! A model layer by layer, with the streams of all samples between two layers: one block at a time is held, so that
//! models fit that as a whole do not.

mod streams;

pub use streams::Streams;

use crate::device::{Bindings, Device, Output, Outputs as Values, Session, Weights};
use crate::events::Watch;
use crate::run::RunError;
use crate::source::{SourceError, WeightSource};
use crate::store::Store;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, output};
use minic_compiler::graph::{Graph, Masks};
use minic_compiler::model::{ModelDesc, Weight};
use minic_compiler::schedule;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a walk needs beside models.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub device: &'a dyn Device,
    /// Of equal length.
    pub samples: &'a [&'a [u32]],
    pub store: &'a Store,
    pub watch: &'a Watch<'a>,
}

impl<'a> Walk<'a> {
    /// Positions of a sample.
    pub fn sequence(&self) -> Result<usize, RunError> {
        self.samples.first().map(|tokens| tokens.len()).ok_or(RunError::NoSamples)
    }

    /// The streams before the first block.
    pub fn streams(&self, model: &WeightSource) -> Result<Streams, RunError> {
        let sequence = self.sequence()?;
        let width = model.desc().size(Dim::HiddenSize);
        let mut streams = Streams::new(self.store, self.samples.len(), sequence * width)?;
        let graph = forward::embedding(model.desc(), sequence, Masks::default())?;
        let mut block = self.block(&graph, model)?;
        for samples in self.chunks(&block) {
            let bindings = self.samples[samples.clone()].iter().map(|tokens| Bindings::of(tokens)).collect();
            for (sample, values) in samples.zip(block.run(bindings)?) {
                streams.set(sample, stream(values))?;
            }
        }
        Ok(streams)
    }

    pub fn block(&self, graph: &Graph, model: &WeightSource) -> Result<Block, RunError> {
        self.block_with(graph, model, &BTreeMap::new())
    }

    /// Some weights are given instead of the model's.
    pub fn block_with(
        &self,
        graph: &Graph,
        model: &WeightSource,
        replaced: &BTreeMap<&str, &[f32]>,
    ) -> Result<Block, RunError> {
        let schedule = Arc::new(schedule::schedule(graph)?);
        let weights = Weights::load(schedule.weights.keys().cloned(), |name| match replaced.get(name) {
            Some(values) => Ok(values.to_vec()),
            None => model.read_f32(name),
        })
        .map_err(|e: SourceError| RunError::from(e))?;
        let lanes = self.device.lanes().clamp(1, self.samples.len().max(1));
        let sessions = (0..lanes).map(|_| self.device.prepare(schedule.clone(), weights.clone()));
        Ok(Block { sessions: sessions.collect::<Result<_, _>>()? })
    }

    /// Every stream through a block; `seen` is given what else the block puts out, sample by sample in order.
    pub fn pass(
        &self,
        mut block: Block,
        streams: &mut Streams,
        mut seen: impl FnMut(&Values),
    ) -> Result<(), RunError> {
        for samples in self.chunks(&block) {
            let before = samples.clone().map(|s| streams.get(s)).collect::<Result<Vec<_>, _>>()?;
            for (sample, values) in samples.zip(block.streams(&before)?) {
                seen(&values);
                streams.set(sample, stream(values))?;
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// Samples that a block takes at once, in order.
    pub fn chunks(&self, block: &Block) -> impl Iterator<Item = Range<usize>> + use<> {
        let (samples, lanes) = (self.samples.len(), block.sessions.len());
        (0..samples).step_by(lanes).map(move |first| first..samples.min(first + lanes))
    }

    pub fn go_on(&self) -> Result<(), RunError> {
        if self.watch.stop.is_set() { Err(RunError::Stopped) } else { Ok(()) }
    }
}

/// One graph with its weights, on several lanes.
pub struct Block {
    sessions: Vec<Box<dyn Session>>,
}

impl Block {
    /// As many samples as there are lanes, at most.
    fn run(&mut self, bindings: Vec<Bindings>) -> Result<Vec<Values>, RunError> {
        let lanes = self.sessions.par_iter_mut().zip(bindings);
        let values: Vec<Result<Values, _>> =
            lanes.map(|(session, bindings)| session.run(&bindings)).collect();
        Ok(values.into_iter().collect::<Result<_, _>>()?)
    }

    pub fn streams(&mut self, given: &[Vec<f32>]) -> Result<Vec<Values>, RunError> {
        let mut bindings = Vec::new();
        for stream in given {
            let inputs = BTreeMap::from([(output::STREAM, stream.as_slice())]);
            bindings.push(Bindings { tokens: &[], inputs });
        }
        self.run(bindings)
    }
}

/// The matrix of a layer that writes to the stream.
pub fn writer(desc: &ModelDesc, layer: usize) -> Result<Weight, RunError> {
    let weight = desc.writers().into_iter().find(|w| w.layer == Some(layer));
    weight.ok_or_else(|| RunError::Unplanned { what: format!("the writer of layer {layer}") })
}

/// The stream that a block puts out.
pub fn stream(mut values: Values) -> Vec<f32> {
    match values.remove(output::STREAM) {
        Some(Output::F32(stream)) => stream,
        _ => Vec::new(),
    }
}

/// What a block's last matrix reads, [rows, K].
pub fn read(values: &Values) -> &[f32] {
    values.get(output::READ).map_or(&[], |z| z.f32())
}

/// Rows that are held in f64 at once. A fixed number: it decides in which order products are added.
pub const ROWS: usize = 256;

/// Rows [rows, n] in f64, some at a time.
pub fn pieces(z: &[f32], n: usize) -> impl Iterator<Item = Vec<f64>> {
    z.chunks(ROWS * n.max(1)).map(|rows| rows.iter().map(|v| f64::from(*v)).collect())
}
