//! Attention of one query for each of some sequences over the keys and values that their rings hold, with a running
//! maximum and sum (online softmax). The queries that share keys pass over them together.

mod shader;

use super::soften;
use crate::kernels::math::wide;
use crate::kernels::parallel::{by_blocks, scratch_size, with_scratch};
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
const KEYS: usize = 256;

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
}

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    scratch_size(Sizes::of(op).of_key() * (KEYS + 2))
}

fn cpu(call: Call) {
    let s = Sizes::of(call.op);
    let [q, keys, values] = [0, 1, 2].map(|i| call.f32(i));
    let seen = (call.at(3)[1] + 1).min(s.window);
    by_blocks(call.out_f32(), 1, s.of_key() * s.head_dim, |sequence, column, mut out| {
        let kv_column = column / s.of_key();
        let [k, v] = [keys, values].map(|m| m.block(sequence * s.window, seen, kv_column, s.head_dim));
        let q = &q.row(sequence)[column..column + out.cols()];
        attend(q, k, v, out.row(0));
    });
}

/// Queries [count, d] against the keys and values [seen, d] of one head.
fn attend(q: &[f32], k: View, v: View, out: &mut [f32]) {
    let (d, count) = (k.cols(), q.len() / k.cols().max(1));
    let scale = 1.0 / (d as f32).sqrt();
    out.fill(0.0);
    with_scratch(count * (KEYS + 2), |space| {
        let (scores, running) = space.split_at_mut(count * KEYS);
        let (max, sum) = running.split_at_mut(count);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for start in (0..k.rows()).step_by(KEYS) {
            let keys = KEYS.min(k.rows() - start);
            wide(
                #[inline(always)]
                || {
                    for j in 0..keys {
                        let key = k.row(start + j);
                        for (i, q) in q.chunks_exact(d).enumerate() {
                            scores[i * KEYS + j] = dot(q, key);
                        }
                    }
                },
            );
            for (i, out) in out.chunks_exact_mut(d).enumerate() {
                let scores = &mut scores[i * KEYS..i * KEYS + keys];
                let factor = soften(scores, keys, scale, &mut max[i], &mut sum[i]);
                out.iter_mut().for_each(|y| *y *= factor);
            }
            wide(
                #[inline(always)]
                || {
                    for j in 0..keys {
                        let value = v.row(start + j);
                        for (i, out) in out.chunks_exact_mut(d).enumerate() {
                            let weight = scores[i * KEYS + j];
                            for (y, v) in out.iter_mut().zip(value) {
                                *y += weight * v;
                            }
                        }
                    }
                },
            );
        }
        for (out, sum) in out.chunks_exact_mut(d).zip(sum) {
            out.iter_mut().for_each(|y| *y /= *sum);
        }
    });
}

const LANES: usize = 16;

/// x . y in sixteen running sums of f32, which are few terms each.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for (i, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += x * y;
    }
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
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
