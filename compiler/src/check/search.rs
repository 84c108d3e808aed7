//! `search NAME in SPACE { .. }`: constraints, rungs, ties and controls.

use super::Checker;
use super::arguments::call_of;
use super::deploy::is_deployable;
use super::models::Shape;
use super::named::{self, Named, call, word};
use super::names::{Want, suggestion};
use super::objective::Term;
use super::outline::LayerRules;
use super::prune::twice;
use super::score::RANDOM;
use super::space::Space;
use super::value::count;
use crate::hir::{self, Control, Measure, Quantity, Require, Rung, Tie};
use minic_grammar::ast::{self, Expr, Rank, SearchItem};
use minic_grammar::{Diagnostic, Span};
use std::sync::Arc;

pub(crate) const CONTROLS: &[Named] = &[
    call("random", RANDOM, "a candidate of the winner's sizes that keeps what a seeded shuffle draws"),
    word("reverse", "a candidate of the winner's sizes that keeps what is ranked last"),
    word("group_unaware", "heads ranked over all SSM groups, which are filled with them in their order"),
];

impl<'a> Checker<'a> {
    pub(super) fn search(&mut self, search: &'a ast::Search) {
        let space = self.resolve(&search.space, Want::Space);
        let points = space.and_then(|name| self.space(search, name));
        let require = self.requirements(search);
        let rungs = self.rungs(search, points.as_ref());
        let ties = self.ties(search);
        let controls = self.controls(search);
        let shape = match (space, points) {
            (Some(_), Some(points)) => self.winner(search, points, require.as_deref().unwrap_or(&[])),
            _ => Shape::Unknown,
        };
        if !self.is_first(&search.name) {
            return;
        }
        self.shapes.insert(&search.name.node, shape);
        if let (Some(space), Some(require), Some(rungs), Some(ties), Some(controls)) =
            (space, require, rungs, ties, controls)
        {
            let (space, span, training) = (space.to_string(), search.span, None);
            let item = hir::Search { space, require, rungs, ties, controls, training, span };
            self.out.searches.insert(search.name.node.clone(), item);
        }
    }

    /// The points to choose from; a model is a space of one point.
    fn space(&mut self, search: &ast::Search, name: &str) -> Option<Space> {
        match self.shapes.get(name)? {
            Shape::Space(space) => Some(space.clone()),
            Shape::One(outline) => {
                let only = Space::new(Some(outline), Vec::new(), &LayerRules::default());
                self.report(
                    Diagnostic::new("W0602", search.space.span, format!("`{name}` has one point"))
                        .label("there is nothing to choose")
                        .help(format!("use `{name}` itself, or give an axis several values: `in {{a, b}}`")),
                );
                Some(only)
            }
            Shape::Unknown | Shape::Chosen(_) => None,
        }
    }

    fn winner(&mut self, search: &ast::Search, mut space: Space, require: &[Require]) -> Shape {
        let Some(points) = space.points.clone() else { return Shape::Chosen(space) };
        match self.feasible(search, &points, require) {
            Some(left) => {
                space.left = Some(Arc::new(left));
                space.require = require.to_vec();
                Shape::Chosen(space)
            }
            None => Shape::Unknown,
        }
    }

    fn requirements(&mut self, search: &'a ast::Search) -> Option<Vec<Require>> {
        let mut all = Vec::new();
        let mut deployable: Option<Span> = None;
        for item in &search.items {
            let SearchItem::Require { condition, span } = item else { continue };
            if !is_deployable(condition) {
                all.push(self.requirement(condition, *span).map(|require| vec![require]));
            } else if let Some(first) = deployable.replace(*span) {
                self.report(twice("`require deployable`", *span, first));
            } else {
                all.push(self.deployable(search, *span));
            }
        }
        let all: Option<Vec<Vec<Require>>> = all.into_iter().collect();
        all.map(|all| all.concat())
    }

    fn rungs(&mut self, search: &'a ast::Search, space: Option<&Space>) -> Option<Vec<Rung>> {
        let ranks: Vec<&'a Rank> = search
            .items
            .iter()
            .filter_map(|item| match item {
                SearchItem::Rank(rank) => Some(rank),
                _ => None,
            })
            .collect();
        if ranks.is_empty() && space.is_none_or(|s| s.len() > 1) {
            self.report(
                Diagnostic::new(
                    "E0606",
                    search.name.span,
                    format!("search `{}` ranks nothing", search.name.node),
                )
                .label("which point is the best?")
                .help(format!("add `rank by loss on {} keep 1`", self.some_data())),
            );
        }
        let rungs: Vec<Option<Rung>> = ranks.iter().map(|rank| self.rung(rank)).collect();
        let keeps: Vec<(usize, Span)> = rungs
            .iter()
            .zip(&ranks)
            .filter_map(|(r, rank)| Some((r.as_ref()?.keep, rank.keep.span)))
            .collect();
        for pair in keeps.windows(2) {
            if let [(before, first), (after, span)] = pair
                && after > before
            {
                self.report(
                    Diagnostic::new(
                        "E0603",
                        *span,
                        format!("this rung keeps {after}, and {before} are left"),
                    )
                    .label("keeps more than there are")
                    .also(*first, format!("keeps {before}"))
                    .help(format!(
                        "keep {before} or fewer here, or {after} or more before: rungs go from many to few"
                    )),
                );
            }
        }
        self.training_grows(&ranks);
        rungs.into_iter().collect()
    }

    fn rung(&mut self, rank: &'a Rank) -> Option<Rung> {
        let by = self.objective(&rank.by);
        let on = rank.on.as_ref().map(|ident| self.resolve_data(ident));
        let after = rank.after.as_ref().map(|ident| self.resolve(ident, Want::Schedule));
        let tokens = rank.tokens.as_ref().map(|e| self.at_least(e, "the number of tokens", 1));
        let keep = self.size(&rank.keep, "the number of points kept", 1);
        if let Some(by) = &by {
            self.measured_on_data(rank, by);
        }
        if on == Some(None) || after == Some(None) || tokens == Some(None) {
            return None;
        }
        Some(Rung {
            by: hir::Objective::of_terms(by?),
            descending: rank.descending,
            on: on.flatten().map(str::to_string),
            after: after.flatten().map(str::to_string),
            tokens: tokens.flatten(),
            keep: keep?,
            span: rank.span,
        })
    }

    /// `on` where something is measured on data, and only there.
    fn measured_on_data(&mut self, rank: &Rank, terms: &[Term]) {
        let measured = terms.iter().find(|term| matches!(term.quantity, Quantity::Measured(_)));
        let answers = |term: &&Term| term.quantity == Quantity::Measured(Measure::Accuracy);
        if let (Some(term), Some(data)) = (terms.iter().find(answers), &rank.on) {
            self.accuracy_of(self.names.get(&data.node).map(|(name, _)| name), term.span);
        }
        if let Some(Term { quantity, span, .. }) = measured.filter(|_| rank.on.is_none()) {
            self.report(
                Diagnostic::new(
                    "E0602",
                    *span,
                    format!("`{quantity}` is measured on data, and none is named"),
                )
                .label("on which data?")
                .help(format!("write `rank by {quantity} on {} ..`", self.some_data())),
            );
        }
        let needless = [(&rank.on, "on"), (&rank.after, "after")];
        for (ident, word) in needless.iter().filter(|_| measured.is_none()) {
            if let (Some(ident), Some(first)) = (ident, terms.first()) {
                let which = if terms.len() > 1 { "this sum".into() } else { format!("`{}`", first.quantity) };
                self.report(
                    Diagnostic::new(
                        "E0602",
                        ident.span,
                        format!("{which} does not depend on data or training"),
                    )
                    .label(format!("`{word}` says nothing here"))
                    .help(format!("leave out `{word} {}`", ident.node)),
                );
            }
        }
    }

    /// A later rung goes on where an earlier one of the same schedule stood.
    fn training_grows(&mut self, ranks: &[&'a Rank]) {
        let mut last: Vec<(&str, Option<u64>, Span)> = Vec::new();
        for rank in ranks {
            let Some(after) = &rank.after else { continue };
            let tokens = rank.tokens.as_ref().map(|e| self.whole(e));
            let Some(tokens) = tokens.map_or(Some(None), |t| t.map(Some)) else { continue };
            let place = rank.tokens.as_ref().map_or(after.span, |e| e.span);
            let earlier = last.iter().find(|(name, ..)| *name == after.node);
            let shorter = |before: Option<u64>| match (before, tokens) {
                (None, Some(_)) => true,
                (Some(a), Some(b)) => b < a,
                _ => false,
            };
            if let Some((_, before, span)) = earlier
                && shorter(*before)
            {
                self.report(
                    Diagnostic::new("E0609", place, "this rung trains less than an earlier one")
                        .label("its candidates are trained further already")
                        .also(*span, "trained until here")
                        .help(match before {
                            Some(before) => format!(
                                "write `for {}` or more: a later rung goes on where the earlier one stood",
                                count(*before as f64)
                            ),
                            None => {
                                "leave out `for`: a later rung goes on where the earlier one stood".into()
                            }
                        }),
                );
            }
            last.retain(|(name, ..)| *name != after.node);
            last.push((&after.node, tokens, place));
        }
    }

    fn ties(&mut self, search: &ast::Search) -> Option<Vec<Tie>> {
        let mut all: Vec<Option<Tie>> = Vec::new();
        for item in &search.items {
            let SearchItem::BreakTies { within, by, span } = item else { continue };
            let distance = self.between(within, "the distance of a tie", f64::INFINITY, "write 0 or more");
            let quantity = self.quantity(by);
            if let Some(measured @ Quantity::Measured(_)) = &quantity {
                self.report(
                    Diagnostic::new(
                        "E0602",
                        by.span,
                        format!("`{measured}` is measured on data, and cannot break ties"),
                    )
                    .label("candidates are within it already")
                    .help("break ties by `throughput(..)`, `params`, `flops(..)` or `memory(..)`"),
                );
            }
            let same = |tie: &&Tie| Some(&tie.by) == quantity.as_ref();
            if let Some(first) = all.iter().flatten().find(same).map(|tie| tie.span) {
                self.report(twice("this way to break ties", *span, first).fix("remove this line", *span, ""));
            }
            all.push(distance.zip(quantity).map(|(within, by)| Tie { within, by, span: *span }));
        }
        all.into_iter().collect()
    }

    fn controls(&mut self, search: &ast::Search) -> Option<Vec<Control>> {
        let mut out: Vec<(Control, Span)> = Vec::new();
        let mut sound = true;
        for item in &search.items {
            let SearchItem::Control { controls, .. } = item else { continue };
            for expr in controls {
                let Some(control) = self.control(expr) else {
                    sound = false;
                    continue;
                };
                match out.iter().find(|(c, _)| *c == control) {
                    Some((_, first)) => self.report(twice(&format!("`{control}`"), expr.span, *first)),
                    None => out.push((control, expr.span)),
                }
            }
        }
        sound.then(|| out.into_iter().map(|(c, _)| c).collect())
    }

    fn control(&mut self, expr: &Expr) -> Option<Control> {
        let call = call_of(expr);
        match call.as_ref().map(|c| c.name.as_str()) {
            Some("random") => {
                let read = self.arguments(call.as_ref()?, RANDOM)?;
                Some(Control::Random { seed: read.whole("seed") })
            }
            Some("reverse") => self.arguments(call.as_ref()?, &[]).map(|_| Control::Reverse),
            Some("group_unaware") => self.arguments(call.as_ref()?, &[]).map(|_| Control::GroupUnaware),
            other => {
                let name = call.as_ref().map_or(expr.span, |c| c.name_span);
                let shown = other.unwrap_or("this");
                self.report(
                    Diagnostic::new("E0607", name, format!("there is no control `{shown}`"))
                        .label("unknown control")
                        .help(suggestion(shown, "controls", &named::names(CONTROLS))),
                );
                None
            }
        }
    }
}
