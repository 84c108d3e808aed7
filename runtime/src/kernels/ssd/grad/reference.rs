//! The gradient of the scan in f64, token by token: S[t] = exp(a[t]) S[t-1] + dt x B^T, y = S C + D x in reverse.

use super::Sizes;
use crate::kernels::Exact;
use minic_compiler::graph::Op;

pub fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
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
