//! Matrices that write to the stream, solved anew: the cut block's output is then as near to the parent's as
//! what is left of its inputs allows.
//!
//! For a block whose last matrix reads z [rows, K] in the cut model and should write y [rows, E], with G = z^T z
//! and B = z^T y over all positions, W^T = W0^T + (G + damping mean(diag G) I)^-1 (B - G W0^T): the ridge pulls
//! towards the matrix of the plain cut, so that the error on these rows is never larger than its error. f64
//! throughout, rounded once.
//!
//! Layers are walked in order ([`crate::walk`]), so that one block of each model and one pair of G and B are held at
//! a time.

use crate::error::Kind;
use crate::linalg;
use crate::run::RunError;
use crate::source::WeightSource;
use crate::walk::{self, Block, ROWS, Streams, Walk};
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::forward;
use minic_compiler::graph::Masks;
use minic_compiler::model::{Role, Weight};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

impl Mended {
    /// Beyond what rounding makes of equal errors.
    pub fn is_worse(&self) -> bool {
        !self.after.is_finite() || self.after > self.before * (1.0 + 1e-6) + 1e-9
    }
}

/// Everything that a repair of outputs works on.
pub struct Outputs<'a> {
    /// Over the calibration set.
    pub walk: Walk<'a>,
    /// The model before the cut, in the basis of the cut.
    pub parent: &'a WeightSource,
    /// The model after it.
    pub student: &'a WeightSource,
    pub plan: &'a CutPlan,
    /// A share of the mean of G's diagonal.
    pub damping: f64,
    /// Later layers see what repaired ones give them, and make up for what earlier ones still lack; but not for
    /// layers that are dropped, whose work no other can do.
    pub sequential: bool,
}

impl Outputs<'_> {
    /// Solves one matrix a layer of the student, in order; `keep` is given each.
    pub fn mend(
        &self,
        mut keep: impl FnMut(&Weight, &[f32]) -> Result<(), RunError>,
    ) -> Result<Vec<Mended>, RunError> {
        let sequence = self.walk.sequence()?;
        let mut between = self.before_the_first_block()?;
        let mut mended = Vec::new();
        let layers = self.parent.desc().layers.len();
        for layer in 0..layers {
            let graph = forward::block(self.parent.desc(), layer, sequence, Masks::default())?;
            let block = self.walk.block(&graph, self.parent)?;
            match self.plan.layers.binary_search(&layer) {
                Err(_) => self.dropped(block, &mut between)?,
                Ok(own) => {
                    let (one, solved) = self.layer(block, own, sequence, &mut between)?;
                    keep(&solved.weight, &solved.values)?;
                    mended.push(one);
                }
            }
            self.walk.watch.progress(layer + 1, layers);
        }
        Ok(mended)
    }

    fn before_the_first_block(&self) -> Result<Between, RunError> {
        let student = self.sequential.then(|| self.walk.streams(self.student)).transpose()?;
        let drops = self.plan.layers.len() < self.parent.desc().layers.len();
        let lost = if drops && self.sequential {
            let len = self.walk.sequence()? * self.student.desc().size(Dim::HiddenSize);
            let mut lost = Streams::new(self.walk.store, self.walk.samples.len(), len)?;
            for sample in 0..self.walk.samples.len() {
                lost.set(sample, vec![0.0; len])?;
            }
            Some(lost)
        } else {
            None
        };
        Ok(Between { parent: self.walk.streams(self.parent)?, student, lost })
    }

    /// A layer that the student has not: the parent's streams go through.
    fn dropped(&self, mut block: Block, between: &mut Between) -> Result<(), RunError> {
        let Between { parent, lost, .. } = between;
        let Some(lost) = lost else { return self.walk.pass(block, parent, |_| ()) };
        for samples in self.walk.chunks(&block) {
            let before = samples.clone().map(|s| parent.get(s)).collect::<Result<Vec<_>, _>>()?;
            let after = block.streams(&before)?.into_iter().map(walk::stream);
            for ((sample, before), after) in samples.zip(before).zip(after) {
                let added: Vec<f32> =
                    after.iter().zip(&before).map(|(after, before)| after - before).collect();
                let mut sum = lost.get(sample)?;
                sum.iter_mut().zip(self.kept(&added)).for_each(|(sum, added)| *sum += added);
                lost.set(sample, sum)?;
                parent.set(sample, after)?;
            }
            self.walk.go_on()?;
        }
        Ok(())
    }

    /// Layer `own` of the student, cut from the parent's `block`: both models' streams go through.
    fn layer(
        &self,
        mut block: Block,
        own: usize,
        sequence: usize,
        between: &mut Between,
    ) -> Result<(Mended, Solved), RunError> {
        let Between { parent: of_parent, student: of_student, lost } = between;
        let desc = self.student.desc();
        let (weight, bias) = self.writer(own)?;
        let read = forward::read(desc, own, sequence)?;
        let mut reader = self.walk.block(&read, self.student)?;
        let mut moments = Moments::new(weight.shape[1].size(), weight.shape[0].size());
        for samples in self.walk.chunks(&block) {
            let before = samples.clone().map(|s| of_parent.get(s)).collect::<Result<Vec<_>, _>>()?;
            let after: Vec<Vec<f32>> = block.streams(&before)?.into_iter().map(walk::stream).collect();
            let kept = |streams: &[Vec<f32>]| streams.iter().map(|s| self.kept(s)).collect::<Vec<_>>();
            // What the student's block is given; what it should give is the parent's stream after the block, less
            // what dropped layers added to that.
            let given = match of_student {
                Some(streams) => samples.clone().map(|s| streams.get(s)).collect::<Result<Vec<_>, _>>()?,
                None => kept(&before),
            };
            let mut wanted = kept(&after);
            if let Some(lost) = lost {
                for (wanted, sample) in wanted.iter_mut().zip(samples.clone()) {
                    wanted.iter_mut().zip(lost.get(sample)?).for_each(|(wanted, lost)| *wanted -= lost);
                }
            }
            for ((values, given), wanted) in reader.streams(&given)?.into_iter().zip(&given).zip(&wanted) {
                let difference: Vec<f64> = wanted
                    .iter()
                    .zip(given)
                    .zip(bias.iter().cycle())
                    .map(|((after, before), bias)| f64::from(*after) - f64::from(*before) - f64::from(*bias))
                    .collect();
                moments.push(walk::read(&values), &difference);
            }
            for (sample, after) in samples.zip(after) {
                of_parent.set(sample, after)?;
            }
            self.walk.go_on()?;
        }
        drop((block, reader));
        let plain = self.student.read_f32(&weight.name)?;
        let (mended, values) = moments.solve(&weight.name, &plain, self.damping)?;
        if let Some(streams) = of_student {
            let graph = forward::block(desc, own, sequence, Masks::default())?;
            let replaced = BTreeMap::from([(weight.name.as_str(), values.as_slice())]);
            let block = self.walk.block_with(&graph, self.student, &replaced)?;
            self.walk.pass(block, streams, |_| ())?;
        }
        Ok((mended, Solved { weight, values }))
    }

    /// The matrix of the student's layer that writes to the stream, and its bias, zero where there is none.
    fn writer(&self, layer: usize) -> Result<(Weight, Vec<f32>), RunError> {
        let desc = self.student.desc();
        let weight = walk::writer(desc, layer)?;
        let onto_stream =
            |w: &Weight| w.layer == Some(layer) && w.role == Role::Bias && w.shape[0] == weight.shape[0];
        let bias = match desc.weights().into_iter().find(onto_stream) {
            Some(bias) => self.student.read_f32(&bias.name)?,
            None => vec![0.0; weight.shape[0].size()],
        };
        Ok((weight, bias))
    }

    /// The channels of a parent's stream that the student has.
    fn kept(&self, stream: &[f32]) -> Vec<f32> {
        let width = self.parent.desc().size(Dim::HiddenSize);
        match self.plan.model.get(&Dim::HiddenSize) {
            None => stream.to_vec(),
            Some(kept) => stream.chunks(width).flat_map(|row| kept.iter().map(|&c| row[c])).collect(),
        }
    }
}

/// The streams of all samples between two layers.
struct Between {
    parent: Streams,
    /// Of a sequential repair.
    student: Option<Streams>,
    /// What dropped layers have added to the parent's, in the student's channels; of a sequential repair.
    lost: Option<Streams>,
}

/// A matrix that was solved.
struct Solved {
    weight: Weight,
    values: Vec<f32>,
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

impl Moments {
    fn new(inputs: usize, outputs: usize) -> Moments {
        let (gram, cross) = (vec![0.0; inputs * inputs], vec![0.0; inputs * outputs]);
        Moments { inputs, outputs, gram, cross, square: 0.0 }
    }

    /// Rows z [rows, inputs] with y [rows, outputs].
    fn push(&mut self, z: &[f32], y: &[f64]) {
        for (z, y) in walk::pieces(z, self.inputs).zip(y.chunks(ROWS * self.outputs)) {
            linalg::add_gram(&z, self.inputs, &mut self.gram);
            linalg::add_cross(&z, self.inputs, y, self.outputs, &mut self.cross);
        }
        self.square += y.iter().map(|v| v * v).sum::<f64>();
    }

    /// The matrix [outputs, inputs], from that of the plain cut.
    fn solve(mut self, name: &str, plain: &[f32], damping: f64) -> Result<(Mended, Vec<f32>), RunError> {
        let (n, m) = (self.inputs, self.outputs);
        let ridge = damping * linalg::mean_diagonal(&self.gram, n);
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
        if mended.is_worse() {
            let Mended { weight, before, after } = mended;
            return Err(RepairError::Worse { weight, before, after }.into());
        }
        let at = |at: usize| (at % n) * m + at / n;
        Ok((mended, (0..n * m).map(at).map(|at| (plain[at] + change[at]) as f32).collect()))
    }
}
