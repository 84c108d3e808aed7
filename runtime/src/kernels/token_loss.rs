//! Negative log-likelihood of the next token, and whether it is the most likely one; of several equal logits
//! the lowest token's counts. A target outside the vocabulary gives NaN.

mod shader;

use super::logits::{self, LogSumExp, by_chunks, positions};
use super::math::wide;
use super::{Call, Exact, Kernel, View};
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel {
    name: "token_loss",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-5,
    shaders: shader::KERNEL,
};

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    let running = operands.first().map_or(0, |hidden| positions(hidden.0) * size_of::<Running>());
    logits::scratch(&operands[..operands.len().min(1)]) + running
}

fn cpu(call: Call) {
    let (hidden, head, tokens) = (call.f32(0), call.f32(1), call.tokens(2));
    let out = call.out_f64();
    let block = positions(out.len() / 2);
    let work = |(i, out): (usize, &mut [f64])| {
        let (first, rows) = (i * block, out.len() / 2);
        losses(hidden.block(first, rows, 0, hidden.cols()), head, &tokens[first + 1..=first + rows], out);
    };
    out.par_chunks_mut(2 * block).with_max_len(1).enumerate().for_each(work);
}

/// What one position has seen of the vocabulary.
#[derive(Clone, Copy)]
struct Running {
    total: LogSumExp,
    best: usize,
    target: f32,
}

impl Running {
    const EMPTY: Running = Running { total: LogSumExp::EMPTY, best: usize::MAX, target: f32::NAN };

    /// The logits of the tokens from `start` on.
    #[inline(always)]
    fn add(&mut self, start: usize, logits: &[f32], target: u32) {
        let before = self.total.max;
        self.total.add(logits);
        let max = self.total.max;
        if max > before {
            self.best = logits.iter().position(|x| *x == max).map_or(self.best, |j| start + j);
        }
        if let Some(x) = (target as usize).checked_sub(start).and_then(|j| logits.get(j)) {
            self.target = *x;
        }
    }
}

/// (nll, hit) of the positions of one block.
fn losses(hidden: View, head: View, targets: &[u32], out: &mut [f64]) {
    let mut running = vec![Running::EMPTY; hidden.rows()];
    by_chunks([[hidden, head]], |start, [logits]| {
        wide(
            #[inline(always)]
            || {
                for (i, (running, target)) in running.iter_mut().zip(targets).enumerate() {
                    running.add(start, logits.row(i), *target);
                }
            },
        )
    });
    for ((running, target), out) in running.iter().zip(targets).zip(out.chunks_exact_mut(2)) {
        out[0] = running.total.value() - f64::from(running.target);
        out[1] = f64::from(u8::from(running.best == *target as usize));
    }
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (hidden, head, tokens) = (&operands[0], &operands[1], operands[2].tokens());
    let mut out = Vec::new();
    for t in 0..hidden.rows() - 1 {
        let logits = logits::reference(hidden.row(t), head);
        let target = tokens[t + 1] as usize;
        let nll = logits::reference_log_sum_exp(&logits) - logits[target];
        let first_top = (0..logits.len()).fold(0, |best, v| if logits[v] > logits[best] { v } else { best });
        out.extend([nll, f64::from(u8::from(first_top == target))]);
    }
    out
}
