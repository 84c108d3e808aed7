//! The shader of some terms, one workgroup a position. It goes over the vocabulary for softmaxes, then for the
//! divergences by which slopes are moved, where a term has one, and then for slopes and what sums up beside them.
//! The formulas are those of the processor's kernel.
//!
//! In its text, z and t are the logits of student and teacher at token c. Of the i-th temperature are `q{i}` and
//! `p{i}`, their softmaxes, `b{i}` and `a{i}`, the values of these at c, and `d{i}`, ln(b / a). Of the j-th term are
//! `kl{j}`, the divergence by which its slopes are moved, `nats{j}`, what sums up beside slopes, and of one with
//! targets `u{j}`, the student's softmax of all other tokens, and `rest{j}`, the slope of their share and its nats.

use super::super::super::logits::shader::DIFFER;
use super::super::position::{Mixture, temperature};
use crate::shader::Source;
use minic_compiler::graph::{HeadLoss, HeadTerm, reads_teacher};

/// Words of the marks of targets, a bit a token: 16 KiB.
const MARKS: usize = 4096;

/// One time over the vocabulary: what stands before it, at every token, and behind it.
#[derive(Default)]
struct Pass {
    before: String,
    each: String,
    behind: String,
}

impl Pass {
    /// The sum of x, as a pair.
    fn sum(&mut self, name: &str, x: &str) {
        self.before += &format!("    var {name} = vec2(0.0, 0.0);\n");
        self.each += &format!("            {name} = pair_add({name}, {x});\n");
        self.behind += &format!("    {name} = whole({name}, lane);\n");
    }

    /// The softmax of the logits x that are `when`.
    fn softmax(&mut self, name: &str, rate: f32, x: &str, when: &str) {
        self.before += &format!("    var seen_{name} = none({rate:?});\n");
        self.each += &format!("            {when}{{ seen_{name} = seen(seen_{name}, {x}); }}\n");
        self.behind += &format!("    let {name} = softmax(seen_{name}, lane);\n");
    }

    fn each(&mut self, statement: &str) {
        self.each += &format!("            {statement}\n");
    }

    /// At every token, `first` and `last` stand around its statements; `marks` before those of a window of tokens.
    fn text(&self, marks: &str, first: &str, last: &str) -> String {
        let Pass { before, each, behind } = self;
        if each.is_empty() {
            return format!("{before}{behind}");
        }
        format!(
            "{before}    for (var start = 0u; start < p.vocab; start += WINDOW) {{
{marks}        for (var c = start + lane; c < min(start + WINDOW, p.vocab); c += 256u) {{
{first}{each}{last}        }}
    }}\n{behind}"
        )
    }
}

fn rate(term: &HeadTerm) -> f32 {
    (1.0 / temperature(term.loss)) as f32
}

/// Declarations and body for some terms.
pub fn write(source: Source, terms: &[HeadTerm]) -> Source {
    let mut text = Text::default();
    for term in terms {
        let compared = terms.iter().any(|other| other.loss.needs_teacher() && rate(other) == rate(term));
        text.add_temperature(rate(term), compared);
    }
    terms.iter().enumerate().for_each(|(j, term)| text.add(j, term));
    let mut source = source.with(DIFFER).with(MIXTURE);
    if terms.iter().any(|term| term.loss == HeadLoss::CrossEntropy) {
        source = source.body(FOLLOWED);
    }
    let words = MARKS.checked_div(text.tails);
    if let Some(words) = words {
        source = source.constant("MARKS", MARKS).constant("WORDS", words);
        source = source.shared("marks", "atomic<u32>", MARKS).with(TARGETS);
    }
    let window = words.map_or(1 << 30, |words| 32 * words);
    text.body(source.constant("WINDOW", window), reads_teacher(terms))
}

/// The text of the terms that were added.
#[derive(Default)]
struct Text {
    /// 1 / T, each once.
    rates: Vec<f32>,
    /// a, b and d.
    values: String,
    softmaxes: Pass,
    divergences: Pass,
    slopes: Pass,
    losses: String,
    /// Terms with targets, the columns of these, and what marks them.
    tails: usize,
    columns: usize,
    marks: String,
}

impl Text {
    /// `compared`: with the teacher.
    fn add_temperature(&mut self, rate: f32, compared: bool) {
        if self.rates.contains(&rate) {
            return;
        }
        let i = self.rates.len();
        self.rates.push(rate);
        self.softmaxes.softmax(&format!("q{i}"), rate, "z", "");
        self.values += &format!("            let b{i} = at(q{i}, z);\n");
        if compared {
            self.softmaxes.softmax(&format!("p{i}"), rate, "t", "");
            self.softmaxes.behind += &format!("    let offset{i} = offset(p{i}, q{i});\n");
            self.values += &format!("            let a{i} = at(p{i}, t);\n");
            self.values += &format!("            let d{i} = (z - t) * q{i}.rate + offset{i};\n");
        }
    }

    fn add(&mut self, j: usize, term: &HeadTerm) {
        let i = self.rates.iter().position(|known| *known == rate(term)).unwrap_or(0);
        let (kl, nats, weight) = (format!("kl{j}"), format!("nats{j}"), format!("p.weight{j}"));
        let Text { softmaxes, divergences, slopes, .. } = self;
        let loss = match term.loss {
            HeadLoss::ForwardKl { .. } => {
                slopes.each(&format!("let x{j} = differ(a{i}, b{i}, d{i});"));
                slopes.each(&format!("slope += {weight} * x{j}.x;"));
                slopes.sum(&nats, &format!("x{j}.y"));
                format!("{nats}.x")
            }
            HeadLoss::ReverseKl { .. } => {
                divergences.sum(&kl, &format!("differ(b{i}, a{i}, -d{i}).y"));
                slopes.each(&format!("slope += {weight} * (b{i} * (d{i} - {kl}.x));"));
                format!("{kl}.x")
            }
            HeadLoss::Js { beta, .. } => {
                let Mixture { beta, log_beta, log_rest } = Mixture::new(beta);
                let given = format!("Mixture({beta:?}, {log_beta:?}, {log_rest:?}), a{i}, b{i}, d{i}");
                divergences.sum(&kl, &format!("js_kl({given})"));
                slopes.each(&format!("let x{j} = js({given}, {kl}.x);"));
                slopes.each(&format!("slope += {weight} * x{j}.x;"));
                slopes.sum(&nats, &format!("x{j}.y"));
                format!("{beta:?} * {nats}.x + (1.0 - {beta:?}) * {kl}.x")
            }
            HeadLoss::CrossEntropy => {
                let slope = format!("b{i} - select(0.0, 1.0, c == token)");
                slopes.each(&format!("if (is_followed) {{ slope += {weight} * ({slope}); }}"));
                format!("select(0.0, pair_add(pair_add(q{i}.log_sum, q{i}.top), -logit).x, is_followed)")
            }
            HeadLoss::TopK(targets) => {
                let (n, first, k) = (self.tails, self.columns, targets.k);
                let at = format!("r, {first}u, {k}u");
                let others = format!("if (!is_marked({n}u, c - start)) ");
                let rest = format!("given(r, {}u)", first + 2 * k);
                self.marks += &format!("        mark({n}u, {at}, start, lane);\n");
                (self.tails, self.columns) = (n + 1, first + targets.columns().size());
                softmaxes.softmax(&format!("u{j}"), rate(term), "z", &others);
                softmaxes.behind += &format!(
                    "    let {nats} = compare_targets({at}, q{i}, {weight}, lane);
    let rest{j} = compare_rest({rest}, q{i}, u{j});\n"
                );
                slopes.each(&format!("{others}{{ slope += {weight} * rest{j}.x * at(u{j}, z); }}"));
                slopes.behind += &format!("    storageBarrier();\n    add_targets({at}, lane);\n");
                format!("{nats}.x + rest{j}.y")
            }
        };
        let square = temperature(term.loss).powi(2) as f32;
        self.losses += &format!("        set_losses(r, {j}u, {square:?} * ({loss}));\n");
    }

    fn body(&self, source: Source, teacher: bool) -> Source {
        let t = if teacher { " let t = teacher(r, c);" } else { "" };
        let logits = format!("            let z = student(r, c);{t}\n");
        let (values, mut marks) = (format!("{logits}{}", self.values), String::new());
        if self.tails > 0 {
            marks = format!("        clear_marks(lane);\n{}        workgroupBarrier();\n", self.marks);
        }
        source
            .body(&self.softmaxes.text(&marks, &logits, ""))
            .body(&self.divergences.text("", &values, ""))
            // Others have read what is overwritten now.
            .body("    storageBarrier();")
            .body(&self.slopes.text(
                &marks,
                &format!("{values}            var slope = 0.0;\n"),
                "            set_student(r, c, slope);\n",
            ))
            .body(&format!("    if (lane == 0u) {{\n{}    }}", self.losses))
    }
}

/// The token that follows, and the student's logit of it.
const FOLLOWED: &str = "
    let is_followed = r + 1u < p.tokens;
    var token = 0xffffffffu;
    var logit = p.nan;
    if (is_followed) { token = tokens(0u, r + 1u); }
    if (token < p.vocab) { logit = student(r, token); }";

const MIXTURE: &str = "
struct Mixture { beta: f32, log_beta: f32, log_rest: f32 }
// m = beta a + (1 - beta) b, ln(m / a) and ln(m / b), from d = ln(b / a)
fn mixed(s: Mixture, a: f32, b: f32, d: f32) -> vec3<f32> {
    let x = d + (s.log_rest - s.log_beta);
    let small = ln_1p(exp_of(-abs(x)));
    let positive = max(x, 0.0);
    let m = s.beta * a + (1.0 - s.beta) * b;
    return vec3(m, s.log_beta + positive + small, s.log_rest + (positive - x) + small);
}
// KL(b || m)
fn js_kl(s: Mixture, a: f32, b: f32, d: f32) -> f32 {
    let m = mixed(s, a, b, d);
    return differ(b, m.x, m.z).y;
}
// The slope, and KL(a || m)
fn js(s: Mixture, a: f32, b: f32, d: f32, kl: f32) -> vec2<f32> {
    let m = mixed(s, a, b, d);
    return vec2((1.0 - s.beta) * (b * (-m.z - kl)), differ(a, m.x, m.y).y);
}";

/// Of the n-th term with targets, the ids of all k are in columns from `first` on, and behind them ln p.
const TARGETS: &str = "
fn token_of(id: f32) -> u32 { return select(0xffffffffu, u32(clamp(id, 0.0, 16777216.0)), id >= 0.0); }

fn clear_marks(lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < MARKS; i += 256u) { atomicStore(&marks[i], 0u); }
    workgroupBarrier();
}
fn mark(n: u32, r: u32, first: u32, k: u32, start: u32, lane: u32) {
    for (var i = lane; i < k; i += 256u) {
        let bit = token_of(given(r, first + i)) - start;
        if (bit < WINDOW) { atomicOr(&marks[n * WORDS + bit / 32u], 1u << (bit % 32u)); }
    }
}
fn is_marked(n: u32, bit: u32) -> bool {
    return ((atomicLoad(&marks[n * WORDS + bit / 32u]) >> (bit % 32u)) & 1u) == 1u;
}

// The divergence of the targets, whose slopes take the place of ln p
fn compare_targets(r: u32, first: u32, k: u32, q: Softmax, weight: f32, lane: u32) -> vec2<f32> {
    var nats = vec2(0.0, 0.0);
    for (var i = lane; i < k; i += 256u) {
        let token = token_of(given(r, first + i));
        let log_p = given(r, first + k + i);
        var z = p.nan;
        if (token < p.vocab) { z = student(r, token); }
        let x = differ(exp_of(log_p), at(q, z), pair_add(log_at(q, z), -log_p).x);
        nats = pair_add(nats, x.y);
        set_given(r, first + k + i, weight * x.x);
    }
    return whole(nats, lane);
}
// What the student gives all others more than the teacher does, and the divergence of that
fn compare_rest(of_teacher: f32, q: Softmax, u: Softmax) -> vec2<f32> {
    if (u.top == LOWEST) { return vec2(0.0, 0.0); }
    let log_share = offset(u, q);
    return differ(of_teacher, exp_of(log_share), log_share - ln_of(vec2(of_teacher, 0.0)).x);
}
fn add_targets(r: u32, first: u32, k: u32, lane: u32) {
    for (var i = lane; i < k; i += 256u) {
        let token = token_of(given(r, first + i));
        if (token < p.vocab) { set_student(r, token, student(r, token) + given(r, first + k + i)); }
    }
}";
