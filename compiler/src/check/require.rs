//! `require QUANTITY in A ..= B`, and the points of a space that can meet every constraint.

use super::Checker;
use super::arguments::call_of;
use super::deploy::asks_deployable;
use super::names::legible;
use super::quantity::is_quantity;
use super::space::{describe, points};
use super::value::Number;
use crate::hir::{Quantity, Require};
use crate::space::{Feasible, Relaxed, Space};
use crate::targets::{self, Finding};
use minic_grammar::ast::{self, BinaryOp, Expr, ExprKind, Unit};
use minic_grammar::{Diagnostic, Help, Span, nearest};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const CONDITIONS: &str =
    "write `require params in 4.3B ..= 4.5B`, or `require memory(batch = 8, sequence = 64Ki) <= 40GiB`";

impl<'a> Checker<'a> {
    pub(super) fn requirement(&mut self, condition: &Expr, span: Span) -> Option<Require> {
        match &condition.kind {
            ExprKind::In { value, domain } => {
                let ExprKind::Range { start, end, step: None } = &domain.kind else {
                    return self.no_condition(domain.span, "an interval is wanted after `in`");
                };
                let quantity = self.constrained(value);
                let (quantity, place) = (quantity?, value.span);
                let lo = self.limit(&quantity, place, start);
                let hi = self.limit(&quantity, place, end);
                let (lo, hi) = (lo?, hi?);
                if lo > hi {
                    let [lo, hi] = [end, start].map(|e| self.sources.text(e.span));
                    let turned = format!("{lo} ..= {hi}");
                    self.report(
                        Diagnostic::new("E0305", domain.span, "the interval is empty")
                            .label("ends before it begins")
                            .help(Help::instead(
                                format!("write the smaller end first: `{turned}`"),
                                [turned],
                            )),
                    );
                    return None;
                }
                Some(Require { quantity, lo, hi, span })
            }
            ExprKind::Binary { op, left, right } => {
                let flipped = self.is_value(left);
                let (quantity, limit) = if flipped { (right, left) } else { (left, right) };
                let place = quantity.span;
                let quantity = self.constrained(quantity)?;
                let limit = self.limit(&quantity, place, limit)?;
                let Some((lo, hi)) = interval(op.node, limit, flipped) else {
                    return self.no_condition(op.span, "this is no constraint");
                };
                Some(Require { quantity, lo, hi, span })
            }
            _ => self.lone(condition),
        }
    }

    /// A quantity that is compared with nothing, or a word that was meant for `deployable`.
    fn lone<T>(&mut self, condition: &Expr) -> Option<T> {
        let word = call_of(condition).map(|call| call.name).unwrap_or_default();
        if !is_quantity(&word) {
            let help = match nearest(&word, ["deployable"]) {
                Some(near) => Help::instead(format!("did you mean `require {near}`?"), [near.to_string()]),
                None => CONDITIONS.into(),
            };
            self.report(Diagnostic::new("E0604", condition.span, "this is no constraint").help(help));
            return None;
        }
        let quantity = self.quantity(condition)?;
        let written = legible(self.sources.text(condition.span));
        let limit = if quantity.unit() == Unit::Bytes { "40GiB" } else { "4.5B" };
        self.report(
            Diagnostic::new("E0604", condition.span, format!("`{written}` is compared with nothing"))
                .label("with which limit?")
                .help(format!("write `require {written} <= {limit}`, or `in A ..= B`")),
        );
        None
    }

    fn no_condition<T>(&mut self, span: Span, message: &str) -> Option<T> {
        self.report(Diagnostic::new("E0604", span, message).help(CONDITIONS));
        None
    }

    /// A number, or a param: the side that is not the quantity.
    fn is_value(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::Unary { .. } | ExprKind::Binary { .. } => true,
            ExprKind::Path(path) => match path.segments.as_slice() {
                [name] => self.params.contains_key(name.node.as_str()),
                _ => true,
            },
            _ => false,
        }
    }

    fn constrained(&mut self, expr: &Expr) -> Option<Quantity> {
        let quantity = self.quantity(expr)?;
        if quantity.is_analytic() {
            return Some(quantity);
        }
        self.report(
            Diagnostic::new("E0604", expr.span, format!("`{quantity}` is measured, and cannot be required"))
                .label("not known before the candidates are run")
                .help("required are `params`, `active_params`, `flops(..)` and `memory(..)`; rank by what is measured"),
        );
        None
    }

    /// A limit in the unit of its quantity.
    fn limit(&mut self, quantity: &Quantity, place: Span, expr: &Expr) -> Option<f64> {
        let number = self.number(expr)?;
        let fits =
            if quantity.unit() == Unit::Bytes { number.unit == Unit::Bytes } else { number.is_plain() };
        if fits {
            return Some(number.value);
        }
        let wanted = Number::new(0.0, quantity.unit()).kind();
        let help = match quantity.unit() {
            Unit::Bytes => "`B` is billion, never bytes; bytes are written `40GiB`",
            _ => "counts are written `4.5B`, `64Ki`",
        };
        self.report(
            Diagnostic::new("E0302", expr.span, format!("{wanted} is compared with {}", number.kind()))
                .label(format!("this is {}", number.kind()))
                .also(place, format!("this is {wanted}"))
                .help(help),
        );
        None
    }

    /// The points of a space that can meet every constraint; reports the constraint that leaves nothing.
    pub(super) fn feasible(
        &mut self,
        search: &ast::Search,
        space: &Arc<Space>,
        requires: &[Require],
    ) -> Option<Vec<u64>> {
        let found = self.counted(space, requires);
        let emptied = found.left.iter().position(|left| *left == 0);
        let Some(at) = emptied.filter(|_| found.legal > 0) else { return Some(found.points.clone()) };
        let before = at.checked_sub(1).map_or(found.legal, |earlier| found.left[earlier]);
        let (name, refusal) = (&search.space.node, refusal(space, &requires[at].quantity));
        let message = match &requires[at].quantity {
            firm @ Quantity::Refusals { .. } => format!("no point of `{name}` is {firm}"),
            _ => format!("no point of `{name}` can meet this constraint"),
        };
        let mut report = Diagnostic::new("E0605", requires[at].span, message)
            .label(format!("removes the last {before} of {}", points(found.legal)));
        if let Some(asked) = asks_deployable(search).filter(|_| refusal.is_some()) {
            report = report.also(asked, "asked for here");
        }
        for other in (0..requires.len()).filter(|other| *other != at) {
            let leaves = if other < at { format!(", leaves {}", found.left[other]) } else { String::new() };
            let removes = format!("removes {} by itself{leaves}", points(found.removed[other]));
            report = report.also(requires[other].span, removes);
        }
        let several = (requires.len() > 1).then(|| ranked(requires, &found));
        let way = refusal.unwrap_or_else(|| room(space, requires));
        let help: Vec<String> = several.into_iter().chain([way]).collect();
        self.report(report.help(help.join("\n")));
        None
    }
}

/// What a loader has against the first point.
fn refusal(space: &Space, quantity: &Quantity) -> Option<String> {
    let Quantity::Refusals { target, given } = quantity else { return None };
    let point = *space.feasible(&[]).points.first()?;
    let mut outline = space.parent().clone();
    space.enter(&mut outline, point);
    let found = targets::find(target)?.check(&outline, given, &|dim| space.parent().dim(dim).unwrap_or(0));
    let Finding { asks, found, help, .. } = found.into_iter().find(|finding| finding.refused)?;
    Some(format!("{asks}; of the first point{}: {found}\n{help}", at(space, point)))
}

/// The constraints by how many points each removes by itself, the most first.
fn ranked(requires: &[Require], found: &Feasible) -> String {
    let mut order: Vec<usize> = (0..requires.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(found.removed[*at]));
    let each = order.into_iter().map(|at| format!("`{}` {}", requires[at].quantity, found.removed[at]));
    format!("each removes by itself: {}", each.collect::<Vec<_>>().join(", "))
}

/// The least change of one limit, for each constraint of which one is enough, with the point that it makes room for.
/// Where none is, those that must give way together.
fn room(space: &Space, requires: &[Require]) -> String {
    let relaxed = space.relaxed(requires);
    let alone = requires.iter().zip(&relaxed).flat_map(|(require, relaxed)| ways(require, relaxed));
    let alone: Vec<String> = alone.map(|way| format!("{way}{}", at(space, way.point))).collect();
    let shown = if alone.is_empty() { together(space, requires) } else { alone.join("; or ") };
    format!("nearest feasible: {shown}")
}

/// From the first constraint to the last, the least change that leaves something.
fn together(space: &Space, requires: &[Require]) -> String {
    let mut loosened = requires.to_vec();
    let mut made: BTreeMap<(usize, bool), String> = BTreeMap::new();
    loop {
        let found = space.feasible(&loosened);
        let Some(emptied) = found.left.iter().position(|left| *left == 0) else {
            let point = found.points.first().map_or(String::new(), |point| at(space, *point));
            return format!("{}{point}", made.into_values().collect::<Vec<_>>().join(" with "));
        };
        let relaxed = space.relaxed(&loosened[..=emptied]);
        let each = relaxed.iter().zip(&loosened).enumerate();
        let all = each.flat_map(|(at, (relaxed, require))| {
            ways(require, relaxed).into_iter().map(move |way| (at, way))
        });
        let Some((at, way)) = all.min_by(|(_, a), (_, b)| a.change.total_cmp(&b.change)) else {
            return "several constraints must give way".into();
        };
        let end = if way.least { &mut loosened[at].lo } else { &mut loosened[at].hi };
        *end = way.limit.value;
        made.insert((at, way.least), way.to_string());
    }
}

/// ` at ffn_hidden_size 320`
fn at(space: &Space, point: u64) -> String {
    let sizes = describe(&space.sizes(point));
    if sizes.is_empty() { sizes } else { format!(" at {sizes}") }
}

/// Another end of a constraint.
struct Way {
    quantity: Quantity,
    least: bool,
    limit: Number,
    /// As a share of the end that it stands for.
    change: f64,
    point: u64,
}

fn ways(require: &Require, relaxed: &Relaxed) -> Vec<Way> {
    // A loader gives no way.
    let firm = matches!(require.quantity, Quantity::Refusals { .. });
    let way = |end: Option<(f64, u64)>, old: f64, least: bool| {
        let end = end.filter(|_| !firm);
        let (value, point) = end?;
        let limit = Number::new(value, require.quantity.unit()).outward(!least);
        let change = ((limit.value - old) / old).abs();
        Some(Way { quantity: require.quantity.clone(), least, limit, change, point })
    };
    [way(relaxed.lo, require.lo, true), way(relaxed.hi, require.hi, false)].into_iter().flatten().collect()
}

/// `params <= 1.16M`
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{} {} {}`", self.quantity, if self.least { ">=" } else { "<=" }, self.limit)
    }
}

fn interval(op: BinaryOp, limit: f64, flipped: bool) -> Option<(f64, f64)> {
    let (least, most) = ((f64::NEG_INFINITY, limit), (limit, f64::INFINITY));
    // Quantities are whole: below a limit is at most the whole number before it.
    let (below, above) = ((f64::NEG_INFINITY, limit.ceil() - 1.0), (limit.floor() + 1.0, f64::INFINITY));
    Some(match (op, flipped) {
        (BinaryOp::LessEqual, false) | (BinaryOp::GreaterEqual, true) => least,
        (BinaryOp::GreaterEqual, false) | (BinaryOp::LessEqual, true) => most,
        (BinaryOp::Less, false) | (BinaryOp::Greater, true) => below,
        (BinaryOp::Greater, false) | (BinaryOp::Less, true) => above,
        (BinaryOp::Equal, _) => (limit, limit),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::interval;
    use minic_grammar::ast::BinaryOp::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};

    #[test]
    fn comparisons_are_intervals_from_either_side() {
        let (inf, neg) = (f64::INFINITY, f64::NEG_INFINITY);
        assert_eq!(interval(LessEqual, 4.0, false), Some((neg, 4.0)));
        assert_eq!(interval(LessEqual, 4.0, true), Some((4.0, inf)));
        assert_eq!(interval(GreaterEqual, 4.0, false), Some((4.0, inf)));
        assert_eq!(interval(Less, 4.5, false), Some((neg, 4.0)));
        assert_eq!(interval(Less, 4.0, false), Some((neg, 3.0)));
        assert_eq!(interval(Greater, 4.0, false), Some((5.0, inf)));
        assert_eq!(interval(Equal, 4.0, true), Some((4.0, 4.0)));
        assert_eq!(interval(NotEqual, 4.0, false), None);
    }
}
