//! Products of few rows, as decoding has them: every row of the weight is read once, straight from where it lies, and
//! multiplied with all rows of x. Laying the weight out, as products of many rows do, takes longer than that.

use crate::kernels::math::{dot_f32, wide};
use crate::kernels::parallel::by_blocks;
use crate::kernels::{View, ViewMut};

/// Most rows of x: with more of them the sums take longer than the reading.
pub const ROWS: usize = 8;

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
        wide(
            #[inline(always)]
            || {
                for column in 0..out.cols() {
                    let weight = weight.row(first + column);
                    for r in 0..rows {
                        let sum = dot_f32(x.row(r), weight);
                        let y = &mut out.row(r)[column];
                        *y = if accumulate { *y + sum } else { sum };
                    }
                }
            },
        );
    });
}
