//! `rank by loss + 0.2 * latency(input = 4096) - 0.1 * throughput(input = 64, output = 64)`

use super::Checker;
use super::eval::{FUNCTIONS, dotted};
use super::prune::twice;
use super::quantity::is_quantity;
use crate::hir::{Measure, Objective, Quantity};
use minic_grammar::ast::{BinaryOp, Expr, ExprKind, UnaryOp};
use minic_grammar::{Diagnostic, Span};

/// A term of a weighted sum, and where its quantity stands.
pub(super) struct Term {
    weight: f64,
    pub quantity: Quantity,
    pub span: Span,
}

impl<'a> Checker<'a> {
    /// The terms of a weighted sum of quantities; `None` after a fault.
    pub(super) fn objective(&mut self, expr: &Expr) -> Option<Vec<Term>> {
        let mut terms = Vec::new();
        self.summands(expr, 1.0, &mut terms)?;
        let whole = terms.len() > 1 || terms.iter().any(|term| term.weight != 1.0);
        for (i, term) in terms.iter().enumerate() {
            if let Some(first) = terms[..i].iter().find(|other| other.quantity == term.quantity) {
                self.report(twice(&format!("`{}`", term.quantity), term.span, first.span));
                return None;
            }
            if whole && term.quantity == Quantity::Measured(Measure::Kl) {
                self.report(
                    Diagnostic::new("E0611", term.span, "`kl` cannot be weighed")
                        .label("0 for the model that the space is cut from, and terms are shares of its own")
                        .help("rank by `kl` alone, or weigh `loss`"),
                );
                return None;
            }
        }
        Some(terms)
    }

    fn summands(&mut self, expr: &Expr, weight: f64, out: &mut Vec<Term>) -> Option<()> {
        match &expr.kind {
            ExprKind::Unary { op: UnaryOp::Negate, operand } => self.summands(operand, -weight, out),
            ExprKind::Binary { op, left, right } => match op.node {
                BinaryOp::Add => {
                    let (a, b) = (self.summands(left, weight, out), self.summands(right, weight, out));
                    a.and(b)
                }
                BinaryOp::Subtract => {
                    let (a, b) = (self.summands(left, weight, out), self.summands(right, -weight, out));
                    a.and(b)
                }
                BinaryOp::Multiply if self.holds_quantity(left) && self.holds_quantity(right) => {
                    self.no_objective(op.span, "two quantities are added, not multiplied")
                }
                BinaryOp::Multiply if self.holds_quantity(left) => {
                    self.weighed_quantity(left, right, weight, out)
                }
                BinaryOp::Multiply => self.weighed_quantity(right, left, weight, out),
                _ => self.no_objective(op.span, "candidates are ranked by a weighted sum"),
            },
            ExprKind::Path(_) | ExprKind::Call { .. } => {
                let quantity = self.quantity(expr)?;
                out.push(Term { weight, quantity, span: expr.span });
                Some(())
            }
            _ => self.no_objective(expr.span, "this is no quantity"),
        }
    }

    fn no_objective(&mut self, span: Span, message: &str) -> Option<()> {
        self.report(
            Diagnostic::new("E0611", span, message)
                .help("write one quantity, or a weighted sum: `loss + 0.2 * latency(input = 4096)`"),
        );
        None
    }

    /// A name or call that is not a number stands in it.
    fn holds_quantity(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Call { callee, .. } => !FUNCTIONS.contains(&dotted(callee).as_str()),
            ExprKind::Path(path) => match path.segments.as_slice() {
                [name] => is_quantity(&name.node) || self.names.get(&name.node).is_none(),
                _ => false,
            },
            ExprKind::Unary { operand, .. } => self.holds_quantity(operand),
            ExprKind::Binary { left, right, .. } => self.holds_quantity(left) || self.holds_quantity(right),
            _ => false,
        }
    }

    fn weighed_quantity(&mut self, expr: &Expr, by: &Expr, weight: f64, out: &mut Vec<Term>) -> Option<()> {
        let factor = self.plain(by);
        if factor == Some(0.0) {
            self.report(
                Diagnostic::new("E0304", by.span, "the weight of a quantity must not be zero")
                    .label("this is 0")
                    .help("leave the term out"),
            );
        }
        let terms = self.summands(expr, weight * factor.unwrap_or(1.0), out);
        factor.filter(|factor| *factor != 0.0).and(terms)
    }
}

impl Objective {
    pub(super) fn of_terms(terms: Vec<Term>) -> Objective {
        Objective { terms: terms.into_iter().map(|term| (term.weight, term.quantity)).collect() }
    }
}
