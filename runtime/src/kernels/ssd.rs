//! The state space duality scan of Mamba2 (arXiv:2405.21060), chunk by chunk.
//!
//! Within a chunk, with s the running sum of -exp(A_log) dt since the chunk began, and S the state before it:
//! y[i] = exp(s[i]) C[i] S + sum_{j <= i} (C[i] . B[j]) exp(s[i] - s[j]) dt[j] x[j] + D x[i]
//! S' = exp(s[last]) S + sum_j exp(s[last] - s[j]) dt[j] B[j]^T x[j]
//! Every exponent is a difference of running sums and never positive.

mod chunk;
mod grad;
mod lower;
mod shader;
mod step;

pub use grad::GRAD;
pub use step::STEP;

use super::gemm::{PANEL, Panels, multiply, panels_len, set_line};
use super::math::{exp, wide};
use super::parallel::{for_each, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use chunk::{Decays, LANES, Sizes, State, Task, carve};
use lower::{ROWS, lower_times};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel =
    Kernel { name: "ssd", version: 1, cpu, reference, scratch, tolerance: 2e-5, shaders: shader::KERNEL };

pub const PREFILL: Kernel = Kernel {
    name: "ssd_prefill",
    version: 1,
    cpu: prefill,
    reference: prefill_reference,
    scratch,
    tolerance: 2e-5,
    shaders: shader::PREFILL,
};

/// The scratch of one task. A panel piece is laid out as in [`Panels`].
struct Space<'a> {
    /// C B^T [Q, Q], shared by the heads; elements above the diagonal's blocks are left undefined.
    scores: &'a mut [f32],
    /// The scores times one head's decays [Q, Q].
    decayed: &'a mut [f32],
    /// Panels of B^T [N, Q], then of one head's dt x [Q, P].
    panels: &'a mut [f32],
    state: State<'a>,
    decays: Decays<'a>,
}

impl<'a> Space<'a> {
    fn lengths(s: Sizes) -> [usize; 11] {
        let (q, line, tokens) = (s.chunk(), s.line(), s.heads_of_task() * s.chunk());
        let panels = panels_len(s.state, q).max(panels_len(q, s.head_dim));
        [q * q, q * q, panels, s.state * line, q * line, line, tokens, tokens, tokens, tokens, tokens]
    }

    fn carve(space: &'a mut [f32], s: Sizes) -> Space<'a> {
        let [scores, decayed, panels, state, inputs, line, dt, high, low, since, until] =
            carve(space, Space::lengths(s));
        let state = State { panels: state, inputs, line };
        Space { scores, decayed, panels, state, decays: Decays { dt, high, low, since, until } }
    }
}

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    scratch_size(Space::lengths(Sizes::of(op)).iter().sum())
}

fn cpu(call: Call) {
    run(call, None);
}

fn prefill(mut call: Call) {
    let [sequence, _] = call.at(7);
    let mut states = call.changed();
    let columns = states.cols();
    run(call, Some(states.block(sequence, 1, 0, columns)));
}

/// The state after the last position is put into `left` [1, H*N*P].
fn run(call: Call, left: Option<ViewMut>) {
    let whole = Task::of(&call);
    let s = whole.s;
    let tasks = s.tasks(call.out_f32(), s.head_dim);
    let left = left.map_or_else(Vec::new, |left| s.tasks(left, s.state * s.head_dim));
    let left = left.into_iter().map(|(_, left)| Some(left)).chain(std::iter::repeat_with(|| None));
    for_each(tasks.into_iter().zip(left).collect(), |((first, out), left)| {
        let task = whole.part(first, out.cols() / s.head_dim);
        with_scratch(Space::lengths(s).iter().sum(), |space| task.scan(Space::carve(space, s), out, left));
    });
}

impl Task<'_> {
    fn scan(&self, mut space: Space, mut out: ViewMut, left: Option<ViewMut>) {
        let (tokens, width, q) = (out.rows(), out.cols(), self.s.chunk());
        space.state.panels.fill(0.0);
        for start in (0..tokens).step_by(q) {
            let rows = q.min(tokens - start);
            let chunk = self.chunk(start, rows);
            chunk.decays(&mut space.decays);
            chunk.before(&space, out.block(start, rows, 0, width), start == 0);
            chunk.scores(space.panels, space.scores);
            for head in 0..self.d.len() {
                let columns = out.block(start, rows, head * self.s.head_dim, self.s.head_dim);
                chunk.within(&mut space, head, columns);
            }
            if start + rows < tokens || left.is_some() {
                let (dt, until) = (&*space.decays.dt, &*space.decays.until);
                chunk.advance(
                    &mut space.state,
                    &space.decays,
                    chunk.b,
                    chunk.x,
                    #[inline(always)]
                    |at| dt[at] * until[at],
                );
            }
        }
        if let Some(mut left) = left {
            self.leave(space.state.panels, left.row(0));
        }
    }

    /// Lays out a state [N, heads P] in panels head by head, each [N, P].
    fn leave(&self, panels: &[f32], left: &mut [f32]) {
        let (n, p) = (self.s.state, self.s.head_dim);
        for (head, left) in left.chunks_exact_mut(n * p).enumerate() {
            for (k, left) in left.chunks_exact_mut(p).enumerate() {
                for (left, column) in left.iter_mut().zip(head * p..) {
                    *left = panels[(column / PANEL * n + k) * PANEL + column % PANEL];
                }
            }
        }
    }

    /// y = exp(s) C S + D x
    fn before(&self, space: &Space, mut y: ViewMut, first: bool) {
        let (tokens, width, p) = (y.rows(), y.cols(), self.s.head_dim);
        if !first {
            let state = Panels::new(space.state.panels, self.s.state, width);
            multiply(self.c, state, y.block(0, tokens, 0, width), false);
        }
        let q = self.s.chunk();
        wide(
            #[inline(always)]
            || {
                for i in 0..tokens {
                    let heads = y.row(i).chunks_exact_mut(p).zip(self.x.row(i).chunks_exact(p)).enumerate();
                    for (head, (y, x)) in heads {
                        let (since, d) = (space.decays.since[head * q + i], self.d[head]);
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

    /// y += (scores * decays) dt x, for one head.
    fn within(&self, space: &mut Space, head: usize, y: ViewMut) {
        let (tokens, q, p) = (self.tokens(), self.s.chunk(), self.s.head_dim);
        let at = head * q..(head + 1) * q;
        let decays = &space.decays;
        let (dt, high, low) = (&decays.dt[at.clone()][..tokens], &decays.high[at.clone()], &decays.low[at]);
        wide(
            #[inline(always)]
            || {
                for i in 0..tokens {
                    let row = i * q..(i + 1) * q;
                    decay(&space.scores[row.clone()], high, low, i, &mut space.decayed[row]);
                }
                for (k, dt) in dt.iter().enumerate() {
                    let (line, x) = (&mut space.state.line[..p], &self.x.row(k)[head * p..]);
                    for (y, x) in line.iter_mut().zip(x) {
                        *y = x * dt;
                    }
                    set_line(space.panels, tokens, k, line);
                }
            },
        );
        let inputs = Panels::new(space.panels, tokens, p);
        let decayed = View::new(space.decayed, tokens, tokens, q);
        lower_times(decayed, inputs, y, true);
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

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let s = Sizes::of(op);
    scanned(op, operands, &mut vec![0.0; s.heads * s.state * s.head_dim])
}

fn prefill_reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (states, [sequence, _]) = (&operands[8], operands[7].at());
    let mut left = vec![0.0; states.cols()];
    let mut out = scanned(op, operands, &mut left);
    let rows = (0..states.rows()).map(|r| if r == sequence { &left[..] } else { states.row(r) });
    out.extend(rows.flatten());
    out
}

/// y of the scan from `states` [H, N, P] on, which become those after it.
fn scanned(op: &Op, operands: &[Exact], states: &mut [f64]) -> Vec<f64> {
    let s = Sizes::of(op);
    let [x, dt, b, c] = [0, 1, 2, 3].map(|i| &operands[i]);
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| operands[i].data());
    let (p_max, n_max) = (s.head_dim, s.state);
    let mut out = vec![0.0; x.rows() * x.cols()];
    for h in 0..s.heads {
        let g = h / (s.heads / s.groups);
        let state = &mut states[h * p_max * n_max..(h + 1) * p_max * n_max];
        for t in 0..x.rows() {
            let dt = (dt.row(t)[h] + dt_bias[h]).exp().ln_1p().clamp(s.dt_lo, s.dt_hi);
            let decay = (-a_log[h].exp() * dt).exp();
            for p in 0..p_max {
                let x = x.row(t)[h * p_max + p];
                let mut y = d[h] * x;
                for n in 0..n_max {
                    let state = &mut state[n * p_max + p];
                    *state = decay * *state + dt * x * b.row(t)[g * n_max + n];
                    y += *state * c.row(t)[g * n_max + n];
                }
                out[t * s.heads * p_max + h * p_max + p] = y;
            }
        }
    }
    out
}
