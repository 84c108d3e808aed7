//! The `axis` lines of a prune: names, values that the parent can have, rules that they must keep.

use super::Checker;
use super::groups::{Rule, RuleKind, Rules};
use super::names::{Known, list, suggestion_of};
use super::outline::Outline;
use crate::axes::{self, AXES, Axis, Scope};
use crate::hir::Score;
use minic_grammar::ast::{self, Ident, PruneItem};
use minic_grammar::{Diagnostic, Help, Span, Spanned};

/// An `axis` line whose name is known; what could not be read of it is absent.
pub(super) struct Line<'a> {
    pub ast: &'a ast::Axis,
    pub axis: &'static Axis,
    pub values: Option<Vec<Spanned<usize>>>,
    pub score: Option<Score>,
    pub tap: Option<&'static axes::Tap>,
}

impl<'a> Checker<'a> {
    pub(super) fn lines(
        &mut self,
        prune: &'a ast::Prune,
        parent: Option<&Outline>,
        rules: &Rules,
    ) -> Vec<Line<'a>> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for item in &prune.items {
            let PruneItem::Axis(ast) = item else { continue };
            let Some(axis) = self.axis_name(&ast.name) else { continue };
            if let Some(first) = lines.iter().find(|l| l.axis.name == axis.name) {
                self.report(
                    Diagnostic::new("E0403", ast.name.span, format!("`{}` is cut twice", axis.name))
                        .label("cut again here")
                        .also(first.ast.name.span, "first cut here")
                        .help(one_line(axis, first, ast))
                        .fix("remove this line", ast.span, ""),
                );
                continue;
            }
            let values = self.sizes(&ast.domain, ast.fixed);
            let score = self.axis_score(axis, ast);
            let tap = self.axis_tap(axis, score.as_ref(), &ast.at);
            let there = self.in_parent(axis, &ast.name, prune, parent);
            if let (Some(values), Some(parent), true) = (&values, parent, there) {
                self.legal_values(axis, values, prune, parent, rules);
            }
            lines.push(Line { ast, axis, values, score, tap });
        }
        if !prune.items.iter().any(|item| matches!(item, PruneItem::Axis(_))) {
            self.report(
                Diagnostic::new("E0414", prune.name.span, format!("prune `{}` has no axis", prune.name.node))
                    .label("nothing is cut")
                    .help("add a line such as `axis ffn_hidden_size = 12288 by activation`"),
            );
        }
        lines
    }

    fn axis_name(&mut self, ident: &Ident) -> Option<&'static Axis> {
        let axis = axes::find(&ident.node);
        if axis.is_none() {
            let known: Vec<Known> = AXES.iter().map(|a| (a.name, a.also)).collect();
            self.report(
                Diagnostic::new("E0402", ident.span, format!("there is no axis `{}`", ident.node))
                    .label("unknown axis")
                    .help(suggestion_of(&ident.node, "axes", &known)),
            );
        }
        axis
    }

    fn in_parent(
        &mut self,
        axis: &Axis,
        ident: &Ident,
        prune: &ast::Prune,
        parent: Option<&Outline>,
    ) -> bool {
        let Some(parent) = parent else { return true };
        let there = parent.dim(axis.dim).is_some()
            && match axis.scope {
                Scope::Layer(kind) => parent.has(kind),
                Scope::Model | Scope::Depth => true,
            };
        if !there {
            let names: Vec<&str> =
                AXES.iter().filter(|a| parent.dim(a.dim).is_some()).map(|a| a.name).collect();
            self.report(
                Diagnostic::new(
                    "E0404",
                    ident.span,
                    format!("`{}` has no `{}` to cut", prune.from.node, axis.name),
                )
                .label(axis.doc.split(" (").next().unwrap_or(""))
                .also(prune.from.span, format!("a {} model has none of these", parent.desc.family))
                .help(Help::instead(
                    format!("it can be cut along {}", list(&names)),
                    names.iter().map(|name| name.to_string()),
                )),
            );
        }
        there
    }

    /// Reports the values that the parent cannot have, at most one for each place.
    fn legal_values(
        &mut self,
        axis: &Axis,
        values: &[Spanned<usize>],
        prune: &ast::Prune,
        parent: &Outline,
        rules: &Rules,
    ) {
        let Some(size) = parent.dim(axis.dim) else { return };
        let groups = axis.dim.within().and_then(|outer| parent.dim(outer).map(|n| (outer, n)));
        let factors = rules.factors(axis.dim);
        let legal = |v: usize| {
            (1..=size).contains(&v)
                && groups.is_none_or(|(_, n)| v.is_multiple_of(n))
                && factors.iter().all(|(f, _)| v.is_multiple_of(*f))
        };
        let mut faulty: Option<Span> = None;
        for value in values.iter().filter(|v| !legal(v.node)) {
            if faulty == Some(value.span) {
                continue;
            }
            faulty = Some(value.span);
            let v = value.node;
            let report = match (groups, factors.iter().find(|(f, _)| v % f != 0)) {
                _ if v == 0 => Diagnostic::new("E0405", value.span, format!("`{}` cannot be 0", axis.name))
                    .label("nothing would be left"),
                _ if v > size => Diagnostic::new(
                    "E0405",
                    value.span,
                    format!("`{}` cannot be {v}: a cut does not enlarge", axis.name),
                )
                .label(format!("more than {size}"))
                .also(prune.from.span, format!("`{}` has {size}", prune.from.node)),
                (Some((outer, n)), _) if v % n.max(1) != 0 => Diagnostic::new(
                    "E0409",
                    value.span,
                    format!("{v} heads cannot be spread evenly over {n} groups"),
                )
                .label(format!("{v} is no multiple of {outer} = {n}"))
                .also(prune.from.span, format!("`{}` has {n} groups", prune.from.node)),
                (_, Some((factor, rule))) => Diagnostic::new(
                    "E0503",
                    value.span,
                    format!("`{}` = {v} breaks a rule of its group", axis.name),
                )
                .label(format!("{v} is no multiple of {factor}"))
                .also(*rule, "the rule"),
                _ => continue,
            };
            let several = values.iter().filter(|other| other.span == value.span).count() > 1;
            let help = nearest_help(v, size, legal);
            self.report(if several { report.help(help.text()) } else { report.help(help) });
        }
    }

    /// A rule for a size holds for a size that is not cut as well.
    pub(super) fn uncut_sizes(&mut self, lines: &[Line], rules: &Rules, parent: Option<&Outline>) {
        let Some(parent) = parent else { return };
        for axis in AXES.iter().filter(|a| !lines.iter().any(|l| l.axis.name == a.name)) {
            let Some(size) = parent.dim(axis.dim) else { continue };
            for (factor, span) in rules.factors(axis.dim) {
                if size % factor != 0 {
                    self.report(
                        Diagnostic::new(
                            "E0503",
                            span,
                            format!("`{}` stays {size}, which breaks this rule", axis.name),
                        )
                        .label(format!("{size} is no multiple of {factor}"))
                        .help(format!(
                            "cut it: `axis {} = {}`",
                            axis.name,
                            size - size % factor
                        )),
                    );
                }
            }
        }
    }

    /// Whether some choice of layers satisfies the rules, for every number of layers.
    pub(super) fn depth(
        &mut self,
        prune: &ast::Prune,
        lines: &[Line],
        rules: &Rules,
        parent: Option<&Outline>,
    ) {
        let Some(parent) = parent else { return };
        let total = parent.layers.total;
        let sound = |r: &Rule| match &r.kind {
            RuleKind::Protect(layers) => layers.iter().all(|l| l.node < total),
            RuleKind::Keep(kind, n) => *n <= parent.layers.range(*kind).1,
            _ => true,
        };
        if !rules.rules.iter().all(sound) {
            return;
        }
        let line = lines.iter().find(|l| l.axis.scope == Scope::Depth);
        let uncut = [Spanned::new(total, prune.name.span)];
        let values = match line {
            Some(line) => line.values.as_deref().unwrap_or(&[]),
            None => &uncut,
        };
        let possible = |n: usize| (1..=total).contains(&n) && parent.survivors(n, &rules.layers).is_some();
        let impossible = values.iter().find(|v| (1..=total).contains(&v.node) && !possible(v.node));
        let Some(value) = impossible else { return };
        let mut report = match rules.layers.block {
            true => impossible_block(value, total, possible),
            false => impossible_depth(value, total, line.is_some(), possible),
        };
        for rule in &rules.rules {
            if matches!(rule.kind, RuleKind::Protect(_) | RuleKind::Keep(..)) {
                report = report.also(rule.span, "this rule holds");
            }
        }
        self.report(report);
    }
}

/// How the values of two lines are written as one.
fn one_line(axis: &Axis, first: &Line, second: &ast::Axis) -> String {
    if first.ast.fixed && second.fixed {
        return format!(
            "one line states all values: `axis {} in {{{}, {}}}`",
            axis.name, first.ast.domain, second.domain
        );
    }
    format!("keep one of the two: one line states all values of `{}`", axis.name)
}

fn impossible_depth(
    value: &Spanned<usize>,
    total: usize,
    cut: bool,
    possible: impl Fn(usize) -> bool,
) -> Diagnostic {
    if cut {
        let message = format!("no choice of {} of {total} layers satisfies the rules", value.node);
        return Diagnostic::new("E0505", value.span, message)
            .label("this number of layers")
            .help(nearest_help(value.node, total, possible));
    }
    let help = match nearest(total, total, possible).as_slice() {
        [] => "no number of layers satisfies them".into(),
        [most, ..] => format!("cut the depth as well: `axis num_layers = {most} by kld`"),
    };
    Diagnostic::new("E0505", value.span, format!("keeping all {total} layers breaks the rules"))
        .label("no layer is dropped here")
        .help(help)
}

fn impossible_block(value: &Spanned<usize>, total: usize, possible: impl Fn(usize) -> bool) -> Diagnostic {
    let message = format!("no block of {} neighbouring layers can go", total - value.node);
    Diagnostic::new("E0505", value.span, message)
        .label("each holds a layer that must survive")
        .help(nearest_help(value.node, total, possible))
}

/// The nearest legal values at and below, and above.
pub(super) fn nearest(value: usize, size: usize, legal: impl Fn(usize) -> bool) -> Vec<usize> {
    let below = (1..=value.min(size)).rev().find(|&v| legal(v));
    let above = (value.saturating_add(1)..=size).find(|&v| legal(v));
    [below, above].into_iter().flatten().collect()
}

pub(super) fn either(values: &[usize]) -> String {
    values.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ")
}

fn nearest_help(value: usize, size: usize, legal: impl Fn(usize) -> bool) -> Help {
    let values = nearest(value, size, legal);
    let text = match values.as_slice() {
        [] => "no value is legal here".into(),
        [only] => format!("nearest legal value: {only}"),
        values => format!("nearest legal values: {}", either(values).replace(" or ", ", ")),
    };
    Help::instead(text, values.iter().map(usize::to_string))
}
