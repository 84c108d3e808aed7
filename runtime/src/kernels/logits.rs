//! Logits = hidden head^T without ever holding them whole: blocks of positions pass over chunks of the
//! vocabulary.

pub mod shader;

use super::math::{exp, maximum, sum};
use super::parallel::{scratch_size, with_scratch};
use super::product::{Factor, product, product_space};
use super::{Exact, View, ViewMut};

/// Tokens of the vocabulary to a chunk.
pub const CHUNK: usize = 256;

/// Positions to a block: enough blocks for several threads, and enough positions to a block to be worth the
/// layout of the head's weight.
pub fn positions(total: usize) -> usize {
    total.div_ceil(4).clamp(64, 256)
}

/// Calls `each(first token, logits of model 0, logits of model 1, ..)` chunk by chunk, in order, with logits as
/// matrices [positions, chunk], for (hidden [positions, E], head [V, E]) pairs of one vocabulary.
pub fn by_chunks<const M: usize>(models: [[View; 2]; M], mut each: impl FnMut(usize, [View; M])) {
    let Some([hidden, head]) = models.first() else { return };
    let (rows, vocab) = (hidden.rows(), head.rows());
    let (product_len, logits_len) = lengths(rows, models.map(|m| m[0].cols()).into_iter().max().unwrap_or(0));
    with_scratch(product_len + M * logits_len, |scratch| {
        let (space, logits) = scratch.split_at_mut(product_len);
        for start in (0..vocab).step_by(CHUNK) {
            let n = CHUNK.min(vocab - start);
            for ([hidden, head], logits) in models.iter().zip(logits.chunks_exact_mut(logits_len)) {
                let head = head.block(start, n, 0, head.cols());
                product(
                    Factor::of(*hidden),
                    Factor::transposed(head),
                    ViewMut::new(logits, rows, n, CHUNK),
                    false,
                    space,
                );
            }
            let part = |m: usize| View::new(&logits[m * logits_len..], rows, n, CHUNK);
            each(start, std::array::from_fn(part));
        }
    });
}

fn lengths(rows: usize, depth: usize) -> (usize, usize) {
    (product_space(depth, CHUNK), rows * CHUNK)
}

/// Bytes of [`by_chunks`] for hidden states of the given shapes.
pub fn scratch(hidden: &[(usize, usize)]) -> usize {
    let rows = hidden.iter().map(|h| positions(h.0).min(h.0)).max().unwrap_or(0);
    let (product_len, logits_len) = lengths(rows, hidden.iter().map(|h| h.1).max().unwrap_or(0));
    scratch_size(product_len + hidden.len() * logits_len)
}

/// log sum exp of one row of logits, chunk by chunk.
#[derive(Clone, Copy)]
pub struct LogSumExp {
    pub max: f32,
    /// sum(e^(logit - max))
    pub sum: f64,
}

impl LogSumExp {
    pub const EMPTY: LogSumExp = LogSumExp { max: f32::NEG_INFINITY, sum: 0.0 };

    #[inline(always)]
    pub fn add(&mut self, logits: &[f32]) {
        let top = maximum(logits);
        let max = if top > self.max { top } else { self.max };
        let sum = sum(logits, logits, |x, _| f64::from(exp(x - max)));
        self.sum = self.sum * f64::from(self.max - max).exp() + sum;
        self.max = max;
    }

    pub fn value(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }
}

pub fn reference(hidden: &[f64], head: &Exact) -> Vec<f64> {
    let dot = |v: usize| hidden.iter().zip(head.row(v)).map(|(x, w)| x * w).sum();
    (0..head.rows()).map(dot).collect()
}

pub fn reference_log_sum_exp(logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}
