//! Constant expressions, and values of a wanted type.
//!
//! Every function here returns `None` after it has reported, or where the value depends on something that
//! was reported or is not known.

use super::Checker;
use super::models::Shape;
use super::names::{Kind, Known, Want, list, suggestion, suggestion_of};
use super::value::{Mismatch, Number, Value, repeated};
use crate::axes;
use crate::dim::Dim;
use minic_grammar::ast::{Argument, BinaryOp, Expr, ExprKind, Ident, Param, Path, UnaryOp, Unit};
use minic_grammar::{Diagnostic, Help, Span, Spanned, nearest};

/// Longest range that is written out.
const MOST_STEPS: u64 = 1_000_000;

/// Functions of numbers.
pub(super) const FUNCTIONS: &[&str] = &["mod", "min", "max", "floor", "ceil", "round"];

impl<'a> Checker<'a> {
    pub(super) fn param(&mut self, param: &'a Param) {
        let value = self.value(&param.value);
        let first = self.names.get(&param.name.node).is_some_and(|(_, e)| e.span == param.name.span);
        if !first {
            return;
        }
        if let Some(value) = &value {
            let item = crate::hir::Param { value: value.to_hir(), span: param.span };
            self.out.params.insert(param.name.node.clone(), item);
        }
        self.params.insert(&param.name.node, value);
    }

    pub(super) fn value(&mut self, expr: &Expr) -> Option<Value> {
        match &expr.kind {
            ExprKind::Number(n) => Some(Value::Number(Number::new(n.value, n.unit))),
            ExprKind::String(s) => Some(Value::String(s.clone())),
            ExprKind::Bool(b) => Some(Value::Bool(*b)),
            ExprKind::Path(path) => self.path(path),
            ExprKind::List(items) => self.members(items).map(Value::List),
            ExprKind::Set(items) => self.set(expr.span, items),
            ExprKind::Range { start, end, step } => self.range(expr.span, start, end, step.as_deref()),
            ExprKind::Unary { op, operand } => self.unary(*op, operand, expr.span),
            ExprKind::Binary { op, left, right } => self.binary(op, left, right),
            ExprKind::Call { callee, arguments } => self.function(callee, arguments, expr.span),
            ExprKind::Record(_) => self.misplaced(expr.span, "settings in braces", "in the list of `mix`"),
            ExprKind::In { .. } => self.misplaced(expr.span, "`in`", "in `require`"),
        }
    }

    fn misplaced(&mut self, span: Span, what: &str, place: &str) -> Option<Value> {
        self.report(
            Diagnostic::new("E0301", span, format!("{what} cannot stand here"))
                .label("not a value")
                .help(format!("{what} may stand only {place}")),
        );
        None
    }

    fn members(&mut self, items: &[Expr]) -> Option<Vec<Spanned<Value>>> {
        let values: Vec<Option<Spanned<Value>>> =
            items.iter().map(|e| self.value(e).map(|v| Spanned::new(v, e.span))).collect();
        values.into_iter().collect()
    }

    fn set(&mut self, span: Span, items: &[Expr]) -> Option<Value> {
        if items.is_empty() {
            self.report(Diagnostic::new("E0305", span, "the set is empty").help("name at least one value"));
            return None;
        }
        let members = self.members(items)?;
        if let Some((first, again)) = repeated(&members) {
            self.report(
                Diagnostic::new("E0305", again, "the set names one value twice")
                    .label("again here")
                    .also(first, "first here")
                    .help("keep one of the two: a set holds each value once"),
            );
            return None;
        }
        Some(Value::Set(members))
    }

    fn range(&mut self, span: Span, start: &Expr, end: &Expr, step: Option<&Expr>) -> Option<Value> {
        let (lo, hi) = (self.whole(start), self.whole(end));
        let by = step.map_or(Some(1), |s| self.whole(s));
        let (lo, hi, by) = (lo?, hi?, by?);
        let fault = match () {
            _ if by == 0 => {
                Some(("the step of a range must be at least 1", "write a step of 1 or more".to_string()))
            }
            _ if lo > hi => {
                Some(("the range is empty", format!("write the smaller end first: `{hi}..={lo}`")))
            }
            _ if (hi - lo) / by >= MOST_STEPS => {
                Some(("the range has over a million values", "write a larger `step`".into()))
            }
            _ => None,
        };
        if let Some((message, help)) = fault {
            self.report(
                Diagnostic::new("E0305", span, message).label(format!("from {lo} to {hi}")).help(help),
            );
            return None;
        }
        let unit = Unit::Integer;
        let steps = (lo..=hi).step_by(usize::try_from(by).unwrap_or(usize::MAX));
        Some(Value::Set(
            steps.map(|v| Spanned::new(Value::Number(Number::new(v as f64, unit)), span)).collect(),
        ))
    }

    fn unary(&mut self, op: UnaryOp, operand: &Expr, span: Span) -> Option<Value> {
        match (op, self.value(operand)?) {
            (UnaryOp::Negate, Value::Number(n)) => Some(Value::Number(Number::new(-n.value, n.unit))),
            (UnaryOp::Not, Value::Bool(b)) => Some(Value::Bool(!b)),
            (UnaryOp::Negate, other) => self.mistyped(span, &other, "a number"),
            (UnaryOp::Not, other) => self.mistyped(span, &other, "a truth value"),
        }
    }

    fn binary(&mut self, op: &Spanned<BinaryOp>, left: &Expr, right: &Expr) -> Option<Value> {
        let (a, b) = (self.value(left), self.value(right));
        let (a, b) = (a?, b?);
        let result = match (op.node, &a, &b) {
            (_, Value::Number(x), Value::Number(y)) => x.combine(op.node, *y),
            (BinaryOp::And, Value::Bool(x), Value::Bool(y)) => Ok(Value::Bool(*x && *y)),
            (BinaryOp::Or, Value::Bool(x), Value::Bool(y)) => Ok(Value::Bool(*x || *y)),
            (BinaryOp::Equal, _, _) if a.kind() == b.kind() => Ok(Value::Bool(a == b)),
            (BinaryOp::NotEqual, _, _) if a.kind() == b.kind() => Ok(Value::Bool(a != b)),
            _ => Err(Mismatch::Units),
        };
        match result {
            Ok(value) => Some(value),
            Err(mismatch) => {
                self.mismatch(mismatch, op.span, verb(op.node), (left.span, &a), (right.span, &b))
            }
        }
    }

    fn mismatch<T>(
        &mut self,
        mismatch: Mismatch,
        at: Span,
        verb: &str,
        left: (Span, &Value),
        right: (Span, &Value),
    ) -> Option<T> {
        let report = match mismatch {
            Mismatch::Units => Diagnostic::new(
                "E0302",
                at,
                format!("{} and {} cannot be {verb}", left.1.kind(), right.1.kind()),
            )
            .label(format!("cannot be {verb}"))
            .also(left.0, format!("this is {}", left.1.kind()))
            .also(right.0, format!("this is {}", right.1.kind()))
            .help(unit_help(left.1, right.1)),
            Mismatch::ByZero => Diagnostic::new("E0306", at, "division by zero")
                .also(right.0, "this is zero")
                .help("write a divisor other than `0`"),
            Mismatch::NotFinite => Diagnostic::new("E0306", at, "the result is too large for a number")
                .help("use smaller numbers"),
        };
        self.report(report);
        None
    }

    fn function(&mut self, callee: &Path, arguments: &[Argument], span: Span) -> Option<Value> {
        let name = dotted(callee);
        if !FUNCTIONS.contains(&name.as_str()) {
            self.report(
                Diagnostic::new("E0308", callee.span, format!("there is no function `{name}`"))
                    .label("unknown function")
                    .help(suggestion(&name, "functions", FUNCTIONS)),
            );
            return None;
        }
        let numbers: Vec<Option<Spanned<Number>>> =
            arguments.iter().map(|a| self.number(&a.value).map(|n| Spanned::new(n, a.value.span))).collect();
        let numbers: Vec<Spanned<Number>> = numbers.into_iter().collect::<Option<_>>()?;
        let wanted = if matches!(name.as_str(), "floor" | "ceil" | "round") { 1 } else { 2 };
        let [first, rest @ ..] = numbers.as_slice() else {
            return self.arity(&name, wanted, 0, span);
        };
        if rest.len() + 1 != wanted {
            return self.arity(&name, wanted, numbers.len(), span);
        }
        let a = first.node;
        let Some(second) = rest.first() else {
            let value = match name.as_str() {
                "floor" => a.value.floor(),
                "ceil" => a.value.ceil(),
                _ => a.value.round(),
            };
            let unit = if a.unit == Unit::Float { Unit::Integer } else { a.unit };
            return Some(Value::Number(Number::new(value, unit)));
        };
        let b = second.node;
        let sides = ((first.span, &Value::Number(a)), (second.span, &Value::Number(b)));
        match a.same(b) {
            Err(mismatch) => self.mismatch(mismatch, span, "compared", sides.0, sides.1),
            Ok(_) if name == "mod" && b.value == 0.0 => {
                self.mismatch(Mismatch::ByZero, span, "divided", sides.0, sides.1)
            }
            Ok(unit) => {
                let value = match name.as_str() {
                    "mod" => a.value.rem_euclid(b.value),
                    "min" => a.value.min(b.value),
                    _ => a.value.max(b.value),
                };
                Some(Value::Number(Number::new(value, unit)))
            }
        }
    }

    fn arity(&mut self, name: &str, wanted: usize, given: usize, span: Span) -> Option<Value> {
        self.report(
            Diagnostic::new(
                "E0308",
                span,
                format!(
                    "`{name}` takes {}, not {given}",
                    if wanted == 1 { "one number" } else { "two numbers" }
                ),
            )
            .label(format!("{given} given"))
            .help(if wanted == 1 {
                format!("write `{name}(a)`")
            } else {
                format!("write `{name}(a, b)`")
            }),
        );
        None
    }

    /// A param, or `model.dimension`.
    fn path(&mut self, path: &Path) -> Option<Value> {
        match path.segments.as_slice() {
            [name] => self.param_value(name),
            [model, dim] => self.dimension(model, dim),
            _ => {
                self.report(
                    Diagnostic::new("E0202", path.span, format!("`{}` names nothing", dotted(path)))
                        .label("more than a model and a dimension")
                        .help("a value is a param, or a dimension of a model as in `parent.hidden_size`"),
                );
                None
            }
        }
    }

    fn param_value(&mut self, name: &Ident) -> Option<Value> {
        match self.names.get(&name.node) {
            None => {
                let params = self.names.of(|k| k == Kind::Param);
                self.report(
                    Diagnostic::new("E0202", name.span, format!("no param is called `{}`", name.node))
                        .label("not declared in this recipe")
                        .help(match nearest(&name.node, params.iter().copied()) {
                            Some(near) => Help::meant(near),
                            None => stranger(&name.node),
                        }),
                );
                None
            }
            Some((known, entry)) => {
                self.used.insert(known);
                if entry.kind == Kind::Param {
                    return self.params.get(known).cloned().flatten();
                }
                let params = self.names.of(|k| k == Kind::Param);
                self.wrong_kind(name, entry, "value", suggestion(&name.node, "params", &params));
                None
            }
        }
    }

    fn dimension(&mut self, model: &Ident, dim: &Ident) -> Option<Value> {
        let name = self.resolve(model, Want::Model)?;
        let Some(wanted) = Dim::from_name(&dim.node).filter(|d| !matches!(d, Dim::Sequence | Dim::One))
        else {
            let known: Vec<Known> = Dim::ALL.iter().map(|d| (d.name(), axes::also(*d))).collect();
            self.report(
                Diagnostic::new("E0307", dim.span, format!("a model has no dimension `{}`", dim.node))
                    .label("unknown dimension")
                    .help(suggestion_of(&dim.node, "dimensions", &known)),
            );
            return None;
        };
        match self.shapes.get(name) {
            Some(Shape::One(outline)) => match outline.dim(wanted) {
                Some(size) => Some(Value::Number(Number::new(size as f64, Unit::Integer))),
                None => {
                    let known: Vec<&str> = outline.desc.dims.keys().map(|d| d.name()).collect();
                    let mut report =
                        Diagnostic::new("E0307", dim.span, format!("`{name}` has no `{wanted}`"))
                            .label("no such dimension")
                            .help(format!("it has {}", list(&known)));
                    if let Some((_, entry)) = self.names.get(name) {
                        report = report.also(entry.span, format!("a {} model", outline.desc.family));
                    }
                    self.report(report);
                    None
                }
            },
            _ => {
                self.incomplete = true;
                self.report(
                    Diagnostic::new("W0404", dim.span, format!("`{name}.{wanted}` is not known yet"))
                        .label("its sizes are not at hand")
                        .help(format!(
                            "write the number in the place of `{name}.{wanted}`, or bring the config.json: nothing is planned before"
                        )),
                );
                None
            }
        }
    }
}

/// A word that is no param: one of another language, or text without its quotes.
fn stranger(word: &str) -> Help {
    let instead = |value: &str| Help::instead(format!("write `{value}`"), [value.to_string()]);
    match word.to_lowercase().as_str() {
        same @ ("true" | "false") => instead(same),
        "none" | "null" | "nil" | "undefined" => {
            format!("what has no value is left out: remove the setting with `{word}`").into()
        }
        "yes" | "on" => instead("true"),
        "no" | "off" => instead("false"),
        _ => format!("declare it: `param {word} = ..`; text stands in quotes: `\"{word}\"`").into(),
    }
}

fn verb(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "added",
        BinaryOp::Subtract => "subtracted",
        BinaryOp::Multiply => "multiplied",
        BinaryOp::Divide => "divided",
        BinaryOp::And | BinaryOp::Or => "joined",
        _ => "compared",
    }
}

/// `mamba.x`
pub(super) fn dotted(path: &Path) -> String {
    path.segments.iter().map(|s| s.node.as_str()).collect::<Vec<_>>().join(".")
}

fn unit_help(left: &Value, right: &Value) -> String {
    let unit = |v: &Value| match v {
        Value::Number(n) => Some(n.unit),
        _ => None,
    };
    match (unit(left), unit(right)) {
        (Some(Unit::Bytes), Some(Unit::Bytes)) => "bytes are joined by `+`, `-` and `/` alone".into(),
        (Some(Unit::Bytes), Some(_)) | (Some(_), Some(Unit::Bytes)) => {
            "`B` is billion, never bytes; bytes are written `5GB`, `512MiB`".into()
        }
        (Some(_), Some(_)) => "both sides must have the same unit".into(),
        _ => "both sides must be of the same kind".into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{Checked, Environment, check_text};

    /// A hybrid of hidden_size 160 and 480 neurons.
    struct OneModel;

    impl Environment for OneModel {
        fn config(&self, _: &str) -> Result<Option<String>, String> {
            Ok(Some(include_str!("../../tests/corpus/models/tiny-hybrid/config.json").into()))
        }
    }

    /// The value of an expression as the checked recipe prints it, or the code of its fault.
    fn value(expression: &str) -> String {
        let text = format!(
            "mrecipe 1\nparam value = {expression}\nparam budget = 4.5B\nparam card = 40GiB\nmodel parent {{ checkpoint = \"m\" }}\n"
        );
        let Checked { hir, found, .. } = check_text("a.mrecipe", &text, &OneModel, &[]);
        match hir {
            Some(hir) => hir.params["value"].value.to_string(),
            None => {
                found.into_iter().find(|d| d.code.starts_with('E')).map_or("?".into(), |d| d.code.to_string())
            }
        }
    }

    #[test]
    fn expressions_have_values() {
        let cases = [
            ("1_024", "1024"),
            ("64Ki", "65536"),
            ("4.5B", "4500000000"),
            ("1.5", "1.5"),
            ("6 / 4", "1.5"),
            ("8 / 4", "2"),
            ("2 + 3 * 4", "14"),
            ("(2 + 3) * 4", "20"),
            ("10 - 4 - 3", "3"),
            ("-3 + 5", "2"),
            ("50% * budget", "2250000000"),
            ("0.1%", "0.1%"),
            ("card / 2", "21474836480 bytes"),
            ("card / 1GiB", "40.0"),
            ("2 * 90s", "180s"),
            ("60 steps", "60 steps"),
            ("60 steps * 2", "120 steps"),
            ("mod(14, 4)", "2"),
            ("min(budget, 4B)", "4000000000"),
            ("max(parent.hidden_size, 200)", "200"),
            ("floor(2.9) + ceil(2.1) + round(2.5)", "8"),
            ("parent.num_layers - 1", "10"),
            ("parent.ffn_hidden_size * 75%", "360.0"),
            ("budget > 4B and not (card < 1GiB)", "true"),
            ("\"a\" == \"a\" or false", "true"),
            ("[1, \"b\", true]", "[1, \"b\", true]"),
            ("{48, 56}", "[48, 56]"),
            ("64..=80 step 8", "[64, 72, 80]"),
        ];
        for (expression, expected) in cases {
            assert_eq!(value(expression), expected, "{expression}");
        }
    }

    #[test]
    fn expressions_without_a_value_say_why() {
        let cases = [
            ("budget + card", "E0302"),
            ("budget < card", "E0302"),
            ("card * card", "E0302"),
            ("1 / card", "E0302"),
            ("\"a\" + 1", "E0302"),
            ("true and 1", "E0302"),
            ("60 steps + 60", "E0302"),
            ("min(1, 1GiB)", "E0302"),
            ("1 / 0", "E0306"),
            ("mod(1, 0)", "E0306"),
            ("1e308 * 1e308", "E0306"),
            ("bugdet", "E0202"),
            ("parent", "E0203"),
            ("parent.width", "E0307"),
            ("budget.size", "E0203"),
            ("pow(2, 3)", "E0308"),
            ("min(1)", "E0308"),
            ("not 1", "E0301"),
            ("{}", "E0305"),
            ("{1, 1}", "E0305"),
            ("8..=4", "E0305"),
            ("1..=100000000", "E0305"),
            ("1..=2.5", "E0303"),
            ("value", "E0204"),
        ];
        for (expression, code) in cases {
            assert_eq!(value(expression), code, "{expression}");
        }
    }
}
