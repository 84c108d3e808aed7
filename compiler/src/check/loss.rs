//! `loss = 0.9 * forward_kl(temperature = 1.0) + 0.1 * cross_entropy()`

use super::Checker;
use super::arguments::{Arguments, Call, call_of};
use super::eval::{FUNCTIONS, dotted};
use super::names::{Known, suggestion_of};
use crate::hir::LossTerm;
use crate::losses::{self, LOSSES};
use minic_grammar::ast::{BinaryOp, Expr, ExprKind};
use minic_grammar::{Diagnostic, Span};

impl<'a> Checker<'a> {
    /// The terms of a weighted sum; `None` after a fault.
    pub(super) fn loss(&mut self, expr: &Expr) -> Option<Vec<LossTerm>> {
        let mut terms = Vec::new();
        self.loss_terms(expr, 1.0, &mut terms).map(|()| terms)
    }

    fn loss_terms(&mut self, expr: &Expr, weight: f64, out: &mut Vec<LossTerm>) -> Option<()> {
        match &expr.kind {
            ExprKind::Binary { op, left, right } => match op.node {
                BinaryOp::Add => {
                    let (a, b) = (self.loss_terms(left, weight, out), self.loss_terms(right, weight, out));
                    a.and(b)
                }
                BinaryOp::Multiply if self.is_loss(left) && self.is_loss(right) => {
                    self.no_sum(op.span, "two losses are added, not multiplied")
                }
                BinaryOp::Multiply if self.is_loss(left) => self.weighed(left, right, weight, out),
                BinaryOp::Multiply => self.weighed(right, left, weight, out),
                _ => self.no_sum(op.span, "a loss is a weighted sum"),
            },
            _ => match call_of(expr) {
                Some(call) => self.loss_call(&call, weight, out),
                None => self.no_sum(expr.span, "this is no loss"),
            },
        }
    }

    fn no_sum(&mut self, span: Span, message: &str) -> Option<()> {
        self.report(
            Diagnostic::new("E0701", span, message)
                .help("write a weighted sum: `0.9 * forward_kl() + 0.1 * cross_entropy()`"),
        );
        None
    }

    /// A name or call that is not a number.
    fn is_loss(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Call { callee, .. } => !FUNCTIONS.contains(&dotted(callee).as_str()),
            ExprKind::Path(path) => match path.segments.as_slice() {
                [name] => losses::find(&name.node).is_some() || self.names.get(&name.node).is_none(),
                _ => false,
            },
            ExprKind::Binary { left, right, .. } => self.is_loss(left) || self.is_loss(right),
            _ => false,
        }
    }

    fn weighed(&mut self, loss: &Expr, by: &Expr, weight: f64, out: &mut Vec<LossTerm>) -> Option<()> {
        let factor = self.positive(by, "the weight of a loss");
        let terms = self.loss_terms(loss, weight * factor.unwrap_or(1.0), out);
        factor.and(terms)
    }

    fn loss_call(&mut self, call: &Call, weight: f64, out: &mut Vec<LossTerm>) -> Option<()> {
        let Some(loss) = losses::find(&call.name) else {
            let known: Vec<Known> = LOSSES.iter().map(|l| (l.name, l.also)).collect();
            self.report(
                Diagnostic::new("E0701", call.name_span, format!("there is no loss `{}`", call.name))
                    .label("unknown loss")
                    .help(suggestion_of(&call.name, "losses", &known)),
            );
            return None;
        };
        let arguments = self.arguments(call, loss.arguments)?;
        self.paired_layers(&arguments)?;
        let (term, arguments) = ((loss.build)(&arguments), arguments.to_hir());
        out.push(LossTerm { weight, loss: loss.name, arguments, term, span: call.span });
        Some(())
    }

    /// Each of the student's layers that are listed has one of the teacher's.
    fn paired_layers(&mut self, given: &Arguments) -> Option<()> {
        let (Some(own), Some(teachers)) = (given.layers("layers"), given.layers("teacher_layers")) else {
            return Some(());
        };
        let places = given.span("layers").zip(given.span("teacher_layers"));
        let Some((first, second)) = places.filter(|_| own.len() != teachers.len()) else { return Some(()) };
        let layers = |n: usize| if n == 1 { "1 layer".to_string() } else { format!("{n} layers") };
        self.report(
            Diagnostic::new("E0707", second, "the two lists of layers differ in length")
                .label(layers(teachers.len()))
                .also(first, layers(own.len()))
                .help("name as many layers in `teacher_layers` as in `layers`, in the same order"),
        );
        None
    }
}
