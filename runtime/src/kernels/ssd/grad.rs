//! The gradient of the state space duality scan by each of its operands, from the last chunk to the first.
//!
//! Within a chunk, with s the running sum of a = -exp(A_log) dt since it began, S the state before it, G the
//! gradient of the loss by the state after it, u = dt x, and L[i, j] = exp(s[i] - s[j]) for j <= i:
//! W[i, j] = (dy[i] . u[j]) L[i, j]
//! dC[i] = sum_{j <= i} W[i, j] B[j] + exp(s[i]) dy[i] S^T, summed over the group's heads
//! dB[j] = sum_{i >= j} W[i, j] C[i] + exp(s[last] - s[j]) u[j] G^T, summed over the group's heads
//! du[j] = sum_{i >= j} (C[i] . B[j]) L[i, j] dy[i] + exp(s[last] - s[j]) B[j] G
//! dx[j] = dt[j] du[j] + D dy[j],  dD[j] = dy[j] . x[j],  ddt[j] = x[j] . du[j] - exp(A_log) da[j]
//! da[t] = sum_{j < t <= i} (C[i] . B[j]) W[i, j] + sum_{i >= t} exp(s[i]) (C[i] S) . dy[i]
//!       + sum_{j < t} exp(s[last] - s[j]) (B[j] G) . u[j] + exp(s[last]) S . G
//! The gradient by the state before: exp(s[last]) G + sum_i exp(s[i]) C[i]^T dy[i]
//!
//! da[t] adds nothing but what passes through the decay at t. The shorter form, running sums of dy . y - u . du,
//! is a difference of large numbers where decays are strong.
//!
//! The scan stores nothing. Its states at the chunks' starts are computed again first, transposed.

mod parts;
mod reference;
mod shader;
mod space;
#[cfg(test)]
mod tests;

use super::chunk::{Decays, LANES, Sizes, Task};
use super::lower::{ROWS, lower_of, lower_times, lower_transposed_times};
use crate::kernels::gemm::{PANEL, Panels, multiply, multiply_transposed, panels_len, transpose_panel};
use crate::kernels::math::{dot, exp, softplus, wide};
use crate::kernels::parallel::{for_each, scratch_size, with_scratch};
use crate::kernels::{Call, Kernel, View, ViewMut};
use minic_compiler::graph::Op;
use parts::{Parts, add_sums, sums_len, tasks};
use reference::reference;
use space::Space;

pub const GRAD: Kernel =
    Kernel { name: "ssd_grad", version: 1, cpu, reference, scratch, tolerance: 2e-5, shaders: shader::GRAD };

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

    /// The gradients of one chunk, from the state before it and, where tokens come after it, the gradient of the
    /// state after it; then the gradient of the state before it.
    fn reverse(&self, space: &mut Space, entering: Option<&[f32]>, leaves: bool, mut out: Parts) {
        let (task, tokens) = (&self.task, self.task.tokens());
        task.decays(&mut space.decays);
        task.scores(space.panels, space.scores);
        space.mixed.fill(0.0);
        (0..tokens).for_each(|i| out.b.row(i).fill(0.0));
        (0..tokens).for_each(|i| out.c.row(i).fill(0.0));
        if leaves {
            let (n, width) = (task.s.state, task.x.cols());
            transpose(space.state.panels, task.s, space.back);
            let state = Panels::new(space.state.panels, n, width);
            multiply(task.b, state, out.x.block(0, tokens, 0, width), false);
        }
        for head in 0..task.d.len() {
            self.head(space, head, entering, leaves, &mut out);
        }
        let mixed = View::new(space.mixed, tokens, tokens, task.s.chunk());
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

    /// All gradients of one head, but what W gives to dB and dC.
    fn head(&self, space: &mut Space, head: usize, entering: Option<&[f32]>, leaves: bool, out: &mut Parts) {
        self.pairs(space, head);
        space.head.inflow.fill(0.0);
        space.head.outflow.fill(0.0);
        if let Some(state) = entering {
            self.entering(space, head, state, &mut out.c);
        }
        if leaves {
            self.leaving(space, head, &mut out.b);
        }
        self.flows(space, head, entering, leaves);
        self.inputs(space, head, leaves, &mut out.x);
        self.decay_gradients(space, head, out);
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

    /// What the state before the chunk gives to dC, and the inflow.
    fn entering(&self, space: &mut Space, head: usize, state: &[f32], dc: &mut ViewMut) {
        let (tokens, s) = (self.dy.rows(), self.task.s);
        let (p, n, at) = (s.head_dim, s.state, head * s.chunk());
        let state = Panels::new(state, s.line(), n).rows(head * p, p);
        let (_, dy) = self.columns(head);
        let (since, inflow) = (&space.decays.since[at..at + tokens], &mut *space.head.inflow);
        multiply(dy, state, ViewMut::new(space.rows, tokens, n, n), false);
        wide(
            #[inline(always)]
            || {
                for (i, row) in space.rows.chunks_exact(n).take(tokens).enumerate() {
                    inflow[i] = since[i] * add(dc.row(i), row, since[i], self.task.c.row(i));
                }
            },
        );
    }

    /// What the gradient of the state after the chunk gives to dB, and to x . du, and the outflow.
    fn leaving(&self, space: &mut Space, head: usize, db: &mut ViewMut) {
        let (tokens, s) = (self.dy.rows(), self.task.s);
        let (p, n, at) = (s.head_dim, s.state, head * s.chunk());
        let state = Panels::new(space.back, s.line(), n).rows(head * p, p);
        let (x, _) = self.columns(head);
        let (dt, until) = (&space.decays.dt[at..at + tokens], &space.decays.until[at..at + tokens]);
        let (direct, outflow) = (&mut *space.head.direct, &mut *space.head.outflow);
        multiply(x, state, ViewMut::new(space.rows, tokens, n, n), false);
        wide(
            #[inline(always)]
            || {
                for (j, row) in space.rows.chunks_exact(n).take(tokens).enumerate() {
                    let after = until[j] * add(db.row(j), row, dt[j] * until[j], self.task.b.row(j));
                    direct[j] += after;
                    outflow[j] = dt[j] * after;
                }
            },
        );
    }

    /// What passes through the decay at each token from the state before the chunk, to that after it, or both.
    fn flows(&self, space: &mut Space, head: usize, entering: Option<&[f32]>, leaves: bool) {
        let (tokens, s) = (self.dy.rows(), self.task.s);
        let da = &mut space.head.da[..tokens];
        let mut sum = 0.0;
        if let (Some(state), true) = (entering, leaves) {
            let decay = space.decays.since[head * s.chunk() + tokens - 1];
            sum = f64::from(decay) * head_dot(state, space.back, s, head);
        }
        for (da, inflow) in da.iter_mut().zip(&*space.head.inflow).rev() {
            sum += f64::from(*inflow);
            *da += sum as f32;
        }
        sum = 0.0;
        for (da, outflow) in da.iter_mut().zip(&*space.head.outflow) {
            *da += sum as f32;
            sum += f64::from(*outflow);
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

/// The transposed state after a whole chunk, S'^T = exp(s[last]) S^T + (exp(s[last] - s) dt x)^T B, from that
/// before it, if any, in panels. `b` holds B in panels, and `inputs` has room for what is multiplied with it.
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

/// Token i with those before it, once this was done for all tokens after i: row i of the scores times
/// exp(s[i] - s[j]), with zeros up to the diagonal block's end, and of W, which is added. `columns` gathers the
/// decayed scores times dy[i] . x[j] over i; the result is the sum of columns[j] dt[j] over j < i, all of which
/// passes through the decay at i.
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
