//! Attention by blocks of 64 queries and 64 keys with a running maximum and sum (online softmax), one workgroup
//! a block of queries of a head.
//!
//! An invocation holds four neighbouring rows of a block as one vector, from row 4 (lane / 16) on: of the products
//! of two blocks in the columns lane % 16 + 0, 16, 32 and 48, of sums of rows of a head in four neighbouring
//! columns of each 64.

use super::super::Shaders;
use super::constants;
use crate::shader::{Call, Elem, Mat, Plan, Source, Unfit, cuts};
use std::ops::Range;

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 5e-6 };

/// Rows of a block of queries or of keys.
pub const BLOCK: usize = 64;

#[derive(Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// A shader of the queries and keys of these positions, with what all of them are written in.
    pub fn source(self, name: &'static str, queries: &Range<usize>, keys: &Range<usize>) -> Source {
        let spans = self.head_dim.div_ceil(64);
        Source::new(name, 256)
            .constant("SPANS", spans)
            .constant("COLUMNS", 4 * spans)
            .shared("tile", "vec4<f32>", (8 * 16 * spans).max(16 * 17))
            .shared("slice", "f32", 16 * 65)
            .shared("weights", "vec4<f32>", 64 * 17)
            .u32("q_first", queries.start)
            .u32("q_rows", queries.len())
            .u32("k_first", keys.start)
            .u32("k_rows", keys.len())
            .u32("heads", self.heads)
            .u32("kv_heads", self.kv_heads)
            .u32("heads_of_key", self.heads / self.kv_heads)
            .u32("head_dim", self.head_dim)
            .f32("scale", 1.0 / (self.head_dim as f64).sqrt())
            .with(LOWEST)
    }

    pub fn groups(self, queries: &Range<usize>) -> usize {
        queries.len().div_ceil(BLOCK) * self.heads
    }
}

const LOWEST: &str = "const LOWEST = -3.0e38;";

/// `A_by_B(..)`: the products of 64 rows of one head of A with 64 of B. A and B have q_rows or k_rows.
pub fn products(a: &str, a_rows: &str, b: &str, b_rows: &str) -> String {
    format!(
        "
fn {a}_by_{b}(a_row: u32, a_column: u32, b_row: u32, b_column: u32, lane: u32) -> array<vec4<f32>, 4> {{
    let beside = lane % 16u;
    var products: array<vec4<f32>, 4>;
    for (var first = 0u; first < p.head_dim; first += 16u) {{
        let c = first + beside;
        workgroupBarrier();
        // A vector is written as a whole, because writes of its components by several invocations are a race.
        var of_a = vec4(0.0);
        for (var t = 0u; t < 4u; t++) {{
            let r = lane / 16u * 4u + t;
            var of_b = 0.0;
            if (c < p.head_dim) {{
                of_a[t] = {a}(min(a_row + r, p.{a_rows} - 1u), a_column + c);
                of_b = {b}(min(b_row + r, p.{b_rows} - 1u), b_column + c);
            }}
            slice[beside * 65u + r] = of_b;
        }}
        tile[beside * 17u + lane / 16u] = of_a;
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {{
            let four = tile[k * 17u + lane / 16u];
            for (var j = 0u; j < 4u; j++) {{ products[j] += four * slice[k * 65u + 16u * j + beside]; }}
        }}
    }}
    return products;
}}"
    )
}

/// `add_B(&sums, ..)`: adds 64 rows of one head of B, times the weights that [`WEIGHTS`] has laid out. It begins with
/// a barrier, and needs another one before the next weights.
pub fn sums(b: &str, b_rows: &str) -> String {
    format!(
        "
fn add_{b}(sums: ptr<function, array<vec4<f32>, COLUMNS>>, b_row: u32, b_column: u32, lane: u32) {{
    for (var first = 0u; first < 64u; first += 8u) {{
        workgroupBarrier();
        for (var x = lane; x < 8u * 16u * SPANS; x += 256u) {{
            let row = min(b_row + first + x / (16u * SPANS), p.{b_rows} - 1u);
            var four = vec4(0.0);
            for (var e = 0u; e < 4u; e++) {{
                let c = x % (16u * SPANS) * 4u + e;
                if (c < p.head_dim) {{ four[e] = {b}(row, b_column + c); }}
            }}
            tile[x] = four;
        }}
        workgroupBarrier();
        for (var s = 0u; s < 8u; s++) {{
            let weight = weights[(first + s) * 17u + lane / 16u];
            for (var j = 0u; j < SPANS; j++) {{
                let four = tile[(s * SPANS + j) * 16u + lane % 16u];
                (*sums)[4u * j] += weight * four.x;
                (*sums)[4u * j + 1u] += weight * four.y;
                (*sums)[4u * j + 2u] += weight * four.z;
                (*sums)[4u * j + 3u] += weight * four.w;
            }}
        }}
    }}
}}"
    )
}

/// `set_weights(x, lane)`: lays out products, as weights of columns.
pub const WEIGHTS: &str = "
fn set_weights(x: array<vec4<f32>, 4>, lane: u32) {
    for (var j = 0u; j < 4u; j++) { weights[(16u * j + lane % 16u) * 17u + lane / 16u] = x[j]; }
}";

/// `put_out(&sums, ..)`: out = kept * out + factor * sums, where `kept` is not zero.
pub const PUT: &str = "
fn put_out(
    sums: ptr<function, array<vec4<f32>, COLUMNS>>,
    kept: vec4<f32>,
    factor: vec4<f32>,
    rows: u32,
    row: u32,
    column: u32,
    lane: u32,
) {
    for (var i = 0u; i < 4u; i++) {
        let r = row + lane / 16u * 4u + i;
        for (var j = 0u; j < COLUMNS; j++) {
            let c = j / 4u * 64u + lane % 16u * 4u + j % 4u;
            if (r < rows && c < p.head_dim) {
                var value = factor[i] * (*sums)[j][i];
                if (kept[i] != 0.0) { value += kept[i] * out(r, column + c); }
                set_out(r, column + c, value);
            }
        }
    }
}";

/// Sums and maxima over all columns of the rows, from what each of the invocations has.
pub const OF_ROWS: &str = "
fn row_sum(x: vec4<f32>, lane: u32) -> vec4<f32> {
    workgroupBarrier();
    tile[lane] = x;
    workgroupBarrier();
    var sum = vec4(0.0);
    for (var i = 0u; i < 16u; i++) { sum += tile[lane / 16u * 16u + i]; }
    return sum;
}
fn row_most(x: vec4<f32>, lane: u32) -> vec4<f32> {
    workgroupBarrier();
    tile[lane] = x;
    workgroupBarrier();
    var most = x;
    for (var i = 0u; i < 16u; i++) { most = max(most, tile[lane / 16u * 16u + i]); }
    return most;
}";

/// `seen(..)`: which of four queries see a key.
pub const SEEN: &str = "
fn seen(q_row: u32, k_row: u32) -> vec4<bool> {
    let queries = vec4(p.q_first + q_row) + vec4(0u, 1u, 2u, 3u);
    return vec4(k_row < p.k_rows) & (vec4(p.k_first + k_row) <= queries);
}";

/// `soften(..)`: scores -> e^(score - maximum), with the running maximum and sum, this invocation's share of it.
/// Returns by what earlier sums shrink. A row that sees no key has the lowest maximum, and a sum of no meaning.
pub const SOFTEN: &str = "
fn soften(
    scores: ptr<function, array<vec4<f32>, 4>>,
    top: ptr<function, vec4<f32>>,
    sum: ptr<function, vec4<f32>>,
    q_row: u32,
    k_row: u32,
    lane: u32,
) -> vec4<f32> {
    var most = *top;
    for (var j = 0u; j < 4u; j++) {
        let visible = seen(q_row, k_row + 16u * j + lane % 16u);
        (*scores)[j] = select(vec4(LOWEST), p.scale * (*scores)[j], visible);
        most = max(most, (*scores)[j]);
    }
    most = row_most(most, lane);
    let factor = exp(*top - most);
    *top = most;
    *sum *= factor;
    for (var j = 0u; j < 4u; j++) {
        (*scores)[j] = exp((*scores)[j] - most);
        *sum += (*scores)[j];
    }
    return factor;
}";

/// Which block and head a workgroup takes. Later queries see more keys: they begin.
pub const BEGIN: &str = "
    let head = group % p.heads;
    let key_head = head / p.heads_of_key;
    let row = ((p.q_rows + 63u) / 64u - 1u - group / p.heads) * 64u;
    let q_row = row + lane / 16u * 4u;
    let end = min(p.k_rows, max(p.q_first + row + 64u, p.k_first) - p.k_first);";

/// `four_stats(r, c)`: four rows of a column of `stats`.
pub const FOUR: &str = "
fn four_stats(r: u32, c: u32) -> vec4<f32> {
    let last = vec4(p.q_rows - 1u);
    let rows = min(vec4(r) + vec4(0u, 1u, 2u, 3u), last);
    return vec4(stats(rows.x, c), stats(rows.y, c), stats(rows.z, c), stats(rows.w, c));
}
fn set_four_stats(r: u32, c: u32, x: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (r + i < p.q_rows) { set_stats(r + i, c, x[i]); }
    }
}";

/// Joins `top` and `total` with those of earlier pieces of the keys, which lie in `stats` [positions, maxima | sums
/// | ..], and leaves them there: total = kept + now * total.
pub const MERGE: &str = "
    var kept = vec4(0.0);
    var now = vec4(1.0);
    if (p.k_first > 0u) {
        let earlier = four_stats(q_row, head);
        let most = max(top, earlier);
        kept = exp(earlier - most) * four_stats(q_row, p.heads + head);
        now = exp(top - most);
        total = kept + now * total;
        top = most;
    }
    storageBarrier();
    if (lane % 16u == 0u) {
        set_four_stats(q_row, head, top);
        set_four_stats(q_row, p.heads + head, total);
    }";

/// Pieces of positions whose rows one binding holds.
pub fn pieces(mats: &[&Mat], positions: usize, plan: &Plan) -> Result<Vec<Range<usize>>, Unfit> {
    cuts(mats, positions, BLOCK, plan.caps)
}

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (heads, kv_heads, head_dim) = constants(call.op);
    let heads = Heads { heads, kv_heads, head_dim };
    let ([q, k, v], out) = ([0, 1, 2].map(|i| &call.args[i]), call.out);
    // Where no binding holds all keys, what they add up to waits for the next of them.
    let is_cut = pieces(&[k, v], k.rows, plan)?.len() > 1;
    let stats = plan.scratch(Elem::F32, if is_cut { q.rows } else { 0 }, 2 * heads.heads);
    let merge = if is_cut { MERGE } else { "    let kept = vec4(0.0);\n    let now = vec4(1.0);" };
    let body = format!(
        "{BEGIN}
    var top = vec4(LOWEST);
    var sum = vec4(0.0);
    var y: array<vec4<f32>, COLUMNS>;
    for (var k_row = 0u; k_row < end; k_row += 64u) {{
        var scores = q_by_k(row, head * p.head_dim, k_row, key_head * p.head_dim, lane);
        let factor = soften(&scores, &top, &sum, q_row, k_row, lane);
        set_weights(scores, lane);
        for (var c = 0u; c < COLUMNS; c++) {{ y[c] *= factor; }}
        add_v(&y, k_row, key_head * p.head_dim, lane);
    }}
    var total = row_sum(sum, lane);
{merge}
    put_out(&y, kept / total, now / total, p.q_rows, row, head * p.head_dim, lane);"
    );
    let of_queries = [q, out, &stats];
    for queries in pieces(&of_queries[..2 + usize::from(is_cut)], q.rows, plan)? {
        for keys in pieces(&[k, v], queries.end, plan)? {
            let mut source = heads
                .source("attention", &queries, &keys)
                .read("q", &q.rows(queries.clone()))
                .read("k", &k.rows(keys.clone()))
                .read("v", &v.rows(keys.clone()))
                .write("out", &out.rows(queries.clone()));
            if is_cut {
                source = source.write("stats", &stats.rows(queries.clone())).with(FOUR);
            }
            source = [&products("q", "q_rows", "k", "k_rows"), &sums("v", "k_rows")]
                .into_iter()
                .fold(source, |source, text| source.with(text));
            let texts = [WEIGHTS, PUT, OF_ROWS, SEEN, SOFTEN];
            source = texts.into_iter().fold(source, Source::with).body(&body);
            plan.run(source, heads.groups(&queries));
        }
    }
    Ok(())
}
