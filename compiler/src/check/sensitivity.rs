//! `sensitivity NAME of SPACE on DATA { loss, throughput(input = 1024, output = 64) }`

use super::Checker;
use super::models::Shape;
use super::names::Want;
use super::outline::LayerRules;
use super::prune::{member, twice};
use crate::dim::Dim;
use crate::hir::{self, Measure, Quantity};
use crate::space;
use minic_grammar::ast::Sensitivity;
use minic_grammar::{Diagnostic, Span};

impl<'a> Checker<'a> {
    pub(super) fn sensitivity(&mut self, sensitivity: &'a Sensitivity) {
        let space = self.resolve(&sensitivity.space, Want::Space);
        let on = self.resolve_data(&sensitivity.on);
        let quantities = self.looked_at(sensitivity, on);
        if let Some(name) = space.filter(|name| self.nothing_alone(name)) {
            self.report(
                Diagnostic::new(
                    "E0411",
                    sensitivity.space.span,
                    format!("no axis of `{name}` can be cut alone"),
                )
                .label("every size by itself breaks a constraint of the family")
                .help("give an axis a value that fits the other sizes of the model that is cut"),
            );
        }
        if !self.is_first(&sensitivity.name) {
            return;
        }
        if let (Some(space), Some(on), Some(quantities)) = (space, on, quantities) {
            let (space, on, span) = (space.to_string(), on.to_string(), sensitivity.span);
            let item = hir::Sensitivity { space, on, quantities, span };
            self.out.sensitivities.insert(sensitivity.name.node.clone(), item);
        }
    }

    /// No size of any axis makes a model where everything else stays as it is.
    fn nothing_alone(&self, space: &str) -> bool {
        let Some(Shape::Space(space)) = self.shapes.get(space) else { return false };
        let Some(parent) = space.parent() else { return false };
        let alone = |(dim, values): &(Dim, Vec<usize>)| {
            let smaller = values.iter().copied().filter(|value| parent.dim(*dim) != Some(*value)).collect();
            let axis = space::Space::new(parent, vec![(*dim, smaller)], &LayerRules::default());
            axis.feasible(&[]).legal > 0
        };
        !space.axes.iter().any(alone)
    }

    fn looked_at(&mut self, sensitivity: &Sensitivity, on: Option<&str>) -> Option<Vec<Quantity>> {
        let mut out: Vec<(Quantity, Span)> = Vec::new();
        let mut sound = true;
        for (i, expr) in sensitivity.quantities.iter().enumerate() {
            let Some(quantity) = self.quantity(expr) else {
                sound = false;
                continue;
            };
            if let Some((_, first)) = out.iter().find(|(known, _)| *known == quantity) {
                let report = twice(&format!("`{quantity}`"), expr.span, *first);
                self.report(report.fix("remove this one", member(&sensitivity.quantities, i), ""));
            }
            if quantity == Quantity::Measured(Measure::Accuracy) {
                self.accuracy_of(on, expr.span);
            }
            out.push((quantity, expr.span));
        }
        sound.then(|| out.into_iter().map(|(quantity, _)| quantity).collect())
    }
}
