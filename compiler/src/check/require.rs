//! `require QUANTITY in A ..= B`, and the points of a space that can meet every constraint.

use super::Checker;
use super::outline::Outline;
use super::quantity::bounds;
use super::space::{Point, Space, describe};
use super::value::Number;
use crate::hir::{Quantity, Require};
use minic_grammar::ast::{BinaryOp, Expr, ExprKind, Unit};
use minic_grammar::{Diagnostic, Span};

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
                    self.report(
                        Diagnostic::new("E0305", domain.span, "the interval is empty")
                            .label("ends before it begins")
                            .help("write the smaller end first"),
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
            _ => self.no_condition(condition.span, "this is no constraint"),
        }
    }

    fn no_condition<T>(&mut self, span: Span, message: &str) -> Option<T> {
        self.report(
            Diagnostic::new("E0604", span, message)
                .help("write `require params in 4.3B ..= 4.5B`, or `require memory(batch = 8, sequence = 64Ki) <= 40GiB`"),
        );
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

    /// Applies every constraint to a space; reports the one that leaves nothing.
    pub(super) fn feasible(&mut self, name: &str, space: &Space, requires: &[Require]) -> Option<Vec<Point>> {
        space.parent.as_ref()?;
        let all: Vec<(Point, Outline)> = space.models().collect();
        let total = all.len();
        let mut left: Vec<&(Point, Outline)> = all.iter().collect();
        let mut history: Vec<(Span, String)> = Vec::new();
        for require in requires {
            let before = left.clone();
            left.retain(|(_, model)| may_meet(require, model));
            if left.is_empty() && total > 0 {
                let mut report = Diagnostic::new(
                    "E0605",
                    require.span,
                    format!("no point of `{name}` can meet this constraint"),
                )
                .label(format!("removes the last {} of {total} points", before.len()));
                for (span, text) in history {
                    report = report.also(span, text);
                }
                self.report(report.help(nearest_feasible(require, &before)));
                return None;
            }
            history.push((
                require.span,
                format!("removes {} points, leaves {}", before.len() - left.len(), left.len()),
            ));
        }
        Some(left.into_iter().map(|(point, _)| point.clone()).collect())
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

/// Whether some choice of layers meets the constraint.
fn may_meet(require: &Require, model: &Outline) -> bool {
    bounds(&require.quantity, model).is_none_or(|(lo, hi)| lo <= require.hi && hi >= require.lo)
}

/// The values next to the interval, of the points that the earlier constraints leave.
fn nearest_feasible(require: &Require, points: &[&(Point, Outline)]) -> String {
    let mut above: Option<(f64, &Point)> = None;
    let mut below: Option<(f64, &Point)> = None;
    for (point, model) in points {
        let Some((lo, hi)) = bounds(&require.quantity, model) else { continue };
        if lo > require.hi && above.is_none_or(|(v, _)| lo < v) {
            above = Some((lo, point));
        }
        if hi < require.lo && below.is_none_or(|(v, _)| hi > v) {
            below = Some((hi, point));
        }
    }
    let unit = require.quantity.unit();
    let shown = [below, above].into_iter().flatten().map(|(value, point)| {
        let point = if point.is_empty() { String::new() } else { format!(" at {}", describe(point)) };
        format!("{}{point}", Number::new(value, unit))
    });
    format!("nearest feasible: {}", shown.collect::<Vec<_>>().join("; "))
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
