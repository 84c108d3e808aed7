//! The gradient of the state space duality scan by each of its operands, chunk by chunk from the last to the first.
//!
//! Within a chunk, with s the running sum of a = -exp(A_log) dt since it began, S the state before it, and G the
//! gradient of the loss by the state after it (u = dt x, L[i, j] = exp(s[i] - s[j]) for j <= i):
//! W[i, j] = (dy[i] . u[j]) L[i, j]
//! dC[i] = sum_{j <= i} W[i, j] B[j] + exp(s[i]) dy[i] S^T                           summed over the group's heads
//! dB[j] = sum_{i >= j} W[i, j] C[i] + exp(s[last] - s[j]) u[j] G^T                  summed over the group's heads
//! du[j] = sum_{i >= j} (C[i] . B[j]) L[i, j] dy[i] + exp(s[last] - s[j]) B[j] G
//! dx[j] = dt[j] du[j] + D dy[j],  dD[j] = dy[j] . x[j],  ddt[j] = x[j] . du[j] - exp(A_log) da[j]
//! da[t] = sum_{j < t <= i} (C[i] . B[j]) W[i, j] + sum_{i >= t} exp(s[i]) (C[i] S) . dy[i]
//!       + sum_{j < t} exp(s[last] - s[j]) (B[j] G) . u[j] + exp(s[last]) S . G
//! The gradient by the state before: exp(s[last]) G + sum_i exp(s[i]) C[i]^T dy[i]
//!
//! da[t] adds nothing but what passes through the decay at t. The shorter form, running sums of dy . y - u . du, is a
//! difference of large numbers where decays are strong.
//!
//! The scan stores nothing. Its states at the chunks' starts are computed again first, transposed.

#[cfg(test)]
mod tests;

use super::chunk::{Decays, LANES, Sizes, State, Task, carve};
use super::lower::{ROWS, lower_of, lower_times, lower_transposed_times};
use crate::kernels::gemm::{PANEL, Panels, multiply, multiply_transposed, panels_len, transpose_panel};
use crate::kernels::math::{dot, exp, softplus, wide};
use crate::kernels::parallel::{by_rows, for_each, row_block, scratch_size, with_scratch};
use crate::kernels::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const GRAD: Kernel = Kernel { name: "ssd_grad", version: 1, cpu, reference, scratch, tolerance: 2e-5 };

/// The scratch of one task.
struct Space<'a> {
    /// S^T [heads P, N] in panels, for every chunk but the first.
    states: &'a mut [f32],
    /// The state, and then its gradient.
    state: State<'a>,
    /// Panels of the gradient of the state, transposed.
    back: &'a mut [f32],
    decays: Decays<'a>,
    /// C B^T [Q, Q], shared by the heads.
    scores: &'a mut [f32],
    /// dy x^T of one head [Q, Q].
    products: &'a mut [f32],
    /// The scores times one head's decays [Q, Q].
    decayed: &'a mut [f32],
    /// W, summed over the heads [Q, Q].
    mixed: &'a mut [f32],
    /// Panels of B^T [N, Q], then of one head's x^T [P, Q] and dy [Q, P], then of B and of C [Q, N].
    panels: &'a mut [f32],
    /// dy S^T, then x G^T, of one head [Q, N]; and its part of du from within the chunk [Q, P].
    rows: &'a mut [f32],
    /// Of one head, a number for each token.
    head: PerToken<'a>,
}

/// What one head's tokens have, [Q] each.
struct PerToken<'a> {
    /// x . du
    direct: &'a mut [f32],
    da: &'a mut [f32],
    /// exp(s[i]) (C[i] S) . dy[i]
    inflow: &'a mut [f32],
    /// exp(s[last] - s[j]) (B[j] G) . u[j]
    outflow: &'a mut [f32],
    /// The derivative of dt by the number before bias and softplus.
    slope: &'a mut [f32],
}

impl<'a> Space<'a> {
    fn lengths(s: Sizes, tokens: usize) -> [usize; 21] {
        let (q, line, n, p) = (s.chunk(), s.line(), s.state, s.head_dim);
        let transposed = panels_len(line, n);
        let states = tokens.div_ceil(q).saturating_sub(1) * transposed;
        let panels = [(n, q), (p, q), (q, p), (q, n)].map(|(depth, cols)| panels_len(depth, cols));
        let panels = panels.into_iter().fold(0, usize::max);
        let (square, many) = (q * q, s.heads_of_task() * q);
        let rows = q * n.max(p);
        #[rustfmt::skip]
        let lengths = [
            states, n * line, q * line, line, transposed,
            many, many, many, many, many,
            square, square, square, square, panels, rows,
            q, q, q, q, q,
        ];
        lengths
    }

    fn carve(space: &'a mut [f32], s: Sizes, tokens: usize) -> Space<'a> {
        let pieces = carve(space, Space::lengths(s, tokens));
        let [states, state, inputs, line, back, dt, high, low, since, until, pieces @ ..] = pieces;
        let [scores, products, decayed, mixed, panels, rows, direct, da, inflow, outflow, slope] = pieces;
        Space {
            states,
            state: State { panels: state, inputs, line },
            back,
            decays: Decays { dt, high, low, since, until },
            scores,
            products,
            decayed,
            mixed,
            panels,
            rows,
            head: PerToken { direct, da, inflow, outflow, slope },
        }
    }
}

/// Tasks to a group. All but the first have sums of their own for dB and dC, which are added in order at the end.
fn tasks_of_group(s: Sizes) -> usize {
    s.heads_of_group().div_ceil(s.heads_of_task())
}

/// Elements of the sums of the groups' further tasks: [G, further tasks, B | C, tokens, N].
fn sums_len(s: Sizes, tokens: usize) -> usize {
    s.groups * (tasks_of_group(s) - 1) * 2 * tokens * s.state
}

fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let (s, tokens) = (Sizes::of(op), operands.first().map_or(0, |x| x.0));
    scratch_size(Space::lengths(s, tokens).iter().sum()) + size_of::<f32>() * sums_len(s, tokens)
}

fn cpu(call: Call) {
    let (whole, dy) = (Task::of(&call), call.f32(7));
    let (s, tokens) = (whole.s, dy.rows());
    let mut out = call.out_f32();
    let mut sums = vec![0.0; sums_len(s, tokens)];
    let cols = out.cols();
    for_each(tasks(out.block(0, tokens, 0, cols), &mut sums, s), |(first, parts)| {
        let (start, width) = (first * s.head_dim, parts.x.cols());
        let task =
            Grad { task: whole.part(first, width / s.head_dim), dy: dy.block(0, tokens, start, width) };
        let len = Space::lengths(s, tokens).iter().sum();
        with_scratch(len, |space| task.scan(Space::carve(space, s, tokens), parts));
    });
    add_sums(out.block(0, tokens, s.heads * s.head_dim, 2 * s.groups * s.state), &sums, s);
}

/// Where some heads' gradients go, over a number of tokens.
struct Parts<'a> {
    x: ViewMut<'a>,
    b: ViewMut<'a>,
    c: ViewMut<'a>,
    dt: ViewMut<'a>,
    a_log: ViewMut<'a>,
    d: ViewMut<'a>,
}

impl Parts<'_> {
    fn chunk(&mut self, start: usize, rows: usize) -> Parts<'_> {
        let [x, b, c, dt, a_log, d] =
            [&mut self.x, &mut self.b, &mut self.c, &mut self.dt, &mut self.a_log, &mut self.d].map(|m| {
                let cols = m.cols();
                m.block(start, rows, 0, cols)
            });
        Parts { x, b, c, dt, a_log, d }
    }
}

/// First head and places of every task.
fn tasks<'a>(out: ViewMut<'a>, sums: &'a mut [f32], s: Sizes) -> Vec<(usize, Parts<'a>)> {
    let (tokens, inner, states) = (out.rows(), s.heads * s.head_dim, s.groups * s.state);
    let [x, b, c, dt, a_log, d] = out.parts([inner, states, states, s.heads, s.heads, s.heads]);
    let [mut b, mut c] = [b, c].map(|m| m.blocks(tokens, s.state).into_iter().map(|(_, _, block)| block));
    let mut further =
        sums.chunks_exact_mut((tokens * s.state).max(1)).map(|m| ViewMut::new(m, tokens, s.state, s.state));
    let [dt, a_log, d] = [dt, a_log, d].map(|m| s.tasks(m, 1));
    let heads = s.tasks(x, s.head_dim).into_iter().zip(dt).zip(a_log).zip(d);
    let task = |((((first, x), (_, dt)), (_, a_log)), (_, d))| {
        let places = if first % s.heads_of_group() == 0 {
            b.next().zip(c.next())
        } else {
            further.next().zip(further.next())
        };
        let (b, c) = places?;
        Some((first, Parts { x, b, c, dt, a_log, d }))
    };
    heads.filter_map(task).collect()
}

/// Adds the sums of the groups' further tasks to [tokens, B | C], one task after the other.
fn add_sums(out: ViewMut, sums: &[f32], s: Sizes) {
    let (tokens, n, further) = (out.rows(), s.state, tasks_of_group(s) - 1);
    if further == 0 {
        return;
    }
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        for i in 0..out.rows() {
            for (place, y) in out.row(i).chunks_exact_mut(n).enumerate() {
                let (part, group) = (place / s.groups, place % s.groups);
                for task in 0..further {
                    let row = ((group * further + task) * 2 + part) * tokens + first + i;
                    y.iter_mut().zip(&sums[row * n..]).for_each(|(y, x)| *y += x);
                }
            }
        }
    });
}

/// Some heads of one group, over a number of tokens.
#[derive(Clone, Copy)]
struct Grad<'a> {
    task: Task<'a>,
    /// [tokens, heads P]
    dy: View<'a>,
}

impl Grad<'_> {
    fn scan(&self, mut space: Space, mut out: Parts) {
        let (tokens, q, s) = (self.dy.rows(), self.task.s.chunk(), self.task.s);
        self.states(&mut space);
        space.state.panels.fill(0.0);
        let states = std::mem::take(&mut space.states);
        let saved = panels_len(s.line(), s.state);
        for (i, start) in (0..tokens).step_by(q).enumerate().rev() {
            let rows = q.min(tokens - start);
            let chunk = Grad {
                task: self.task.chunk(start, rows),
                dy: self.dy.block(start, rows, 0, self.dy.cols()),
            };
            let entering = i.checked_sub(1).map(|i| &states[i * saved..(i + 1) * saved]);
            chunk.reverse(&mut space, entering, start + rows < tokens, out.chunk(start, rows));
        }
    }

    /// The scan's states at the start of every chunk but the first, transposed.
    fn states(&self, space: &mut Space) {
        let (tokens, q, s) = (self.dy.rows(), self.task.s.chunk(), self.task.s);
        let mut before = None;
        let states = space.states.chunks_exact_mut(panels_len(s.line(), s.state).max(1));
        for (start, after) in (0..tokens).step_by(q).zip(states) {
            let chunk = self.task.chunk(start, q);
            chunk.decays(&mut space.decays);
            Panels::copy(chunk.b, space.panels);
            state_after(&chunk, before, after, &space.decays, space.state.inputs, space.panels);
            before = Some(&*after);
        }
    }

    /// The gradients of one chunk, from the state before it and, where there are tokens after it, the gradient of
    /// the state that leaves it; and then that of the state before it.
    fn reverse(&self, space: &mut Space, entering: Option<&[f32]>, leaves: bool, mut out: Parts) {
        let (task, tokens, q) = (&self.task, self.task.tokens(), self.task.s.chunk());
        let (n, width) = (task.s.state, task.x.cols());
        task.decays(&mut space.decays);
        task.scores(space.panels, space.scores);
        space.mixed.fill(0.0);
        (0..tokens).for_each(|i| out.b.row(i).fill(0.0));
        (0..tokens).for_each(|i| out.c.row(i).fill(0.0));
        if leaves {
            transpose(space.state.panels, task.s, space.back);
            multiply(
                task.b,
                Panels::new(space.state.panels, n, width),
                out.x.block(0, tokens, 0, width),
                false,
            );
        }
        for head in 0..task.d.len() {
            self.pairs(space, head);
            self.flows(space, head, entering, leaves, &mut out);
            self.inputs(space, head, leaves, &mut out.x);
            self.decay_gradients(space, head, &mut out);
        }
        let mixed = View::new(space.mixed, tokens, tokens, q);
        lower_times(mixed, Panels::copy(task.b, space.panels), out.c, true);
        lower_transposed_times(mixed, Panels::copy(task.c, space.panels), out.b, true);
        if entering.is_some() {
            let since = &*space.decays.since;
            task.advance(
                &mut space.state,
                &space.decays,
                task.c,
                self.dy,
                #[inline(always)]
                |at| since[at],
            );
        }
    }

    /// One head's columns.
    fn columns(&self, head: usize) -> (View<'_>, View<'_>) {
        let (tokens, p) = (self.dy.rows(), self.task.s.head_dim);
        (self.task.x.block(0, tokens, head * p, p), self.dy.block(0, tokens, head * p, p))
    }

    /// What hangs on pairs of tokens of the chunk: the decayed scores, W added to that of the heads before, and
    /// their parts of x . du and da.
    fn pairs(&self, space: &mut Space, head: usize) {
        let (tokens, q) = (self.dy.rows(), self.task.s.chunk());
        let (x, dy) = self.columns(head);
        let products = ViewMut::new(space.products, tokens, tokens, q);
        lower_of(dy, Panels::transpose(x, space.panels), products);
        let at = head * q..(head + 1) * q;
        let (decays, columns) = (&space.decays, &mut *space.head.direct);
        let tokens_before = [&*decays.high, &*decays.low, &*decays.dt].map(|x| &x[at.clone()]);
        columns.fill(0.0);
        wide(
            #[inline(always)]
            || {
                for i in (0..tokens).rev() {
                    let row = i * q..(i + 1) * q;
                    let (scores, products) = (&space.scores[row.clone()], &space.products[row.clone()]);
                    let (decayed, mixed) = (&mut space.decayed[row.clone()], &mut space.mixed[row]);
                    space.head.da[i] = pairs_of(i, scores, products, tokens_before, decayed, mixed, columns);
                }
            },
        );
    }

    /// What the state before the chunk and the gradient of the state after it add to dC, dB, x . du and da.
    fn flows(&self, space: &mut Space, head: usize, entering: Option<&[f32]>, leaves: bool, out: &mut Parts) {
        let (tokens, q, p, n) =
            (self.dy.rows(), self.task.s.chunk(), self.task.s.head_dim, self.task.s.state);
        let (x, dy) = self.columns(head);
        let (decays, of, at) = (&space.decays, &mut space.head, head * q);
        of.inflow.fill(0.0);
        of.outflow.fill(0.0);
        if let Some(state) = entering {
            let state = Panels::new(state, self.task.s.line(), n).rows(head * p, p);
            multiply(dy, state, ViewMut::new(space.rows, tokens, n, n), false);
            wide(
                #[inline(always)]
                || {
                    for i in 0..tokens {
                        let (row, since) = (&space.rows[i * n..(i + 1) * n], decays.since[at + i]);
                        of.inflow[i] = since * add(out.c.row(i), row, since, self.task.c.row(i));
                    }
                },
            );
        }
        if leaves {
            let back = Panels::new(space.back, self.task.s.line(), n);
            multiply(x, back.rows(head * p, p), ViewMut::new(space.rows, tokens, n, n), false);
            wide(
                #[inline(always)]
                || {
                    for j in 0..tokens {
                        let (row, dt) = (&space.rows[j * n..(j + 1) * n], decays.dt[at + j]);
                        let until = decays.until[at + j];
                        let direct = until * add(out.b.row(j), row, dt * until, self.task.b.row(j));
                        of.direct[j] += direct;
                        of.outflow[j] = dt * direct;
                    }
                },
            );
        }
        let mut sum = match entering {
            Some(state) if leaves => {
                f64::from(decays.since[at + tokens - 1]) * head_dot(state, space.back, self.task.s, head)
            }
            _ => 0.0,
        };
        for t in (0..tokens).rev() {
            sum += f64::from(of.inflow[t]);
            of.da[t] += sum as f32;
        }
        sum = 0.0;
        for t in 0..tokens {
            of.da[t] += sum as f32;
            sum += f64::from(of.outflow[t]);
        }
    }

    /// dx of one head; it holds B G, where the state leaves the chunk.
    fn inputs(&self, space: &mut Space, head: usize, leaves: bool, out: &mut ViewMut) {
        let (tokens, q, p) = (self.dy.rows(), self.task.s.chunk(), self.task.s.head_dim);
        let (_, dy) = self.columns(head);
        let decayed = View::new(space.decayed, tokens, tokens, q);
        let within = ViewMut::new(space.rows, tokens, p, p);
        lower_transposed_times(decayed, Panels::copy(dy, space.panels), within, false);
        let (decays, at, d) = (&space.decays, head * q, self.task.d[head]);
        wide(
            #[inline(always)]
            || {
                for j in 0..tokens {
                    let (dt, until) = (decays.dt[at + j], decays.until[at + j]);
                    let dx = &mut out.row(j)[head * p..(head + 1) * p];
                    let rows = dx.iter_mut().zip(&space.rows[j * p..(j + 1) * p]).zip(dy.row(j));
                    for ((dx, within), dy) in rows {
                        let after = if leaves { until * *dx } else { 0.0 };
                        *dx = dt * (within + after) + d * dy;
                    }
                }
            },
        );
    }

    /// ddt, and what every token gives to the gradients of A_log and D.
    fn decay_gradients(&self, space: &mut Space, head: usize, out: &mut Parts) {
        let (tokens, q, (lo, hi)) = (self.dy.rows(), self.task.s.chunk(), self.task.limits());
        let slope = &mut space.head.slope[..tokens];
        for (i, slope) in slope.iter_mut().enumerate() {
            *slope = self.task.dt.row(i)[head] + self.task.dt_bias[head];
        }
        wide(
            #[inline(always)]
            || {
                for slope in &mut *slope {
                    let (dt, sigmoid) = (softplus(*slope), 1.0 / (1.0 + exp(-*slope)));
                    *slope = if dt < lo || dt > hi { 0.0 } else { sigmoid };
                }
            },
        );
        let rate = self.task.rate(head);
        for (t, slope) in slope.iter().enumerate() {
            let by_rate = (rate * f64::from(space.head.da[t])) as f32;
            out.dt.row(t)[head] = (space.head.direct[t] + by_rate) * slope;
            out.a_log.row(t)[head] = by_rate * space.decays.dt[head * q + t];
            out.d.row(t)[head] = space.products[t * q + t];
        }
    }
}

/// The transposed state after a whole chunk, S'^T = exp(s[last]) S^T + (exp(s[last] - s) dt x)^T B, from that before
/// it, in panels; none is zero. `b` holds B in panels, and `inputs` has room for what B is multiplied with.
fn state_after(
    chunk: &Task,
    before: Option<&[f32]>,
    after: &mut [f32],
    decays: &Decays,
    inputs: &mut [f32],
    b: &[f32],
) {
    let (s, q, p, width) = (chunk.s, chunk.s.chunk(), chunk.s.head_dim, chunk.x.cols());
    wide(
        #[inline(always)]
        || {
            for (k, line) in inputs.chunks_exact_mut(s.line()).enumerate() {
                let heads = line.chunks_exact_mut(p).zip(chunk.x.row(k).chunks_exact(p)).enumerate();
                for (head, (line, x)) in heads {
                    let weight = decays.dt[head * q + k] * decays.until[head * q + k];
                    for (y, x) in line.iter_mut().zip(x) {
                        *y = x * weight;
                    }
                }
            }
            let Some(before) = before else { return after.fill(0.0) };
            let panels = s.line() * PANEL;
            for (after, before) in after.chunks_exact_mut(panels).zip(before.chunks_exact(panels)) {
                let heads = after.chunks_exact_mut(p * PANEL).zip(before.chunks_exact(p * PANEL));
                for (head, (after, before)) in heads.enumerate().take(width / p) {
                    let decay = decays.since[head * q + q - 1];
                    for (y, x) in after.iter_mut().zip(before) {
                        *y = decay * x;
                    }
                }
            }
        },
    );
    let inputs = View::new(inputs, q, width, s.line());
    let panels = after.chunks_exact_mut(s.line() * PANEL).zip(b.chunks_exact(q * PANEL)).enumerate();
    for (i, (after, b)) in panels {
        let cols = PANEL.min(s.state - i * PANEL);
        let after = ViewMut::new(after, width, cols, PANEL);
        multiply_transposed(inputs, Panels::new(b, q, cols), after, true);
    }
}

/// Panels of the transposed of a state's panels.
fn transpose(state: &[f32], s: Sizes, transposed: &mut [f32]) {
    let (n, line) = (s.state, s.line());
    for (p, panel) in state.chunks_exact(n * PANEL).enumerate() {
        let panel = View::new(panel, n, PANEL, PANEL);
        for (q, first) in (0..n).step_by(PANEL).enumerate() {
            let at = (q * line + p * PANEL) * PANEL;
            let rows = panel.block(first, PANEL.min(n - first), 0, PANEL);
            transpose_panel(rows, &mut transposed[at..at + PANEL * PANEL]);
        }
    }
}

/// The product of one head's elements of two transposed states.
fn head_dot(a: &[f32], b: &[f32], s: Sizes, head: usize) -> f64 {
    let panels = (0..s.state.div_ceil(PANEL)).map(|q| (q * s.line() + head * s.head_dim) * PANEL);
    let parts = panels.map(|at| at..at + s.head_dim * PANEL);
    wide(
        #[inline(always)]
        || {
            let mut sum = 0.0;
            for part in parts {
                sum += dot(&a[part.clone()], &b[part]);
            }
            sum
        },
    )
}

/// Token i with those before it, once this was done for all tokens after i: row i of the scores times exp(s[i] -
/// s[j]), with zeros up to the diagonal block's end, and of W, which is added. `columns` gathers the decayed scores
/// times (dy[i] . x[j]) over i. The result is sum_{j < t <= i} of them times dt[j], for t = i: the decay at t is in all
/// of these.
#[inline(always)]
fn pairs_of(
    i: usize,
    scores: &[f32],
    products: &[f32],
    [high, low, dt]: [&[f32]; 3],
    decayed: &mut [f32],
    mixed: &mut [f32],
    columns: &mut [f32],
) -> f32 {
    let (high_i, low_i) = (high[i], low[i]);
    let mut sums = [0.0; LANES];
    for (block, sums_of) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(i / LANES + 1) {
        let lanes = |x: &[f32]| x.as_chunks::<LANES>().0[block];
        let (scores, products, dt) = (lanes(scores), lanes(products), lanes(dt));
        let (high, low) = (lanes(high), lanes(low));
        let decayed = &mut decayed.as_chunks_mut::<LANES>().0[block];
        let mixed = &mut mixed.as_chunks_mut::<LANES>().0[block];
        for l in 0..LANES {
            let j = block * LANES + l;
            // Positive only for tokens to come.
            let exponent = (high_i - high[l]) + (low_i - low[l]);
            let decay = exp(if exponent > 0.0 { 0.0 } else { exponent });
            let score = scores[l] * decay;
            let (product, pair) = (products[l] * dt[l] * decay, score * products[l]);
            decayed[l] = if j <= i { score } else { 0.0 };
            mixed[l] += if j <= i { product } else { 0.0 };
            sums_of[l] += if j <= i { pair } else { 0.0 };
            sums[l] += if j < i { dt[l] * sums_of[l] } else { 0.0 };
        }
    }
    decayed[i + 1..(i + 1).next_multiple_of(ROWS)].fill(0.0);
    fold(sums)
}

/// y += weight x; x . z
#[inline(always)]
fn add(y: &mut [f32], x: &[f32], weight: f32, z: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (ys, y_rest) = y.as_chunks_mut::<LANES>();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (zs, z_rest) = z.as_chunks::<LANES>();
    for ((y, x), z) in ys.iter_mut().zip(xs).zip(zs) {
        // Copies, because the compiler fears that y overlaps the others.
        let (x, z) = (*x, *z);
        for l in 0..LANES {
            y[l] += weight * x[l];
        }
        for l in 0..LANES {
            sums[l] += x[l] * z[l];
        }
    }
    for (((y, x), z), sum) in y_rest.iter_mut().zip(x_rest).zip(z_rest).zip(&mut sums) {
        *y += weight * x;
        *sum += x * z;
    }
    fold(sums)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for l in 0..n {
            lanes[l] += lanes[l + n];
        }
        n /= 2;
    }
    lanes[0]
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let s = Sizes::of(op);
    let (tokens, p_max, n_max) = (operands[0].rows(), s.head_dim, s.state);
    let [x, dt_raw, b, c] = [0, 1, 2, 3].map(|i| &operands[i]);
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| operands[i].data());
    let dy = &operands[7];
    let (inner, width) = (s.heads * p_max, s.groups * n_max);
    let (b_at, c_at, dt_at) = (inner, inner + width, inner + 2 * width);
    let cols = dt_at + 3 * s.heads;
    let mut out = vec![0.0; tokens * cols];
    for h in 0..s.heads {
        let g = h / (s.heads / s.groups);
        let softplus = |t: usize| (dt_raw.row(t)[h] + dt_bias[h]).exp().ln_1p();
        let dt = |t: usize| softplus(t).clamp(s.dt_lo, s.dt_hi);
        let rate = -a_log[h].exp();
        let decay = |t: usize| (rate * dt(t)).exp();
        // The state before every token, and after the last.
        let mut states = vec![vec![0.0; p_max * n_max]];
        for t in 0..tokens {
            let next = |i: usize| {
                let (x, b) = (x.row(t)[h * p_max + i / n_max], b.row(t)[g * n_max + i % n_max]);
                decay(t) * states[t][i] + dt(t) * x * b
            };
            states.push((0..p_max * n_max).map(next).collect());
        }
        let mut gradient = vec![0.0; p_max * n_max];
        for t in (0..tokens).rev() {
            let out = &mut out[t * cols..(t + 1) * cols];
            let (mut by_dt, mut by_decay) = (0.0, 0.0);
            for (i, gradient) in gradient.iter_mut().enumerate() {
                let (p, n) = (h * p_max + i / n_max, g * n_max + i % n_max);
                let (x, b, c, dy) = (x.row(t)[p], b.row(t)[n], c.row(t)[n], dy.row(t)[p]);
                *gradient += dy * c;
                out[c_at + n] += dy * states[t + 1][i];
                out[b_at + n] += *gradient * dt(t) * x;
                out[p] += *gradient * dt(t) * b;
                by_dt += *gradient * x * b;
                by_decay += *gradient * states[t][i];
                *gradient *= decay(t);
            }
            for p in h * p_max..(h + 1) * p_max {
                out[p] += d[h] * dy.row(t)[p];
                out[dt_at + 2 * s.heads + h] += dy.row(t)[p] * x.row(t)[p];
            }
            let by_exponent = by_decay * decay(t);
            let passes = (s.dt_lo..=s.dt_hi).contains(&softplus(t));
            let slope = if passes { 1.0 / (1.0 + (-dt_raw.row(t)[h] - dt_bias[h]).exp()) } else { 0.0 };
            out[dt_at + h] = (by_dt + by_exponent * rate) * slope;
            out[dt_at + s.heads + h] = by_exponent * rate * dt(t);
        }
    }
    out
}
