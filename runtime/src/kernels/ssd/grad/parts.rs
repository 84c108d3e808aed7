//! Where the tasks of the scan's gradient write. dB and dC of a group are sums over its heads: the group's first
//! task writes to the value, its further ones to sums of their own, which are added in order at the end.

use crate::kernels::ViewMut;
use crate::kernels::parallel::{by_rows, row_block};
use crate::kernels::ssd::chunk::Sizes;

/// Tasks to a group.
fn tasks_of_group(s: Sizes) -> usize {
    s.heads_of_group().div_ceil(s.heads_of_task())
}

/// Elements of the sums of the groups' further tasks: [G, further tasks, B | C, tokens, N].
pub fn sums_len(s: Sizes, tokens: usize) -> usize {
    s.groups * (tasks_of_group(s) - 1) * 2 * tokens * s.state
}

/// Where some heads' gradients go, over a number of tokens.
pub struct Parts<'a> {
    pub x: ViewMut<'a>,
    pub b: ViewMut<'a>,
    pub c: ViewMut<'a>,
    pub dt: ViewMut<'a>,
    pub a_log: ViewMut<'a>,
    pub d: ViewMut<'a>,
}

impl Parts<'_> {
    pub fn chunk(&mut self, start: usize, rows: usize) -> Parts<'_> {
        let [x, b, c, dt, a_log, d] =
            [&mut self.x, &mut self.b, &mut self.c, &mut self.dt, &mut self.a_log, &mut self.d].map(|m| {
                let cols = m.cols();
                m.block(start, rows, 0, cols)
            });
        Parts { x, b, c, dt, a_log, d }
    }
}

/// First head and places of every task.
pub fn tasks<'a>(out: ViewMut<'a>, sums: &'a mut [f32], s: Sizes) -> Vec<(usize, Parts<'a>)> {
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
pub fn add_sums(out: ViewMut, sums: &[f32], s: Sizes) {
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
