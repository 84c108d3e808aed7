//! `sensitivity NAME of SPACE on DATA { loss, throughput(input = 1024, output = 64) }`

use super::Checker;
use super::names::Want;
use super::prune::twice;
use crate::hir::{self, Measure, Quantity};
use minic_grammar::Span;
use minic_grammar::ast::Sensitivity;

impl<'a> Checker<'a> {
    pub(super) fn sensitivity(&mut self, sensitivity: &'a Sensitivity) {
        let space = self.resolve(&sensitivity.space, Want::Space);
        let on = self.resolve_data(&sensitivity.on);
        let quantities = self.looked_at(sensitivity, on);
        if !self.is_first(&sensitivity.name) {
            return;
        }
        if let (Some(space), Some(on), Some(quantities)) = (space, on, quantities) {
            let (space, on, span) = (space.to_string(), on.to_string(), sensitivity.span);
            let item = hir::Sensitivity { space, on, quantities, span };
            self.out.sensitivities.insert(sensitivity.name.node.clone(), item);
        }
    }

    fn looked_at(&mut self, sensitivity: &Sensitivity, on: Option<&str>) -> Option<Vec<Quantity>> {
        let mut out: Vec<(Quantity, Span)> = Vec::new();
        let mut sound = true;
        for expr in &sensitivity.quantities {
            let Some(quantity) = self.quantity(expr) else {
                sound = false;
                continue;
            };
            if let Some((_, first)) = out.iter().find(|(known, _)| *known == quantity) {
                self.report(twice(&format!("`{quantity}`"), expr.span, *first));
            }
            if quantity == Quantity::Measured(Measure::Accuracy) {
                self.accuracy_of(on, expr.span);
            }
            out.push((quantity, expr.span));
        }
        sound.then(|| out.into_iter().map(|(quantity, _)| quantity).collect())
    }
}
