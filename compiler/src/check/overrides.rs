//! `--set NAME=VALUE`: values of a recipe replaced before it is checked.
//!
//! A replaced value stands at the place of the one that it replaces (a setting that is added, at the name of
//! its declaration), so that whatever is wrong with it is drawn in the recipe, with a help line that names
//! the override. An override that names nothing in the recipe has no place there: its diagnostic has the
//! empty span at the start of the file, and its message begins with the override itself.

use super::names::suggestion;
use super::value::{Number, Value};
use minic_grammar::ast::{self, Declaration, Expr, ExprKind, Setting};
use minic_grammar::{Diagnostic, Severity, Span, Spanned};
use std::borrow::Cow;

/// One `--set NAME=VALUE`; `parent.checkpoint` names a setting of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub name: String,
    /// As written; text needs no quotes where the value it replaces is text.
    pub value: String,
}

impl Override {
    /// From `NAME=VALUE`.
    pub fn parse(text: &str) -> Option<Override> {
        let (name, value) = text.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| Override { name: name.into(), value: value.trim().into() })
    }

    /// As on the command line: `NAME=VALUE`.
    pub fn text(&self) -> String {
        format!("{}={}", self.name, self.value)
    }

    fn shown(&self) -> String {
        format!("--set {}", self.text())
    }
}

/// What came of the overrides.
#[derive(Default)]
pub(super) struct Applied {
    pub found: Vec<Diagnostic>,
    /// Places whose values were replaced, and by what.
    places: Vec<(Span, String)>,
}

impl Applied {
    /// Says in every error at a replaced value where the value comes from.
    pub fn explain(&self, found: &mut [Diagnostic]) {
        for diagnostic in found.iter_mut().filter(|d| d.severity() == Severity::Error) {
            let Some((_, shown)) = self.places.iter().find(|(span, _)| *span == diagnostic.span) else {
                continue;
            };
            let source = format!("the value here comes from `{shown}`");
            // What is at fault does not stand in the recipe.
            diagnostic.fixes.clear();
            diagnostic.help = Some(match diagnostic.help.take() {
                Some(help) => format!("{help} ({source})"),
                None => source,
            });
        }
    }
}

/// The recipe with its values replaced; an override that cannot be applied is reported and left out.
pub(super) fn apply<'a>(recipe: &'a ast::Recipe, overrides: &[Override]) -> (Cow<'a, ast::Recipe>, Applied) {
    let mut applied = Applied::default();
    let mut recipe = Cow::Borrowed(recipe);
    for change in overrides {
        match replace(&mut recipe, change) {
            Ok(span) => applied.places.push((span, change.shown())),
            Err(diagnostic) => applied.found.push(*diagnostic),
        }
    }
    (recipe, applied)
}

fn replace(recipe: &mut Cow<ast::Recipe>, change: &Override) -> Result<Span, Box<Diagnostic>> {
    match change.name.split_once('.') {
        None => replace_param(recipe, change),
        Some((declaration, key)) => replace_setting(recipe, change, declaration, key),
    }
}

fn replace_param(recipe: &mut Cow<ast::Recipe>, change: &Override) -> Result<Span, Box<Diagnostic>> {
    let params = |recipe: &ast::Recipe| -> Vec<String> {
        let names = recipe.declarations.iter().filter_map(|d| match d {
            Declaration::Param(p) => Some(p.name.node.clone()),
            _ => None,
        });
        names.collect()
    };
    let param = recipe.to_mut().declarations.iter_mut().find_map(|d| match d {
        Declaration::Param(p) if p.name.node == change.name => Some(p),
        _ => None,
    });
    let Some(param) = param else {
        let names = params(recipe);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return Err(nameless(
            change,
            "names no param of this recipe",
            suggestion(&change.name, "params", &names).text(),
        ));
    };
    param.value = value(change, &param.value)?;
    Ok(param.value.span)
}

fn replace_setting(
    recipe: &mut Cow<ast::Recipe>,
    change: &Override,
    declaration: &str,
    key: &str,
) -> Result<Span, Box<Diagnostic>> {
    let settings = recipe.to_mut().declarations.iter_mut().find_map(|d| match d {
        Declaration::Model(s) | Declaration::Data(s) if s.name.node == declaration => {
            Some((&mut s.settings, s.name.span))
        }
        Declaration::Schedule(s) if s.name.node == declaration => Some((&mut s.settings, s.name.span)),
        Declaration::Distill(d) if d.name.node == declaration => Some((&mut d.settings, d.name.span)),
        _ => None,
    });
    let Some((settings, place)) = settings else {
        let help = "settings of `model`, `data`, `schedule`, `distill` and `train` can be set, as in `parent.checkpoint`";
        return Err(nameless(change, "names no declaration with settings", help.into()));
    };
    match settings.iter_mut().find(|s| s.key.node == key) {
        Some(setting) => {
            setting.value = value(change, &setting.value)?;
            Ok(setting.value.span)
        }
        None => {
            let absent = Expr { kind: ExprKind::Bool(false), span: place };
            let added = literal(&change.value, place)
                .unwrap_or(Expr { kind: ExprKind::String(change.value.clone()), ..absent });
            settings.push(Setting { key: Spanned::new(key.to_string(), place), value: added });
            Ok(place)
        }
    }
}

fn nameless(change: &Override, message: &str, help: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::new("E0208", Span::default(), format!("`{}` {message}", change.shown())).help(help))
}

/// The value of an override at the place of its default, of the same type.
fn value(change: &Override, default: &Expr) -> Result<Expr, Box<Diagnostic>> {
    let span = default.span;
    let written = literal(&change.value, span);
    if matches!(default.kind, ExprKind::String(_)) {
        // Text may stand without quotes.
        let quoted = written.filter(|e| matches!(e.kind, ExprKind::String(_)));
        return Ok(quoted.unwrap_or(Expr { kind: ExprKind::String(change.value.clone()), span }));
    }
    let Some(written) = written else {
        return Err(Box::new(
            Diagnostic::new("E0209", span, format!("`{}` cannot be read", change.shown()))
                .label("replaces this value")
                .help("write a value as a recipe would: `4.5B`, `40GiB`, `0.1%`, `\"text\"`"),
        ));
    };
    match (constant(default), constant(&written)) {
        (Some(a), Some(b)) if !a.accepts(&b) => Err(Box::new(
            Diagnostic::new(
                "E0301",
                span,
                format!("`{}`: expected {}, found {}", change.shown(), a.kind(), b.kind()),
            )
            .label(format!("the default is {}", a.kind()))
            .help(format!(
                "write {}, as in `--set {}={default}`: an override has the type of what it replaces",
                a.kind(),
                change.name
            )),
        )),
        _ => Ok(written),
    }
}

/// The value of a literal; names and arithmetic have none before the recipe is checked.
pub(super) fn constant(expr: &Expr) -> Option<Value> {
    match &expr.kind {
        ExprKind::Number(n) => Some(Value::Number(Number::new(n.value, n.unit))),
        ExprKind::String(s) => Some(Value::String(s.clone())),
        ExprKind::Bool(b) => Some(Value::Bool(*b)),
        ExprKind::List(_) => Some(Value::List(Vec::new())),
        ExprKind::Set(_) | ExprKind::Range { .. } => Some(Value::Set(Vec::new())),
        _ => None,
    }
}

/// An expression from the text of an override, all of it at one place of the recipe.
fn literal(text: &str, place: Span) -> Option<Expr> {
    let (recipe, faults) = minic_grammar::parse(&format!("mrecipe 1\nparam override = {text}\n"));
    let mut declarations = recipe.declarations.into_iter();
    match (declarations.next(), declarations.next(), faults.is_empty()) {
        (Some(Declaration::Param(param)), None, true) => Some(moved(param.value, place)),
        _ => None,
    }
}

fn moved(mut expr: Expr, place: Span) -> Expr {
    expr.span = place;
    match &mut expr.kind {
        ExprKind::List(items) | ExprKind::Set(items) => {
            items.iter_mut().for_each(|item| *item = moved(item.clone(), place));
        }
        ExprKind::Path(path) => {
            path.span = place;
            path.segments.iter_mut().for_each(|s| s.span = place);
        }
        ExprKind::Unary { operand, .. } => **operand = moved((**operand).clone(), place),
        ExprKind::Binary { op, left, right } => {
            op.span = place;
            **left = moved((**left).clone(), place);
            **right = moved((**right).clone(), place);
        }
        ExprKind::Range { start, end, step } => {
            [Some(start), Some(end), step.as_mut()]
                .into_iter()
                .flatten()
                .for_each(|e| **e = moved((**e).clone(), place));
        }
        ExprKind::Call { callee, arguments } => {
            callee.span = place;
            arguments.iter_mut().for_each(|a| a.value = moved(a.value.clone(), place));
        }
        ExprKind::Record(settings) => settings.iter_mut().for_each(|s| {
            s.key.span = place;
            s.value = moved(s.value.clone(), place);
        }),
        ExprKind::In { value, domain } => {
            **value = moved((**value).clone(), place);
            **domain = moved((**domain).clone(), place);
        }
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Bool(_) => {}
    }
    expr
}
