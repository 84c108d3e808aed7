//! The gradient of attention by blocks of 64 queries and 64 keys, in three passes, each of which computes the weights
//! P = e^(score - maximum) / sum again: of every query the maximum, the sum, and delta = dy y; of every block of
//! queries dq; of every block of keys dk and dv, query after query of all heads that read it. Nothing is added by two
//! workgroups.

use super::super::Shaders;
use super::super::attention::shader::{
    BEGIN, BLOCK, FOUR, Heads, MERGE, OF_ROWS, PUT, SEEN, SOFTEN, WEIGHTS, pieces, products, sums,
};
use super::Sizes;
use crate::shader::{Call, Elem, Mat, Plan, Source, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 5e-6 };

struct Operands<'a> {
    heads: Heads,
    q: &'a Mat,
    k: &'a Mat,
    v: &'a Mat,
    y: &'a Mat,
    dy: &'a Mat,
    /// [positions, maxima | sums | delta], a column a head.
    stats: Mat,
}

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [q, k, v, y, dy] = [0, 1, 2, 3, 4].map(|i| &call.args[i]);
    let Sizes { heads, kv_heads, head_dim, .. } = Sizes::of(call.op, q.rows);
    let stats = plan.scratch(Elem::F32, q.rows, 3 * heads);
    let of = Operands { heads: Heads { heads, kv_heads, head_dim }, q, k, v, y, dy, stats };
    let (dq, dkv) = (heads * head_dim, 2 * kv_heads * head_dim);
    of.stats(plan)?;
    of.by_queries(plan, &call.out.columns(0, dq))?;
    of.by_keys(plan, &call.out.columns(dq, dkv))
}

impl Operands<'_> {
    fn stats(&self, plan: &mut Plan) -> Result<(), Unfit> {
        let Operands { heads, q, k, y, dy, stats, .. } = self;
        let body = format!(
            "{BEGIN}
    var top = vec4(LOWEST);
    var sum = vec4(0.0);
    for (var k_row = 0u; k_row < end; k_row += 64u) {{
        var scores = q_by_k(row, head * p.head_dim, k_row, key_head * p.head_dim, lane);
        soften(&scores, &top, &sum, q_row, k_row, lane);
    }}
    var total = row_sum(sum, lane);
{MERGE}
    var delta = vec4(0.0);
    for (var i = 0u; i < 4u; i++) {{
        let r = min(q_row + i, p.q_rows - 1u);
        for (var c = lane % 16u; c < p.head_dim; c += 16u) {{
            delta[i] += dy(r, head * p.head_dim + c) * y(r, head * p.head_dim + c);
        }}
    }}
    delta = row_sum(delta, lane);
    if (lane % 16u == 0u) {{ set_four_stats(q_row, 2u * p.heads + head, delta); }}"
        );
        for queries in pieces(&[q, y, dy, stats], q.rows, plan)? {
            for keys in pieces(&[k], queries.end, plan)? {
                let source = heads
                    .source("attention_stats", &queries, &keys)
                    .read("q", &q.rows(queries.clone()))
                    .read("k", &k.rows(keys.clone()))
                    .read("y", &y.rows(queries.clone()))
                    .read("dy", &dy.rows(queries.clone()))
                    .write("stats", &stats.rows(queries.clone()))
                    .with(&products("q", "q_rows", "k", "k_rows"));
                let texts = [OF_ROWS, SEEN, SOFTEN, FOUR];
                plan.run(texts.into_iter().fold(source, Source::with).body(&body), heads.groups(&queries));
            }
        }
        Ok(())
    }

    fn by_queries(&self, plan: &mut Plan, dq: &Mat) -> Result<(), Unfit> {
        let Operands { heads, q, k, v, dy, stats, .. } = self;
        let body = format!(
            "{BEGIN}
    let top = four_stats(q_row, head);
    let total = four_stats(q_row, p.heads + head);
    let delta = four_stats(q_row, 2u * p.heads + head);
    var dq: array<vec4<f32>, COLUMNS>;
    for (var k_row = 0u; k_row < end; k_row += 64u) {{
        let scores = q_by_k(row, head * p.head_dim, k_row, key_head * p.head_dim, lane);
        var slopes = dy_by_v(row, head * p.head_dim, k_row, key_head * p.head_dim, lane);
        for (var j = 0u; j < 4u; j++) {{
            let visible = seen(q_row, k_row + 16u * j + lane % 16u);
            let weight = select(vec4(0.0), exp(p.scale * scores[j] - top) / total, visible);
            slopes[j] = weight * (slopes[j] - delta);
        }}
        set_weights(slopes, lane);
        add_k(&dq, k_row, key_head * p.head_dim, lane);
    }}
    put_out(&dq, vec4(p.kept), vec4(p.scale), p.q_rows, row, head * p.head_dim, lane);"
        );
        for queries in pieces(&[q, dy, stats, dq], q.rows, plan)? {
            for keys in pieces(&[k, v], queries.end, plan)? {
                let source = heads
                    .source("attention_grad_queries", &queries, &keys)
                    .read("q", &q.rows(queries.clone()))
                    .read("k", &k.rows(keys.clone()))
                    .read("v", &v.rows(keys.clone()))
                    .read("dy", &dy.rows(queries.clone()))
                    .write("stats", &stats.rows(queries.clone()))
                    .write("out", &dq.rows(queries.clone()))
                    .f32("kept", if keys.start > 0 { 1.0 } else { 0.0 })
                    .with(&products("q", "q_rows", "k", "k_rows"))
                    .with(&products("dy", "q_rows", "v", "k_rows"))
                    .with(&sums("k", "k_rows"));
                let texts = [WEIGHTS, PUT, SEEN, FOUR];
                plan.run(texts.into_iter().fold(source, Source::with).body(&body), heads.groups(&queries));
            }
        }
        Ok(())
    }

    fn by_keys(&self, plan: &mut Plan, dkv: &Mat) -> Result<(), Unfit> {
        let Operands { heads, q, k, v, dy, stats, .. } = self;
        // Here four neighbouring rows are keys, and columns are queries.
        let body = "
    let key_head = group % p.kv_heads;
    let row = group / p.kv_heads * 64u;
    let keys = vec4(p.k_first + row + lane / 16u * 4u) + vec4(0u, 1u, 2u, 3u);
    let first = (max(p.k_first + row, p.q_first) - p.q_first) / 64u * 64u;
    var dk: array<vec4<f32>, COLUMNS>;
    var dv: array<vec4<f32>, COLUMNS>;
    for (var share = 0u; share < p.heads_of_key; share++) {
        let head = key_head * p.heads_of_key + share;
        for (var q_row = first; q_row < p.q_rows; q_row += 64u) {
            var scores = k_by_q(row, key_head * p.head_dim, q_row, head * p.head_dim, lane);
            var slopes = v_by_dy(row, key_head * p.head_dim, q_row, head * p.head_dim, lane);
            for (var j = 0u; j < 4u; j++) {
                let query = q_row + 16u * j + lane % 16u;
                let t = min(query, p.q_rows - 1u);
                let visible = vec4(query < p.q_rows) & (keys <= vec4(p.q_first + query));
                let weight = exp(p.scale * scores[j] - stats(t, head)) / stats(t, p.heads + head);
                scores[j] = select(vec4(0.0), weight, visible);
                slopes[j] = scores[j] * (slopes[j] - stats(t, 2u * p.heads + head));
            }
            set_weights(scores, lane);
            add_dy(&dv, q_row, head * p.head_dim, lane);
            workgroupBarrier();
            set_weights(slopes, lane);
            add_q(&dk, q_row, head * p.head_dim, lane);
        }
    }
    put_out(&dk, vec4(p.kept), vec4(p.scale), p.k_rows, row, key_head * p.head_dim, lane);
    put_out(&dv, vec4(p.kept), vec4(1.0), p.k_rows, row, (p.kv_heads + key_head) * p.head_dim, lane);";
        for keys in pieces(&[k, v, dkv], k.rows, plan)? {
            let seeing = pieces(&[q, dy, stats], q.rows, plan)?.into_iter().filter(|q| q.end > keys.start);
            for (i, queries) in seeing.enumerate() {
                let source = heads
                    .source("attention_grad_keys", &queries, &keys)
                    .read("q", &q.rows(queries.clone()))
                    .read("k", &k.rows(keys.clone()))
                    .read("v", &v.rows(keys.clone()))
                    .read("dy", &dy.rows(queries.clone()))
                    .write("stats", &stats.rows(queries.clone()))
                    .write("out", &dkv.rows(keys.clone()))
                    .f32("kept", if i > 0 { 1.0 } else { 0.0 })
                    .with(&products("k", "k_rows", "q", "q_rows"))
                    .with(&products("v", "k_rows", "dy", "q_rows"))
                    .with(&sums("dy", "q_rows"))
                    .with(&sums("q", "q_rows"));
                let source = [WEIGHTS, PUT].into_iter().fold(source, Source::with).body(body);
                plan.run(source, keys.len().div_ceil(BLOCK) * heads.kv_heads);
            }
        }
        Ok(())
    }
}
