//! Text that several shaders share, and the ways in which most of them go over their operands.

use super::{Elem, Mat, Plan, Source, Unfit, cuts};

/// Invocations of a workgroup that takes a row, or a piece of a vector.
pub const LANES: usize = 64;

/// `total(x, lane)`: the sum of x over the 64 invocations of the workgroup, the same bits in every one of them. Needs
/// `shared("totals", "f32", 64)`, and is called by all of them.
pub const TOTAL: &str = "
fn total(x: f32, lane: u32) -> f32 {
    workgroupBarrier();
    totals[lane] = x;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) { totals[lane] += totals[lane + half]; }
        workgroupBarrier();
    }
    return totals[0];
}";

/// `most(x, lane)`: the largest x of the workgroup, as [`TOTAL`].
pub const MOST: &str = "
fn most(x: f32, lane: u32) -> f32 {
    workgroupBarrier();
    totals[lane] = x;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) { totals[lane] = max(totals[lane], totals[lane + half]); }
        workgroupBarrier();
    }
    return totals[0];
}";

/// By its bits, because Mesa takes x != x for false.
pub const IS_NAN: &str =
    "fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }";

/// Numbers of twice f32's digits as pairs (Knuth's sum of two f32, whose rounding is exact in f32). `as_it_is(x)` is x
/// by a way that compilers do not see through: Mesa's takes (a + b) - a for b.
pub const PAIRS: &str = "
fn as_it_is(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) ^ (p.groups >> 31u)); }
fn pair_add(sum: vec2<f32>, x: f32) -> vec2<f32> {
    let s = as_it_is(sum.x + x);
    let b = as_it_is(s - sum.x);
    let rest = sum.y + (as_it_is(sum.x - as_it_is(s - b)) + as_it_is(x - b));
    let high = as_it_is(s + rest);
    return vec2(high, rest - as_it_is(high - s));
}
fn pair_sum(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return pair_add(pair_add(a, b.x), b.y);
}";

/// 1 / (1 + e^-x), x times it, and the slope of that.
pub const SIGMOID: &str = "
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }
fn silu(x: f32) -> f32 { return x * sigmoid(x); }
fn silu_slope(x: f32) -> f32 { let s = sigmoid(x); return s + x * s * (1.0 - s); }";

/// What a shader is bound to that goes over rows: matrices of those rows, and vectors, which are read as row 0.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    pub rows: &'a [(&'static str, &'a Mat)],
    pub vectors: &'a [(&'static str, &'a Mat)],
    /// Bound as `out`.
    pub out: Option<&'a Mat>,
}

/// Cuts rows to what bindings hold, and runs what `finish` makes of a source with the operands and of the number of
/// rows: the source with its body, and how many workgroups it takes.
pub fn by_rows(
    plan: &mut Plan,
    name: &'static str,
    lanes: usize,
    of: Operands,
    finish: impl Fn(Source, usize) -> (Source, usize),
) -> Result<(), Unfit> {
    let of_rows: Vec<&Mat> = of.rows.iter().map(|(_, mat)| *mat).chain(of.out).collect();
    let count = of_rows.first().map_or(0, |mat| mat.rows);
    for rows in cuts(&of_rows, count, 1, plan.caps)? {
        let mut source = Source::new(name, lanes);
        for (name, mat) in of.rows {
            source = source.read(name, &mat.rows(rows.clone()));
        }
        for (name, mat) in of.vectors {
            source = source.read(name, &mat.flat());
        }
        if let Some(out) = of.out {
            source = source.write("out", &out.rows(rows.clone()));
        }
        let (source, groups) = finish(source, rows.len());
        plan.run(source, groups);
    }
    Ok(())
}

/// `value`, an expression in r and c, of every element of `out`.
pub fn elementwise(
    plan: &mut Plan,
    name: &'static str,
    out: &Mat,
    rows: &[(&'static str, &Mat)],
    vectors: &[(&'static str, &Mat)],
    functions: &str,
    value: &str,
) -> Result<(), Unfit> {
    by_rows(plan, name, LANES, Operands { rows, vectors, out: Some(out) }, |source, rows| {
        let count = rows * out.cols;
        let source = source.u32("cols", out.cols).u32("count", count).with(functions).body(&format!(
            "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let r = at / p.cols;
    let c = at % p.cols;
    set_out(r, c, {value});"
        ));
        (source, count.div_ceil(LANES))
    })
}

/// One workgroup a row of `out`. The body has `r`, the row; it is run by every invocation of [`LANES`].
pub fn rowwise(
    plan: &mut Plan,
    name: &'static str,
    out: &Mat,
    rows: &[(&'static str, &Mat)],
    vectors: &[(&'static str, &Mat)],
    parameters: impl Fn(Source) -> Source,
    body: &str,
) -> Result<(), Unfit> {
    by_rows(plan, name, LANES, Operands { rows, vectors, out: Some(out) }, |source, rows| {
        let source = parameters(source.shared("totals", "f32", LANES));
        (source.body("    let r = group;").body(body), rows)
    })
}

/// Columns of a workgroup, and the invocations that share each of them.
const COLS: usize = 32;
const SHARES: usize = 8;

/// gradient(c) += the sum over rows of `term`, an expression in r and c.
pub fn column_sums(
    plan: &mut Plan,
    name: &'static str,
    gradient: &Mat,
    rows: &[(&'static str, &Mat)],
    parameters: impl Fn(Source) -> Source,
    term: &str,
) -> Result<(), Unfit> {
    let gradient = gradient.flat();
    by_rows(plan, name, COLS * SHARES, Operands { rows, vectors: &[], out: None }, |source, rows| {
        let source = source.write("gradient", &gradient).u32("rows", rows).u32("cols", gradient.cols);
        let source = parameters(source).shared("sums", "f32", COLS * SHARES).body(&format!(
            "    let c = group * {COLS}u + lane % {COLS}u;
    var sum = 0.0;
    if (c < p.cols) {{
        for (var r = lane / {COLS}u; r < p.rows; r += {SHARES}u) {{ sum += {term}; }}
    }}
    sums[lane] = sum;
    workgroupBarrier();
    if (lane < {COLS}u && c < p.cols) {{
        for (var share = 1u; share < {SHARES}u; share++) {{ sum += sums[lane + share * {COLS}u]; }}
        set_gradient(0u, c, gradient(0u, c) + sum);
    }}"
        ));
        (source, gradient.cols.div_ceil(COLS))
    })
}

/// A scratch matrix with one number a row.
pub fn column(plan: &mut Plan, rows: usize) -> Mat {
    plan.scratch(Elem::F32, rows, 1)
}
