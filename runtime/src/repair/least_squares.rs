//! Matrices that write to the stream, solved anew: the cut block's output is then as near to the parent's as
//! what is left of its inputs allows.
//!
//! For a block whose last matrix reads z [rows, K] in the cut model and should write y [rows, E], with G = z^T z
//! and B = z^T y over all positions, W^T = W0^T + (G + damping mean(diag G) I)^-1 (B - G W0^T): the ridge pulls
//! towards the matrix of the plain cut, so that the error on these rows is never larger than its error. f64
//! throughout, rounded once.
//!
//! Layers are walked in order with the streams of all samples between two layers, so that one block of each model
//! and one pair of G and B are held at a time.

use super::streams::Streams;
use crate::device::{Bindings, Device, Outputs as Values, Session, Weights};
use crate::error::Kind;
use crate::events::Watch;
use crate::linalg;
use crate::run::RunError;
use crate::source::{self, WeightSource};
use crate::store::Store;
use minic_compiler::axes;
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, output};
use minic_compiler::graph::{Graph, Masks};
use minic_compiler::model::{Role, Weight};
use minic_compiler::schedule;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(
        "`{weight}` cannot be solved: what it reads on the calibration set leaves directions open; raise `damping` (it is {damping}), or calibrate on more samples"
    )]
    Singular { weight: String, damping: f64 },
    #[error(
        "`{weight}`: the repaired error, {after:.3e} of the output, is larger than without repair, {before:.3e}"
    )]
    Worse { weight: String, before: f64, after: f64 },
}

impl RepairError {
    pub fn kind(&self) -> Kind {
        match self {
            RepairError::Singular { .. } => Kind::Input,
            RepairError::Worse { .. } => Kind::Proof,
        }
    }
}

/// One matrix that was solved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mended {
    pub weight: String,
    /// Squared error of the block's output on the calibration set as a share of its square: with the matrix of
    /// the plain cut, and with the solved one.
    pub before: f64,
    pub after: f64,
}

/// Everything that a repair of outputs works on.
pub struct Outputs<'a> {
    pub device: &'a dyn Device,
    /// The model before the cut, in the basis of the cut.
    pub parent: &'a WeightSource,
    /// The model after it.
    pub student: &'a WeightSource,
    pub plan: &'a CutPlan,
    /// A share of the mean of G's diagonal.
    pub damping: f64,
    /// Later layers see what repaired ones give them, and make up for what earlier ones still lack.
    pub sequential: bool,
    pub samples: &'a [&'a [u32]],
    pub store: &'a Store,
    pub watch: &'a Watch<'a>,
}

impl Outputs<'_> {
    /// Solves one matrix a layer of the student, in order; `keep` is given each.
    pub fn mend(
        &self,
        mut keep: impl FnMut(&Weight, &[f32]) -> Result<(), RunError>,
    ) -> Result<Vec<Mended>, RunError> {
        let sequence = self.samples.first().ok_or(RunError::NoSamples)?.len();
        let width = |model: &WeightSource| model.desc().size(Dim::HiddenSize);
        let streams = |model| Streams::new(self.store, self.samples.len(), sequence * width(model));
        let mut of_parent = streams(self.parent)?;
        self.embed(self.parent, sequence, &mut of_parent)?;
        let mut of_student = self.sequential.then(|| streams(self.student)).transpose()?;
        if let Some(streams) = &mut of_student {
            self.embed(self.student, sequence, streams)?;
        }
        let mut mended = Vec::new();
        let layers = self.parent.desc().layers.len();
        for layer in 0..layers {
            let graph = forward::block(self.parent.desc(), layer, sequence, Masks::default())?;
            let block = Block::new(self.device, &graph, self.parent, self.samples.len())?;
            match self.plan.layers.binary_search(&layer) {
                Err(_) => self.pass(block, &mut of_parent)?,
                Ok(own) => {
                    let (one, solved) =
                        self.layer(block, own, sequence, &mut of_parent, of_student.as_mut())?;
                    keep(&solved.weight, &solved.values)?;
                    mended.push(one);
                }
            }
            self.watch.progress(layer + 1, layers);
        }
        Ok(mended)
    }

    /// The streams before the first block.
    fn embed(&self, model: &WeightSource, sequence: usize, streams: &mut Streams) -> Result<(), RunError> {
        let graph = forward::embedding(model.desc(), sequence, Masks::default())?;
        let mut block = Block::new(self.device, &graph, model, self.samples.len())?;
        let lanes = block.sessions.len();
        for first in (0..self.samples.len()).step_by(lanes) {
            let end = self.samples.len().min(first + lanes);
            let bindings = self.samples[first..end].iter().map(|tokens| Bindings::of(tokens)).collect();
            for (sample, values) in (first..end).zip(block.run(bindings)?) {
                streams.set(sample, stream(values))?;
            }
        }
        Ok(())
    }

    /// Every stream through a block.
    fn pass(&self, mut block: Block, streams: &mut Streams) -> Result<(), RunError> {
        let lanes = block.sessions.len();
        for first in (0..self.samples.len()).step_by(lanes) {
            let samples = first..self.samples.len().min(first + lanes);
            let before = samples.clone().map(|s| streams.get(s)).collect::<Result<Vec<_>, _>>()?;
            for (sample, values) in samples.zip(block.streams(&before)?) {
                streams.set(sample, stream(values))?;
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// Layer `own` of the student, cut from the parent's `block`: both models' streams go through.
    fn layer(
        &self,
        mut block: Block,
        own: usize,
        sequence: usize,
        of_parent: &mut Streams,
        mut of_student: Option<&mut Streams>,
    ) -> Result<(Mended, Solved), RunError> {
        let desc = self.student.desc();
        let (weight, bias) = self.writer(own)?;
        let read = forward::read(desc, own, sequence)?;
        let mut reader = Block::new(self.device, &read, self.student, self.samples.len())?;
        let mut moments = Moments::new(weight.shape[1].size(), weight.shape[0].size());
        let lanes = block.sessions.len();
        for first in (0..self.samples.len()).step_by(lanes) {
            let samples = first..self.samples.len().min(first + lanes);
            let before = samples.clone().map(|s| of_parent.get(s)).collect::<Result<Vec<_>, _>>()?;
            let after: Vec<Vec<f32>> = block.streams(&before)?.into_iter().map(stream).collect();
            let kept = |streams: &[Vec<f32>]| streams.iter().map(|s| self.kept(s)).collect::<Vec<_>>();
            // What the student's block is given; what it should give is the parent's stream after the block.
            let given = match &mut of_student {
                Some(streams) => samples.clone().map(|s| streams.get(s)).collect::<Result<Vec<_>, _>>()?,
                None => kept(&before),
            };
            let wanted = kept(&after);
            for ((values, given), wanted) in reader.streams(&given)?.into_iter().zip(&given).zip(&wanted) {
                let difference: Vec<f64> = wanted
                    .iter()
                    .zip(given)
                    .zip(bias.iter().cycle())
                    .map(|((after, before), bias)| f64::from(*after) - f64::from(*before) - f64::from(*bias))
                    .collect();
                moments.push(values.get(output::READ).map_or(&[][..], |z| z.f32()), &difference);
            }
            for (sample, after) in samples.zip(after) {
                of_parent.set(sample, after)?;
            }
            self.go_on()?;
        }
        drop((block, reader));
        let plain = self.student.read_f32(&weight.name)?;
        let (mended, values) = moments.solve(&weight.name, &plain, self.damping)?;
        if let Some(streams) = of_student {
            let graph = forward::block(desc, own, sequence, Masks::default())?;
            let replaced = BTreeMap::from([(weight.name.as_str(), values.as_slice())]);
            let block = Block::with(self.device, &graph, self.student, self.samples.len(), &replaced)?;
            self.pass(block, streams)?;
        }
        Ok((mended, Solved { weight, values }))
    }

    /// The matrix of the student's layer that writes to the stream, and its bias, zero where there is none.
    fn writer(&self, layer: usize) -> Result<(Weight, Vec<f32>), RunError> {
        let desc = self.student.desc();
        let role = desc.layers.get(layer).and_then(|kind| axes::writer(*kind)).map(|(_, role)| role);
        let table: Vec<Weight> = desc.weights().into_iter().filter(|w| w.layer == Some(layer)).collect();
        let weight = table.iter().find(|w| Some(w.role) == role);
        let weight =
            weight.ok_or_else(|| RunError::Unplanned { what: format!("the writer of layer {layer}") })?;
        let onto_stream = |w: &&Weight| w.role == Role::Bias && w.shape[0] == weight.shape[0];
        let bias = match table.iter().find(onto_stream) {
            Some(bias) => self.student.read_f32(&bias.name)?,
            None => vec![0.0; weight.shape[0].size()],
        };
        Ok((weight.clone(), bias))
    }

    /// The channels of a parent's stream that the student has.
    fn kept(&self, stream: &[f32]) -> Vec<f32> {
        let width = self.parent.desc().size(Dim::HiddenSize);
        match self.plan.model.get(&Dim::HiddenSize) {
            None => stream.to_vec(),
            Some(kept) => stream.chunks(width).flat_map(|row| kept.iter().map(|&c| row[c])).collect(),
        }
    }

    fn go_on(&self) -> Result<(), RunError> {
        if self.watch.stop.is_set() { Err(RunError::Stopped) } else { Ok(()) }
    }
}

/// A matrix that was solved.
struct Solved {
    weight: Weight,
    values: Vec<f32>,
}

fn stream(mut values: Values) -> Vec<f32> {
    match values.remove(output::STREAM) {
        Some(crate::device::Output::F32(stream)) => stream,
        _ => Vec::new(),
    }
}

/// One graph with its weights, on several lanes.
struct Block {
    sessions: Vec<Box<dyn Session>>,
}

impl Block {
    fn new(
        device: &dyn Device,
        graph: &Graph,
        model: &WeightSource,
        samples: usize,
    ) -> Result<Block, RunError> {
        Block::with(device, graph, model, samples, &BTreeMap::new())
    }

    /// Some weights are given instead of the model's.
    fn with(
        device: &dyn Device,
        graph: &Graph,
        model: &WeightSource,
        samples: usize,
        replaced: &BTreeMap<&str, &[f32]>,
    ) -> Result<Block, RunError> {
        let schedule = Arc::new(schedule::schedule(graph)?);
        let weights = Weights::load(schedule.weights.keys().cloned(), |name| match replaced.get(name) {
            Some(values) => Ok(values.to_vec()),
            None => model.read_f32(name),
        })
        .map_err(|e: source::SourceError| RunError::from(e))?;
        let lanes = device.lanes().clamp(1, samples.max(1));
        let sessions = (0..lanes).map(|_| device.prepare(schedule.clone(), weights.clone()));
        Ok(Block { sessions: sessions.collect::<Result<_, _>>()? })
    }

    /// As many samples as there are lanes, at most.
    fn run(&mut self, bindings: Vec<Bindings>) -> Result<Vec<Values>, RunError> {
        let lanes = self.sessions.par_iter_mut().zip(bindings);
        let values: Vec<Result<Values, _>> =
            lanes.map(|(session, bindings)| session.run(&bindings)).collect();
        Ok(values.into_iter().collect::<Result<_, _>>()?)
    }

    fn streams(&mut self, given: &[Vec<f32>]) -> Result<Vec<Values>, RunError> {
        let mut bindings = Vec::new();
        for stream in given {
            let inputs = BTreeMap::from([(output::STREAM, stream.as_slice())]);
            bindings.push(Bindings { tokens: &[], inputs });
        }
        self.run(bindings)
    }
}

/// Sums over all positions.
struct Moments {
    /// Widths of z and of y.
    inputs: usize,
    outputs: usize,
    /// z^T z, the lower triangle; z^T y; and the square of y.
    gram: Vec<f64>,
    cross: Vec<f64>,
    square: f64,
}

/// Rows that are held in f64 at once. A fixed number: it decides in which order products are added.
const ROWS: usize = 256;

impl Moments {
    fn new(inputs: usize, outputs: usize) -> Moments {
        let (gram, cross) = (vec![0.0; inputs * inputs], vec![0.0; inputs * outputs]);
        Moments { inputs, outputs, gram, cross, square: 0.0 }
    }

    /// Rows z [rows, inputs] with y [rows, outputs].
    fn push(&mut self, z: &[f32], y: &[f64]) {
        let parts = z.chunks(ROWS * self.inputs).zip(y.chunks(ROWS * self.outputs));
        for (z, y) in parts {
            let z: Vec<f64> = z.iter().map(|v| f64::from(*v)).collect();
            linalg::add_gram(&z, self.inputs, &mut self.gram);
            linalg::add_cross(&z, self.inputs, y, self.outputs, &mut self.cross);
        }
        self.square += y.iter().map(|v| v * v).sum::<f64>();
    }

    /// The matrix [outputs, inputs], from that of the plain cut.
    fn solve(mut self, name: &str, plain: &[f32], damping: f64) -> Result<(Mended, Vec<f32>), RunError> {
        let (n, m) = (self.inputs, self.outputs);
        let diagonal = (0..n).map(|i| self.gram[i * n + i]);
        let ridge = damping * diagonal.sum::<f64>() / n as f64;
        let all = [self.square, ridge].into_iter().chain(self.cross.iter().copied());
        if all.chain(self.gram.iter().copied()).any(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { what: format!("what `{name}` reads or should write") });
        }
        linalg::mirror(&mut self.gram, n);
        // Transposed, [inputs, outputs], as B is.
        let plain: Vec<f64> = (0..n * m).map(|at| f64::from(plain[(at % m) * n + at / m])).collect();
        // R = B - G W0^T, and the error of the plain cut: tr(W0 G W0^T) - 2 tr(W0 B) + |y|^2.
        let mut right = vec![0.0; n * m];
        linalg::add_cross(&self.gram, n, &plain, m, &mut right);
        right.iter_mut().zip(&self.cross).for_each(|(right, cross)| *right = cross - *right);
        let terms = plain.iter().zip(&right).zip(&self.cross);
        let before = self.square - terms.map(|((w, right), cross)| w * (right + cross)).sum::<f64>();
        let mut change = right.clone();
        (0..n).for_each(|i| self.gram[i * n + i] += ridge);
        linalg::solve(&mut self.gram, n, &mut change, m)
            .ok_or_else(|| RepairError::Singular { weight: name.into(), damping })?;
        // (G + ridge) D = R, so that the error falls by tr(D R) + ridge |D|^2.
        let falls = change.iter().zip(&right).map(|(d, right)| d * (right + ridge * d)).sum::<f64>();
        let share = |error: f64| (error / self.square.max(f64::MIN_POSITIVE)).max(0.0);
        let mended = Mended { weight: name.into(), before: share(before), after: share(before - falls) };
        if !mended.after.is_finite() || mended.after > mended.before * (1.0 + 1e-6) + 1e-9 {
            let Mended { weight, before, after } = mended;
            return Err(RepairError::Worse { weight, before, after }.into());
        }
        let at = |at: usize| (at % n) * m + at / n;
        Ok((mended, (0..n * m).map(at).map(|at| (plain[at] + change[at]) as f32).collect()))
    }
}
