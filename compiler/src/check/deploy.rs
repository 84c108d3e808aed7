//! `deploy MODEL for TARGET, ..`: loaders that must accept the result, and `require deployable` of a search.

use super::Checker;
use super::arguments::{Arguments, call_of};
use super::models::Shape;
use super::names::{Known, suggestion_of};
use super::outline::Outline;
use super::prune::{member, twice};
use super::space::{Space, points as plural};
use crate::dim::Dim;
use crate::hir::{self, Quantity, Require};
use crate::space;
use crate::targets::{self, Finding, Given, TARGETS, Target};
use minic_grammar::ast::{self, Declaration, Deploy, Expr, ExprKind, PruneItem, SearchItem};
use minic_grammar::{Diagnostic, Span};
use std::sync::Arc;

/// A target of a `deploy` line, with its arguments.
struct Named {
    target: &'static Target,
    arguments: Arguments,
    span: Span,
}

/// What a model is made from, as far back as its shape says.
#[derive(Clone, Copy, Default)]
struct Ancestry<'a> {
    search: Option<&'a ast::Search>,
    prune: Option<&'a ast::Prune>,
}

/// The condition of `require deployable`.
pub(super) fn is_deployable(condition: &Expr) -> bool {
    matches!(&condition.kind, ExprKind::Path(path)
        if path.segments.len() == 1 && path.segments[0].node == "deployable")
}

/// Where a search says `require deployable`.
pub(super) fn asks_deployable(search: &ast::Search) -> Option<Span> {
    search.items.iter().find_map(|item| match item {
        SearchItem::Require { condition, span } if is_deployable(condition) => Some(*span),
        _ => None,
    })
}

impl<'a> Checker<'a> {
    pub(super) fn deploy(&mut self, deploy: &'a Deploy) {
        let model = self.one_model(&deploy.model);
        let mut read: Vec<Named> = Vec::new();
        let mut sound = true;
        for (i, expr) in deploy.targets.iter().enumerate() {
            let Some(named) = self.target(expr) else {
                sound = false;
                continue;
            };
            match read.iter().find(|n| n.target.name == named.target.name) {
                Some(first) => {
                    let report = twice(&format!("`{}`", named.target.name), expr.span, first.span);
                    self.report(report.fix("remove this one", member(&deploy.targets, i), ""));
                }
                None => read.push(named),
            }
        }
        let Some(model) = model else { return };
        match self.shapes.get(model).cloned() {
            Some(Shape::One(outline)) => read.iter().for_each(|named| self.findings(model, &outline, named)),
            Some(Shape::Chosen(space)) => self.points_accepted(model, &space, &read),
            _ => {}
        }
        if sound {
            let targets = read.iter().map(|n| (n.target.name, n.arguments.to_hir())).collect();
            self.out.deployments.push(hir::Deployment {
                model: model.to_string(),
                targets,
                span: deploy.span,
            });
        }
    }

    fn target(&mut self, expr: &Expr) -> Option<Named> {
        let call = call_of(expr);
        let target = call.as_ref().and_then(|c| targets::find(&c.name));
        let (Some(call), Some(target)) = (&call, target) else {
            let known: Vec<Known> = TARGETS.iter().map(|t| (t.name, t.also)).collect();
            let name = call.as_ref().map_or(expr.span, |c| c.name_span);
            let shown = call.map_or("this".into(), |c| c.name);
            self.report(
                Diagnostic::new("E0901", name, format!("there is no target `{shown}`"))
                    .label("unknown target")
                    .help(suggestion_of(&shown, "targets", &known)),
            );
            return None;
        };
        Some(Named { target, arguments: self.arguments(call, target.arguments)?, span: expr.span })
    }

    /// What speaks against one model.
    fn findings(&mut self, model: &str, outline: &Outline, named: &Named) {
        let made = self.ancestry(model);
        let whole = made.prune.map_or(model, |prune| prune.from.node.as_str());
        let whole = self.outline(whole).map(|outline| outline.desc.dims.clone()).unwrap_or_default();
        let most = |dim: Dim| whole.get(&dim).copied().unwrap_or(usize::MAX);
        let mut findings = named.check(outline, &most);
        // Of what is refused, no one asks how fast it is.
        if findings.iter().any(|finding| finding.refused) {
            findings.retain(|finding| finding.refused);
        }
        for Finding { refused, asks, found, help, dims, .. } in findings {
            let name = named.target.name;
            let (code, message) = match refused {
                true => ("E0902", format!("`{name}` would refuse `{model}`: {asks}")),
                false => ("W0901", format!("`{name}` will not run `{model}` at its best: {asks}")),
            };
            let mut report = Diagnostic::new(code, named.span, message).label(found).help(help);
            for axis in made.prune.into_iter().flat_map(|prune| axes_of(prune, dims)) {
                report = report.also(axis.domain.span, "set here");
            }
            self.report(report);
        }
    }

    /// A search must be able to find a point that every target accepts, and better finds no other. Targets are counted
    /// as constraints, so that what takes long is not done again for every change of a recipe.
    fn points_accepted(&mut self, model: &str, space: &Space, targets: &[Named]) {
        let Some(points) = &space.points else { return };
        let mut together = space.require.clone();
        let all = self.counted(points, &together);
        let mut left = Arc::clone(&all);
        for named in targets {
            let asked = named.require();
            if space.require.iter().any(|require| require.quantity == asked.quantity) {
                continue;
            }
            let own = [&space.require[..], std::slice::from_ref(&asked)].concat();
            let accepted = self.counted(points, &own);
            let refused = all.points.len() - accepted.points.len();
            if refused == 0 {
                continue;
            }
            let before = left;
            together.push(asked);
            left = self.counted(points, &together);
            let name = named.target.name;
            if left.points.is_empty() {
                let (asks, found, help) = named.refusal(points, before.points.first());
                let among = if accepted.points.is_empty() { "" } else { " that others accept" };
                let message = format!("`{name}` would refuse every point of `{model}`{among}: {asks}");
                let (last, of) = (before.points.len(), plural(all.points.len() as u64));
                let label = format!("removes the last {last} of {of}; of the first: {found}");
                self.report(Diagnostic::new("E0902", named.span, message).label(label).help(help));
                return;
            }
            let Some(search) = self.ancestry(model).search else { continue };
            let worst = all.points.iter().find(|point| accepted.points.binary_search(point).is_err());
            let (asks, found, _) = named.refusal(points, worst);
            let all = all.points.len();
            let message =
                format!("`{name}` would refuse {refused} of the {all} points that `{model}` may be");
            let help = format!(
                "add `require deployable` to search `{}`: it then tries none of them\n{asks}",
                search.name.node
            );
            self.report(
                Diagnostic::new("W0902", named.span, message)
                    .label(format!("of the first of them: {found}"))
                    .also(search.name.span, "may choose any of them")
                    .help(help),
            );
        }
    }

    /// `require deployable`: one constraint for every target that the winner of a search is deployed for.
    pub(super) fn deployable(&mut self, search: &'a ast::Search, span: Span) -> Option<Vec<Require>> {
        let recipe = self.recipe;
        let deploys = recipe.declarations.iter().filter_map(|declaration| match declaration {
            Declaration::Deploy(deploy) => Some(deploy),
            _ => None,
        });
        let made = |deploy: &&'a Deploy| {
            self.ancestry(&deploy.model.node).search.is_some_and(|s| s.name.span == search.name.span)
        };
        let ours: Vec<&'a Deploy> = deploys.filter(made).collect();
        if ours.is_empty() {
            let name = &search.name.node;
            self.report(
                Diagnostic::new("E0604", span, format!("`{name}` is deployed nowhere"))
                    .label("deployable for which loaders?")
                    .help(format!(
                        "add `deploy {name} for hf`, or name a model that is trained from `{name}`"
                    )),
            );
            return None;
        }
        let named: Vec<Option<Named>> =
            ours.iter().flat_map(|deploy| &deploy.targets).map(|expr| self.target(expr)).collect();
        named.into_iter().map(|named| named.map(|named| named.require())).collect()
    }

    /// Trainings change no size: behind them stands what does.
    fn ancestry(&self, model: &str) -> Ancestry<'a> {
        let mut made = Ancestry::default();
        let mut name = model;
        // As many steps as there are declarations: a circle is reported elsewhere.
        for _ in &self.recipe.declarations {
            let Some((_, entry)) = self.names.get(name) else { break };
            match &self.recipe.declarations[entry.index] {
                Declaration::Distill(distill) => name = &distill.from.node,
                Declaration::Search(search) => {
                    made.search = Some(search);
                    name = &search.space.node;
                }
                Declaration::Prune(prune) => {
                    made.prune = Some(prune);
                    break;
                }
                _ => break,
            }
        }
        made
    }
}

impl Named {
    fn given(&self) -> Given {
        let whole = |name| usize::try_from(self.arguments.whole(name)).unwrap_or(usize::MAX);
        self.target.arguments.iter().map(|argument| (argument.name, whole(argument.name))).collect()
    }

    /// That it refuses nothing.
    fn require(&self) -> Require {
        let quantity = Quantity::Refusals { target: self.target.name, given: self.given() };
        Require { quantity, lo: f64::NEG_INFINITY, hi: 0.0, span: self.span }
    }

    /// What it asks that this point lacks, what the point has, and a way out.
    fn refusal(&self, points: &space::Space, point: Option<&u64>) -> (String, String, String) {
        let mut outline = points.parent().clone();
        point.iter().for_each(|point| points.enter(&mut outline, **point));
        let cause = self.check(&outline, &|_| usize::MAX).into_iter().find(|finding| finding.refused);
        let Finding { asks, found, help, .. } = cause.unwrap_or_default();
        (asks, found, help)
    }

    fn check(&self, outline: &Outline, most: &dyn Fn(Dim) -> usize) -> Vec<Finding> {
        self.target.check(outline, &self.given(), most)
    }
}

/// The axes of a prune that cut one of these.
fn axes_of<'a>(prune: &'a ast::Prune, dims: &'static [Dim]) -> impl Iterator<Item = &'a ast::Axis> {
    prune.items.iter().filter_map(|item| match item {
        PruneItem::Axis(axis) if dims.iter().any(|dim| dim.name() == axis.name.node) => Some(axis),
        _ => None,
    })
}
