//! AdamW's step and the norm of gradients as shaders; no operations of a graph.

use super::{Factors, Update};
use crate::shader::common::PAIRS;
use crate::shader::{Elem, Mat, Memory, Plan, Source};

const LANES: usize = 256;

/// Pieces of a vector that one binding holds, none of which crosses a page.
fn pieces(len: usize, page: usize, plan: &Plan) -> Vec<(usize, usize)> {
    let most = plan.caps.reach().min(page);
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < len {
        let count = most.min(page - first % page).min(len - first);
        pieces.push((first, count));
        first += count;
    }
    pieces
}

/// One step for one weight, all of the four as one row.
pub fn adamw(
    plan: &mut Plan,
    [weight, gradient, mean, square]: [&Mat; 4],
    weight_decay: f64,
    update: &Update,
) {
    let Factors { scale, mean: (keep_m, take_m), square: (keep_v, take_v), correction, eps, step, shrink } =
        Factors::of(update, weight_decay);
    for (first, count) in pieces(weight.cols, weight.page, plan) {
        let of = |mat: &Mat| mat.columns(first, count);
        let mut source = Source::new("adamw", LANES)
            .write("w", &of(weight))
            .read("g", &of(gradient))
            .write("m", &of(mean))
            .write("v", &of(square))
            .u32("count", count);
        for (name, value) in [
            ("scale", scale),
            ("keep_m", keep_m),
            ("take_m", take_m),
            ("keep_v", keep_v),
            ("take_v", take_v),
            ("correction", correction),
            ("eps", eps),
            ("step", step),
            ("shrink", shrink),
        ] {
            source = source.f32(name, f64::from(value));
        }
        source = source.body(
            "    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let slope = p.scale * g(0u, i);
    let average = p.keep_m * m(0u, i) + p.take_m * slope;
    let squares = p.keep_v * v(0u, i) + p.take_v * (slope * slope);
    set_m(0u, i, average);
    set_v(0u, i, squares);
    let weight = w(0u, i);
    set_w(0u, i, weight - (p.shrink * weight + p.step * average / (sqrt(squares) * p.correction + p.eps)));",
        );
        plan.run(source, count.div_ceil(LANES));
    }
}

/// Elements that one workgroup adds up.
const SHARE: usize = 1 << 14;

/// The sums of squares of pieces of all matrices, as pairs in [`Memory::Scratch`]; how many there are.
pub fn square_sums(plan: &mut Plan, mats: &[Mat]) -> usize {
    let mut sums = 0;
    for mat in mats {
        for (first, count) in pieces(mat.cols, mat.page, plan) {
            let groups = count.div_ceil(SHARE);
            let out = Mat::new(Memory::Scratch, Elem::Pair, sums, 1, groups, groups);
            let source = Source::new("square_sums", LANES)
                .read("x", &mat.columns(first, count))
                .write("out", &out)
                .u32("count", count)
                .with(PAIRS)
                .shared("sums", "vec2<f32>", LANES)
                .body(&format!(
                    "    var sum = vec2(0.0, 0.0);
    let end = min(p.count, (group + 1u) * {SHARE}u);
    for (var i = group * {SHARE}u + lane; i < end; i += 256u) {{ sum = pair_add(sum, x(0u, i) * x(0u, i)); }}
    sums[lane] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {{
        if (lane < half) {{ sums[lane] = pair_sum(sums[lane], sums[lane + half]); }}
        workgroupBarrier();
    }}
    if (lane == 0u) {{ set_out(0u, group, sums[0]); }}"
                ));
            plan.run(source, groups);
            sums += groups;
        }
    }
    sums
}
