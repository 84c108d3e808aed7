//! The state space duality scan of Mamba2 (arXiv:2405.21060).

use super::math::{exp, softplus, wide};
use super::parallel::{by_blocks, scratch_size, with_scratch};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel { name: "ssd", cpu, reference, scratch, tolerance: 2e-5 };

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    head_dim: usize,
    groups: usize,
    state: usize,
    dt_lo: f64,
    dt_hi: f64,
}

fn sizes(op: &Op) -> Sizes {
    match *op {
        Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
            Sizes { heads, head_dim, groups, state, dt_lo, dt_hi }
        }
        _ => panic!("bug: `{}` is no ssd", op.name()),
    }
}

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    let s = sizes(op);
    scratch_size(s.head_dim * s.state)
}

fn cpu(call: Call) {
    let s = sizes(call.op);
    let [x, dt, b, c] = [0, 1, 2, 3].map(|i| call.f32(i));
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| call.f32(i).row(0));
    let out = call.out_f32();
    let rows = out.rows();
    by_blocks(out, rows, s.head_dim, |_, column, out| {
        let h = column / s.head_dim;
        let g = h / (s.heads / s.groups);
        let x = x.block(0, rows, column, s.head_dim);
        let dt = dt.block(0, rows, h, 1);
        let [b, c] = [b, c].map(|m| m.block(0, rows, g * s.state, s.state));
        with_scratch(s.head_dim * s.state, |state| {
            scan(s, [x, dt, b, c], [dt_bias[h], a_log[h], d[h]], state, out)
        });
    });
}

/// One head, token by token.
fn scan(
    s: Sizes,
    [x, dt, b, c]: [View; 4],
    [dt_bias, a_log, d]: [f32; 3],
    state: &mut [f32],
    mut out: ViewMut,
) {
    wide(
        #[inline(always)]
        || {
            state.fill(0.0);
            for t in 0..x.rows() {
                let dt = softplus(dt.row(t)[0] + dt_bias).clamp(s.dt_lo as f32, s.dt_hi as f32);
                let decay = exp(-a_log.exp() * dt);
                for (p, state) in state.chunks_exact_mut(s.state).enumerate() {
                    let x = x.row(t)[p];
                    let mut y = 0.0;
                    for ((state, b), c) in state.iter_mut().zip(b.row(t)).zip(c.row(t)) {
                        *state = *state * decay + dt * x * b;
                        y += *state * c;
                    }
                    out.row(t)[p] = y + d * x;
                }
            }
        },
    )
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let s = sizes(op);
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
