//! `repair` lines: what is mended after a cut, and how.

use super::Checker;
use super::arguments::{Accepts, Argument, Default, call_of};
use super::named::{self, Named, call, word};
use super::names::suggestion;
use crate::hir::RepairKind;
use minic_grammar::Diagnostic;
use minic_grammar::ast::{Expr, Ident, Repair};

pub(crate) const REPAIRS: &[Named] = &[
    word(
        "norms",
        "the weight of every norm whose width changed, times (old / new)^0.5; `fitted`: the power of least loss",
    ),
    word(
        "outputs",
        "the last matrix of every block, solved so that it adds what the parent's block adds; `sequential`: from the first block to the last",
    ),
];

pub(crate) const METHODS: &[Named] = &[call(
    "least_squares",
    LEAST_SQUARES,
    "normal equations over the calibration data, damped towards the plain cut",
)];

/// The power of (old / new) that a norm's weight is scaled by.
const POWER: f64 = 0.5;

const LEAST_SQUARES: &[Argument] = &[Argument {
    name: "damping",
    accepts: Accepts::NotNegative,
    default: Default::Is(0.01),
    doc: "added to the diagonal, as a fraction of its mean",
}];

impl<'a> Checker<'a> {
    pub(super) fn repair(&mut self, repair: &Repair) -> Option<RepairKind> {
        match repair.what.node.as_str() {
            "norms" => self.repair_norms(repair),
            "outputs" => self.repair_outputs(repair),
            other => {
                self.report(
                    Diagnostic::new("E0413", repair.what.span, format!("there is no repair of `{other}`"))
                        .label("unknown repair")
                        .help(suggestion(other, "repairs", &named::names(REPAIRS))),
                );
                None
            }
        }
    }

    fn repair_norms(&mut self, repair: &Repair) -> Option<RepairKind> {
        let fitted = self.modifiers(repair, "fitted")?;
        if let Some(by) = &repair.by {
            self.report(
                Diagnostic::new("E0413", by.span, "`repair norms` has no method to choose")
                    .help("write `repair norms`, or `repair norms fitted`"),
            );
            return None;
        }
        Some(RepairKind::Norms { power: if fitted { None } else { Some(POWER) } })
    }

    fn repair_outputs(&mut self, repair: &Repair) -> Option<RepairKind> {
        let sequential = self.modifiers(repair, "sequential");
        let damping = self.least_squares(repair);
        Some(RepairKind::LeastSquares { damping: damping?, sequential: sequential? })
    }

    fn least_squares(&mut self, repair: &Repair) -> Option<f64> {
        let call = repair.by.as_ref().and_then(call_of).filter(|c| c.name == "least_squares");
        let Some(call) = call else {
            let at = repair.by.as_ref().map_or(repair.what.span, |by: &Expr| by.span);
            self.report(
                Diagnostic::new("E0413", at, "`repair outputs` is done by least squares")
                    .label("no such method")
                    .help("write `repair outputs by least_squares(damping = 1%)`"),
            );
            return None;
        };
        self.arguments(&call, LEAST_SQUARES).map(|a| a.number("damping"))
    }

    /// Whether the one modifier that the repair knows is there.
    fn modifiers(&mut self, repair: &Repair, known: &str) -> Option<bool> {
        let strange: Option<&Ident> = repair.modifiers.iter().find(|m| m.node != known);
        if let Some(word) = strange {
            self.report(
                Diagnostic::new(
                    "E0413",
                    word.span,
                    format!("`repair {}` knows no `{}`", repair.what.node, word.node),
                )
                .help(suggestion(&word.node, "it knows", &[known])),
            );
            return None;
        }
        Some(!repair.modifiers.is_empty())
    }
}
