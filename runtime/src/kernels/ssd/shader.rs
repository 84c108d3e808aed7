//! The scan as shaders, by the formulas of the CPU. Every step is done for all chunks at once: dt and its running
//! sums, C B^T, what a chunk adds to the state, the state before it, and y. The fourth alone goes from chunk to
//! chunk, for every element of the state on its own.
//!
//! Positions pass in pieces, which hand on the state; a piece is as long as bindings and [`STATES`] allow.

pub mod tile;

use super::super::Shaders;
use super::chunk::Sizes;
use crate::shader::common::LANES;
use crate::shader::{Call, Caps, Elem, Mat, Memory, Plan, Source, Unfit, cuts};
use std::ops::Range;
use tile::{Side, each, multiply, tiled};

pub const KERNEL: Shaders = Shaders { version: 1, plan: scan, tolerance: 2e-6 };
pub const PREFILL: Shaders = Shaders { version: 1, plan: prefill, tolerance: 2e-6 };

/// Positions of a chunk; the side of a tile of its products.
pub const Q: usize = 64;

/// The most f32 elements of the states of a piece's chunks, 96 MiB: 24 chunks of 128 heads x 64 x 128, whose products
/// are thousands of workgroups, while the gradient's scratch, which has room for them twice, stays below 256 MiB.
const STATES: usize = 24 << 20;

fn scan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    scanned(plan, call).map(drop)
}

/// The scan, and its last state put into its sequence's row.
fn prefill(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let left = scanned(plan, call)?;
    let (begin, states) = (&call.args[7], &call.args[8]);
    for rows in cuts(&[states], states.rows, 1, plan.caps)? {
        let source = Source::new("ssd_leave", LANES)
            .read("left", &left)
            .read("begin", &begin.flat())
            .write("states", &states.rows(rows.clone()))
            .u32("first", rows.start)
            .u32("end", rows.end)
            .u32("count", states.cols)
            .body(&format!(
                "    let at = group * {LANES}u + lane;
    let sequence = u32(begin(0u, 0u));
    if (at >= p.count || sequence < p.first || sequence >= p.end) {{ return; }}
    set_states(sequence - p.first, at, left(0u, at));"
            ));
        plan.run(source, states.cols.div_ceil(LANES));
    }
    Ok(())
}

/// The scan; the state after its last position [1, H N P].
fn scanned(plan: &mut Plan, call: Call) -> Result<Mat, Unfit> {
    let y = call.out;
    let pieces = pieces(plan.caps, &call, &[y], 0)?;
    let whole = Scan::new(plan, &call, &pieces);
    let (states, carry) = (whole.scratch_states(plan), whole.scratch_carries(plan, 1));
    for rows in pieces {
        let piece = whole.piece(rows.clone());
        piece.enter(plan, rows.start == 0, [&states, &carry, &carry]);
        piece.scores(plan);
        let y = Outputs {
            name: "ssd",
            across: &piece.c,
            states: &states,
            entering: "since(i)",
            inputs: &piece.x,
            within: "i < rows && k <= i",
            weight: "scores(first + i, g * Q + k) * decay(i, k) * steps[k]",
            deep: true,
            value: "acc[m][n]",
            out: &y.rows(rows),
        };
        piece.outputs(plan, y);
    }
    Ok(carry)
}

/// Cuts positions so that one binding holds those of the operands of a scan, of `others`, and of its scratch, the
/// widest of which may have `width` columns, and so that the states of the chunks are no more than [`STATES`].
pub fn pieces(caps: &Caps, call: &Call, others: &[&Mat], width: usize) -> Result<Vec<Range<usize>>, Unfit> {
    let (s, positions) = (Sizes::of(call.op), call.out.rows);
    let scratch = |rows, cols| Mat::new(Memory::Scratch, Elem::F32, 0, rows, cols, cols);
    let chunks = scratch(usize::MAX, state_len(s)).reach(0, caps)?;
    let most = Q * chunks.min(STATES / state_len(s).max(1)).max(1);
    let held = scratch(positions, width.max(3 * s.heads).max(s.groups * Q));
    let mats: Vec<&Mat> = call.args[..4].iter().chain(others.iter().copied()).chain([&held]).collect();
    let shorter = |rows: Range<usize>| {
        let count = rows.len().div_ceil(rows.len().div_ceil(most)).next_multiple_of(Q);
        rows.clone().step_by(count).map(move |first| first..(first + count).min(rows.end))
    };
    Ok(cuts(&mats, positions, Q, caps)?.into_iter().flat_map(shorter).collect())
}

/// Elements of the states of all heads.
fn state_len(s: Sizes) -> usize {
    s.heads * s.state * s.head_dim
}

/// The running sums of a chunk and head, and the decays between its positions, as [`Scan::decays`] left them.
const DECAYS: &str = "
fn take_decays(first: u32, rows: u32, h: u32, lane: u32) {
    if (lane < rows) {
        steps[lane] = decays(first + lane, h);
        whole[lane] = decays(first + lane, p.heads + h);
        rest[lane] = decays(first + lane, 2u * p.heads + h);
    }
}
fn since(i: u32) -> f32 { return exp(whole[i] + rest[i]); }
fn decay(i: u32, j: u32) -> f32 { return exp((whole[i] - whole[j]) + (rest[i] - rest[j])); }";

/// `softplus(x)`, also of small values to f32's digits: ln(1 + e) = 2 artanh(e / (2 + e)).
pub const SOFTPLUS: &str = "
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let t = e / (2.0 + e);
    let s = t * t;
    var series = 1.0 / 17.0;
    for (var n = 15.0; n > 0.0; n -= 2.0) { series = series * s + 1.0 / n; }
    return max(x, 0.0) + 2.0 * t * series;
}";

/// The operands of a scan over some positions, and scratch that hangs on them.
pub struct Scan {
    pub s: Sizes,
    pub x: Mat,
    pub dt: Mat,
    pub b: Mat,
    pub c: Mat,
    pub dt_bias: Mat,
    pub a_log: Mat,
    pub d: Mat,
    /// dt after softplus and limits, and the running sum of -exp(A_log) dt in a chunk, in two parts, a whole number
    /// and the rest, so that a difference of large sums is as exact as one of small ones [positions, 3 H]. The error
    /// of the rounded sum would do for the second part, but compilers may take it for zero.
    pub decays: Mat,
    /// C[i] . B[j] of a chunk's positions j <= i [positions, G Q]; what lies right of it is left undefined.
    pub scores: Mat,
}

impl Scan {
    /// All positions, with scratch for the longest piece.
    pub fn new(plan: &mut Plan, call: &Call, pieces: &[Range<usize>]) -> Scan {
        let s = Sizes::of(call.op);
        let longest = pieces.iter().map(Range::len).max().unwrap_or(0);
        let mut scratch = |cols| plan.scratch(Elem::F32, longest, cols);
        let (decays, scores) = (scratch(3 * s.heads), scratch(s.groups * Q));
        let [x, dt, b, c] = [0, 1, 2, 3].map(|i| call.args[i].clone());
        let [dt_bias, a_log, d] = [4, 5, 6].map(|i| call.args[i].flat());
        Scan { s, x, dt, b, c, dt_bias, a_log, d, decays, scores }
    }

    /// Some positions, with the same scratch.
    pub fn piece(&self, rows: Range<usize>) -> Scan {
        let [x, dt, b, c] = [&self.x, &self.dt, &self.b, &self.c].map(|mat| mat.rows(rows.clone()));
        let [decays, scores] = [&self.decays, &self.scores].map(|mat| mat.rows(0..rows.len()));
        let [dt_bias, a_log, d] = [&self.dt_bias, &self.a_log, &self.d].map(Mat::clone);
        Scan { s: self.s, x, dt, b, c, dt_bias, a_log, d, decays, scores }
    }

    /// Scratch for a state of every chunk: [chunks, H N P].
    pub fn scratch_states(&self, plan: &mut Plan) -> Mat {
        plan.scratch(Elem::F32, self.decays.rows.div_ceil(Q), state_len(self.s))
    }

    /// Scratch for states between pieces.
    pub fn scratch_carries(&self, plan: &mut Plan, count: usize) -> Mat {
        plan.scratch(Elem::F32, count, state_len(self.s))
    }

    pub fn chunks(&self) -> usize {
        self.x.rows.div_ceil(Q)
    }

    pub fn sizes(&self, source: Source) -> Source {
        source
            .u32("rows", self.x.rows)
            .u32("heads", self.s.heads)
            .u32("head_dim", self.s.head_dim)
            .u32("state", self.s.state)
            .u32("of_group", self.s.heads_of_group())
    }

    /// A tile's shader that calls `take_decays`.
    pub fn with_decays(&self, source: Source) -> Source {
        let source =
            ["steps", "whole", "rest"].iter().fold(source, |source, name| source.shared(name, "f32", Q));
        self.sizes(source.read("decays", &self.decays)).with(DECAYS)
    }

    /// The states before all chunks, and that after the last.
    pub fn enter(&self, plan: &mut Plan, begins: bool, [states, before, after]: [&Mat; 3]) {
        self.decays(plan);
        self.states(plan, "ssd_states", [&self.b, &self.x], "steps[k] * decay(rows - 1u, k)", states);
        self.pass(plan, "ssd_pass", "n", begins, [states, before, after]);
    }

    /// One invocation a chunk and head.
    fn decays(&self, plan: &mut Plan) {
        let count = self.chunks() * self.s.heads;
        let source = Source::new("ssd_decays", LANES)
            .constant("Q", Q)
            .read("dt", &self.dt)
            .read("dt_bias", &self.dt_bias)
            .read("a_log", &self.a_log)
            .write("decays", &self.decays)
            .u32("count", count);
        let source = limits(self.sizes(source), self.s).with(SOFTPLUS).body(&format!(
            "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let h = at % p.heads;
    let first = at / p.heads * Q;
    let rate = -exp(a_log(0u, h));
    var whole = 0.0;
    var rest = 0.0;
    for (var t = first; t < min(first + Q, p.rows); t++) {{
        var step = softplus(dt(t, h) + dt_bias(0u, h));
        if (step < p.lo) {{ step = p.lo; }}
        if (step > p.hi) {{ step = p.hi; }}
        rest += rate * step;
        whole += floor(rest);
        rest -= floor(rest);
        set_decays(t, h, step);
        set_decays(t, p.heads + h, whole);
        set_decays(t, 2u * p.heads + h, rest);
    }}"
        ));
        plan.run(source, count.div_ceil(LANES));
    }

    /// One workgroup a chunk and group.
    pub fn scores(&self, plan: &mut Plan) {
        let source = tiled("ssd_scores").read("b", &self.b).read("c", &self.c).write("scores", &self.scores);
        let c = Side { within: "i < rows", value: "c(first + i, g * p.state + k)", deep: true };
        let b = Side { within: "j < rows", value: "b(first + j, g * p.state + k)", deep: true };
        let source = self
            .sizes(source)
            .body(
                "    let sets = p.heads / p.of_group;
    let g = group % sets;
    let first = group / sets * Q;
    let rows = min(Q, p.rows - first);",
            )
            .body(&multiply("p.state", c, b))
            .body(&each("if (i < rows && j <= i) { set_scores(first + i, g * Q + j, acc[m][n]); }"));
        plan.run(source, self.chunks() * self.s.groups);
    }

    /// sum_t weight[t] left[t]^T right[t] over a chunk: one workgroup a tile of a chunk's and head's state.
    pub fn states(
        &self,
        plan: &mut Plan,
        name: &'static str,
        [left, right]: [&Mat; 2],
        weight: &str,
        out: &Mat,
    ) {
        let (down, across) = (self.s.state.div_ceil(Q), self.s.head_dim.div_ceil(Q));
        let source = tiled(name).read("left", left).read("right", right).write("states", out);
        let source = self.with_decays(source.u32("down", down).u32("across", across));
        let left =
            Side { within: "n0 + i < p.state", value: "left(first + k, g * p.state + n0 + i)", deep: false };
        let value = format!("right(first + k, h * p.head_dim + p0 + j) * ({weight})");
        let right = Side { within: "p0 + j < p.head_dim", value: &value, deep: false };
        let source = source
            .body(
                "    let p0 = group % p.across * Q;
    let n0 = group / p.across % p.down * Q;
    let h = group / (p.across * p.down) % p.heads;
    let chunk = group / (p.across * p.down) / p.heads;
    let first = chunk * Q;
    let rows = min(Q, p.rows - first);
    let g = h / p.of_group;
    take_decays(first, rows, h, lane);",
            )
            .body(&multiply("rows", left, right))
            .body(&each(
                "if (n0 + i < p.state && p0 + j < p.head_dim) {
                set_states(chunk, (h * p.state + n0 + i) * p.head_dim + p0 + j, acc[m][n]);
            }",
            ));
        plan.run(source, self.chunks() * self.s.heads * down * across);
    }

    /// From what every chunk adds to a state, the state that it is added to; `chunk` gives the n-th chunk. The state
    /// `before` the first of them is zero where the sequence `begins`, that `after` the last one is handed on.
    pub fn pass(
        &self,
        plan: &mut Plan,
        name: &'static str,
        chunk: &str,
        begins: bool,
        [states, before, after]: [&Mat; 3],
    ) {
        let source = Source::new(name, LANES)
            .constant("Q", Q)
            .write("states", states)
            .read("before", before)
            .write("after", after)
            .read("decays", &self.decays)
            .u32("chunks", self.chunks())
            .u32("begins", usize::from(begins))
            .u32("count", state_len(self.s));
        let source = self.sizes(source).body(&format!(
            "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let h = at / (p.state * p.head_dim);
    var state = 0.0;
    if (p.begins == 0u) {{ state = before(0u, at); }}
    for (var n = 0u; n < p.chunks; n++) {{
        let chunk = {chunk};
        let last = min((chunk + 1u) * Q, p.rows) - 1u;
        let own = states(chunk, at);
        set_states(chunk, at, state);
        let sum = decays(last, p.heads + h) + decays(last, 2u * p.heads + h);
        state = exp(sum) * state + own;
    }}
    set_after(0u, at, state);"
        ));
        plan.run(source, state_len(self.s).div_ceil(LANES));
    }

    /// One workgroup a tile of a chunk and head.
    pub fn outputs(&self, plan: &mut Plan, of: Outputs) {
        let across = self.s.head_dim.div_ceil(Q);
        let source = tiled(of.name)
            .read("across", of.across)
            .read("states", of.states)
            .read("inputs", of.inputs)
            .read("scores", &self.scores)
            .read("d", &self.d)
            .write("out", of.out)
            .u32("tiles", across);
        let rows = Side { within: "i < rows", value: "across(first + i, g * p.state + k)", deep: true };
        let state = "states(chunk, (h * p.state + k) * p.head_dim + p0 + j)";
        let state = Side { within: "p0 + j < p.head_dim", value: state, deep: false };
        let pairs = Side { within: of.within, value: of.weight, deep: of.deep };
        let inputs = "inputs(first + k, h * p.head_dim + p0 + j)";
        let inputs = Side { within: "p0 + j < p.head_dim", value: inputs, deep: false };
        let source = self
            .with_decays(source)
            .body(
                "    let p0 = group % p.tiles * Q;
    let h = group / p.tiles % p.heads;
    let chunk = group / p.tiles / p.heads;
    let first = chunk * Q;
    let rows = min(Q, p.rows - first);
    let g = h / p.of_group;
    take_decays(first, rows, h, lane);",
            )
            .body(&multiply("p.state", rows, state))
            .body(&each(&format!("if (i < rows) {{ acc[m][n] *= {}; }}", of.entering)))
            .body(&multiply("rows", pairs, inputs))
            .body(&each(&format!(
                "if (i < rows && p0 + j < p.head_dim) {{
                let at = h * p.head_dim + p0 + j;
                set_out(first + i, at, {} + d(0u, h) * inputs(first + i, at));
            }}",
                of.value
            )));
        plan.run(source, self.chunks() * self.s.heads * across);
    }
}

/// `out`[i] = `value` + D `inputs`[i], with acc = `entering` `across`[i] `states` + sum over k `within` of
/// `weight` `inputs`[k].
pub struct Outputs<'a> {
    pub name: &'static str,
    pub across: &'a Mat,
    pub states: &'a Mat,
    pub entering: &'a str,
    pub inputs: &'a Mat,
    pub within: &'a str,
    pub weight: &'a str,
    pub deep: bool,
    pub value: &'a str,
    pub out: &'a Mat,
}

/// The limits of dt as parameters.
pub fn limits(source: Source, s: Sizes) -> Source {
    source.f32("lo", s.dt_lo).f32("hi", s.dt_hi.min(f64::from(f32::MAX)))
}
