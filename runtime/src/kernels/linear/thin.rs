//! Products of few rows, as decoding has them: every row of the weight is read once, straight from where it lies, and
//! multiplied with all rows of x. Laying the weight out, as products of many rows do, takes longer than that.

use crate::kernels::math::{dots, wide};
use crate::kernels::parallel::by_blocks;
use crate::kernels::{View, ViewMut};

/// Most rows of x: with more of them the sums take longer than the reading.
pub const ROWS: usize = 8;

/// Rows of x that are multiplied at once, their running sums in registers.
const TOGETHER: usize = 4;

/// Elements of the weight that one task reads, so that it outweighs its start.
const TASK: usize = 1 << 16;

/// out (+)= x weight^T by blocks of columns, side by side, as [`crate::kernels::product::products`] does it.
pub fn thin(
    x: View,
    weight: View,
    out: ViewMut,
    accumulate: bool,
    start: impl Fn(usize, &mut ViewMut) + Sync,
) {
    let rows = out.rows();
    by_blocks(out, rows, TASK.div_ceil(weight.cols().max(1)), |_, first, mut out| {
        start(first, &mut out);
        for column in 0..out.cols() {
            let weight = weight.row(first + column);
            for r in (0..rows).step_by(TOGETHER) {
                let sums = sums(x, r, weight);
                for (i, sum) in sums.into_iter().enumerate().take(rows - r) {
                    let y = &mut out.row(r + i)[column];
                    *y = if accumulate { *y + sum } else { sum };
                }
            }
        }
    });
}

/// x[r + i] . weight, for as many rows as there are.
fn sums(x: View, r: usize, weight: &[f32]) -> [f32; TOGETHER] {
    let row = |i: usize| x.row((r + i).min(x.rows() - 1));
    wide(
        #[inline(always)]
        || match x.rows() - r {
            1 => [dots([row(0)], weight)[0], 0.0, 0.0, 0.0],
            2 => {
                let [a, b] = dots([row(0), row(1)], weight);
                [a, b, 0.0, 0.0]
            }
            _ => dots([row(0), row(1), row(2), row(3)], weight),
        },
    )
}
