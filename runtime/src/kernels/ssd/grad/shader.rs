//! The gradient of the scan as shaders, by the formulas of the CPU. States before chunks are computed again, those
//! after them get their gradients in the same way from the last chunk to the first.
//!
//! dB and dC are sums over a group's heads. A workgroup takes up to [`HEADS`] of them in order, a share of the
//! group; the sums of all shares are added at the end.
//!
//! Pieces are taken from the last to the first; the states between them are computed before, and kept.

use crate::kernels::Shaders;
use crate::kernels::ssd::shader::tile::{Side, each, multiply, tiled};
use crate::kernels::ssd::shader::{Outputs, Q, SOFTPLUS, Scan, limits, pieces};
use crate::shader::common::{LANES, TOTAL};
use crate::shader::{Call, Elem, Mat, Plan, Source, Unfit};

pub const GRAD: Shaders = Shaders { version: 1, plan: grad, tolerance: 2e-6 };

/// The most heads of a share: few, so that there are workgroups for a large device.
const HEADS: usize = 8;

/// Opens the loop over the heads of a share, with nothing in `acc`.
const EACH_HEAD: &str = "    var sum = array<array<f32, 4>, 4>();
    for (var h = head; h < end; h++) {
    take_decays(first, rows, h, lane);
    acc = array<array<f32, 4>, 4>();";

fn grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (dy, out) = (&call.args[7], call.out);
    let s = super::Sizes::of(call.op);
    let tiles = s.state.div_ceil(Q);
    let width = (3 + 2 * tiles) * s.heads;
    let per_group = s.heads_of_group().div_ceil(HEADS).max(1);
    let shares = s.groups * per_group;
    let pieces = pieces(plan.caps, &call, &[dy, out], width.max(shares * Q.max(s.state)))?;
    let whole = Scan::new(plan, &call, &pieces);
    let [states, gradients] = [(); 2].map(|()| whole.scratch_states(plan));
    let (carries, carry) = (whole.scratch_carries(plan, pieces.len()), whole.scratch_carries(plan, 1));
    let widths = [shares * Q, width, shares * s.state];
    let [mixed, parts, sums] = widths.map(|cols| plan.scratch(Elem::F32, whole.decays.rows, cols));
    let carried = |i: usize| carries.rows(i..i + 1);
    for (i, rows) in pieces.iter().enumerate().take(pieces.len().saturating_sub(1)) {
        whole.piece(rows.clone()).enter(plan, i == 0, [&states, &carried(i), &carried(i + 1)]);
    }
    for (i, rows) in pieces.iter().enumerate().rev() {
        let piece = Grad {
            scan: whole.piece(rows.clone()),
            dy: dy.rows(rows.clone()),
            out: out.rows(rows.clone()),
            states: states.clone(),
            gradients: gradients.clone(),
            mixed: mixed.rows(0..rows.len()),
            parts: parts.rows(0..rows.len()),
            sums: sums.rows(0..rows.len()),
            tiles,
            per_group,
        };
        let scan = &piece.scan;
        scan.enter(plan, i == 0, [&states, &carried(i), &carried(i)]);
        scan.scores(plan);
        scan.states(plan, "ssd_state_grads", [&scan.c, &piece.dy], "since(k)", &gradients);
        let ends = i + 1 == pieces.len();
        let backwards = "p.chunks - 1u - n";
        scan.pass(plan, "ssd_pass_grad", backwards, ends, [&gradients, &carry, &carry]);
        piece.pairs(plan);
        piece.columns(plan);
        piece.inputs(plan);
        piece.decays(plan);
    }
    Ok(())
}

/// A piece of positions.
struct Grad {
    scan: Scan,
    dy: Mat,
    out: Mat,
    /// The states before the chunks, and the gradients of those after them [chunks, H N P].
    states: Mat,
    gradients: Mat,
    /// W, summed over a share's heads, with zeros right of the diagonal [positions, shares Q].
    mixed: Mat,
    /// What `decays` needs of every position and head: what pairs of the chunk's positions give to x . du and to da;
    /// dD; then exp(s[i]) (C[i] S) . dy[i] and exp(s[last] - s[j]) (B[j] G) . x[j], each in as many parts as the
    /// states have tiles [positions, (3 + 2 tiles) H].
    parts: Mat,
    /// dB, then dC, of every share [positions, shares N].
    sums: Mat,
    /// Tiles that the states of a group have.
    tiles: usize,
    /// Shares of a group.
    per_group: usize,
}

/// Where a workgroup is that has a chunk, a share of a group's heads, and one of `tiles` tiles.
const OF_SHARE: &str = "
    let n0 = group % p.tiles * Q;
    let share = group / p.tiles % p.shares;
    let chunk = group / p.tiles / p.shares;
    let first = chunk * Q;
    let rows = min(Q, p.rows - first);
    let g = share / p.per_group;
    let head = g * p.of_group + share % p.per_group * p.of_share;
    let end = min(head + p.of_share, (g + 1u) * p.of_group);";

impl Grad {
    /// The shader of a workgroup that is [`OF_SHARE`].
    fn of_share(&self, source: Source, tiles: usize) -> Source {
        let s = self.scan.s;
        self.scan
            .with_decays(source)
            .u32("tiles", tiles)
            .u32("shares", s.groups * self.per_group)
            .u32("per_group", self.per_group)
            .u32("of_share", s.heads_of_group().div_ceil(self.per_group))
            .body(OF_SHARE)
    }

    /// What hangs on pairs of positions: one workgroup a chunk and share.
    ///
    /// What the pair of j and i gives passes through the decays from j + 1 to i. So once columns are summed from the
    /// last row on, a row's sum up to the diagonal is what passes through its decay.
    fn pairs(&self, plan: &mut Plan) {
        let scan = &self.scan;
        let source = tiled("ssd_pairs")
            .read("x", &scan.x)
            .read("dy", &self.dy)
            .read("scores", &scan.scores)
            .write("mixed", &self.mixed)
            .write("parts", &self.parts)
            .shared("pairs", "f32", Q * (Q + 1));
        let dy = Side { within: "i < rows", value: "dy(first + i, h * p.head_dim + k)", deep: true };
        let x = Side { within: "j < rows", value: "x(first + j, h * p.head_dim + k)", deep: true };
        let source = self
            .of_share(source, 1)
            .body(EACH_HEAD)
            .body(&multiply("p.head_dim", dy, x))
            .body(&each(
                "var pair = 0.0;
            if (i < rows && j <= i) {
                let decayed = decay(i, j) * acc[m][n];
                sum[m][n] += steps[j] * decayed;
                pair = scores(first + i, g * Q + j) * decayed;
                if (j == i) { set_parts(first + i, 2u * p.heads + h, acc[m][n]); }
            }
            pairs[i * LINE + j] = pair;",
            ))
            .body(
                "    workgroupBarrier();
    if (lane < rows) {
        var column = 0.0;
        for (var i = rows - 1u; i > lane; i--) {
            column += pairs[i * LINE + lane];
            pairs[i * LINE + lane] = steps[lane] * column;
        }
        set_parts(first + lane, h, column + pairs[lane * LINE + lane]);
    }
    workgroupBarrier();
    if (lane < rows) {
        var through = 0.0;
        for (var j = 0u; j < lane; j++) { through += pairs[lane * LINE + j]; }
        set_parts(first + lane, p.heads + h, through);
    }
    }",
            )
            .body(&each("if (i < rows) { set_mixed(first + i, share * Q + j, sum[m][n]); }"));
        plan.run(source, scan.chunks() * scan.s.groups * self.per_group);
    }

    /// dC and dB.
    fn columns(&self, plan: &mut Plan) {
        let (scan, s) = (&self.scan, self.scan.s);
        let (inner, states) = (s.heads * s.head_dim, s.groups * s.state);
        let of_chunk = Side { within: "i < rows", value: "mixed(first + i, share * Q + k)", deep: true };
        let dc = Columns {
            name: "ssd_c_grad",
            rows: &self.dy,
            states: &self.states,
            decay: "since(i)",
            weight: "reach",
            own: &scan.c,
            pairs: of_chunk,
            other: &scan.b,
            part: 3,
            out: self.out.columns(inner + states, states),
        };
        self.sums(plan, dc);
        let of_chunk = Side { within: "i < rows", value: "mixed(first + k, share * Q + i)", deep: false };
        let db = Columns {
            name: "ssd_b_grad",
            rows: &scan.x,
            states: &self.gradients,
            decay: "decay(rows - 1u, i)",
            weight: "reach * steps[i]",
            own: &scan.b,
            pairs: of_chunk,
            other: &scan.c,
            part: 3 + self.tiles,
            out: self.out.columns(inner, states),
        };
        self.sums(plan, db);
    }

    /// One workgroup a tile of a chunk's and share's columns; then the shares are added.
    fn sums(&self, plan: &mut Plan, of: Columns) {
        let scan = &self.scan;
        let source = tiled(of.name)
            .read("rows_of", of.rows)
            .read("states", of.states)
            .read("own", of.own)
            .read("other", of.other)
            .read("mixed", &self.mixed)
            .write("parts", &self.parts)
            .write("sums", &self.sums)
            .shared("dots", "f32", Q * 17)
            .u32("part", of.part);
        let rows = Side { within: "i < rows", value: "rows_of(first + i, h * p.head_dim + k)", deep: true };
        let state = "states(chunk, (h * p.state + n0 + j) * p.head_dim + k)";
        let state = Side { within: "n0 + j < p.state", value: state, deep: true };
        let other = "other(first + k, g * p.state + n0 + j)";
        let other = Side { within: "n0 + j < p.state", value: other, deep: false };
        let source = self
            .of_share(source, self.tiles)
            .body(EACH_HEAD)
            .body(&multiply("p.head_dim", rows, state))
            .body(&format!(
                "    for (var m = 0u; m < 4u; m++) {{
        let i = row + m;
        if (i >= rows) {{ continue; }}
        let reach = {decay};
        var dot = 0.0;
        for (var n = 0u; n < 4u; n++) {{
            let j = n0 + col + n * 16u;
            if (j < p.state) {{ dot += own(first + i, g * p.state + j) * acc[m][n]; }}
            sum[m][n] += {weight} * acc[m][n];
        }}
        dots[i * 17u + col] = reach * dot;
    }}
    workgroupBarrier();
    if (lane < rows) {{
        var dot = 0.0;
        for (var n = 0u; n < 16u; n++) {{ dot += dots[lane * 17u + n]; }}
        set_parts(first + lane, (p.part + n0 / Q) * p.heads + h, dot);
    }}
    }}
    acc = sum;",
                decay = of.decay,
                weight = of.weight
            ))
            .body(&multiply("rows", of.pairs, other))
            .body(&each(
                "if (i < rows && n0 + j < p.state) { set_sums(first + i, share * p.state + n0 + j, acc[m][n]); }",
            ));
        plan.run(source, scan.chunks() * scan.s.groups * self.per_group * self.tiles);
        let source = Source::new("ssd_shares", LANES)
            .read("sums", &self.sums)
            .write("out", &of.out)
            .u32("state", scan.s.state)
            .u32("per_group", self.per_group)
            .u32("cols", of.out.cols)
            .u32("count", of.out.len())
            .body(&format!(
                "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let t = at / p.cols;
    let g = at % p.cols / p.state;
    let c = at % p.cols % p.state;
    var sum = 0.0;
    for (var share = g * p.per_group; share < (g + 1u) * p.per_group; share++) {{
        sum += sums(t, share * p.state + c);
    }}
    set_out(t, at % p.cols, sum);"
            ));
        plan.run(source, of.out.len().div_ceil(LANES));
    }

    /// dx.
    fn inputs(&self, plan: &mut Plan) {
        let scan = &self.scan;
        let dx = Outputs {
            name: "ssd_x_grad",
            across: &scan.b,
            states: &self.gradients,
            entering: "decay(rows - 1u, i)",
            inputs: &self.dy,
            within: "i < rows && k >= i",
            weight: "scores(first + k, g * Q + i) * decay(k, i)",
            deep: false,
            value: "steps[i] * acc[m][n]",
            out: &self.out.columns(0, scan.s.heads * scan.s.head_dim),
        };
        scan.outputs(plan, dx);
    }

    /// ddt, and what every position gives to the gradients of A_log and D: one workgroup a chunk and head, one
    /// invocation a position.
    fn decays(&self, plan: &mut Plan) {
        let (scan, s) = (&self.scan, self.scan.s);
        let out = self.out.columns(s.heads * s.head_dim + 2 * s.groups * s.state, 3 * s.heads);
        let source = Source::new("ssd_decay_grad", LANES)
            .constant("Q", Q)
            .read("dt", &scan.dt)
            .read("dt_bias", &scan.dt_bias)
            .read("a_log", &scan.a_log)
            .read("decays", &scan.decays)
            .read("states", &self.states)
            .read("gradients", &self.gradients)
            .read("parts", &self.parts)
            .write("out", &out)
            .u32("tiles", self.tiles)
            .shared("totals", "f32", LANES)
            .shared("inflow", "f32", Q)
            .shared("outflow", "f32", Q);
        let source = limits(scan.sizes(source), s).with(SOFTPLUS).with(TOTAL).body(
            "    let h = group % p.heads;
    let chunk = group / p.heads;
    let rows = min(Q, p.rows - chunk * Q);
    let t = chunk * Q + min(lane, rows - 1u);
    let step = decays(t, h);
    let size = p.state * p.head_dim;
    var along = 0.0;
    for (var i = h * size + lane; i < (h + 1u) * size; i += Q) {
        along += states(chunk, i) * gradients(chunk, i);
    }
    let last = chunk * Q + rows - 1u;
    let decay = exp(decays(last, p.heads + h) + decays(last, 2u * p.heads + h));
    let whole = decay * total(along, lane);
    var before = 0.0;
    var after = 0.0;
    for (var tile = 3u; tile < 3u + p.tiles; tile++) {
        before += parts(t, tile * p.heads + h);
        after += parts(t, (tile + p.tiles) * p.heads + h);
    }
    inflow[lane] = before;
    outflow[lane] = step * after;
    workgroupBarrier();
    if (lane >= rows) { return; }
    var da = whole;
    for (var i = rows; i > lane; i--) { da += inflow[i - 1u]; }
    var left = 0.0;
    for (var j = 0u; j < lane; j++) { left += outflow[j]; }
    da += left + parts(t, p.heads + h);
    let by_rate = -exp(a_log(0u, h)) * da;
    let raw = dt(t, h) + dt_bias(0u, h);
    let free = softplus(raw);
    var slope = 1.0 / (1.0 + exp(-raw));
    if (free < p.lo || free > p.hi) { slope = 0.0; }
    set_out(t, h, (parts(t, h) + after + by_rate) * slope);
    set_out(t, p.heads + h, by_rate * step);
    set_out(t, 2u * p.heads + h, parts(t, 2u * p.heads + h));",
        );
        plan.run(source, scan.chunks() * s.heads);
    }
}

/// `out` = the sum over a group's heads of `weight` `rows` `states`^T, and `pairs` `other`. What a position's row of
/// `rows` `states`^T makes with its row of `own`, times `decay`, becomes a part for [`Grad::decays`].
struct Columns<'a> {
    name: &'static str,
    rows: &'a Mat,
    states: &'a Mat,
    decay: &'a str,
    weight: &'a str,
    own: &'a Mat,
    pairs: Side<'a>,
    other: &'a Mat,
    part: usize,
    out: Mat,
}
