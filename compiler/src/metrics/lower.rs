//! From the syntax of a metric to its program, with every axis accounted for.
//!
//! x has the axes batch and sequence, w has its other side; a reducer removes axes, an elementwise operation
//! joins values of equal axes. A reduction whose result meets the values that it was made of would need a
//! second pass over the data, and is refused.

use super::functions::{self, FUNCTIONS, Function};
use super::reducers::{self, REDUCERS, Reducer, Reduction};
use super::typing::{Axes, Typed, join, remove};
use super::{Binary, Expr, Leaf, Program, Unary};
use minic_grammar::ast::{self, Argument, BinaryOp, ExprKind, UnaryOp, Unit};
use minic_grammar::{Diagnostic, Help, Span, nearest};
use std::collections::BTreeMap;

/// The parameters that a metric may declare, and what they stand for.
pub const PARAMETERS: &[(&str, &str)] = &[
    ("x", "the activation at the tap [batch, sequence, element]"),
    ("w", "the weight beside the tap [element, other side]"),
];

/// The axes that `over =` may name.
pub const OVER: [&str; 3] = ["sequence", "batch", "tokens"];

/// Deeper expressions are refused, so that recursion over them is bounded.
const MAX_DEPTH: usize = 64;

/// Compiles a metric that reads nothing but its parameters.
pub fn compile(metric: &ast::Metric) -> Result<Program, Vec<Diagnostic>> {
    compile_with(metric, &BTreeMap::new())
}

/// Compiles a metric that may also read the numbers of the recipe's `param`s.
pub fn compile_with(
    metric: &ast::Metric,
    params: &BTreeMap<String, f64>,
) -> Result<Program, Vec<Diagnostic>> {
    let mut lower = Lower::new(metric, params);
    lower.check_parameters();
    let body = lower.expr(&metric.body, 0);
    if let Some(body) = body {
        lower.program.score = lower.check_score(body);
    }
    if lower.diagnostics.is_empty() { Ok(lower.program) } else { Err(lower.diagnostics) }
}

/// Warnings about a metric that compiles: parameters that it does not read.
pub fn lint(metric: &ast::Metric) -> Vec<Diagnostic> {
    let unused = metric.parameters.iter().filter(|p| !reads(&metric.body, &p.node));
    unused
        .map(|p| {
            Diagnostic::new(
                "W1001",
                p.span,
                format!("metric `{}` does not read `{}`", metric.name.node, p.node),
            )
            .label("not read")
            .help(format!("leave `{}` out of the parameters", p.node))
        })
        .collect()
}

fn reads(expr: &ast::Expr, name: &str) -> bool {
    match &expr.kind {
        ExprKind::Path(path) => path.segments.iter().any(|s| s.node == name),
        ExprKind::Unary { operand, .. } => reads(operand, name),
        ExprKind::Binary { left, right, .. } => reads(left, name) || reads(right, name),
        ExprKind::Call { arguments, .. } => {
            arguments.iter().any(|a| a.name.is_none() && reads(&a.value, name))
        }
        _ => false,
    }
}

struct Lower<'a> {
    metric: &'a ast::Metric,
    params: &'a BTreeMap<String, f64>,
    program: Program,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Lower<'a> {
    fn new(metric: &'a ast::Metric, params: &'a BTreeMap<String, f64>) -> Self {
        let program = Program {
            name: metric.name.node.clone(),
            sequence: Vec::new(),
            batch: Vec::new(),
            tokens: Vec::new(),
            weight: Vec::new(),
            score: Expr::Number(f64::NAN),
        };
        Lower { metric, params, program, diagnostics: Vec::new() }
    }

    /// Reports a diagnostic; the value at fault is unknown from there on, so that nothing cascades.
    fn refuse<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.diagnostics.push(diagnostic);
        None
    }

    fn sound<T>(&mut self, result: Result<T, Box<Diagnostic>>) -> Option<T> {
        result.map_err(|diagnostic| self.diagnostics.push(*diagnostic)).ok()
    }

    fn check_parameters(&mut self) {
        let form = "write `(x)`, `(x, w)` or `(w)`: x is the activation at the tap, w the weight beside it";
        let metric = self.metric;
        if metric.parameters.is_empty() {
            let message = format!("metric `{}` has no parameters", metric.name.node);
            self.diagnostics.push(Diagnostic::new("E1002", metric.name.span, message).help(form));
        }
        for (i, parameter) in metric.parameters.iter().enumerate() {
            let name = &parameter.node;
            let earlier = metric.parameters[..i].iter().find(|p| p.node == *name);
            let diagnostic = if !PARAMETERS.iter().any(|(p, _)| p == name) {
                Diagnostic::new("E1002", parameter.span, format!("`{name}` is not a parameter of metrics"))
            } else if let Some(earlier) = earlier {
                Diagnostic::new("E1002", parameter.span, format!("parameter `{name}` is declared twice"))
                    .also(earlier.span, "first here")
            } else {
                continue;
            };
            self.diagnostics.push(diagnostic.help(form));
        }
    }

    fn check_score(&mut self, body: Typed) -> Expr {
        let help = match body.axes {
            Axes::Element { .. } => return body.expr,
            Axes::Number => "read x or w, so that elements differ",
            Axes::Token => "reduce it, for example `l2(mean(abs(x), over = sequence), over = batch)`",
            Axes::Sample => "reduce it once more, for example `l2(.., over = batch)`",
            Axes::Weight => "reduce it over the other side of the weight, for example `l2(w)`",
        };
        let message = format!("metric `{}` does not give one score per element", self.metric.name.node);
        let label = format!("this is {}", body.axes.describe());
        self.diagnostics.push(Diagnostic::new("E1005", body.span, message).label(label).help(help));
        body.expr
    }

    fn expr(&mut self, expr: &ast::Expr, depth: usize) -> Option<Typed> {
        let span = expr.span;
        if depth > MAX_DEPTH {
            let message = format!("a metric may be nested {MAX_DEPTH} levels deep");
            return self.refuse(Diagnostic::new("E1009", span, message).help("split it into two metrics"));
        }
        match &expr.kind {
            ExprKind::Number(number) => self.number(number, span),
            ExprKind::Path(path) => self.name(path),
            ExprKind::Unary { op: UnaryOp::Negate, operand } => {
                let a = self.expr(operand, depth + 1)?;
                Some(Typed { expr: Expr::unary(Unary::Negate, a.expr), axes: a.axes, span })
            }
            ExprKind::Binary { op, left, right } => {
                let (left, right) = (self.expr(left, depth + 1), self.expr(right, depth + 1));
                let op = match op.node {
                    BinaryOp::Add => Binary::Add,
                    BinaryOp::Subtract => Binary::Subtract,
                    BinaryOp::Multiply => Binary::Multiply,
                    BinaryOp::Divide => Binary::Divide,
                    _ => return self.no_metric(op.span),
                };
                let (left, right) = (left?, right?);
                let axes = self.sound(join(&left, &right))?;
                Some(Typed { expr: Expr::binary(op, left.expr, right.expr), axes, span })
            }
            ExprKind::Call { callee, arguments } => self.call(callee, arguments, span, depth),
            _ => self.no_metric(span),
        }
    }

    fn no_metric<T>(&mut self, span: Span) -> Option<T> {
        let message = "this cannot stand in a metric";
        let help = "metrics are numbers, x, w, `+ - * /`, elementwise functions and reducers";
        self.refuse(Diagnostic::new("E1009", span, message).help(help))
    }

    fn number(&mut self, number: &ast::Number, span: Span) -> Option<Typed> {
        match number.unit {
            Unit::Integer | Unit::Float | Unit::Count | Unit::Percent => {
                Some(Typed { expr: Expr::Number(number.value), axes: Axes::Number, span })
            }
            Unit::Bytes | Unit::Duration | Unit::Updates => {
                let message = format!("`{}` has a unit, metrics reckon with plain numbers", number.text);
                self.refuse(Diagnostic::new("E1009", span, message).help("leave the unit out"))
            }
        }
    }

    fn name(&mut self, path: &ast::Path) -> Option<Typed> {
        let name = path.segments.iter().map(|s| s.node.as_str()).collect::<Vec<_>>().join(".");
        let value = |expr, axes| Some(Typed { expr, axes, span: path.span });
        let declared = self.metric.parameters.iter().any(|p| p.node == name);
        match name.as_str() {
            "x" if declared => return value(Expr::Leaf(Leaf::X), Axes::Token),
            "w" if declared => return value(Expr::Leaf(Leaf::W), Axes::Weight),
            _ => {}
        }
        if let Some(&number) = self.params.get(&name) {
            return value(Expr::Number(number), Axes::Number);
        }
        if self.metric.parameters.iter().any(|p| p.node == name) {
            return None; // A wrong parameter, reported where it is declared.
        }
        let diagnostic = Diagnostic::new("E1001", path.span, format!("`{name}` is not known here"));
        let diagnostic = if PARAMETERS.iter().any(|(p, _)| *p == name) {
            let form = if name == "x" && self.metric.parameters.is_empty() { "(x)" } else { "(x, w)" };
            diagnostic.help(format!("declare it: `metric {}{form} = ..`", self.metric.name.node))
        } else if functions::find(&name).is_some() || reducers::find(&name).is_some() {
            diagnostic.help(format!("`{name}` is a function: call it, `{name}(..)`"))
        } else {
            let names = self.metric.parameters.iter().map(|p| p.node.as_str());
            let known = names.chain(self.params.keys().map(String::as_str));
            let help = nearest(&name, known).map(Help::meant);
            diagnostic.help(help.unwrap_or_else(|| "metrics read x, w and numbers".into()))
        };
        self.refuse(diagnostic)
    }

    fn call(
        &mut self,
        callee: &ast::Path,
        arguments: &[Argument],
        span: Span,
        depth: usize,
    ) -> Option<Typed> {
        let name = callee.segments.iter().map(|s| s.node.as_str()).collect::<Vec<_>>().join(".");
        let positional = arguments.iter().filter(|a| a.name.is_none()).count();
        // `max` is both: of two values, and of the values along an axis.
        let function = functions::find(&name).filter(|_| positional > 1 || reducers::find(&name).is_none());
        if let Some(function) = function {
            return self.elementwise(function, arguments, span, depth);
        }
        if let Some(reducer) = reducers::find(&name) {
            return self.reduce(reducer, arguments, callee.span, span, depth);
        }
        for argument in arguments.iter().filter(|a| a.name.is_none()) {
            self.expr(&argument.value, depth + 1);
        }
        let reducers = || REDUCERS.iter().map(|r| r.name).filter(|r| functions::find(r).is_none());
        let known = || FUNCTIONS.iter().map(|f| f.name).chain(reducers());
        let message = format!("`{name}` is neither an elementwise function nor a reducer");
        let help = match nearest(&name, known()) {
            Some(near) => Help::meant(near),
            None => format!("there are {}", known().collect::<Vec<_>>().join(", ")).into(),
        };
        self.refuse(Diagnostic::new("E1001", callee.span, message).help(help))
    }

    fn elementwise(
        &mut self,
        function: &Function,
        arguments: &[Argument],
        span: Span,
        depth: usize,
    ) -> Option<Typed> {
        let mut sound = true;
        let mut values = Vec::new();
        for argument in arguments {
            match &argument.name {
                None => values.push(self.expr(&argument.value, depth + 1)),
                Some(name) => {
                    sound = false;
                    let message = format!("`{}` takes no argument `{}`", function.name, name.node);
                    let diagnostic = Diagnostic::new("E1003", name.span, message);
                    let help = match name.node.as_str() {
                        "over" => "it works on every value by itself; a reducer takes `over`, as in `mean(abs(x), over = sequence)`".into(),
                        _ => format!("write `{}`", function.form),
                    };
                    self.diagnostics.push(diagnostic.help(help));
                }
            }
        }
        if values.len() != function.arity() {
            let message =
                format!("`{}` takes {}, got {}", function.name, values_word(function.arity()), values.len());
            let help = format!("write `{}`", function.form);
            return self.refuse(Diagnostic::new("E1008", span, message).help(help));
        }
        let values: Vec<Typed> = values.into_iter().collect::<Option<_>>()?;
        let mut joined: Option<Typed> = None;
        for value in &values {
            let axes = match &joined {
                Some(so_far) => self.sound(join(so_far, value))?,
                None => value.axes,
            };
            let from = joined.map_or(value.span, |j| j.span);
            joined = Some(Typed { expr: Expr::Number(0.0), axes, span: from.to(value.span) });
        }
        let axes = joined?.axes;
        let expr = function.build(values.into_iter().map(|v| v.expr).collect())?;
        sound.then_some(Typed { expr, axes, span })
    }

    fn reduce(
        &mut self,
        reducer: Reducer,
        arguments: &[Argument],
        callee: Span,
        span: Span,
        depth: usize,
    ) -> Option<Typed> {
        let over = self.over(reducer, arguments);
        let positional: Vec<&Argument> = arguments.iter().filter(|a| a.name.is_none()).collect();
        let values: Vec<Option<Typed>> = positional.iter().map(|a| self.expr(&a.value, depth + 1)).collect();
        if values.len() != 1 {
            let message = format!("`{}` reduces one value, got {}", reducer.name(), values.len());
            let help = format!("write `{}(x, over = sequence)` or `{}(w)`", reducer.name(), reducer.name());
            return self.refuse(Diagnostic::new("E1008", span, message).help(help));
        }
        let (over, value) = (over?, values.into_iter().flatten().next()?);
        let axes = self.sound(remove(reducer, &value, over, callee))?;
        let reductions = match axes {
            Axes::Sample => &mut self.program.sequence,
            Axes::Element { of_x: false } => &mut self.program.weight,
            _ if value.axes == Axes::Sample => &mut self.program.batch,
            _ => &mut self.program.tokens,
        };
        let index = place(reductions, Reduction { reducer, of: value.expr });
        let leaf = match axes {
            Axes::Sample => Leaf::Sequence(index),
            Axes::Element { of_x: false } => Leaf::Weight(index),
            _ if value.axes == Axes::Sample => Leaf::Batch(index),
            _ => Leaf::Tokens(index),
        };
        Some(Typed { expr: Expr::Leaf(leaf), axes, span })
    }

    /// The `over` of a reducer: `Some(None)` where it is left out, `None` where it is wrong.
    fn over(&mut self, reducer: Reducer, arguments: &[Argument]) -> Option<Option<(&'static str, Span)>> {
        let mut over = Some(None);
        for argument in arguments {
            let Some(name) = &argument.name else { continue };
            if name.node != "over" {
                let message = format!("`{}` takes no argument `{}`", reducer.name(), name.node);
                let help = "a reducer takes `over`: `over = sequence`, `over = batch` or `over = tokens`";
                over = self.refuse(Diagnostic::new("E1003", name.span, message).help(help));
                continue;
            }
            let word = match &argument.value.kind {
                ExprKind::Path(path) if path.segments.len() == 1 => path.segments[0].node.as_str(),
                _ => "",
            };
            if let Some(axis) = OVER.iter().find(|o| **o == word) {
                over = over.map(|_| Some((*axis, argument.value.span)));
                continue;
            }
            let message = "`over` names the axes to reduce";
            let help = match nearest(word, OVER) {
                Some(near) => Help::instead(format!("did you mean `over = {near}`?"), [near.to_string()]),
                None => "write `over = sequence`, `over = batch`, or `over = tokens` for both at once".into(),
            };
            over = self.refuse(Diagnostic::new("E1003", argument.value.span, message).help(help));
        }
        over
    }
}

/// The index of a reduction, added where there is no equal one.
fn place(reductions: &mut Vec<Reduction>, reduction: Reduction) -> usize {
    match reductions.iter().position(|r| *r == reduction) {
        Some(index) => index,
        None => {
            reductions.push(reduction);
            reductions.len() - 1
        }
    }
}

fn values_word(count: usize) -> String {
    if count == 1 { "one value".into() } else { format!("{count} values") }
}
