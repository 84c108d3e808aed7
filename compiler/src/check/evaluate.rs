//! `evaluate MODEL against MODEL on DATA { .. }`

use super::Checker;
use super::names::{Want, suggestion};
use crate::hir::{self, Measure};
use minic_grammar::Diagnostic;
use minic_grammar::ast::{Evaluate, Ident};

impl<'a> Checker<'a> {
    pub(super) fn evaluate(&mut self, evaluate: &'a Evaluate) {
        let model = self.weighted_model(&evaluate.model);
        let against = evaluate.against.as_ref().map(|ident| (ident, self.weighted_model(ident)));
        let on = self.resolve_data(&evaluate.on);
        if let (Some(model), Some((ident, Some(against)))) = (model, against) {
            self.same_vocabulary((model, evaluate.model.span), (against, ident.span));
        }
        let measures = self.measures(evaluate, on);
        let against = match against {
            Some((_, None)) => return,
            Some((_, Some(name))) => Some(name.to_string()),
            None => None,
        };
        if let (Some(model), Some(on), Some(measures)) = (model, on, measures) {
            let (model, on, span) = (model.to_string(), on.to_string(), evaluate.span);
            self.out.evaluations.push(hir::Evaluation { model, against, on, measures, span });
        }
    }

    fn measures(&mut self, evaluate: &Evaluate, on: Option<&str>) -> Option<Vec<Measure>> {
        let names: Vec<&str> = Measure::ALL.iter().map(|m| m.name()).collect();
        let mut out: Vec<(Measure, &Ident)> = Vec::new();
        let mut sound = true;
        for ident in &evaluate.quantities {
            let Some(measure) = Measure::ALL.iter().copied().find(|m| m.name() == ident.node) else {
                self.report(
                    Diagnostic::new("E0601", ident.span, format!("there is no quantity `{}`", ident.node))
                        .label("unknown quantity")
                        .help(suggestion(&ident.node, "quantities", &names)),
                );
                sound = false;
                continue;
            };
            if let Some((_, first)) = out.iter().find(|(m, _)| *m == measure) {
                self.report(super::prune::twice(&format!("`{}`", ident.node), ident.span, first.span));
                continue;
            }
            if measure == Measure::Kl && evaluate.against.is_none() {
                self.report(
                    Diagnostic::new("E0907", ident.span, "`kl` compares two models, and one is named")
                        .label("against which model?")
                        .help(format!(
                            "write `evaluate {} against {} on {} {{ .. }}`",
                            evaluate.model.node,
                            self.some(Want::Model, &evaluate.model.node),
                            evaluate.on.node
                        )),
                );
            }
            if measure == Measure::Accuracy {
                self.accuracy_of(on, ident.span);
            }
            out.push((measure, ident));
        }
        sound.then(|| out.into_iter().map(|(m, _)| m).collect())
    }
}
