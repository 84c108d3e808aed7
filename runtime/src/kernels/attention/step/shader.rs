//! The same as shaders. Keys are cut into spans, so that a long context is many workgroups: one a sequence, head and span
//! leaves the span's maximum, its sum and what it adds up to, one a sequence and head joins the spans, in order.

use super::Sizes;
use crate::kernels::Shaders;
use crate::shader::common::{LANES, MOST, TOTAL};
use crate::shader::{Call, Elem, Mat, Plan, Source, Unfit, cuts};
use std::ops::Range;

pub const STEP: Shaders = Shaders { version: 1, plan, tolerance: 5e-6 };

/// Keys of a span.
const SPAN: usize = 256;

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let s = Sizes::of(call.op);
    let [q, k, v, begin] = [0, 1, 2, 3].map(|i| &call.args[i]);
    for (sequences, keys) in pieces(s, [k, v], call.out.rows, plan)? {
        plan.for_a_while(|plan| -> Result<(), Unfit> {
            let spans: usize = keys.iter().map(|keys| keys.len().div_ceil(SPAN)).sum();
            let parts = plan.scratch(Elem::F32, sequences.len(), s.heads * spans * (s.head_dim + 2));
            for rows in cuts(&[&parts], parts.rows, 1, plan.caps)? {
                let sequences = sequences.start + rows.start..sequences.start + rows.end;
                let parts = parts.rows(rows);
                let mut before = 0;
                for keys in &keys {
                    part(plan, s, [q, k, v, begin], &sequences, keys, [before, spans], &parts);
                    before += keys.len().div_ceil(SPAN);
                }
                join(plan, s, &parts, spans, &call.out.rows(sequences));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Sequences, and pieces of the rows of their rings.
type Piece = (Range<usize>, Vec<Range<usize>>);

/// As many whole rings as bindings hold, or one in pieces.
fn pieces(s: Sizes, rings: [&Mat; 2], sequences: usize, plan: &Plan) -> Result<Vec<Piece>, Unfit> {
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < sequences {
        let reach =
            [rings[0].reach(first * s.window, plan.caps)?, rings[1].reach(first * s.window, plan.caps)?];
        let whole = (reach[0].min(reach[1]) / s.window).min(sequences - first);
        let ring = rings.map(|ring| ring.rows(first * s.window..(first + 1) * s.window));
        let keys = match whole {
            0 => cuts(&[&ring[0], &ring[1]], s.window, SPAN, plan.caps)?,
            _ => std::iter::once(0..s.window).collect(),
        };
        pieces.push((first..first + whole.max(1), keys));
        first += whole.max(1);
    }
    Ok(pieces)
}

/// What the spans of some rows of the rings add up to: of each, d sums, the maximum and the sum of the weights.
fn part(
    plan: &mut Plan,
    s: Sizes,
    [q, k, v, begin]: [&Mat; 4],
    sequences: &Range<usize>,
    keys: &Range<usize>,
    [before, spans]: [usize; 2],
    parts: &Mat,
) {
    let rows = sequences.start * s.window + keys.start..(sequences.end - 1) * s.window + keys.end;
    let own = keys.len().div_ceil(SPAN);
    let source = Source::new("attention_step", LANES)
        .constant("SPAN", SPAN)
        .shared("totals", "f32", LANES)
        .shared("weights", "f32", SPAN)
        .read("q", &q.rows(sequences.clone()))
        .read("k", &k.rows(rows.clone()))
        .read("v", &v.rows(rows))
        .read("begin", &begin.flat())
        .write("parts", parts)
        .u32("heads", s.heads)
        .u32("of_key", s.of_key())
        .u32("head_dim", s.head_dim)
        .u32("window", s.window)
        .u32("k_first", keys.start)
        .u32("k_end", keys.end)
        .u32("own", own)
        .u32("before", before)
        .u32("spans", spans)
        .f32("scale", 1.0 / (s.head_dim as f64).sqrt())
        .with(MOST)
        .with(TOTAL)
        .body(&format!(
            "    let span = group % p.own;
    let h = group / p.own % p.heads;
    let r = group / (p.own * p.heads);
    let first = p.k_first + span * SPAN;
    let end = min(p.k_end, min(u32(begin(0u, 1u)) + 1u, p.window));
    let count = min(SPAN, end - min(first, end));
    let row = r * p.window + span * SPAN;
    let column = h / p.of_key * p.head_dim;
    var top = -3.0e38;
    for (var j = lane; j < count; j += {LANES}u) {{
        var score = 0.0;
        for (var c = 0u; c < p.head_dim; c++) {{
            score += q(r, h * p.head_dim + c) * k(row + j, column + c);
        }}
        weights[j] = p.scale * score;
        top = max(top, weights[j]);
    }}
    top = most(top, lane);
    var sum = 0.0;
    for (var j = lane; j < count; j += {LANES}u) {{
        weights[j] = exp(weights[j] - top);
        sum += weights[j];
    }}
    sum = total(sum, lane);
    let place = (h * p.spans + p.before + span) * (p.head_dim + 2u);
    for (var c = lane; c < p.head_dim; c += {LANES}u) {{
        var y = 0.0;
        for (var j = 0u; j < count; j++) {{ y += weights[j] * v(row + j, column + c); }}
        set_parts(r, place + c, y);
    }}
    if (lane == 0u) {{
        set_parts(r, place + p.head_dim, top);
        set_parts(r, place + p.head_dim + 1u, sum);
    }}"
        ));
    plan.run(source, sequences.len() * s.heads * own);
}

/// The spans of a head together. Those behind the position have the lowest maximum, and add nothing.
fn join(plan: &mut Plan, s: Sizes, parts: &Mat, spans: usize, out: &Mat) {
    let source = Source::new("attention_join", LANES)
        .read("parts", parts)
        .write("out", out)
        .u32("heads", s.heads)
        .u32("head_dim", s.head_dim)
        .u32("spans", spans)
        .body(&format!(
            "    let h = group % p.heads;
    let r = group / p.heads;
    let size = p.head_dim + 2u;
    let place = h * p.spans * size;
    var top = -3.0e38;
    for (var i = 0u; i < p.spans; i++) {{ top = max(top, parts(r, place + i * size + p.head_dim)); }}
    for (var c = lane; c < p.head_dim; c += {LANES}u) {{
        var y = 0.0;
        var sum = 0.0;
        for (var i = 0u; i < p.spans; i++) {{
            let factor = exp(parts(r, place + i * size + p.head_dim) - top);
            y += factor * parts(r, place + i * size + c);
            sum += factor * parts(r, place + i * size + p.head_dim + 1u);
        }}
        set_out(r, h * p.head_dim + c, y / sum);
    }}"
        ));
    plan.run(source, out.rows * s.heads);
}
