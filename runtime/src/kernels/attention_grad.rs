//! The gradient of causal grouped-query attention (FlashAttention-2, arXiv:2307.08691), by blocks of queries.
//!
//! With P = softmax(q k^T / sqrt(d)) over the keys that a query sees, dP = dy v^T, and * by element:
//! dv = P^T dy; dS = P * (dP - rowsum(dy * y)); dq = dS k / sqrt(d); dk = dS^T q / sqrt(d)
//! where dk and dv of a key head are the sums over its query heads.
//!
//! A block of queries holds its scores against all keys that it sees, and so computes each once; no matrix of
//! L x L is ever held. What belongs to a row is put into the narrow factors: the scores are left at
//! E = e^(S - max) with P = E / sum(E), and dy is divided by sum(E) instead; q is divided by sqrt(d).

mod shader;

use super::gemm::{Panels, multiply, multiply_transposed, panels_len};
use super::math::{dot, exp, maximum, sum, wide};
use super::parallel::{by_blocks, for_each, row_block, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "attention_grad",
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
/// Tasks that the queries are divided among, where there are fewer key heads. All but the first of a key head
/// sum dk and dv beside the value.
const TASKS: usize = 4;

#[derive(Clone, Copy)]
struct Sizes {
    length: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn of(op: &Op, length: usize) -> Sizes {
        match *op {
            Op::AttentionGrad { heads, kv_heads, head_dim } => Sizes { length, heads, kv_heads, head_dim },
            _ => panic!("bug: `{}` is no attention_grad", op.name()),
        }
    }

    /// Query heads of a key head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Tasks of a key head.
    fn parts(self) -> usize {
        let blocks = self.group() * self.length.div_ceil(QUERIES);
        TASKS.div_ceil(self.kv_heads).min(blocks).max(1)
    }

    /// dk | dv of one key head.
    fn sums(self) -> usize {
        2 * self.length * self.head_dim
    }

    /// Sums that lie beside the value.
    fn partial(self) -> usize {
        self.kv_heads * (self.parts() - 1) * self.sums()
    }
}

/// What a call holds counts as if a thread held it: no more calls run at a time than there are threads.
fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let s = Sizes::of(op, operands.first().map_or(0, |&(rows, _)| rows));
    scratch_size(Space::lengths(s).iter().sum()) + s.partial() * size_of::<f32>()
}

fn cpu(call: Call) {
    let operands = [0, 1, 2, 3, 4].map(|i| call.f32(i));
    let s = Sizes::of(call.op, operands[0].rows());
    let mut out = call.out_f32();
    let (rows, cols) = (out.rows(), out.cols());
    let mut partial = vec![0.0; s.partial()];
    for_each(tasks(out.block(0, rows, 0, cols), &mut partial, s), |task| {
        with_scratch(Space::lengths(s).iter().sum(), |scratch| task.run(operands, Space::carve(scratch, s)));
    });
    if !partial.is_empty() {
        let (first, cols) = (s.heads * s.head_dim, 2 * s.kv_heads * s.head_dim);
        merge(out.block(0, rows, first, cols), &partial, s);
    }
}

/// Some blocks of the queries that read one key head.
struct Task<'a> {
    key_head: usize,
    queries: Vec<Queries<'a>>,
    dk: ViewMut<'a>,
    dv: ViewMut<'a>,
}

/// The queries at positions `first..` of a head.
struct Queries<'a> {
    head: usize,
    first: usize,
    dq: ViewMut<'a>,
}

/// All tasks of a key head lie side by side; the first of them sums into the value.
fn tasks<'a>(out: ViewMut<'a>, partial: &'a mut [f32], s: Sizes) -> Vec<Task<'a>> {
    let (rows, d, parts) = (out.rows(), s.head_dim, s.parts());
    let mut heads = out.blocks(rows, d).into_iter().map(|(_, _, head)| head);
    let dq: Vec<ViewMut> = heads.by_ref().take(s.heads).collect();
    let dk: Vec<ViewMut> = heads.by_ref().take(s.kv_heads).collect();
    let mut partial = partial.chunks_exact_mut(s.sums().max(1));
    let mut tasks = Vec::new();
    for (key_head, (dk, dv)) in dk.into_iter().zip(heads).enumerate() {
        tasks.push(Task { key_head, queries: Vec::new(), dk, dv });
        for sums in partial.by_ref().take(parts - 1) {
            let (dk, dv) = sums.split_at_mut(rows * d);
            let [dk, dv] = [dk, dv].map(|sums| ViewMut::new(sums, rows, d, d));
            tasks.push(Task { key_head, queries: Vec::new(), dk, dv });
        }
    }
    for (head, dq) in dq.into_iter().enumerate() {
        for (i, (first, _, dq)) in dq.blocks(QUERIES, d).into_iter().enumerate() {
            // Later queries see more keys; this way every task gets some of each.
            let task = head / s.group() * parts + (head + i) % parts;
            tasks[task].queries.push(Queries { head, first, dq });
        }
    }
    tasks
}

/// Adds the sums that lie beside the value, [key head][task][dk | dv], to dk | dv of all key heads.
fn merge(out: ViewMut, partial: &[f32], s: Sizes) {
    let (d, tasks) = (s.head_dim, s.parts() - 1);
    by_blocks(out, row_block(d), d, |first, column, mut out| {
        let (of_values, key_head) = (column / d / s.kv_heads, column / d % s.kv_heads);
        let tasks = &partial[key_head * tasks * s.sums()..][..tasks * s.sums()];
        for sums in tasks.chunks_exact(s.sums()) {
            let sums = View::new(&sums[of_values * s.length * d..], s.length, d, d);
            for i in 0..out.rows() {
                let row = out.row(i).iter_mut().zip(sums.row(first + i));
                row.for_each(|(y, x)| *y += x);
            }
        }
    });
}

/// The scratch of one task.
struct Space<'a> {
    /// For each block of keys, panels of k^T, of k and of v^T.
    keys: &'a mut [f32],
    /// For each block of keys, S and then E [QUERIES, KEYS].
    scores: &'a mut [f32],
    /// dP and then dS of one block of keys, likewise.
    ds: &'a mut [f32],
    /// q / sqrt(d) and dy / sum(E) [QUERIES, d], as they are and in panels.
    q: &'a mut [f32],
    dy: &'a mut [f32],
    q_panels: &'a mut [f32],
    dy_panels: &'a mut [f32],
}

impl<'a> Space<'a> {
    fn lengths(s: Sizes) -> [usize; 7] {
        let (blocks, d) = (s.length.div_ceil(KEYS), s.head_dim);
        let (block, panels) = (QUERIES * KEYS, panels_len(QUERIES, d));
        [blocks * KeyBlock::len(d), blocks * block, block, QUERIES * d, QUERIES * d, panels, panels]
    }

    fn carve(mut rest: &'a mut [f32], s: Sizes) -> Space<'a> {
        let pieces = Space::lengths(s).map(|n| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(n);
            rest = after;
            piece
        });
        let [keys, scores, ds, q, dy, q_panels, dy_panels] = pieces;
        Space { keys, scores, ds, q, dy, q_panels, dy_panels }
    }
}

/// A block of keys and their values, from position `first` on.
struct KeyBlock<'a> {
    first: usize,
    keys: usize,
    k_transposed: Panels<'a>,
    k: Panels<'a>,
    v_transposed: Panels<'a>,
}

impl<'a> KeyBlock<'a> {
    /// Elements of one block.
    fn len(d: usize) -> usize {
        2 * panels_len(d, KEYS) + panels_len(KEYS, d)
    }

    fn lay_out(k: View, v: View, first: usize, space: &'a mut [f32]) -> KeyBlock<'a> {
        let (keys, d) = (KEYS.min(k.rows() - first), k.cols());
        let [k, v] = [k, v].map(|m| m.block(first, keys, 0, d));
        let (k_transposed, space) = space.split_at_mut(panels_len(d, KEYS));
        let (v_transposed, space) = space.split_at_mut(panels_len(d, KEYS));
        KeyBlock {
            first,
            keys,
            k_transposed: Panels::transpose(k, k_transposed),
            k: Panels::copy(k, space),
            v_transposed: Panels::transpose(v, v_transposed),
        }
    }
}

impl Task<'_> {
    fn run(mut self, [q, k, v, y, dy]: [View; 5], space: Space) {
        let (length, d) = (k.rows(), self.dk.cols());
        let [k, v] = [k, v].map(|m| m.block(0, length, self.key_head * d, d));
        let spaces = space.keys.chunks_exact_mut(KeyBlock::len(d)).enumerate();
        let keys: Vec<KeyBlock> = spaces.map(|(i, at)| KeyBlock::lay_out(k, v, i * KEYS, at)).collect();
        for t in 0..length {
            self.dk.row(t).fill(0.0);
            self.dv.row(t).fill(0.0);
        }
        let Space { scores, ds, q: scaled, dy: divided, q_panels, dy_panels, .. } = space;
        for Queries { head, first, mut dq } in self.queries {
            let rows = dq.rows();
            let [q, y, dy] = [q, y, dy].map(|m| m.block(first, rows, head * d, d));
            let seen = &keys[..(first + rows).div_ceil(KEYS)];
            let scale = 1.0 / (d as f32).sqrt();
            let q = scale_rows(q, &[scale; QUERIES], scaled);
            let inverse = soften(q, first, seen, scores);
            let dy = scale_rows(dy, &inverse, divided);
            let delta = row_sums(dy, y);
            let (q_panels, dy_panels) = (Panels::copy(q, q_panels), Panels::copy(dy, dy_panels));
            for (block, e) in seen.iter().zip(scores.chunks_exact(QUERIES * KEYS)) {
                let width = block.keys.min(first + rows - block.first);
                let e = View::new(e, rows, width, KEYS);
                multiply(dy, block.v_transposed, ViewMut::new(ds, rows, width, KEYS), false);
                score_gradient(e, &delta, ds);
                let ds = View::new(ds, rows, width, KEYS);
                multiply_transposed(e, dy_panels, self.dv.block(block.first, width, 0, d), true);
                multiply_transposed(ds, q_panels, self.dk.block(block.first, width, 0, d), true);
                multiply(ds, block.k, dq.block(0, rows, 0, d), block.first > 0);
            }
            (0..rows).for_each(|i| dq.row(i).iter_mut().for_each(|x| *x *= scale));
        }
    }
}

/// Row i of m times factors[i].
fn scale_rows<'a>(m: View, factors: &[f32; QUERIES], space: &'a mut [f32]) -> View<'a> {
    let (rows, cols) = (m.rows(), m.cols());
    for (i, factor) in factors.iter().enumerate().take(rows) {
        let row = space[i * cols..(i + 1) * cols].iter_mut().zip(m.row(i));
        row.for_each(|(y, x)| *y = factor * x);
    }
    View::new(space, rows, cols, cols)
}

/// rowsum(a * b)
fn row_sums(a: View, b: View) -> [f32; QUERIES] {
    let mut sums = [0.0; QUERIES];
    wide(
        #[inline(always)]
        || {
            for (i, sum) in sums.iter_mut().enumerate().take(a.rows()) {
                *sum = dot(a.row(i), b.row(i)) as f32;
            }
        },
    );
    sums
}

/// E of queries at positions `first..`, zero for the keys that a query does not see, a block after the other.
/// Returns 1 / sum(E) of every row.
fn soften(q: View, first: usize, seen: &[KeyBlock], scores: &mut [f32]) -> [f32; QUERIES] {
    let rows = q.rows();
    let visible = |block: &KeyBlock, i: usize| (first + i + 1).saturating_sub(block.first).min(block.keys);
    let mut max = [f32::NEG_INFINITY; QUERIES];
    for (block, scores) in seen.iter().zip(scores.chunks_exact_mut(QUERIES * KEYS)) {
        let width = visible(block, rows - 1);
        multiply(q, block.k_transposed, ViewMut::new(scores, rows, width, KEYS), false);
        wide(
            #[inline(always)]
            || {
                for (i, max) in max.iter_mut().enumerate().take(rows) {
                    let top = maximum(&scores[i * KEYS..][..visible(block, i)]);
                    *max = if top > *max { top } else { *max };
                }
            },
        );
    }
    let mut sums = [0.0f64; QUERIES];
    for (block, scores) in seen.iter().zip(scores.chunks_exact_mut(QUERIES * KEYS)) {
        let width = visible(block, rows - 1);
        wide(
            #[inline(always)]
            || {
                for (i, (max, total)) in max.iter().zip(&mut sums).enumerate().take(rows) {
                    let row = &mut scores[i * KEYS..][..width];
                    let (seen, unseen) = row.split_at_mut(visible(block, i));
                    for x in &mut *seen {
                        *x = exp(*x - max);
                    }
                    *total += sum(seen, seen, |x, _| f64::from(x));
                    unseen.fill(0.0);
                }
            },
        );
    }
    sums.map(|sum| (1.0 / sum) as f32)
}

/// dP -> dS = E * (dP - delta), where dy was divided by sum(E).
fn score_gradient(e: View, delta: &[f32; QUERIES], ds: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for i in 0..e.rows() {
                for (x, e) in ds[i * KEYS..].iter_mut().zip(e.row(i)) {
                    *x = e * (*x - delta[i]);
                }
            }
        },
    );
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let [q, k, v, y, dy] = [0, 1, 2, 3, 4].map(|i| &operands[i]);
    let Sizes { length, heads, kv_heads, head_dim: d } = Sizes::of(op, q.rows());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let of_head = |m: &'_ Exact, t: usize, h: usize| m.row(t)[h * d..(h + 1) * d].to_vec();
    let width = (heads + 2 * kv_heads) * d;
    let mut out = vec![0.0; length * width];
    for h in 0..heads {
        let g = h / (heads / kv_heads);
        let (dq_at, dk_at, dv_at) = (h * d, (heads + g) * d, (heads + kv_heads + g) * d);
        for t in 0..length {
            let [q, y, dy] = [q, y, dy].map(|m| of_head(m, t, h));
            let scores: Vec<f64> = (0..=t).map(|s| dot(&q, &of_head(k, s, g)) / (d as f64).sqrt()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for (s, score) in scores.iter().enumerate() {
                let p = (score - max).exp() / total;
                let ds = p * (dot(&dy, &of_head(v, s, g)) - dot(&dy, &y)) / (d as f64).sqrt();
                for c in 0..d {
                    out[t * width + dq_at + c] += ds * k.row(s)[g * d + c];
                    out[s * width + dk_at + c] += ds * q[c];
                    out[s * width + dv_at + c] += p * dy[c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::attention;
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn the_reference_is_the_slope_of_attention() {
        let (length, heads, kv_heads, head_dim) = (7, 4, 2, 3);
        let forward = Op::Attention { heads, kv_heads, head_dim };
        let mut rng = SplitMix64::new(11);
        let mut draw = |cols: usize| {
            (0..length * cols).map(|_| rng.below(4001) as f64 / 1000.0 - 2.0).collect::<Vec<f64>>()
        };
        let widths = [heads, kv_heads, kv_heads].map(|n| n * head_dim);
        let (inputs, dy) = (widths.map(&mut draw), draw(widths[0]));
        let exact =
            |data: &[f64]| Exact::F64 { data: data.to_vec(), rows: length, cols: data.len() / length };
        let attend = |inputs: &[Vec<f64>; 3]| {
            (attention::KERNEL.reference)(&forward, &inputs.each_ref().map(|x| exact(x)))
        };
        let loss = |inputs: &[Vec<f64>; 3]| attend(inputs).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();

        let [q, k, v] = inputs.each_ref().map(|x| exact(x));
        let op = Op::AttentionGrad { heads, kv_heads, head_dim };
        let gradient = reference(&op, &[q, k, v, exact(&attend(&inputs)), exact(&dy)]);
        let width: usize = widths.iter().sum();
        for (which, cols) in widths.into_iter().enumerate() {
            let before: usize = widths[..which].iter().sum();
            for i in 0..length * cols {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which][i] += by;
                    loss(&inputs)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let exact = gradient[i / cols * width + before + i % cols];
                assert!(
                    (slope - exact).abs() < 1e-7 * exact.abs().max(1.0),
                    "{which}[{i}]: {slope}, {exact}"
                );
            }
        }
    }
}
