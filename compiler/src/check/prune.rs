//! `prune NAME from MODEL { .. }`: axes against the parent, rankings, repairs, and the model that results.

use super::Checker;
use super::axis::{Line, either, nearest};
use super::groups::Rules;
use super::models::Shape;
use super::outline::{LayerRules, Outline};
use super::space::{Point, Space, expressible};
use super::value::count;
use crate::axes::{AXES, Axis, Scope};
use crate::cost;
use crate::dim::Dim;
use crate::hir::{self, AxisCut, Score};
use crate::space::{self, MOST_POINTS};
use minic_grammar::ast::{self, Ident, PruneItem};
use minic_grammar::{Diagnostic, Span};

impl<'a> Checker<'a> {
    pub(super) fn prune(&mut self, prune: &'a ast::Prune) {
        let from = self.weighted_model(&prune.from);
        let parent = from.and_then(|name| self.outline(name)).cloned();
        let calibrate = self.calibration(prune);
        let mut rules = self.rules(prune, parent.as_ref());
        let lines = self.lines(prune, parent.as_ref(), &rules);
        rules.layers.block = lines.iter().any(|l| l.score.as_ref().is_some_and(Score::takes_a_block));
        self.uncut_sizes(&lines, &rules, parent.as_ref());
        self.depth(prune, &lines, &rules, parent.as_ref());
        self.rotation(&lines, parent.as_ref());
        let repairs = self.repairs(prune, &lines, calibrate.is_some());
        self.data_for_scores(prune, &lines, &repairs, calibrate);
        let shape = self.shape(prune, parent, &lines, rules.layers.clone());
        self.enough_data(&repairs, calibrate, &shape);
        if !self.is_first(&prune.name) {
            return;
        }
        self.shapes.insert(&prune.name.node, shape);
        let cuts: Option<Vec<AxisCut>> = ordered(lines).into_iter().map(cut_of).collect();
        if let (Some(from), Some(axes), Some(repairs)) = (from, cuts, repairs) {
            let calibrate =
                calibrate.and_then(|ident| self.names.get(&ident.node)).map(|(n, _)| n.to_string());
            let (from, constraints, span) = (from.to_string(), rules.constraints, prune.span);
            let item = hir::Prune { from, calibrate, axes, constraints, repairs, span };
            self.out.prunes.insert(prune.name.node.clone(), item);
        }
    }

    fn calibration(&mut self, prune: &'a ast::Prune) -> Option<&'a Ident> {
        let mut found: Option<(&'a Ident, Span)> = None;
        for item in &prune.items {
            let PruneItem::Calibrate { data, span } = item else { continue };
            self.resolve_text(data);
            if let Some((_, first)) = found {
                self.report(twice("`calibrate on`", *span, first).fix("remove this line", *span, ""));
            } else {
                found = Some((data, *span));
            }
        }
        found.map(|(data, _)| data)
    }

    fn rules(&mut self, prune: &'a ast::Prune, parent: Option<&Outline>) -> Rules {
        let listed = prune.items.iter().filter_map(|item| match item {
            PruneItem::Under { groups, .. } => Some(groups),
            _ => None,
        });
        let groups: Vec<&'a Ident> = listed.flatten().collect();
        self.rules_under(&groups, parent)
    }

    /// Matrices that are solved learn a small calibration set by heart.
    fn enough_data(&mut self, repairs: &Option<Vec<hir::Repair>>, calibrate: Option<&Ident>, shape: &Shape) {
        let solves = |r: &&hir::Repair| matches!(r.kind, hir::RepairKind::LeastSquares { .. });
        let (Some(repair), Shape::One(model)) = (repairs.iter().flatten().find(solves), shape) else {
            return;
        };
        let data = calibrate.and_then(|data| self.out.data.get(&data.node));
        let Some((sequence, samples)) = data.and_then(|d| Some((d.sequence as u64, d.samples? as u64)))
        else {
            return;
        };
        let (width, positions) = (cost::widest_read(&model.desc), sequence.saturating_mul(samples));
        if positions < POSITIONS * width {
            let more = (POSITIONS * width).div_ceil(sequence.max(1));
            self.report(
                Diagnostic::new("W0406", repair.span, "this repair has little data to go by")
                    .label(format!("{positions} positions for matrices of up to {width} columns"))
                    .help(format!("calibrate on {more} samples or more; three times as many still gain")),
            );
        }
    }

    /// `by pca` needs a stream that can be rotated, and something to cut it to.
    fn rotation(&mut self, lines: &[Line], parent: Option<&Outline>) {
        let turns = |line: &&Line| line.score == Some(Score::Pca);
        let (Some(line), Some(parent)) = (lines.iter().find(turns), parent) else { return };
        let by = line.ast.by.as_ref().map_or(line.ast.span, |by| by.span);
        let size = parent.desc.size(line.axis.dim);
        // A rotated stream of the parent's width would be compared with the parent's channel by channel.
        if let Some([whole]) = line.values.as_deref()
            && whole.node == size
        {
            self.report(
                Diagnostic::new(
                    "E0418",
                    whole.span,
                    format!("{size} directions are all that the parent has"),
                )
                .label("nothing would be cut, and the stream rotated all the same")
                .help(format!("keep fewer than {size}, or leave the size out")),
            );
        }
        let Err(error) = parent.desc.family().rotatable(&parent.desc) else { return };
        let message =
            format!("the residual stream of this model cannot be rotated: `{}` {}", error.key, error.message);
        let mut report = Diagnostic::new("E0418", by, message).label("rotates the stream");
        if let Some(help) = error.help {
            report = report.help(help);
        }
        self.report(report);
    }

    /// `calibrate on` where something looks at data, and only there.
    fn data_for_scores(
        &mut self,
        prune: &'a ast::Prune,
        lines: &[Line],
        repairs: &Option<Vec<hir::Repair>>,
        calibrate: Option<&'a Ident>,
    ) {
        let reader = lines.iter().find(|l| l.score.as_ref().is_some_and(|s| self.needs_data(s)));
        match (calibrate, reader) {
            (None, Some(line)) => {
                let by = line.ast.by.as_ref().map_or(line.ast.span, |by| by.span);
                let report =
                    Diagnostic::new("E0416", by, "this ranking looks at data, and the prune names none")
                        .label(format!("ranks `{}` by what a forward pass shows", line.axis.name));
                self.report(self.add_calibration(report, prune));
            }
            (Some(data), None) => {
                let unread = lines.iter().all(|l| l.score.is_some()) && self.all_metrics_known(lines);
                let repaired = repairs.as_ref().is_none_or(|r| r.iter().any(|r| r.kind.reads_data()));
                if unread && !repaired && !lines.is_empty() {
                    let remove = format!("remove `calibrate on {}`", data.node);
                    self.report(
                        Diagnostic::new(
                            "W0403",
                            data.span,
                            format!("prune `{}` does not look at `{}`", prune.name.node, data.node),
                        )
                        .label("no ranking needs it")
                        .help(remove.as_str())
                        .fix(remove, calibration_line(prune, data), ""),
                    );
                }
            }
            _ => {}
        }
    }

    fn all_metrics_known(&self, lines: &[Line]) -> bool {
        let known = |score: &Score| match score {
            Score::Metric(name) => self.metrics.get(name.as_str()).is_some_and(Option::is_some),
            Score::Reverse(inner) => match inner.as_ref() {
                Score::Metric(name) => self.metrics.get(name.as_str()).is_some_and(Option::is_some),
                _ => true,
            },
            _ => true,
        };
        lines.iter().all(|l| l.score.as_ref().is_some_and(known))
    }

    /// Help and fix of what lacks the calibration data of a prune.
    fn add_calibration(&self, report: Diagnostic, prune: &ast::Prune) -> Diagnostic {
        let line = format!("calibrate on {}", self.some_data());
        let report = report.help(format!("add `{line}`"));
        match prune.items.first() {
            Some(first) => {
                report.fix(format!("add `{line}`"), Span::at(first.span().start), format!("{line}; "))
            }
            None => report,
        }
    }

    pub(super) fn some_data(&self) -> String {
        self.names.of(|k| k == super::names::Kind::Data).first().map_or("DATA".into(), |d| d.to_string())
    }

    /// What the prune stands for.
    fn shape(
        &mut self,
        prune: &'a ast::Prune,
        parent: Option<Outline>,
        lines: &[Line],
        rules: LayerRules,
    ) -> Shape {
        let values = lines.iter().map(|l| {
            let mut sizes: Vec<usize> = l.values.as_ref()?.iter().map(|v| v.node).collect();
            sizes.sort_unstable();
            Some((l.axis.dim, sizes))
        });
        let Some(axes) = values.collect::<Option<Vec<(Dim, Vec<usize>)>>>() else { return Shape::Unknown };
        if axes.iter().any(|(_, values)| values.len() > 1) {
            let space = Space::new(parent.as_ref(), axes, &rules);
            return if self.expressible_space(prune, &space) { Shape::Space(space) } else { Shape::Unknown };
        }
        let Some(parent) = parent else { return Shape::Unknown };
        let point: Point = axes.iter().filter_map(|(dim, v)| v.first().map(|v| (*dim, *v))).collect();
        let possible = |(dim, v): (&Dim, &usize)| parent.dim(*dim).is_some_and(|size| (1..=size).contains(v));
        if !point.iter().all(possible) || point.is_empty() {
            return Shape::Unknown;
        }
        if point.iter().all(|(dim, v)| parent.dim(*dim) == Some(*v)) {
            self.report(
                Diagnostic::new(
                    "E0410",
                    prune.name.span,
                    format!("prune `{}` changes nothing", prune.name.node),
                )
                .label("every axis has the size of the parent")
                .help(smaller(&parent, &point)),
            );
        }
        let Some(model) = parent.cut(&point, &rules) else { return Shape::Unknown };
        self.expressible_model(prune, &parent, &model, &point, lines);
        Shape::One(Box::new(model))
    }

    fn expressible_space(&mut self, prune: &ast::Prune, space: &Space) -> bool {
        let name = &prune.name;
        if space.len() > MOST_POINTS {
            self.report(
                Diagnostic::new(
                    "E0608",
                    name.span,
                    format!("`{}` has {} points", name.node, count(space.len() as f64)),
                )
                .label(format!("at most {} can be tried", count(MOST_POINTS as f64)))
                .help(fewer(space)),
            );
            return false;
        }
        let Some(points) = &space.points else { return true };
        let parent = points.parent();
        let possible = |(dim, values): &(Dim, Vec<usize>)| {
            parent.dim(*dim).is_some_and(|size| values.iter().all(|v| (1..=size).contains(v)))
        };
        let sound = space.axes.iter().all(possible);
        if sound && self.counted(points, &[]).legal == 0 {
            let family = parent.desc.family;
            self.report(
                Diagnostic::new(
                    "E0411",
                    name.span,
                    format!("no point of `{}` can be stored as {family}", name.node),
                )
                .label("every combination breaks a constraint of the family")
                .help(first_refusal(points).unwrap_or_else(|| "widen the sets of values".into())),
            );
            return false;
        }
        true
    }

    fn expressible_model(
        &mut self,
        prune: &ast::Prune,
        parent: &Outline,
        model: &Outline,
        point: &Point,
        lines: &[Line],
    ) {
        let grouped =
            |(dim, v): (&Dim, &usize)| dim.within().and_then(|o| parent.dim(o)).is_none_or(|n| v % n == 0);
        if !point.iter().all(grouped) {
            return;
        }
        let Err(error) = expressible(model) else { return };
        let mut ways = Vec::new();
        let mut places = Vec::new();
        for axis in AXES.iter().filter(|a| a.scope != Scope::Depth) {
            let (Some(size), Some(value)) = (parent.dim(axis.dim), model.dim(axis.dim)) else { continue };
            let legal = |v: usize| {
                let mut other = model.clone();
                other.desc.dims.insert(axis.dim, v);
                expressible(&other).is_ok()
            };
            let near = nearest(value, size, legal);
            if near.is_empty() {
                continue;
            }
            ways.push(format!("`{}` {}", axis.name, either(&near)));
            places.extend(lines.iter().find(|l| l.axis.name == axis.name).map(|l| l.ast.domain.span));
        }
        places.sort();
        let name = &prune.name.node;
        let place = places.first().copied().unwrap_or(prune.name.span);
        let message = format!("`{name}` cannot be stored as {}", model.desc.family);
        let mut report = Diagnostic::new("E0411", place, message);
        for span in places.iter().skip(1) {
            report = report.also(*span, "together with this");
        }
        let help = match (ways.is_empty(), error.help) {
            (false, _) => format!("nearest that fit: {}", ways.join(", or ")),
            (true, help) => help.unwrap_or_else(|| "no size near these fits".into()),
        };
        self.report(report.label(error.message).help(help));
    }

    fn repairs(
        &mut self,
        prune: &'a ast::Prune,
        lines: &[Line],
        calibrated: bool,
    ) -> Option<Vec<hir::Repair>> {
        let mut out: Vec<hir::Repair> = Vec::new();
        let mut sound = true;
        for item in &prune.items {
            let PruneItem::Repair(repair) = item else { continue };
            let Some(kind) = self.repair(repair) else {
                sound = false;
                continue;
            };
            if let Some(first) =
                out.iter().find(|r| std::mem::discriminant(&r.kind) == std::mem::discriminant(&kind))
            {
                let report = twice(&format!("`repair {}`", repair.what.node), repair.span, first.span);
                self.report(report.fix("remove this line", repair.span, ""));
            }
            if let hir::RepairKind::Norms { power } = &kind
                && !lines.is_empty()
                && !lines.iter().any(|l| changes_norms(l.axis, power.is_none()))
            {
                let help = match power.is_none() {
                    true => "norms change with `hidden_size`, `mamba_num_heads` and `mamba_head_dim`",
                    false => {
                        "norms of the stream change with `hidden_size`; `repair norms fitted` looks at gated norms too"
                    }
                };
                self.report(
                    Diagnostic::new("E0413", repair.span, "no norm changes its width here")
                        .label("nothing to repair")
                        .help(help),
                );
            }
            let repair_item = hir::Repair { kind, span: repair.span };
            if repair_item.kind.reads_data() && !calibrated {
                let message = "this repair looks at data, and the prune names none";
                let report = Diagnostic::new("E0416", repair.span, message)
                    .label("compares the cut model with the parent on it");
                self.report(self.add_calibration(report, prune));
            }
            out.push(repair_item);
        }
        sound.then_some(out)
    }
}

/// Positions of calibration data for each column of a matrix that is solved: with fewer, held-out loss was seen to
/// rise.
const POSITIONS: u64 = 10;

/// The line that names these calibration data.
fn calibration_line(prune: &ast::Prune, named: &Ident) -> Span {
    let line = prune.items.iter().map(PruneItem::span).find(|line| line.end == named.span.end);
    line.unwrap_or(named.span)
}

/// A size below the parent's, where a point has none.
fn smaller(parent: &Outline, point: &Point) -> String {
    let half = |(dim, size): (&Dim, &usize)| {
        let groups = dim.within().and_then(|outer| parent.dim(outer)).unwrap_or(1);
        let less = size / 2 / groups * groups;
        (less > 0).then(|| format!("make one axis smaller: `axis {dim} = {less}`"))
    };
    point.iter().find_map(half).unwrap_or_else(|| "make one axis smaller".into())
}

/// The axis with the most values.
fn fewer(space: &Space) -> String {
    let most = space.axes.iter().max_by_key(|(_, values)| values.len());
    let (dim, values) = most.map_or((Dim::One, 0), |(dim, values)| (*dim, values.len()));
    format!("give axes fewer values, or larger steps: `{dim}` has {values}")
}

/// Gated norms are repaired only where the power is fitted.
fn changes_norms(axis: &Axis, fitted: bool) -> bool {
    let gated = matches!(axis.dim, Dim::MambaNumHeads | Dim::MambaHeadDim);
    axis.dim == Dim::HiddenSize || (gated && fitted)
}

/// `what` is in backticks where it is a piece of the recipe.
pub(super) fn twice(what: &str, again: Span, first: Span) -> Diagnostic {
    let written = if what.starts_with('`') { format!(": {what}") } else { String::new() };
    Diagnostic::new("E0417", again, format!("{what} stands twice"))
        .label("again here")
        .also(first, "first here")
        .help(format!("keep one of the two{written}"))
}

/// What goes with a member of a list that is not its first: the comma before it.
pub(super) fn member(list: &[ast::Expr], index: usize) -> Span {
    let before = index.checked_sub(1).and_then(|i| list.get(i)).map(|before| before.span.end);
    let span = list[index].span;
    Span::new(before.unwrap_or(span.start), span.end)
}

/// In the order of [`AXES`], in which cuts are made.
fn ordered(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|l| AXES.iter().position(|a| a.name == l.axis.name));
    lines
}

fn cut_of(line: Line) -> Option<AxisCut> {
    let mut values: Vec<usize> = line.values?.iter().map(|v| v.node).collect();
    values.sort_unstable();
    Some(AxisCut { axis: line.axis, values, score: line.score?, tap: line.tap, span: line.ast.span })
}

/// Why the first point of a space is refused, in the family's words.
fn first_refusal(points: &space::Space) -> Option<String> {
    let mut model = points.parent().clone();
    points.enter(&mut model, 0);
    let error = expressible(&model).err()?;
    Some(error.help.unwrap_or(error.message))
}
