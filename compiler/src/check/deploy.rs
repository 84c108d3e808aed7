//! `deploy MODEL for TARGET, ..`: loaders that must accept the result.

use super::Checker;
use super::arguments::{Arguments, call_of};
use super::models::Shape;
use super::names::suggestion;
use super::outline::Outline;
use super::prune::{member, twice};
use super::space::Space;
use crate::hir;
use crate::targets::{self, Finding, TARGETS, Target};
use minic_grammar::ast::{Deploy, Expr};
use minic_grammar::{Diagnostic, Span};

impl<'a> Checker<'a> {
    pub(super) fn deploy(&mut self, deploy: &'a Deploy) {
        let model = self.one_model(&deploy.model);
        let mut read: Vec<(&'static Target, Arguments, Span)> = Vec::new();
        let mut sound = true;
        for (i, expr) in deploy.targets.iter().enumerate() {
            let Some((target, arguments)) = self.target(expr) else {
                sound = false;
                continue;
            };
            match read.iter().find(|(t, ..)| t.name == target.name) {
                Some((_, _, first)) => {
                    let report = twice(&format!("`{}`", target.name), expr.span, *first);
                    self.report(report.fix("remove this one", member(&deploy.targets, i), ""));
                }
                None => read.push((target, arguments, expr.span)),
            }
        }
        let Some(model) = model else { return };
        match self.shapes.get(model).cloned() {
            Some(Shape::One(outline)) => {
                for (target, arguments, span) in &read {
                    let found = (target.check)(&outline, &|name| arguments.whole(name));
                    found.into_iter().for_each(|f| self.finding(target, model, *span, f));
                }
            }
            Some(Shape::Chosen(space)) => self.some_point_accepted(model, &space, &read),
            _ => {}
        }
        if sound {
            let targets = read.iter().map(|(t, a, _)| (t.name, a.to_hir())).collect();
            self.out.deployments.push(hir::Deployment {
                model: model.to_string(),
                targets,
                span: deploy.span,
            });
        }
    }

    fn target(&mut self, expr: &Expr) -> Option<(&'static Target, Arguments)> {
        let call = call_of(expr);
        let target = call.as_ref().and_then(|c| targets::find(&c.name));
        let (Some(call), Some(target)) = (&call, target) else {
            let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            let name = call.as_ref().map_or(expr.span, |c| c.name_span);
            let shown = call.map_or("this".into(), |c| c.name);
            self.report(
                Diagnostic::new("E0901", name, format!("there is no target `{shown}`"))
                    .label("unknown target")
                    .help(suggestion(&shown, "targets", &names)),
            );
            return None;
        };
        Some((target, self.arguments(call, target.arguments)?))
    }

    fn finding(&mut self, target: &Target, model: &str, span: Span, finding: Finding) {
        let report = if finding.refused {
            Diagnostic::new("E0902", span, format!("`{}` would refuse `{model}`", target.name))
        } else {
            Diagnostic::new("W0901", span, format!("`{}` will not run `{model}` at its best", target.name))
        };
        self.report(report.label(finding.message).help(finding.help));
    }

    /// A search must be able to find a point that every target accepts.
    fn some_point_accepted(
        &mut self,
        model: &str,
        space: &Space,
        targets: &[(&'static Target, Arguments, Span)],
    ) {
        let (Some(points), Some(left)) = (&space.points, &space.left) else { return };
        let mut left: Vec<u64> = left.to_vec();
        if left.is_empty() {
            return;
        }
        let mut outline = points.parent().clone();
        for (target, arguments, span) in targets {
            let argument = |name: &str| arguments.whole(name);
            let refusal =
                |outline: &Outline| (target.check)(outline, &argument).into_iter().find(|f| f.refused);
            if let Some(&first) = left.first() {
                points.enter(&mut outline, first);
            }
            let first = refusal(&outline);
            let before = left.len();
            left = points.filter(&left, |outline| refusal(outline).is_none());
            if left.is_empty() {
                let cause = first.map_or(String::new(), |f| f.message);
                self.report(
                    Diagnostic::new(
                        "E0902",
                        *span,
                        format!("`{}` would refuse every point of `{model}`", target.name),
                    )
                    .label(format!("removes the last {before} points; of the first: {cause}"))
                    .help("add values to the axes that this loader accepts, or leave out the target"),
                );
                return;
            }
        }
    }
}
