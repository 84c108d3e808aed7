//! Values of a wanted type: counts, sizes, bytes, strings, lists of strings, sizes of an axis.
//!
//! As in [`super::eval`], `None` is returned after a report, or where the value is not known.

use super::Checker;
use super::names::{legible, words};
use super::value::{Number, Value};
use minic_grammar::ast::{Expr, ExprKind, Unit};
use minic_grammar::{Diagnostic, Help, Span, Spanned};

impl<'a> Checker<'a> {
    pub(super) fn mistyped<T>(&mut self, span: Span, value: &Value, wanted: &str) -> Option<T> {
        let report = Diagnostic::new("E0301", span, format!("expected {wanted}, found {}", value.kind()))
            .label(format!("this is {}", value.kind()))
            .help(type_help(value, wanted));
        self.report(report);
        None
    }

    pub(super) fn number(&mut self, expr: &Expr) -> Option<Number> {
        match self.value(expr)? {
            Value::Number(n) => Some(n),
            other => self.mistyped(expr.span, &other, "a number"),
        }
    }

    /// A number without a unit of its own: a count, a percentage, or bare.
    pub(super) fn plain(&mut self, expr: &Expr) -> Option<f64> {
        match self.value(expr)? {
            Value::Number(n) if n.is_plain() => Some(n.value),
            other => self.mistyped(expr.span, &other, "a number"),
        }
    }

    /// A whole number of things.
    pub(super) fn whole(&mut self, expr: &Expr) -> Option<u64> {
        let value = self.value(expr)?;
        match value {
            Value::Number(n) if n.is_plain() => n.whole().or_else(|| {
                self.report(
                    Diagnostic::new("E0303", expr.span, "a count must be a whole number, and not negative")
                        .label(format!("this is {n}"))
                        .help(nearest_whole(n, COUNTS)),
                );
                None
            }),
            other => self.mistyped(expr.span, &other, "a count"),
        }
    }

    /// A count of at least `least`.
    pub(super) fn at_least(&mut self, expr: &Expr, what: &str, least: u64) -> Option<u64> {
        let value = self.whole(expr)?;
        if value >= least {
            return Some(value);
        }
        self.report(
            Diagnostic::new("E0304", expr.span, format!("{what} must be at least {least}"))
                .label(format!("this is {value}"))
                .help(format!("write {least} or more")),
        );
        None
    }

    pub(super) fn size(&mut self, expr: &Expr, what: &str, least: u64) -> Option<usize> {
        self.at_least(expr, what, least).and_then(|v| usize::try_from(v).ok())
    }

    pub(super) fn bytes(&mut self, expr: &Expr, what: &str) -> Option<u64> {
        let value = self.value(expr)?;
        match value {
            Value::Number(n) if n.unit == Unit::Bytes => n.bytes().filter(|b| *b > 0).or_else(|| {
                self.report(
                    Diagnostic::new("E0304", expr.span, format!("{what} must be at least one byte"))
                        .label(format!("this is {}", n))
                        .help("write a size such as `5GB` or `512MiB`"),
                );
                None
            }),
            other => self.mistyped(expr.span, &other, "a number of bytes"),
        }
    }

    pub(super) fn updates(&mut self, expr: &Expr) -> Option<u64> {
        match self.value(expr)? {
            Value::Number(n) if n.unit == Unit::Updates => n.whole().or_else(|| {
                self.report(
                    Diagnostic::new(
                        "E0303",
                        expr.span,
                        "a number of updates must be whole, and not negative",
                    )
                    .label(format!("this is {n}"))
                    .help(nearest_whole(n, "updates are counted, as in `60 steps`")),
                );
                None
            }),
            other => self.mistyped(expr.span, &other, "a number of updates"),
        }
    }

    pub(super) fn string(&mut self, expr: &Expr, what: &str) -> Option<String> {
        self.quoted(expr)?;
        match self.value(expr)? {
            Value::String(s) if !s.trim().is_empty() => Some(s),
            Value::String(_) => {
                self.report(
                    Diagnostic::new("E0304", expr.span, format!("{what} is empty"))
                        .label("nothing between the quotes")
                        .help("write it between the quotes, `\"..\"`, or leave the setting out"),
                );
                None
            }
            other => self.mistyped(expr.span, &other, "a string"),
        }
    }

    /// Text without its quotes reads as arithmetic with names that no one declared: that is one fault.
    fn quoted(&mut self, expr: &Expr) -> Option<()> {
        let sum = matches!(expr.kind, ExprKind::Binary { .. });
        if !sum || words(expr).iter().any(|word| self.names.get(&word.node).is_some()) {
            return Some(());
        }
        let written = format!("\"{}\"", expr.to_string().replace(['(', ')', ' '], ""));
        self.report(
            Diagnostic::new("E0301", expr.span, "expected a string, found a computation")
                .label("text without quotes?")
                .help(Help::instead(format!("text stands in quotes: `{written}`"), [written])),
        );
        None
    }

    /// `["a", "b"]`; a single string stands for a list of one.
    pub(super) fn strings(&mut self, expr: &Expr, what: &str) -> Option<Vec<Spanned<String>>> {
        let items = match self.value(expr)? {
            Value::List(items) => items,
            single @ Value::String(_) => vec![Spanned::new(single, expr.span)],
            other => return self.mistyped(expr.span, &other, "a list of strings"),
        };
        if items.is_empty() {
            self.report(
                Diagnostic::new("E0304", expr.span, format!("the list of {what} is empty"))
                    .label("nothing between the brackets")
                    .help("name at least one: `[\"data/*.txt\"]`"),
            );
            return None;
        }
        let strings: Vec<Option<Spanned<String>>> = items
            .into_iter()
            .map(|item| match item.node {
                Value::String(s) => Some(Spanned::new(s, item.span)),
                other => self.mistyped(item.span, &other, "a string"),
            })
            .collect();
        strings.into_iter().collect()
    }

    /// Numbers of layers: a list, or a set where their order does not matter.
    pub(super) fn layers(&mut self, expr: &Expr, what: &str) -> Option<Vec<usize>> {
        let items = match self.value(expr)? {
            Value::List(items) | Value::Set(items) => items,
            other => return self.mistyped(expr.span, &other, "a list of layers"),
        };
        if items.is_empty() {
            self.report(
                Diagnostic::new("E0304", expr.span, format!("{what} lists no layer"))
                    .help("name at least one, `[3, 7]`, or leave the argument out"),
            );
            return None;
        }
        let layers: Vec<Option<Spanned<usize>>> = items.iter().map(|i| self.member_size(i)).collect();
        layers.into_iter().map(|layer| layer.map(|l| l.node)).collect()
    }

    /// The sizes of a set, a range or a single value, each at its place.
    pub(super) fn sizes(&mut self, expr: &Expr, single: bool) -> Option<Vec<Spanned<usize>>> {
        let value = self.value(expr)?;
        let members = match value {
            Value::Set(members) if !single => members,
            number @ Value::Number(_) if single => vec![Spanned::new(number, expr.span)],
            other => {
                let wanted = if single { "one value" } else { "a set or a range" };
                let written = legible(self.sources.text(expr.span));
                let help = match (&other, single) {
                    (Value::List(items), false) => {
                        format!("a set stands in braces: `in {{{}}}`", members_shown(items))
                    }
                    (_, true) => format!("write `in {written}`"),
                    (_, false) => format!("write `= {written}`, or `in {{{written}, ..}}`"),
                };
                self.report(
                    Diagnostic::new("E0301", expr.span, format!("expected {wanted}, found {}", other.kind()))
                        .label(format!("this is {}", other.kind()))
                        .help(help),
                );
                return None;
            }
        };
        let sizes: Vec<Option<Spanned<usize>>> = members.iter().map(|m| self.member_size(m)).collect();
        sizes.into_iter().collect()
    }

    fn member_size(&mut self, member: &Spanned<Value>) -> Option<Spanned<usize>> {
        match &member.node {
            Value::Number(n) if n.is_plain() => {
                let size = n.whole().and_then(|w| usize::try_from(w).ok());
                if size.is_none() {
                    self.report(
                        Diagnostic::new(
                            "E0303",
                            member.span,
                            "a size must be a whole number, and not negative",
                        )
                        .label(format!("this is {n}"))
                        .help(nearest_whole(*n, SHARE)),
                    );
                }
                size.map(|s| Spanned::new(s, member.span))
            }
            other => self.mistyped(member.span, other, "a count"),
        }
    }
}

const COUNTS: &str = "counts are written `1024`, `64Ki`, `4.5B`";
const SHARE: &str = "a share of a size is written as a product: `parent.ffn_hidden_size * 50%`";

/// What was probably meant by a number that is not whole, or negative.
fn nearest_whole(number: Number, below_one: &str) -> Help {
    let Number { value, unit } = number;
    let steps = if unit == Unit::Updates { " steps" } else { "" };
    let written = |value: f64| format!("{value}{steps}");
    match value {
        v if v < 0.0 => {
            let above = written(v.abs().ceil());
            Help::instead(format!("write a whole number above 0: `{above}`"), [above])
        }
        v if v < 1.0 => below_one.into(),
        v => {
            let (below, above) = (v.floor(), v.ceil());
            Help::instead(format!("nearest: {below} or {above}{steps}"), [below, above].map(written))
        }
    }
}

fn members_shown(items: &[Spanned<Value>]) -> String {
    let shown = items.iter().map(|item| match &item.node {
        Value::Number(n) => n.to_string(),
        _ => "..".into(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Text that would be a number without its quotes.
fn is_number(text: &str) -> bool {
    text.trim().starts_with(|c: char| c.is_ascii_digit())
        && text.trim().chars().all(|c| c.is_ascii_alphanumeric() || "._%".contains(c))
}

fn type_help(value: &Value, wanted: &str) -> Help {
    let instead = |text: String| Help::instead(format!("write `{text}`"), [text]);
    match (value, wanted) {
        (Value::Number(n), "a number of bytes") if n.is_plain() => {
            "`B` is billion, never bytes; bytes are written `5GB`, `512MiB`".into()
        }
        (Value::Number(n), "a number of updates") if n.unit == Unit::Percent => {
            "updates are counted, as in `60 steps`".into()
        }
        (Value::Number(n), "a number of updates") if n.is_plain() => instead(format!("{} steps", n.value)),
        (Value::String(text), "a count" | "a number") if is_number(text) => {
            let number = text.trim().to_string();
            Help::instead(format!("write `{number}`, without quotes"), [number])
        }
        (_, "a count") => COUNTS.into(),
        (_, "a truth value") => "write `true` or `false`".into(),
        (_, "a number") => "numbers are written `0.5`, `1e-4`, `1%`".into(),
        (Value::Number(n), "a list of layers") => instead(format!("[{}]", n.value)),
        (_, "a list of layers") => "layers are listed by their numbers: `[3, 7]`".into(),
        (Value::Number(n), "a string") => {
            Help::instead(format!("text stands in quotes: `\"{n}\"`"), [format!("\"{n}\"")])
        }
        (_, "a string") => "text stands in quotes: `\"..\"`".into(),
        (_, "a list of strings") => "a list is written `[\"a\", \"b\"]`".into(),
        (_, wanted) => format!("write {wanted}").into(),
    }
}
