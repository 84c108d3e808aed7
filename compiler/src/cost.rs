//! What a model costs, by closed formulas of its dimensions alone.
//!
//! Dimensions as in [`crate::dim::Dim`]: E hidden, F neurons, I = H x P heads x channels, G x N groups x
//! states, K convolution taps, V vocabulary. A multiplication and an addition are two operations. Elementwise
//! work (norms, gates, activation functions, exponentials) is left out: it is linear in the widths and under
//! one per cent of any model of use.

use crate::dim::Dim;
use crate::hir::LayerMetric;
use crate::model::{DType, LayerKind, ModelDesc};
use crate::plan::Calibrate;

/// Bytes of one element of weights, keys, values and convolution windows in a deployment.
const BF16: u64 = 2;
/// Bytes of one element of an SSM's state: recurrences in 16 bits drift, so that every engine keeps f32.
const F32: u64 = 4;

fn s(desc: &ModelDesc, dim: Dim) -> u64 {
    desc.size(dim) as u64
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |a, b| a.saturating_mul(*b))
}

fn sum(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |a, b| a.saturating_add(*b))
}

/// Operations of one block for one token, the mean over the positions of a sequence.
///
/// - Mamba2, from equations 5 to 14 of arXiv:2504.11409: in_proj 2 E (2I + 2GN + H), convolution
///   2 K (I + 2GN), recurrence S = a S + (dt x) B^T and y = C S + D x, 5 I N + 2 I, out_proj 2 I E. Chunked
///   scans do more to be faster; that is not counted.
/// - Feed-forward: 4 E F.
/// - Attention: projections 2 E (2 Hq + 2 Hkv) D, and 4 Hq D for each key that a causal position sees, of
///   which there are (L + 1) / 2 in the mean.
pub fn block_flops(desc: &ModelDesc, kind: LayerKind, sequence: usize) -> u64 {
    let s = |dim| s(desc, dim);
    let e = s(Dim::HiddenSize);
    match kind {
        LayerKind::Mamba => {
            let heads = s(Dim::MambaNumHeads);
            let inner = product(&[heads, s(Dim::MambaHeadDim)]);
            let states = s(Dim::SsmStateSize);
            let groups = product(&[s(Dim::NGroups), states]);
            let in_proj = product(&[2, e, sum(&[inner, inner, groups, groups, heads])]);
            let conv = product(&[2, s(Dim::ConvKernel), sum(&[inner, groups, groups])]);
            let scan = sum(&[product(&[5, inner, states]), product(&[2, inner])]);
            sum(&[in_proj, conv, scan, product(&[2, inner, e])])
        }
        LayerKind::Mlp => product(&[4, e, s(Dim::FfnHiddenSize)]),
        LayerKind::Attention => {
            let width = s(Dim::AttentionHeadDim);
            let (queries, keys) = (s(Dim::NumAttentionHeads), s(Dim::NumKeyValueHeads));
            let projections = product(&[4, e, sum(&[queries, keys]), width]);
            sum(&[projections, product(&[2, queries, width, sequence as u64 + 1])])
        }
    }
}

/// Operations of the head for one token: 2 E V.
pub fn head_flops(desc: &ModelDesc) -> u64 {
    product(&[2, s(desc, Dim::HiddenSize), s(desc, Dim::VocabSize)])
}

/// Operations of the forward pass of one token, the mean over a sequence of this length.
pub fn flops_per_token(desc: &ModelDesc, sequence: usize) -> u64 {
    let blocks: Vec<u64> = desc.layers.iter().map(|k| block_flops(desc, *k, sequence)).collect();
    sum(&[sum(&blocks), head_flops(desc)])
}

/// What one block remembers of one sequence, in bytes: keys and values 2 Hkv D L in bf16; the SSM's state
/// H P N in f32 and K columns of the convolution's input in bf16.
pub fn block_state(desc: &ModelDesc, kind: LayerKind, sequence: usize) -> u64 {
    let s = |dim| s(desc, dim);
    match kind {
        LayerKind::Mamba => {
            let inner = product(&[s(Dim::MambaNumHeads), s(Dim::MambaHeadDim)]);
            let groups = product(&[s(Dim::NGroups), s(Dim::SsmStateSize)]);
            let ssm = product(&[F32, inner, s(Dim::SsmStateSize)]);
            sum(&[ssm, product(&[BF16, s(Dim::ConvKernel), sum(&[inner, groups, groups])])])
        }
        LayerKind::Mlp => 0,
        LayerKind::Attention => {
            product(&[BF16, 2, s(Dim::NumKeyValueHeads), s(Dim::AttentionHeadDim), sequence as u64])
        }
    }
}

/// Bytes of a deployment: bf16 weights, and for each of `batch` sequences the KV cache and the SSM and
/// convolution states.
pub fn memory(desc: &ModelDesc, batch: usize, sequence: usize) -> u64 {
    let states: Vec<u64> = desc.layers.iter().map(|k| block_state(desc, *k, sequence)).collect();
    sum(&[product(&[BF16, desc.params()]), product(&[batch as u64, sum(&states)])])
}

/// What the last matrix of a block reads: K.
fn read_width(desc: &ModelDesc, kind: LayerKind) -> u64 {
    let s = |dim| s(desc, dim);
    match kind {
        LayerKind::Mamba => product(&[s(Dim::MambaNumHeads), s(Dim::MambaHeadDim)]),
        LayerKind::Mlp => s(Dim::FfnHiddenSize),
        LayerKind::Attention => product(&[s(Dim::NumAttentionHeads), s(Dim::AttentionHeadDim)]),
    }
}

/// What the widest last matrix of a block reads.
pub fn widest_read(desc: &ModelDesc) -> u64 {
    desc.layers.iter().map(|kind| read_width(desc, *kind)).max().unwrap_or(0)
}

/// Operations of solving the last matrix of every block by least squares over so many tokens: the lower half of
/// z^T z, z^T y, a Cholesky factor of K^3 / 3, its solution and three more products with z^T z.
pub fn least_squares_flops(desc: &ModelDesc, tokens: u64) -> u64 {
    let e = s(desc, Dim::HiddenSize);
    let layer = |kind: &LayerKind| {
        let k = read_width(desc, *kind);
        let sums = product(&[tokens, k, sum(&[k, 2 * e])]);
        sum(&[sums, product(&[k, k, k]) / 3, product(&[8, k, k, e])])
    };
    sum(&desc.layers.iter().map(layer).collect::<Vec<_>>())
}

/// Bytes that the widest of these blocks holds meanwhile, in f64: z^T z and its factor, z^T y and what is solved
/// of it.
pub fn least_squares_bytes(desc: &ModelDesc) -> u64 {
    let e = s(desc, Dim::HiddenSize);
    let layer = |kind: &LayerKind| {
        let k = read_width(desc, *kind);
        product(&[8, k, sum(&[2 * k, 6 * e])])
    };
    desc.layers.iter().map(layer).max().unwrap_or(0)
}

/// Operations of ranking what the last matrix of every block of a kind reads over so many tokens: the lower half
/// of z^T z, its inverse with 7 K^3 / 3, its downdates with 2 K^3 / 3, and those of the matrix with K^2 E.
pub fn residual_flops(desc: &ModelDesc, kind: LayerKind, tokens: u64) -> u64 {
    let (k, e) = (read_width(desc, kind), s(desc, Dim::HiddenSize));
    let layers = desc.layers.iter().filter(|k| **k == kind).count() as u64;
    product(&[layers, k, k, sum(&[tokens, 3 * k, e])])
}

/// Bytes that one such block holds meanwhile, in f64: z^T z and its inverse, and the matrix.
pub fn residual_bytes(desc: &ModelDesc, kind: LayerKind) -> u64 {
    let (k, e) = (read_width(desc, kind), s(desc, Dim::HiddenSize));
    product(&[8, k, sum(&[2 * k, e])])
}

/// Bytes of the tensors of an export, without the header of about a hundred bytes a tensor.
pub fn disk(params: u64, dtype: DType) -> u64 {
    product(&[params, dtype.bytes() as u64])
}

/// Forward passes over a sample: whole ones, and those that begin after some block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    pub whole: u64,
    /// One for every layer that is left out; it runs the layers after it and the head.
    pub partial: u64,
}

impl Passes {
    /// One pass, and for a metric of the logits one more, partial one for each layer.
    pub fn calibration(wanted: &Calibrate, layers: usize) -> Passes {
        Passes { whole: 1, partial: if wanted.leaves_out() { layers as u64 } else { 0 } }
    }

    /// The same again after each removal, for every number of layers from all down to one more than stay.
    pub fn iterative(metric: LayerMetric, layers: usize, kept: usize) -> Passes {
        let rounds = (kept + 1..=layers).map(|n| n as u64);
        let whole = rounds.clone().count() as u64;
        Passes { whole, partial: if crate::plan::leaves_out(metric) { rounds.sum() } else { 0 } }
    }

    /// Operations over a sequence, of a model that takes `per_token` of them for a token and `head` for its
    /// logits. A partial pass runs half of the blocks in the mean.
    pub fn flops(self, per_token: u64, head: u64, sequence: usize) -> u64 {
        let partial = head.saturating_add(per_token.saturating_sub(head) / 2);
        let tokens = sequence as u64;
        sum(&[product(&[self.whole, per_token, tokens]), product(&[self.partial, partial, tokens])])
    }
}

#[cfg(test)]
mod tests;
