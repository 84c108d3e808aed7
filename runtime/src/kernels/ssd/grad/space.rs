//! The scratch of a task of the scan's gradient.

use crate::kernels::gemm::panels_len;
use crate::kernels::ssd::chunk::{Decays, Sizes, State, carve};

/// The scratch of one task.
pub struct Space<'a> {
    /// S^T [heads P, N] in panels, for every chunk but the first.
    pub states: &'a mut [f32],
    /// The gradient of the state. What is multiplied to get the states comes into its `inputs`, too.
    pub state: State<'a>,
    /// Panels of the gradient of the state, transposed.
    pub back: &'a mut [f32],
    pub decays: Decays<'a>,
    /// C B^T [Q, Q], shared by the heads.
    pub scores: &'a mut [f32],
    /// dy x^T of one head [Q, Q].
    pub products: &'a mut [f32],
    /// The scores times one head's decays [Q, Q].
    pub decayed: &'a mut [f32],
    /// W, summed over the heads [Q, Q].
    pub mixed: &'a mut [f32],
    /// Panels of B^T [N, Q], then of one head's x^T [P, Q] and dy [Q, P], then of B and of C [Q, N].
    pub panels: &'a mut [f32],
    /// dy S^T, then x G^T, of one head [Q, N]; and its part of du from within the chunk [Q, P].
    pub rows: &'a mut [f32],
    /// Of one head, a number for each token.
    pub head: PerToken<'a>,
}

/// What one head's tokens have, [Q] each.
pub struct PerToken<'a> {
    /// x . du
    pub direct: &'a mut [f32],
    pub da: &'a mut [f32],
    /// exp(s[i]) (C[i] S) . dy[i]
    pub inflow: &'a mut [f32],
    /// exp(s[last] - s[j]) (B[j] G) . u[j]
    pub outflow: &'a mut [f32],
    /// The derivative of dt by the number before bias and softplus.
    pub slope: &'a mut [f32],
}

impl<'a> Space<'a> {
    pub fn lengths(s: Sizes, tokens: usize) -> [usize; 21] {
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

    pub fn carve(space: &'a mut [f32], s: Sizes, tokens: usize) -> Space<'a> {
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
