//! Next-token loss over logits = hidden head^T that are never whole: blocks of positions pass over chunks of the
//! vocabulary, with a running maximum and sum in f64. The first of several equal maxima is the predicted token.

use super::linear::product;
use super::math::{exp, wide};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel { name: "token_loss", cpu, reference, scratch, tolerance: 1e-5 };

/// Positions to a block.
const ROWS: usize = 64;
/// Tokens of the vocabulary to a chunk.
pub(super) const VOCAB: usize = 512;

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    let depth = operands.first().map_or(0, |hidden| hidden.1);
    logits_scratch(depth) + ROWS * VOCAB * size_of::<f32>()
}

/// Bytes that [`product`] of one chunk of the vocabulary needs.
pub(super) fn logits_scratch(depth: usize) -> usize {
    use super::gemm::{DEPTH, panels_len};
    super::parallel::scratch_size(panels_len(depth.min(DEPTH), VOCAB))
}

fn cpu(call: Call) {
    let (hidden, head, tokens) = (call.f32(0), call.f32(1), call.tokens(2));
    let out = call.out_f64();
    let work = |(block, out): (usize, &mut [f64])| {
        let first = block * ROWS;
        let rows = out.len() / 2;
        losses(hidden.block(first, rows, 0, hidden.cols()), head, &tokens[first + 1..=first + rows], out);
    };
    out.par_chunks_mut(2 * ROWS).with_max_len(1).enumerate().for_each(work);
}

/// log sum exp of one row of logits, chunk by chunk.
#[derive(Clone, Copy)]
pub(super) struct LogSumExp {
    max: f32,
    sum: f64,
}

impl LogSumExp {
    pub(super) const EMPTY: LogSumExp = LogSumExp { max: f32::NEG_INFINITY, sum: 0.0 };

    #[inline(always)]
    pub(super) fn add(&mut self, logits: &[f32]) {
        let max = logits.iter().copied().fold(self.max, f32::max);
        let mut lanes = [0.0f64; 16];
        for chunk in logits.chunks(16) {
            chunk.iter().zip(&mut lanes).for_each(|(x, lane)| *lane += f64::from(exp(x - max)));
        }
        self.sum = self.sum * f64::from(self.max - max).exp() + lanes.iter().sum::<f64>();
        self.max = max;
    }

    pub(super) fn max(&self) -> f32 {
        self.max
    }

    /// sum(e^(logit - max))
    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    pub(super) fn value(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }
}

/// (nll, hit) of the positions of one block.
fn losses(hidden: View, head: View, targets: &[u32], out: &mut [f64]) {
    let rows = hidden.rows();
    let mut totals = [LogSumExp::EMPTY; ROWS];
    let mut best = [(f32::NEG_INFINITY, 0usize); ROWS];
    let mut target_logit = [f32::NAN; ROWS];
    let mut logits = vec![0.0f32; rows * VOCAB];
    for start in (0..head.rows()).step_by(VOCAB) {
        let n = VOCAB.min(head.rows() - start);
        let chunk = head.block(start, n, 0, head.cols());
        product(hidden, chunk, ViewMut::new(&mut logits, rows, n, VOCAB), false);
        for i in 0..rows {
            let row = &logits[i * VOCAB..i * VOCAB + n];
            wide(
                #[inline(always)]
                || totals[i].add(row),
            );
            for (j, x) in row.iter().enumerate() {
                if *x > best[i].0 {
                    best[i] = (*x, start + j);
                }
            }
            if let Some(x) = (targets[i] as usize).checked_sub(start).and_then(|j| row.get(j)) {
                target_logit[i] = *x;
            }
        }
    }
    for (i, out) in out.chunks_exact_mut(2).enumerate() {
        out[0] = totals[i].value() - f64::from(target_logit[i]);
        out[1] = f64::from(u8::from(best[i].1 == targets[i] as usize));
    }
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (hidden, head, tokens) = (&operands[0], &operands[1], operands[2].tokens());
    let mut out = Vec::new();
    for t in 0..hidden.rows() - 1 {
        let logits = reference_logits(hidden.row(t), head);
        let target = tokens[t + 1] as usize;
        let nll = reference_log_sum_exp(&logits) - logits[target];
        let first_top = (0..logits.len()).fold(0, |best, v| if logits[v] > logits[best] { v } else { best });
        out.extend([nll, f64::from(u8::from(first_top == target))]);
    }
    out
}

pub(super) fn reference_logits(hidden: &[f64], head: &Exact) -> Vec<f64> {
    let dot = |v: usize| hidden.iter().zip(head.row(v)).map(|(x, w)| x * w).sum();
    (0..head.rows()).map(dot).collect()
}

pub(super) fn reference_log_sum_exp(logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}
