//! One position of the scan for each of some sequences, which moves their states on: for each head
//! S = exp(-exp(A_log) dt') S + dt' B x^T, S [N, P], and y = C S + D x.

mod shader;

use super::chunk::{Sizes, Task, limit};
use super::scanned;
use crate::kernels::math::{exp, softplus, wide};
use crate::kernels::parallel::{for_each, scratch_size, with_scratch};
use crate::kernels::{Call, Exact, Kernel};
use minic_compiler::graph::Op;

pub const STEP: Kernel =
    Kernel { name: "ssd_step", version: 1, cpu, reference, scratch, tolerance: 2e-6, shaders: shader::STEP };

/// Elements of the states that one task moves on, so that it outweighs its start.
const TASK: usize = 16384;

fn scratch(op: &Op, _: &[(usize, usize)]) -> usize {
    scratch_size(Sizes::of(op).head_dim)
}

fn cpu(mut call: Call) {
    let task = Task::of(&call);
    let (s, states) = (task.s, call.changed());
    let of_head = s.state * s.head_dim;
    let heads = (TASK / of_head.max(1)).clamp(1, s.heads.max(1));
    let tasks = call.out_f32().blocks(1, heads * s.head_dim).into_iter();
    let tasks = tasks.zip(states.blocks(1, heads * of_head)).collect();
    for_each(tasks, |((row, column, mut y), (_, _, mut states))| {
        let heads = y.row(0).chunks_exact_mut(s.head_dim).zip(states.row(0).chunks_exact_mut(of_head));
        with_scratch(s.head_dim, |input| {
            for (i, (y, state)) in heads.enumerate() {
                task.one(row, column / s.head_dim + i, y, state, input);
            }
        });
    });
}

impl Task<'_> {
    /// One head of one sequence: y [P], state [N, P].
    fn one(&self, row: usize, head: usize, y: &mut [f32], state: &mut [f32], input: &mut [f32]) {
        let (n, p) = (self.s.state, self.s.head_dim);
        let states = head / self.s.heads_of_group() * n;
        let [b, c] = [self.b, self.c].map(|m| &m.row(row)[states..states + n]);
        let x = &self.x.row(row)[head * p..(head + 1) * p];
        let (lo, hi) = self.limits();
        let dt = limit(softplus(self.dt.row(row)[head] + self.dt_bias[head]), lo, hi);
        let (decay, d) = (exp((self.rate(head) * f64::from(dt)) as f32), self.d[head]);
        wide(
            #[inline(always)]
            || {
                for ((input, y), x) in input.iter_mut().zip(&mut *y).zip(x) {
                    (*input, *y) = (dt * x, d * x);
                }
                for ((state, b), c) in state.chunks_exact_mut(p).zip(b).zip(c) {
                    for ((s, x), y) in state.iter_mut().zip(&*input).zip(&mut *y) {
                        *s = decay * *s + b * x;
                        *y += c * *s;
                    }
                }
            },
        );
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (mut states, columns) = (operands[7].data().to_vec(), operands[7].cols());
    let one_row = |operand: &Exact, r: usize| {
        let data = operand.row(r).to_vec();
        Exact::F64 { cols: data.len(), rows: 1, data }
    };
    let mut out = Vec::new();
    for r in 0..operands[0].rows() {
        let rows = operands[..4].iter().map(|operand| one_row(operand, r));
        let operands: Vec<Exact> = rows.chain(operands[4..7].iter().cloned()).collect();
        out.extend(scanned(op, &operands, &mut states[r * columns..(r + 1) * columns]));
    }
    out.extend(states);
    out
}
