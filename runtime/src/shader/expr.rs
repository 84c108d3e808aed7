//! Expressions of metrics as text: a node is an operation of WGSL or one of [`FUNCTIONS`]; what several expressions
//! have in common gets a name, and is computed once.

use super::Source;
use super::common::IS_NAN;
use minic_compiler::metrics::{Binary, Expr, Leaf, Unary};
use std::collections::BTreeMap;

/// Functions that texts call, each before those that it calls. NaN goes in, NaN comes out, whatever a device makes of
/// comparisons with it.
const FUNCTIONS: &[(&str, &str)] = &[
    ("relu(", "fn relu(x: f32) -> f32 { return larger(x, 0.0); }"),
    ("smaller(", "fn smaller(a: f32, b: f32) -> f32 { return -larger(-a, -b); }"),
    (
        "larger(",
        "fn larger(a: f32, b: f32) -> f32 { return select(b, a, is_nan(a) || (a > b && !is_nan(b))); }",
    ),
    ("square(", "fn square(x: f32) -> f32 { return x * x; }"),
    ("root(", "fn root(x: f32) -> f32 { return select(sqrt(x), p.nan, x < 0.0); }"),
    (
        "logarithm(",
        "
fn logarithm(x: f32) -> f32 {
    if (x > 0.0) { return log(x); }
    return select(p.nan, -p.infinity, x == 0.0);
}",
    ),
    ("sigmoid(", "fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }"),
    ("silu(", "fn silu(x: f32) -> f32 { return x / (1.0 + exp(-x)); }"),
    ("signum(", "fn signum(x: f32) -> f32 { return select(select(x, -1.0, x < 0.0), 1.0, x > 0.0); }"),
    (
        "power(",
        "
fn power(x: f32, y: f32) -> f32 {
    if (y == 0.0 || x == 1.0 || (x == -1.0 && abs(y) == p.infinity)) { return 1.0; }
    if (is_nan(x) || is_nan(y)) { return p.nan; }
    if (x == 0.0) { return select(0.0, p.infinity, y < 0.0); }
    let size = pow(abs(x), y);
    if (x > 0.0) { return size; }
    if (floor(y) != y && x != -p.infinity) { return p.nan; }
    return select(size, -size, fract(0.5 * y) != 0.0);
}",
    ),
    ("is_nan(", IS_NAN),
];

/// Adds functions and the body, what both of them call, and the numbers that WGSL cannot write.
pub fn calling(source: Source, functions: &str, body: &str) -> Source {
    let code = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut called: String = code.chain([functions]).collect();
    let source = source.f32("nan", f64::NAN).f32("infinity", f64::INFINITY).with(functions).body(body);
    FUNCTIONS.iter().fold(source, |source, (name, text)| {
        if !called.contains(name) {
            return source;
        }
        called += text;
        source.with(text)
    })
}

/// What expressions are in WGSL: lines that go before them, and the value of each. `leaf` is the text of a leaf.
pub fn texts(exprs: &[&Expr], indent: &str, leaf: &dyn Fn(Leaf) -> String) -> (String, Vec<String>) {
    let mut writer =
        Writer { leaf, indent, uses: BTreeMap::new(), names: BTreeMap::new(), lines: String::new() };
    exprs.iter().for_each(|expr| writer.count(expr));
    let values = exprs.iter().map(|expr| writer.value(expr)).collect();
    (writer.lines, values)
}

struct Writer<'a> {
    leaf: &'a dyn Fn(Leaf) -> String,
    indent: &'a str,
    /// How often an expression, by its text in the language, stands somewhere.
    uses: BTreeMap<String, usize>,
    names: BTreeMap<String, String>,
    lines: String,
}

impl Writer<'_> {
    fn count(&mut self, expr: &Expr) {
        let uses = self.uses.entry(expr.to_string()).or_default();
        *uses += 1;
        if *uses == 1 {
            match expr {
                Expr::Number(_) | Expr::Leaf(_) => {}
                Expr::Unary(_, a) => self.count(a),
                Expr::Binary(_, a, b) => {
                    self.count(a);
                    self.count(b);
                }
            }
        }
    }

    fn value(&mut self, expr: &Expr) -> String {
        let text = expr.to_string();
        if let Some(name) = self.names.get(&text) {
            return name.clone();
        }
        let value = match expr {
            Expr::Number(n) => return number(*n),
            Expr::Leaf(leaf) => return (self.leaf)(*leaf),
            Expr::Unary(op, a) => unary(*op, &self.value(a)),
            Expr::Binary(op, a, b) => binary(*op, &self.value(a), &self.value(b)),
        };
        if self.uses.get(&text).is_none_or(|uses| *uses < 2) {
            return value;
        }
        let name = format!("v{}", self.names.len());
        self.lines += &format!("{}let {name} = {value};\n", self.indent);
        self.names.insert(text, name.clone());
        name
    }
}

fn number(n: f64) -> String {
    match n as f32 {
        n if n.is_nan() => "p.nan".into(),
        n if n == f32::INFINITY => "p.infinity".into(),
        n if n == f32::NEG_INFINITY => "-p.infinity".into(),
        n => format!("{n:?}"),
    }
}

fn unary(op: Unary, a: &str) -> String {
    let function = match op {
        Unary::Negate => "-",
        Unary::Abs => "abs",
        Unary::Square => "square",
        Unary::Sqrt => "root",
        Unary::Exp => "exp",
        Unary::Log => "logarithm",
        Unary::Relu => "relu",
        Unary::Sigmoid => "sigmoid",
        Unary::Silu => "silu",
        Unary::Sign => "signum",
    };
    format!("{function}({a})")
}

fn binary(op: Binary, a: &str, b: &str) -> String {
    match op {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide => format!("({a} {op} {b})"),
        Binary::Min => format!("smaller({a}, {b})"),
        Binary::Max => format!("larger({a}, {b})"),
        Binary::Pow => format!("power({a}, {b})"),
    }
}
