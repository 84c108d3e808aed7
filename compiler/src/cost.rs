//! What a model costs, by closed formulas of its dimensions alone.
//!
//! Dimensions as in [`crate::dim::Dim`]: E hidden, F neurons, I = H x P heads x channels, G x N groups x
//! states, K convolution taps, V vocabulary. A multiplication and an addition are two operations. Elementwise
//! work (norms, gates, activation functions, exponentials) is left out: it is linear in the widths and under
//! one per cent of any model of use.

use crate::dim::Dim;
use crate::hir::{LayerMetric, Quantity};
use crate::model::{DType, LayerKind, ModelDesc};
use crate::plan::Calibrate;
use crate::targets;

/// Tokens of the sequence that costs are given for where nothing names another.
pub const SEQUENCE: usize = 4096;

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

/// Operations of one block for one token after a context of so many: those of [`block_flops`], but for
/// attention, whose token sees all keys there are.
fn block_decode_flops(desc: &ModelDesc, kind: LayerKind, context: usize) -> u64 {
    block_flops(desc, kind, if kind == LayerKind::Attention { 2 * context + 1 } else { context })
}

/// What a block holds of one token at once, in elements, beside the stream: the normalised stream and its widest
/// intermediate values. Mamba2: z, x, B, C, dt, the convolution's x, B, C, and y; feed-forward: neurons before
/// and after their activation; attention: q, k, v and the context.
fn block_activations(desc: &ModelDesc, kind: LayerKind) -> u64 {
    let s = |dim| s(desc, dim);
    let own = match kind {
        LayerKind::Mamba => {
            let inner = product(&[s(Dim::MambaNumHeads), s(Dim::MambaHeadDim)]);
            let groups = product(&[s(Dim::NGroups), s(Dim::SsmStateSize)]);
            sum(&[4 * inner, 4 * groups, s(Dim::MambaNumHeads)])
        }
        LayerKind::Mlp => 2 * s(Dim::FfnHiddenSize),
        LayerKind::Attention => {
            let heads = sum(&[2 * s(Dim::NumAttentionHeads), 2 * s(Dim::NumKeyValueHeads)]);
            product(&[heads, s(Dim::AttentionHeadDim)])
        }
    };
    sum(&[own, s(Dim::HiddenSize)])
}

/// An analytic quantity as what the model has without layers, and what one layer of each kind of
/// [`LayerKind::ALL`] adds: the order of layers matters to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub outer: u64,
    pub layer: [u64; LayerKind::ALL.len()],
    /// Layers take turns: the largest counts, not the sum.
    pub turns: bool,
}

impl Parts {
    /// `desc` is read for its sizes, whatever its layers. `None` for what is measured.
    pub fn of(quantity: &Quantity, desc: &ModelDesc) -> Option<Parts> {
        let params = |kinds: &[LayerKind]| desc.family().params(desc, kinds);
        let bare = params(&[]);
        let of_layer = |kind: LayerKind| params(&[kind]).saturating_sub(bare);
        let parts = |outer: u64, layer: &dyn Fn(LayerKind) -> u64| {
            let mut all = [0; LayerKind::ALL.len()];
            all.iter_mut().zip(LayerKind::ALL).for_each(|(slot, kind)| *slot = layer(*kind));
            Parts { outer, layer: all, turns: false }
        };
        Some(match *quantity {
            Quantity::Params | Quantity::ActiveParams => parts(bare, &of_layer),
            Quantity::BodyParams => parts(s(desc, Dim::HiddenSize), &of_layer),
            Quantity::Flops { sequence } => {
                let tokens = sequence as u64;
                parts(product(&[head_flops(desc), tokens]), &|kind| {
                    product(&[block_flops(desc, kind, sequence), tokens])
                })
            }
            Quantity::DecodeFlops { context } => {
                parts(head_flops(desc), &|kind| block_decode_flops(desc, kind, context))
            }
            Quantity::Memory { batch, sequence } => parts(product(&[BF16, bare]), &|kind| {
                let state = product(&[batch as u64, block_state(desc, kind, sequence)]);
                sum(&[product(&[BF16, of_layer(kind)]), state])
            }),
            Quantity::Cache { batch, sequence } => {
                parts(0, &|kind| product(&[batch as u64, block_state(desc, kind, sequence)]))
            }
            Quantity::Activations { batch, sequence } => {
                let tokens = product(&[BF16, batch as u64, sequence as u64]);
                let stream = product(&[tokens, s(desc, Dim::HiddenSize)]);
                let held = |kind| product(&[tokens, block_activations(desc, kind)]);
                Parts { turns: true, ..parts(stream, &held) }
            }
            Quantity::Refusals { target, ref given } => {
                parts(targets::find(target)?.refusals(desc, given) as u64, &|_| 0)
            }
            Quantity::Latency { .. } | Quantity::Throughput { .. } | Quantity::Measured(_) => return None,
        })
    }

    /// Operations of the forward pass of one token, the mean over a sequence of this length.
    pub fn per_token(desc: &ModelDesc, sequence: usize) -> Parts {
        let layer = std::array::from_fn(|at| block_flops(desc, LayerKind::ALL[at], sequence));
        Parts { outer: head_flops(desc), layer, turns: false }
    }

    /// Of so many layers of each kind.
    pub fn total(&self, counts: &[usize; LayerKind::ALL.len()]) -> u64 {
        let there = counts.iter().zip(self.layer).filter(|(n, _)| **n > 0);
        let layers = there.map(|(n, one)| if self.turns { one } else { product(&[*n as u64, one]) });
        let all = if self.turns { layers.max() } else { layers.reduce(u64::saturating_add) };
        self.outer.saturating_add(all.unwrap_or(0))
    }
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
    /// One for every layer, or block of layers, that is left out; it runs the layers after it and the head.
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

    /// One whole pass for every depth, and for a metric of the logits a partial one for every place of the block that
    /// is left out.
    pub fn contiguous(metric: LayerMetric, layers: usize, kept: &[usize]) -> Passes {
        let shorter = kept.iter().filter(|kept| **kept < layers);
        let places = shorter.clone().map(|kept| *kept as u64 + 1);
        Passes {
            whole: shorter.count() as u64,
            partial: if crate::plan::leaves_out(metric) { places.sum() } else { 0 },
        }
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
