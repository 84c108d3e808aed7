//! Causal grouped-query attention without positions: softmax(q k^T / sqrt(d)) v, by blocks of queries and keys
//! with a running maximum and sum (online softmax), so that no matrix of L x L is ever held.

pub(super) mod shader;
mod step;

pub use step::STEP;

use super::gemm::{Panels, multiply, panels_len};
use super::math::{exp, maximum, sum, wide};
use super::parallel::{by_blocks, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "attention",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-5,
    shaders: shader::KERNEL,
};

/// Queries to a block.
const QUERIES: usize = 48;
/// Keys to a block.
const KEYS: usize = 128;

fn constants(op: &Op) -> (usize, usize, usize) {
    match op {
        Op::Attention { heads, kv_heads, head_dim } => (*heads, *kv_heads, *head_dim),
        _ => panic!("bug: `{}` is no attention", op.name()),
    }
}

/// Panels of keys or values, scores, running maxima, sums and corrections.
fn lengths(head_dim: usize) -> [usize; 3] {
    let panels = panels_len(head_dim, KEYS).max(panels_len(KEYS, head_dim));
    [panels, QUERIES * KEYS, 3 * QUERIES]
}

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    scratch_size(lengths(constants(op).2).iter().sum())
}

fn cpu(call: Call) {
    let (heads, kv_heads, head_dim) = constants(call.op);
    let [q, k, v] = [0, 1, 2].map(|i| call.f32(i));
    let out = call.out_f32();
    by_blocks(out, QUERIES, head_dim, |first, column, out| {
        let q = q.block(first, out.rows(), column, head_dim);
        let kv_column = column / head_dim / (heads / kv_heads) * head_dim;
        let seen = first + out.rows();
        let [k, v] = [k, v].map(|m| m.block(0, seen, kv_column, head_dim));
        attend(q, k, v, first, out);
    });
}

/// Queries at positions `first..` of one head, against all keys up to the last of them.
fn attend(q: View, k: View, v: View, first: usize, mut out: ViewMut) {
    let (rows, head_dim) = (q.rows(), q.cols());
    let [panels_len, scores_len, running_len] = lengths(head_dim);
    let scale = 1.0 / (head_dim as f32).sqrt();
    with_scratch(panels_len + scores_len + running_len, |scratch| {
        let (space, rest) = scratch.split_at_mut(panels_len);
        let (scores, running) = rest.split_at_mut(scores_len);
        let (max, rest) = running.split_at_mut(QUERIES);
        let (sum, correction) = rest.split_at_mut(QUERIES);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for start in (0..k.rows()).step_by(KEYS) {
            let keys = KEYS.min(k.rows() - start);
            let panels = Panels::transpose(k.block(start, keys, 0, head_dim), space);
            multiply(q, panels, ViewMut::new(scores, rows, keys, KEYS), false);
            for i in 0..rows {
                let visible = (first + i + 1).saturating_sub(start).min(keys);
                let row = &mut scores[i * KEYS..i * KEYS + keys];
                correction[i] = soften(row, visible, scale, &mut max[i], &mut sum[i]);
            }
            let panels = Panels::copy(v.block(start, keys, 0, head_dim), space);
            if start > 0 {
                (0..rows).for_each(|i| out.row(i).iter_mut().for_each(|y| *y *= correction[i]));
            }
            let scores = View::new(scores, rows, keys, KEYS);
            multiply(scores, panels, out.block(0, rows, 0, head_dim), start > 0);
        }
        (0..rows).for_each(|i| out.row(i).iter_mut().for_each(|y| *y /= sum[i]));
    });
}

/// Scores of one query against a block of keys -> e^(score - running maximum), zero for the keys that it does
/// not see. Returns the factor by which what was summed before shrinks.
fn soften(scores: &mut [f32], visible: usize, scale: f32, max: &mut f32, total: &mut f32) -> f32 {
    let (seen, unseen) = scores.split_at_mut(visible);
    unseen.fill(0.0);
    if seen.is_empty() {
        return 1.0;
    }
    wide(
        #[inline(always)]
        || {
            let now = maximum(seen) * scale;
            let now = if now > *max { now } else { *max };
            let factor = exp(*max - now);
            for x in &mut *seen {
                *x = exp(*x * scale - now);
            }
            *total = *total * factor + sum(seen, seen, |x, _| f64::from(x)) as f32;
            *max = now;
            factor
        },
    )
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (heads, kv_heads, d) = constants(op);
    let [q, k, v] = [0, 1, 2].map(|i| &operands[i]);
    let mut out = vec![0.0; q.rows() * heads * d];
    for h in 0..heads {
        let g = h / (heads / kv_heads);
        for t in 0..q.rows() {
            let query = &q.row(t)[h * d..(h + 1) * d];
            let score = |s: usize| query.iter().zip(&k.row(s)[g * d..]).map(|(q, k)| q * k).sum::<f64>();
            let scores: Vec<f64> = (0..=t).map(|s| score(s) / (d as f64).sqrt()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..d {
                let y = weights.iter().enumerate().map(|(s, w)| w * v.row(s)[g * d + c]).sum::<f64>();
                out[(t * heads + h) * d + c] = y / total;
            }
        }
    }
    out
}
