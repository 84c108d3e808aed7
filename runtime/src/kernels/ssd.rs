//! The state space duality scan of Mamba2 (arXiv:2405.21060), chunk by chunk.
//!
//! Within a chunk, with s the running sum of -exp(A_log) dt since the chunk began, and S the state before it:
//! y[i] = exp(s[i]) C[i] S + sum_{j <= i} (C[i] . B[j]) exp(s[i] - s[j]) dt[j] x[j] + D x[i]
//! S' = exp(s[last]) S + sum_j exp(s[last] - s[j]) dt[j] B[j]^T x[j]
//! Every exponent is a difference of running sums and never positive. The sums are kept in two f32 parts, so
//! that a difference of large sums is as exact as one of small ones.

use super::gemm::{PANEL, Panels, multiply, multiply_transposed, panels_len, set_line};
use super::math::{exp, softplus, wide};
use super::parallel::{for_each, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel { name: "ssd", version: 1, cpu, reference, scratch, tolerance: 2e-5 };

/// Tasks that the heads are divided into, where there are fewer groups.
const TASKS: usize = 4;

/// Rows of a chunk that are multiplied at once; what lies right of their last column is skipped.
const ROWS: usize = 32;

/// Decays that are computed at once; a chunk is a multiple of it.
const LANES: usize = 16;

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    head_dim: usize,
    groups: usize,
    state: usize,
    dt_lo: f64,
    dt_hi: f64,
}

impl Sizes {
    fn of(op: &Op) -> Sizes {
        match *op {
            Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
                Sizes { heads, head_dim, groups, state, dt_lo, dt_hi }
            }
            _ => panic!("bug: `{}` is no ssd", op.name()),
        }
    }

    fn heads_of_group(self) -> usize {
        self.heads / self.groups
    }

    /// Heads that one task scans: a group, or a part of it where the groups are few.
    fn heads_of_task(self) -> usize {
        let parts = TASKS.div_ceil(self.groups).min(self.heads_of_group().max(1));
        self.heads_of_group().div_ceil(parts)
    }

    /// Q, tokens of a chunk: the work within a chunk grows with it, that between chunks shrinks with it.
    fn chunk(self) -> usize {
        if self.head_dim * self.state < 2048 { 32 } else { 64 }
    }
}

/// The scratch of one task. A panel piece is laid out as in [`Panels`].
struct Space<'a> {
    /// C B^T [Q, Q], shared by the heads; elements above the diagonal's blocks are left undefined.
    scores: &'a mut [f32],
    /// The scores times one head's decays [Q, Q].
    decayed: &'a mut [f32],
    /// Panels of B^T [N, Q], then of one head's dt x [Q, P].
    panels: &'a mut [f32],
    /// Panels of exp(s[last] - s) dt x [Q, heads P].
    inputs: &'a mut [f32],
    /// Panels of the state [N, heads P].
    state: &'a mut [f32],
    /// One row [heads P], padded to whole panels.
    line: &'a mut [f32],
    /// [heads, Q] each.
    dt: &'a mut [f32],
    /// s, in two parts.
    high: &'a mut [f32],
    low: &'a mut [f32],
    /// exp(s)
    since: &'a mut [f32],
    /// exp(s[last] - s) dt
    weight: &'a mut [f32],
}

impl<'a> Space<'a> {
    fn lengths(s: Sizes) -> [usize; 11] {
        let (q, width) = (s.chunk(), s.heads_of_task() * s.head_dim);
        let panels = panels_len(s.state, q).max(panels_len(q, s.head_dim));
        let tokens = s.heads_of_task() * q;
        let line = width.next_multiple_of(PANEL);
        [q * q, q * q, panels, q * line, s.state * line, line, tokens, tokens, tokens, tokens, tokens]
    }

    fn carve(mut rest: &'a mut [f32], s: Sizes) -> Space<'a> {
        let pieces = Space::lengths(s).map(|n| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(n);
            rest = after;
            piece
        });
        let [scores, decayed, panels, inputs, state, line, dt, high, low, since, weight] = pieces;
        Space { scores, decayed, panels, inputs, state, line, dt, high, low, since, weight }
    }
}

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    scratch_size(Space::lengths(Sizes::of(op)).iter().sum())
}

fn cpu(call: Call) {
    let s = Sizes::of(call.op);
    let [x, dt, b, c] = [0, 1, 2, 3].map(|i| call.f32(i));
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| call.f32(i).row(0));
    let out = call.out_f32();
    let rows = out.rows();
    for_each(tasks(out, s), |(first, out)| {
        let heads = out.cols() / s.head_dim;
        let states = first / s.heads_of_group() * s.state;
        let task = Task {
            s,
            x: x.block(0, rows, first * s.head_dim, out.cols()),
            dt: dt.block(0, rows, first, heads),
            b: b.block(0, rows, states, s.state),
            c: c.block(0, rows, states, s.state),
            dt_bias: &dt_bias[first..first + heads],
            a_log: &a_log[first..first + heads],
            d: &d[first..first + heads],
        };
        with_scratch(Space::lengths(s).iter().sum(), |space| task.scan(Space::carve(space, s), out));
    });
}

/// First head and columns of every task; none crosses a group.
fn tasks(out: ViewMut, s: Sizes) -> Vec<(usize, ViewMut)> {
    let rows = out.rows();
    let mut tasks = Vec::new();
    for (_, start, columns) in out.blocks(rows, s.heads_of_group() * s.head_dim) {
        let blocks = columns.blocks(rows, s.heads_of_task() * s.head_dim).into_iter();
        tasks.extend(blocks.map(|(_, column, block)| ((start + column) / s.head_dim, block)));
    }
    tasks
}

/// Operands of some heads of one group, over a number of tokens.
#[derive(Clone, Copy)]
struct Task<'a> {
    s: Sizes,
    /// [tokens, heads P]
    x: View<'a>,
    /// [tokens, heads]
    dt: View<'a>,
    /// [tokens, N]
    b: View<'a>,
    c: View<'a>,
    /// [heads]
    dt_bias: &'a [f32],
    a_log: &'a [f32],
    d: &'a [f32],
}

impl Task<'_> {
    fn scan(&self, mut space: Space, mut out: ViewMut) {
        let (tokens, width, q) = (out.rows(), out.cols(), self.s.chunk());
        space.state.fill(0.0);
        for start in (0..tokens).step_by(q) {
            let rows = q.min(tokens - start);
            let [x, dt, b, c] = [self.x, self.dt, self.b, self.c].map(|m| m.block(start, rows, 0, m.cols()));
            let chunk = Task { x, dt, b, c, ..*self };
            chunk.decays(&mut space);
            chunk.before(&space, out.block(start, rows, 0, width), start == 0);
            chunk.scores(&mut space);
            for head in 0..self.d.len() {
                let columns = out.block(start, rows, head * self.s.head_dim, self.s.head_dim);
                chunk.within(&mut space, head, columns);
            }
            if start + rows < tokens {
                chunk.advance(&mut space);
            }
        }
    }

    fn tokens(&self) -> usize {
        self.x.rows()
    }

    /// dt, s, and the decays that hang on them.
    fn decays(&self, space: &mut Space) {
        let (lo, hi) = (self.s.dt_lo as f32, self.s.dt_hi as f32);
        for head in 0..self.d.len() {
            let first = head * self.s.chunk();
            let at = first..first + self.tokens();
            let (dt, high, low) =
                (&mut space.dt[at.clone()], &mut space.high[at.clone()], &mut space.low[at.clone()]);
            let (since, weight) = (&mut space.since[at.clone()], &mut space.weight[at]);
            for (i, dt) in dt.iter_mut().enumerate() {
                *dt = self.dt.row(i)[head] + self.dt_bias[head];
            }
            wide(
                #[inline(always)]
                || {
                    for dt in &mut *dt {
                        *dt = limit(softplus(*dt), lo, hi);
                    }
                },
            );
            let rate = -f64::from(self.a_log[head]).exp();
            let mut sum = 0.0f64;
            for (i, dt) in dt.iter().enumerate() {
                sum += rate * f64::from(*dt);
                high[i] = sum as f32;
                low[i] = (sum - f64::from(high[i])) as f32;
            }
            let (last_high, last_low) = (sum as f32, low.last().copied().unwrap_or(0.0));
            wide(
                #[inline(always)]
                || {
                    for (since, high) in since.iter_mut().zip(&*high) {
                        *since = exp(*high);
                    }
                    for (((weight, dt), high), low) in weight.iter_mut().zip(dt).zip(high).zip(low) {
                        *weight = *dt * exp((last_high - *high) + (last_low - *low));
                    }
                },
            );
        }
    }

    /// y = exp(s) C S + D x
    fn before(&self, space: &Space, mut y: ViewMut, first: bool) {
        let (tokens, width, p) = (y.rows(), y.cols(), self.s.head_dim);
        if !first {
            let state = Panels::new(space.state, self.s.state, width);
            multiply(self.c, state, y.block(0, tokens, 0, width), false);
        }
        let q = self.s.chunk();
        wide(
            #[inline(always)]
            || {
                for i in 0..tokens {
                    let heads = y.row(i).chunks_exact_mut(p).zip(self.x.row(i).chunks_exact(p)).enumerate();
                    for (head, (y, x)) in heads {
                        let (since, d) = (space.since[head * q + i], self.d[head]);
                        if first {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y = d * x;
                            }
                        } else {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y = since * *y + d * x;
                            }
                        }
                    }
                }
            },
        );
    }

    /// C B^T, block by block up to the diagonal's.
    fn scores(&self, space: &mut Space) {
        let (tokens, q) = (self.tokens(), self.s.chunk());
        let b = Panels::transpose(self.b, space.panels);
        let mut scores = ViewMut::new(space.scores, tokens, tokens, q);
        for row in (0..tokens).step_by(ROWS) {
            let rows = ROWS.min(tokens - row);
            multiply(
                self.c.block(row, rows, 0, self.s.state),
                b,
                scores.block(row, rows, 0, row + rows),
                false,
            );
        }
    }

    /// y += (scores * decays) dt x, for one head.
    fn within(&self, space: &mut Space, head: usize, mut y: ViewMut) {
        let (tokens, q, p) = (self.tokens(), self.s.chunk(), self.s.head_dim);
        let at = head * q..(head + 1) * q;
        let (dt, high, low) = (&space.dt[at.clone()][..tokens], &space.high[at.clone()], &space.low[at]);
        wide(
            #[inline(always)]
            || {
                for i in 0..tokens {
                    let row = i * q..(i + 1) * q;
                    decay(&space.scores[row.clone()], high, low, i, &mut space.decayed[row]);
                }
                for (k, dt) in dt.iter().enumerate() {
                    let (line, x) = (&mut space.line[..p], &self.x.row(k)[head * p..]);
                    for (y, x) in line.iter_mut().zip(x) {
                        *y = x * dt;
                    }
                    set_line(space.panels, tokens, k, line);
                }
            },
        );
        let inputs = Panels::new(space.panels, tokens, p);
        let decayed = View::new(space.decayed, tokens, tokens, q);
        for row in (0..tokens).step_by(ROWS) {
            let rows = ROWS.min(tokens - row);
            multiply(decayed.block(row, rows, 0, row + rows), inputs, y.block(row, rows, 0, p), true);
        }
    }

    /// The state after the chunk.
    fn advance(&self, space: &mut Space) {
        let (tokens, q, p, n) = (self.tokens(), self.s.chunk(), self.s.head_dim, self.s.state);
        let width = self.x.cols();
        let decay = |head: usize| space.since[head * q + tokens - 1];
        wide(
            #[inline(always)]
            || {
                for k in 0..tokens {
                    let heads = space.line[..width].chunks_exact_mut(p).zip(self.x.row(k).chunks_exact(p));
                    for (head, (line, x)) in heads.enumerate() {
                        let weight = space.weight[head * q + k];
                        for (y, x) in line.iter_mut().zip(x) {
                            *y = x * weight;
                        }
                    }
                    set_line(space.inputs, tokens, k, &space.line[..width]);
                }
                space.line.fill(0.0);
                for (head, line) in space.line[..width].chunks_exact_mut(p).enumerate() {
                    line.fill(decay(head));
                }
                let panels = space.state.chunks_exact_mut(n * PANEL).zip(space.line.chunks_exact(PANEL));
                for (panel, decay) in panels {
                    for state in panel.chunks_exact_mut(PANEL) {
                        for (s, d) in state.iter_mut().zip(decay) {
                            *s *= d;
                        }
                    }
                }
            },
        );
        let panels = space.state.chunks_exact_mut(n * PANEL).zip(space.inputs.chunks_exact(tokens * PANEL));
        for (state, inputs) in panels.take(width.div_ceil(PANEL)) {
            let inputs = Panels::new(inputs, tokens, PANEL);
            multiply_transposed(self.b, inputs, ViewMut::new(state, n, PANEL, PANEL), true);
        }
    }
}

/// Row i of the scores times exp(s[i] - s[j]), and zeros for the tokens to come up to the diagonal block's end.
#[inline(always)]
fn decay(scores: &[f32], high: &[f32], low: &[f32], i: usize, decayed: &mut [f32]) {
    let (high_i, low_i) = (high[i], low[i]);
    let scores = scores.as_chunks::<LANES>().0.iter();
    let sums = high.as_chunks::<LANES>().0.iter().zip(low.as_chunks::<LANES>().0);
    let lanes = decayed.as_chunks_mut::<LANES>().0.iter_mut().zip(scores).zip(sums);
    for ((y, x), (high, low)) in lanes.take(i / LANES + 1) {
        for j in 0..LANES {
            // Positive only for tokens to come.
            let exponent = (high_i - high[j]) + (low_i - low[j]);
            y[j] = x[j] * exp(if exponent > 0.0 { 0.0 } else { exponent });
        }
    }
    decayed[i + 1..(i + 1).next_multiple_of(ROWS)].fill(0.0);
}

/// x within lo..=hi; not a number stays what it is.
#[inline(always)]
fn limit(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let s = Sizes::of(op);
    let [x, dt, b, c] = [0, 1, 2, 3].map(|i| &operands[i]);
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| operands[i].data());
    let (p_max, n_max) = (s.head_dim, s.state);
    let mut out = vec![0.0; x.rows() * x.cols()];
    for h in 0..s.heads {
        let g = h / (s.heads / s.groups);
        let mut state = vec![0.0; p_max * n_max];
        for t in 0..x.rows() {
            let dt = (dt.row(t)[h] + dt_bias[h]).exp().ln_1p().clamp(s.dt_lo, s.dt_hi);
            let decay = (-a_log[h].exp() * dt).exp();
            for p in 0..p_max {
                let x = x.row(t)[h * p_max + p];
                let mut y = d[h] * x;
                for n in 0..n_max {
                    let state = &mut state[p * n_max + n];
                    *state = decay * *state + dt * x * b.row(t)[g * n_max + n];
                    y += *state * c.row(t)[g * n_max + n];
                }
                out[t * s.heads * p_max + h * p_max + p] = y;
            }
        }
    }
    out
}
