//! The covariance of a normalised stream, one workgroup a block of 64 x 64 of it. Products of 32 positions are summed
//! in f32, and those sums in pairs.

use super::super::Shaders;
use super::constants;
use crate::shader::common::{PAIRS, TOTAL, column, rowwise};
use crate::shader::{Call, Plan, Source, Unfit, cuts};

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 1e-6 };

const SCALE: &str = "
    var squares = 0.0;
    for (var c = lane; c < p.cols; c += 64u) { squares += x(r, c) * x(r, c); }
    let scale = 1.0 / sqrt(total(squares, lane) / f32(p.cols) + p.eps);
    if (lane == 0u) { set_out(r, 0u, scale); }";

/// Rows and columns of the value that a workgroup takes, and positions between two sums.
const BLOCK: usize = 64;
const RUN: usize = 32;

/// Four neighbouring rows of an invocation are one vector. Blocks above the diagonal stay zero.
const BODY: &str = "
    let across = (p.cols + 63u) / 64u;
    let row = p.first + group / across * 64u;
    let col = group % across * 64u;
    var sums: array<array<vec2<f32>, 4>, 4>;
    for (var t = 0u; t < p.positions && col < row + 64u; t += 32u) {
        workgroupBarrier();
        for (var i = lane; i < 32u * 64u; i += 256u) { slice[i] = u(t + i / 64u, col + i % 64u); }
        for (var i = lane; i < 32u * 16u; i += 256u) {
            let s = t + i / 16u;
            let c = row + i % 16u * 4u;
            tile[i] = vec4(u(s, c), u(s, c + 1u), u(s, c + 2u), u(s, c + 3u));
        }
        workgroupBarrier();
        var products: array<vec4<f32>, 4>;
        for (var k = 0u; k < 32u; k++) {
            let four = tile[k * 16u + lane / 16u];
            for (var j = 0u; j < 4u; j++) { products[j] += four * slice[k * 64u + 16u * j + lane % 16u]; }
        }
        for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j < 4u; j++) { sums[i][j] = pair_add(sums[i][j], products[j][i]); }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let m = row + lane / 16u * 4u + i;
            let n = col + 16u * j + lane % 16u;
            if (m >= p.end || n >= p.cols) { continue; }
            if (p.adds == 0u) {
                set_out(m - p.first, n, select(vec2(0.0, 0.0), sums[i][j], n <= m));
            } else if (n <= m) {
                set_out(m - p.first, n, pair_sum(out(m - p.first, n), sums[i][j]));
            }
        }
    }";

/// A normalised element, zero beyond the matrix.
const U: &str = "
fn u(t: u32, c: u32) -> f32 {
    if (t >= p.positions || c >= p.cols) { return 0.0; }
    return x(t, c) * scale(t, 0u);
}";

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((eps, onto), x, out) = (constants(call.op), &call.args[0], call.out);
    let scales = column(plan, x.rows);
    let parameters = |source: Source| source.u32("cols", x.cols).f32("eps", eps).with(TOTAL);
    rowwise(plan, "covariance_scales", &scales, &[("x", x)], &[], parameters, SCALE)?;
    for (i, positions) in cuts(&[x, &scales], x.rows, RUN, plan.caps)?.into_iter().enumerate() {
        for rows in cuts(&[out], out.rows, BLOCK, plan.caps)? {
            let source = Source::new("covariance", 256)
                .read("x", &x.rows(positions.clone()))
                .read("scale", &scales.rows(positions.clone()))
                .write("out", &out.rows(rows.clone()))
                .u32("positions", positions.len())
                .u32("cols", x.cols)
                .u32("first", rows.start)
                .u32("end", rows.end)
                .u32("adds", usize::from(onto || i > 0))
                .shared("tile", "vec4<f32>", RUN * BLOCK / 4)
                .shared("slice", "f32", RUN * BLOCK)
                .with(PAIRS)
                .with(U)
                .body(BODY);
            plan.run(source, rows.len().div_ceil(BLOCK) * x.cols.div_ceil(BLOCK));
        }
    }
    Ok(())
}
