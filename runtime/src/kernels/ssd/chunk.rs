//! What the scan and its gradient share: sizes, tasks of heads, and the decays, scores and states of a chunk.
//!
//! Within a chunk, s is the running sum of -exp(A_log) dt since the chunk began. It is kept in two f32 parts,
//! so that a difference of large sums is as exact as one of small ones.

use super::lower::lower_of;
use crate::kernels::gemm::{PANEL, Panels, multiply_transposed, set_line};
use crate::kernels::math::{exp, softplus, wide};
use crate::kernels::{Call, View, ViewMut};
use minic_compiler::graph::Op;

/// Tasks that the heads are divided into, where there are fewer groups.
const TASKS: usize = 4;

/// Decays that are computed at once; a chunk is a multiple of it.
pub const LANES: usize = 16;

#[derive(Clone, Copy)]
pub struct Sizes {
    pub heads: usize,
    pub head_dim: usize,
    pub groups: usize,
    pub state: usize,
    pub dt_lo: f64,
    pub dt_hi: f64,
}

impl Sizes {
    pub fn of(op: &Op) -> Sizes {
        match *op {
            Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi }
            | Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi }
            | Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi }
            | Op::SsdStep { heads, head_dim, groups, state, dt_lo, dt_hi } => {
                Sizes { heads, head_dim, groups, state, dt_lo, dt_hi }
            }
            _ => panic!("bug: `{}` is no ssd", op.name()),
        }
    }

    pub fn heads_of_group(self) -> usize {
        self.heads / self.groups
    }

    /// Heads that one task scans: a group, or a part of it where the groups are few.
    pub fn heads_of_task(self) -> usize {
        let parts = TASKS.div_ceil(self.groups).min(self.heads_of_group().max(1));
        self.heads_of_group().div_ceil(parts)
    }

    /// Columns of one task's channels, padded to whole panels.
    pub fn line(self) -> usize {
        (self.heads_of_task() * self.head_dim).next_multiple_of(PANEL)
    }

    /// Q, tokens of a chunk: the work within a chunk grows with it, that between chunks shrinks with it.
    pub fn chunk(self) -> usize {
        if self.head_dim * self.state < 2048 { 32 } else { 64 }
    }

    /// First head and columns of every task, from a matrix with `width` columns a head; none crosses a group.
    pub fn tasks(self, out: ViewMut, width: usize) -> Vec<(usize, ViewMut)> {
        let rows = out.rows();
        let mut tasks = Vec::new();
        for (_, start, columns) in out.blocks(rows, self.heads_of_group() * width) {
            let blocks = columns.blocks(rows, self.heads_of_task() * width).into_iter();
            tasks.extend(blocks.map(|(_, column, block)| ((start + column) / width, block)));
        }
        tasks
    }
}

/// Cuts scratch into pieces of the given lengths.
pub fn carve<const N: usize>(mut rest: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|n| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(n);
        rest = after;
        piece
    })
}

/// What hangs on dt in a chunk, [heads, Q] each.
pub struct Decays<'a> {
    pub dt: &'a mut [f32],
    /// s, in two parts.
    pub high: &'a mut [f32],
    pub low: &'a mut [f32],
    /// exp(s)
    pub since: &'a mut [f32],
    /// exp(s[last] - s)
    pub until: &'a mut [f32],
}

/// A state [N, heads P] in panels, and what [`Task::advance`] needs besides.
pub struct State<'a> {
    pub panels: &'a mut [f32],
    /// Panels of what is added [Q, heads P].
    pub inputs: &'a mut [f32],
    /// One row [heads P], padded to whole panels.
    pub line: &'a mut [f32],
}

/// Operands of some heads of one group, over a number of tokens.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub s: Sizes,
    /// [tokens, heads P]
    pub x: View<'a>,
    /// [tokens, heads]
    pub dt: View<'a>,
    /// [tokens, N]
    pub b: View<'a>,
    pub c: View<'a>,
    /// [heads]
    pub dt_bias: &'a [f32],
    pub a_log: &'a [f32],
    pub d: &'a [f32],
}

impl<'a> Task<'a> {
    /// All heads of a call, whose groups lie side by side in b and c.
    pub fn of(call: &Call<'a>) -> Task<'a> {
        let [x, dt, b, c] = [0, 1, 2, 3].map(|i| call.f32(i));
        let [dt_bias, a_log, d] = [4, 5, 6].map(|i| call.f32(i).row(0));
        Task { s: Sizes::of(call.op), x, dt, b, c, dt_bias, a_log, d }
    }

    /// Some of the heads of such a task, all of one group.
    pub fn part(&self, first: usize, heads: usize) -> Task<'a> {
        let s = self.s;
        let columns = |m: View<'a>, start: usize, width: usize| m.block(0, m.rows(), start, width);
        let states = first / s.heads_of_group() * s.state;
        let [dt_bias, a_log, d] = [self.dt_bias, self.a_log, self.d].map(|v| &v[first..first + heads]);
        Task {
            s,
            x: columns(self.x, first * s.head_dim, heads * s.head_dim),
            dt: columns(self.dt, first, heads),
            b: columns(self.b, states, s.state),
            c: columns(self.c, states, s.state),
            dt_bias,
            a_log,
            d,
        }
    }

    /// `rows` tokens from `start` on.
    pub fn chunk(&self, start: usize, rows: usize) -> Task<'a> {
        let [x, dt, b, c] = [self.x, self.dt, self.b, self.c].map(|m| m.block(start, rows, 0, m.cols()));
        Task { x, dt, b, c, ..*self }
    }

    pub fn tokens(&self) -> usize {
        self.x.rows()
    }

    /// The limits of dt.
    pub fn limits(&self) -> (f32, f32) {
        (self.s.dt_lo as f32, self.s.dt_hi as f32)
    }

    /// -exp(A_log)
    pub fn rate(&self, head: usize) -> f64 {
        -f64::from(self.a_log[head]).exp()
    }

    /// dt, s, and the decays that hang on them.
    pub fn decays(&self, decays: &mut Decays) {
        let (lo, hi) = self.limits();
        for head in 0..self.d.len() {
            let first = head * self.s.chunk();
            let at = first..first + self.tokens();
            let (dt, high) = (&mut decays.dt[at.clone()], &mut decays.high[at.clone()]);
            let (low, since) = (&mut decays.low[at.clone()], &mut decays.since[at.clone()]);
            let until = &mut decays.until[at];
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
            let rate = self.rate(head);
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
                    for ((until, high), low) in until.iter_mut().zip(&*high).zip(&*low) {
                        *until = exp((last_high - *high) + (last_low - *low));
                    }
                },
            );
        }
    }

    /// scores = C B^T [Q, Q], block by block up to the diagonal's; what lies right of it is left undefined.
    /// `panels` has room for B^T [N, Q].
    pub fn scores(&self, panels: &mut [f32], scores: &mut [f32]) {
        let tokens = self.tokens();
        let scores = ViewMut::new(scores, tokens, tokens, self.s.chunk());
        lower_of(self.c, Panels::transpose(self.b, panels), scores);
    }

    /// state = exp(s[last]) state + left^T (coefficient * right), for all heads; `coefficient` is asked with
    /// places in [`Decays`].
    pub fn advance(
        &self,
        state: &mut State,
        decays: &Decays,
        left: View,
        right: View,
        coefficient: impl Fn(usize) -> f32,
    ) {
        let (tokens, q, p, n) = (self.tokens(), self.s.chunk(), self.s.head_dim, self.s.state);
        let width = self.x.cols();
        wide(
            #[inline(always)]
            || {
                for k in 0..tokens {
                    let heads = state.line[..width].chunks_exact_mut(p).zip(right.row(k).chunks_exact(p));
                    for (head, (line, x)) in heads.enumerate() {
                        let weight = coefficient(head * q + k);
                        for (y, x) in line.iter_mut().zip(x) {
                            *y = x * weight;
                        }
                    }
                    set_line(state.inputs, tokens, k, &state.line[..width]);
                }
                state.line.fill(0.0);
                for (head, line) in state.line[..width].chunks_exact_mut(p).enumerate() {
                    line.fill(decays.since[head * q + tokens - 1]);
                }
                // Knowing the length, the compiler would take many rows at once, and gather their elements.
                let decays = state.line.chunks(PANEL);
                for (panel, decay) in state.panels.chunks_exact_mut(n * PANEL).zip(decays) {
                    for state in panel.chunks_exact_mut(PANEL) {
                        for (s, d) in state.iter_mut().zip(decay) {
                            *s *= d;
                        }
                    }
                }
            },
        );
        let panels = state.panels.chunks_exact_mut(n * PANEL).zip(state.inputs.chunks_exact(tokens * PANEL));
        for (state, inputs) in panels.take(width.div_ceil(PANEL)) {
            let inputs = Panels::new(inputs, tokens, PANEL);
            multiply_transposed(left, inputs, ViewMut::new(state, n, PANEL, PANEL), true);
        }
    }
}

/// x within lo..=hi; not a number stays what it is.
#[inline(always)]
pub fn limit(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}
