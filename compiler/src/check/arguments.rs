//! Calls with keyword arguments, read against a signature: losses, optimizers, rates, quantities, targets.

use super::Checker;
use super::eval::dotted;
use super::names::suggestion;
use super::value::{Number, Value};
use crate::hir;
use minic_grammar::ast::{self, Expr, ExprKind, Ident, Unit};
use minic_grammar::{Diagnostic, Span};
use std::collections::BTreeMap;

/// One keyword argument.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    pub name: &'static str,
    pub accepts: Accepts,
    pub default: Default,
    pub doc: &'static str,
}

/// The values that an argument may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// A number above zero.
    Positive,
    /// A number of zero or more.
    NotNegative,
    /// From zero to below one.
    Fraction,
    /// A whole number of one or more.
    Count,
    /// A whole number of zero or more.
    Whole,
    /// Optimizer updates, `60 steps`.
    Updates,
    /// Numbers of layers, `[3, 7]`.
    Layers,
}

/// What holds where an argument is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    Required,
    Absent,
    Is(f64),
}

impl Argument {
    /// `warmup = 60 steps`, for help lines.
    fn example(&self) -> String {
        let value = match (self.accepts, self.default) {
            (Accepts::Updates, _) => "60 steps".to_string(),
            (Accepts::Layers, _) => "[3, 7]".into(),
            (_, Default::Is(value)) => value.to_string(),
            (Accepts::Positive, _) => "1e-4".into(),
            (Accepts::NotNegative | Accepts::Fraction, _) => "0.1".into(),
            (Accepts::Count, _) => "8".into(),
            (Accepts::Whole, _) => "1".into(),
        };
        format!("{} = {value}", self.name)
    }
}

/// Arguments by name, defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, (Given, Accepts)>,
    spans: BTreeMap<&'static str, Span>,
}

#[derive(Clone, Debug)]
enum Given {
    Number(f64),
    Layers(Vec<usize>),
}

impl Arguments {
    pub fn get(&self, name: &str) -> Option<f64> {
        match self.values.get(name) {
            Some((Given::Number(value), _)) => Some(*value),
            _ => None,
        }
    }

    /// A list of layers, in the order in which they are given.
    pub fn layers(&self, name: &str) -> Option<Vec<usize>> {
        match self.values.get(name) {
            Some((Given::Layers(layers), _)) => Some(layers.clone()),
            _ => None,
        }
    }

    /// 0 where the argument is absent; for arguments that are required or have a default.
    pub fn number(&self, name: &str) -> f64 {
        self.get(name).unwrap_or(0.0)
    }

    pub fn whole(&self, name: &str) -> u64 {
        self.number(name) as u64
    }

    pub fn span(&self, name: &str) -> Option<Span> {
        self.spans.get(name).copied()
    }

    pub fn to_hir(&self) -> BTreeMap<String, hir::Value> {
        let count = |n: &usize| hir::Value::Count(*n as u64);
        let value = |(value, accepts): &(Given, Accepts)| match (value, accepts) {
            (Given::Layers(layers), _) => hir::Value::List(layers.iter().map(count).collect()),
            (Given::Number(value), Accepts::Count | Accepts::Whole) => hir::Value::Count(*value as u64),
            (Given::Number(value), Accepts::Updates) => hir::Value::Updates(*value as u64),
            (Given::Number(value), _) => hir::Value::Float(*value),
        };
        self.values.iter().map(|(name, v)| (name.to_string(), value(v))).collect()
    }
}

/// A name, or a name with arguments: `forward_kl`, `forward_kl(temperature = 1.0)`.
pub(super) struct Call<'e> {
    pub name: String,
    pub name_span: Span,
    pub arguments: &'e [ast::Argument],
    pub span: Span,
}

pub(super) fn call_of(expr: &Expr) -> Option<Call<'_>> {
    let (path, arguments): (&ast::Path, &[ast::Argument]) = match &expr.kind {
        ExprKind::Path(path) => (path, &[]),
        ExprKind::Call { callee, arguments } => (callee, arguments),
        _ => return None,
    };
    Some(Call { name: dotted(path), name_span: path.span, arguments, span: expr.span })
}

impl<'a> Checker<'a> {
    /// Reads the arguments of a call; `None` after a fault.
    pub(super) fn arguments(&mut self, call: &Call, signature: &'static [Argument]) -> Option<Arguments> {
        let mut out = Arguments::default();
        let mut seen: Vec<&Ident> = Vec::new();
        let mut sound = true;
        for given in call.arguments {
            let Some((key, known)) = self.known_argument(call, given, signature, &seen) else {
                sound = false;
                continue;
            };
            seen.push(key);
            match self.argument(known, &given.value) {
                Some(value) => {
                    out.values.insert(known.name, (value, known.accepts));
                    out.spans.insert(known.name, given.value.span);
                }
                None => sound = false,
            }
        }
        for argument in signature.iter().filter(|a| !seen.iter().any(|k| k.node == a.name)) {
            match argument.default {
                Default::Is(value) => {
                    out.values.insert(argument.name, (Given::Number(value), argument.accepts));
                }
                Default::Absent => {}
                Default::Required => {
                    self.report(lacking(call, argument));
                    sound = false;
                }
            }
        }
        sound.then_some(out)
    }

    /// The argument of the signature that is given: named, known, and not given before.
    fn known_argument<'e>(
        &mut self,
        call: &Call,
        given: &'e ast::Argument,
        signature: &'static [Argument],
        seen: &[&Ident],
    ) -> Option<(&'e Ident, &'static Argument)> {
        let Some(key) = &given.name else {
            self.report(unnamed(call, given.value.span, signature));
            return None;
        };
        let Some(known) = signature.iter().find(|a| a.name == key.node) else {
            let names: Vec<&str> = signature.iter().map(|a| a.name).collect();
            let help = match names.as_slice() {
                [] => format!("`{}` takes no arguments", call.name).into(),
                names => suggestion(&key.node, "arguments", names),
            };
            let message = format!("`{}` has no argument `{}`", call.name, key.node);
            self.report(Diagnostic::new("E0308", key.span, message).label("unknown argument").help(help));
            return None;
        };
        if let Some(first) = seen.iter().find(|k| k.node == key.node) {
            self.report(
                Diagnostic::new("E0308", key.span, format!("`{}` is given twice", key.node))
                    .label("given again here")
                    .also(first.span, "first given here")
                    .help(format!("keep one `{}`", key.node)),
            );
            return None;
        }
        Some((key, known))
    }

    fn argument(&mut self, argument: &Argument, expr: &Expr) -> Option<Given> {
        let what = format!("`{}`", argument.name);
        let number = match argument.accepts {
            Accepts::Layers => return self.layers(expr, &what).map(Given::Layers),
            Accepts::Positive => self.positive(expr, &what),
            Accepts::Count => self.at_least(expr, &what, 1).map(|v| v as f64),
            Accepts::Whole => self.whole(expr).map(|v| v as f64),
            Accepts::Updates => self.updates(expr).map(|v| v as f64),
            Accepts::NotNegative => self.between(expr, &what, f64::INFINITY, "write 0 or more"),
            Accepts::Fraction => self.between(expr, &what, 1.0, "write a number from 0 to below 1"),
        };
        number.map(Given::Number)
    }

    /// A number from zero to below `end`.
    pub(super) fn between(&mut self, expr: &Expr, what: &str, end: f64, help: &str) -> Option<f64> {
        let value = self.plain(expr)?;
        if (0.0..end).contains(&value) {
            return Some(value);
        }
        let shown = Value::Number(Number::new(value, Unit::Float)).to_hir();
        self.report(
            Diagnostic::new("E0304", expr.span, format!("{what} is out of its range"))
                .label(format!("this is {shown}"))
                .help(help),
        );
        None
    }
}

fn lacking(call: &Call, argument: &Argument) -> Diagnostic {
    let example = argument.example();
    let (place, text) = match call.arguments.last() {
        Some(last) => (Span::at(last.value.span.end), format!(", {example}")),
        None => (Span::new(call.name_span.end, call.span.end), format!("({example})")),
    };
    Diagnostic::new("E0308", call.span, format!("`{}` lacks `{}`", call.name, argument.name))
        .label(format!("`{}` is missing: {}", argument.name, argument.doc))
        .help(format!("add `{example}`"))
        .fix(format!("add `{example}`"), place, text)
}

fn unnamed(call: &Call, at: Span, signature: &[Argument]) -> Diagnostic {
    let report = Diagnostic::new("E0308", at, format!("the arguments of `{}` are named", call.name));
    match signature {
        [] => report.help(format!("`{}` takes no arguments", call.name)),
        signature => {
            let examples: Vec<String> = signature.iter().map(|a| format!("`{}`", a.example())).collect();
            let report = report.label("an argument without its name");
            let report = report.help(format!("write {}", examples.join(", ")));
            signature.iter().fold(report, |report, argument| {
                let title = format!("name it `{}`", argument.name);
                report.fix(title, Span::at(at.start), format!("{} = ", argument.name))
            })
        }
    }
}
