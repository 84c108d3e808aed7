//! Attention of one query for each of some sequences over the keys and values that their rings hold, with a running
//! maximum and sum (online softmax). Rings are passed over in spans of whole rows, as they lie in memory, each for all
//! heads at once; then what the spans of a sequence add up to is joined, in order.

mod shader;

use super::soften;
use crate::kernels::math::{dot_f32, exp, maximum, wide};
use crate::kernels::parallel::{by_rows, for_each, scratch_size, with_buffer, with_scratch};
use crate::kernels::{Call, Exact, Kernel, View};
use minic_compiler::graph::Op;

pub const STEP: Kernel = Kernel {
    name: "attention_step",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-5,
    shaders: shader::STEP,
};

/// Keys to a block.
const KEYS: usize = 128;

/// Fewest keys to a span, and most spans to a ring: enough work for a task, and tasks for several threads.
const SPAN: usize = 512;
const SPANS: usize = 16;

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: usize,
}

impl Sizes {
    fn of(op: &Op) -> Sizes {
        match *op {
            Op::AttentionStep { heads, kv_heads, head_dim, window } => {
                Sizes { heads, kv_heads, head_dim, window }
            }
            _ => panic!("bug: `{}` is no step of attention", op.name()),
        }
    }

    /// Query heads that share a key head.
    fn of_key(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Keys to a span.
    fn span(self) -> usize {
        self.window.div_ceil(SPANS).max(SPAN)
    }

    /// Elements of what a span adds up to: sums [heads, d], maxima [heads], and sums of the weights [heads].
    fn part(self) -> usize {
        self.heads * (self.head_dim + 2)
    }
}

fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let s = Sizes::of(op);
    let spans = operands.first().map_or(0, |q| q.0) * s.window.div_ceil(s.span());
    scratch_size(s.heads * KEYS) + spans * s.part() * size_of::<f32>()
}

fn cpu(call: Call) {
    let s = Sizes::of(call.op);
    let [q, keys, values] = [0, 1, 2].map(|i| call.f32(i));
    let seen = (call.at(3)[1] + 1).min(s.window);
    let (span, spans) = (s.span(), seen.div_ceil(s.span()));
    with_buffer(q.rows() * spans * s.part(), |parts| {
        let tasks = parts.chunks_exact_mut(s.part()).enumerate().collect();
        for_each(tasks, |(i, part)| {
            let (sequence, first) = (i / spans, i % spans * span);
            let rows = span.min(seen - first);
            let [k, v] = [keys, values].map(|m| m.block(sequence * s.window + first, rows, 0, m.cols()));
            s.attend(q.row(sequence), k, v, part);
        });
        let parts = &*parts;
        by_rows(call.out_f32(), 1, |sequence, mut out| {
            s.join(&parts[sequence * spans * s.part()..(sequence + 1) * spans * s.part()], out.row(0));
        });
    });
}

impl Sizes {
    /// Queries [heads, d] against the keys and values of a span [keys, kv_heads d].
    fn attend(self, q: &[f32], k: View, v: View, part: &mut [f32]) {
        let (d, scale) = (self.head_dim, 1.0 / (self.head_dim as f32).sqrt());
        let (y, running) = part.split_at_mut(self.heads * d);
        let (max, sum) = running.split_at_mut(self.heads);
        y.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        with_scratch(self.heads * KEYS, |scores| {
            for start in (0..k.rows()).step_by(KEYS) {
                let keys = KEYS.min(k.rows() - start);
                self.scores(q, k.block(start, keys, 0, k.cols()), scores);
                for (h, y) in y.chunks_exact_mut(d).enumerate() {
                    let scores = &mut scores[h * KEYS..h * KEYS + keys];
                    let factor = soften(scores, keys, scale, &mut max[h], &mut sum[h]);
                    y.iter_mut().for_each(|y| *y *= factor);
                }
                self.add(scores, v.block(start, keys, 0, v.cols()), y);
            }
        });
    }

    /// scores [heads, KEYS] = q k^T
    fn scores(self, q: &[f32], k: View, scores: &mut [f32]) {
        let d = self.head_dim;
        wide(
            #[inline(always)]
            || {
                for j in 0..k.rows() {
                    for (g, key) in k.row(j).chunks_exact(d).enumerate() {
                        for h in g * self.of_key()..(g + 1) * self.of_key() {
                            scores[h * KEYS + j] = dot_f32(&q[h * d..(h + 1) * d], key);
                        }
                    }
                }
            },
        );
    }

    /// y += weights v
    fn add(self, weights: &[f32], v: View, y: &mut [f32]) {
        let d = self.head_dim;
        wide(
            #[inline(always)]
            || {
                for j in 0..v.rows() {
                    let row = v.row(j);
                    for (h, y) in y.chunks_exact_mut(d).enumerate() {
                        let (weight, g) = (weights[h * KEYS + j], h / self.of_key());
                        for (y, v) in y.iter_mut().zip(&row[g * d..]) {
                            *y += weight * v;
                        }
                    }
                }
            },
        );
    }

    /// The spans of one sequence together.
    fn join(self, parts: &[f32], out: &mut [f32]) {
        let (d, heads) = (self.head_dim, self.heads);
        out.fill(0.0);
        for (h, out) in out.chunks_exact_mut(d).enumerate() {
            let parts = || parts.chunks_exact(self.part());
            let top =
                parts().map(|part| part[heads * d + h]).fold(f32::NEG_INFINITY, |a, b| maximum(&[a, b]));
            let mut total = 0.0;
            for part in parts() {
                let factor = exp(part[heads * d + h] - top);
                total += factor * part[heads * (d + 1) + h];
                out.iter_mut().zip(&part[h * d..]).for_each(|(out, y)| *out += factor * y);
            }
            out.iter_mut().for_each(|out| *out /= total);
        }
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (s, [q, k, v]) = (Sizes::of(op), [0, 1, 2].map(|i| &operands[i]));
    let (d, seen) = (s.head_dim, (operands[3].at()[1] + 1).min(s.window));
    let mut out = Vec::new();
    for sequence in 0..q.rows() {
        let row = |t: usize| sequence * s.window + t;
        for h in 0..s.heads {
            let (query, g) = (&q.row(sequence)[h * d..(h + 1) * d], h / s.of_key() * d);
            let score = |t: usize| query.iter().zip(&k.row(row(t))[g..]).map(|(q, k)| q * k).sum::<f64>();
            let scores: Vec<f64> = (0..seen).map(|t| score(t) / (d as f64).sqrt()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let y = |c: usize| weights.iter().enumerate().map(|(t, w)| w * v.row(row(t))[g + c]).sum::<f64>();
            out.extend((0..d).map(|c| y(c) / total));
        }
    }
    out
}
