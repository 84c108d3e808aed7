//! Metrics, and how an axis is ranked: `by METRIC at TAP`.

use super::Checker;
use super::arguments::{Accepts, Argument, Call, Default, call_of};
use super::eval::dotted;
use super::named::{Named, word};
use super::names::{Kind, list, suggestion};
use crate::axes::{self, Axis, Scope, TAPS, Tap};
use crate::hir::{self, Score};
use crate::metrics::{self, LAYER_METRICS, RANKINGS, RankingKind};
use minic_grammar::ast::{self, Expr, Path};
use minic_grammar::{Diagnostic, Help, Span, nearest};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const PCA: Named =
    word("pca", "keeps the principal directions of the residual stream, which is rotated; for `hidden_size`");

/// `random(seed = 1)`
pub(crate) const RANDOM: &[Argument] = &[Argument {
    name: "seed",
    accepts: Accepts::Whole,
    default: Default::Is(0.0),
    doc: "the seed of the shuffle",
}];

/// `residual(damping = 5%)`
pub(crate) const RESIDUAL: &[Argument] = &[Argument {
    name: "damping",
    accepts: Accepts::NotNegative,
    default: Default::Is(0.05),
    doc: "added to the diagonal, as a fraction of its mean",
}];

impl<'a> Checker<'a> {
    pub(super) fn metric(&mut self, metric: &'a ast::Metric) {
        let mut params = BTreeMap::new();
        let mut unknown = false;
        for name in super::names::read_by(metric) {
            let Some((known, entry)) = self.names.get(&name.node) else { continue };
            if entry.kind != Kind::Param {
                continue;
            }
            self.used.insert(known);
            match self.params.get(known).cloned().flatten() {
                Some(super::value::Value::Number(n)) => {
                    params.insert(known.to_string(), n.value);
                }
                Some(_) => {}
                None => unknown = true,
            }
        }
        let compiled = if unknown { None } else { Some(metrics::compile_with(metric, &params)) };
        let program = match compiled {
            Some(Ok(program)) => {
                self.found.extend(metrics::lint(metric));
                Some(Arc::new(program))
            }
            Some(Err(faults)) => {
                self.found.extend(faults);
                None
            }
            None => None,
        };
        self.shadowed(metric);
        if !self.is_first(&metric.name) {
            return;
        }
        if let Some(program) = &program {
            let item = hir::Metric { program: program.clone(), span: metric.span };
            self.out.metrics.insert(metric.name.node.clone(), item);
        }
        self.metrics.insert(&metric.name.node, program);
    }

    fn shadowed(&mut self, metric: &ast::Metric) {
        if builtins().contains(&metric.name.node.as_str()) {
            self.used.extend(self.names.get(&metric.name.node).map(|(name, _)| name));
            self.report(
                Diagnostic::new(
                    "W0204",
                    metric.name.span,
                    format!(
                        "the metric `{}` is hidden by the built-in ranking of that name",
                        metric.name.node
                    ),
                )
                .label("`by` finds the built-in one")
                .help(format!("give the metric another name: `own_{}`", metric.name.node)),
            );
        }
    }

    /// How an axis is ranked; `None` after a fault.
    pub(super) fn axis_score(&mut self, axis: &'static Axis, line: &ast::Axis) -> Option<Score> {
        let Some(by) = &line.by else {
            let by = format!("by {}", self.proposal(axis));
            self.report(
                Diagnostic::new(
                    "E0407",
                    line.name.span,
                    format!("`{}` is not ranked by anything", axis.name),
                )
                .label("`by` is missing")
                .help(format!("add `{by}`"))
                .fix(format!("add `{by}`"), Span::at(line.domain.span.end), format!(" {by}")),
            );
            return None;
        };
        self.score(axis, by)
    }

    /// What a user probably wants to rank an axis by.
    fn proposal(&self, axis: &Axis) -> String {
        match axis.scope {
            Scope::Depth => "kld".into(),
            _ => self
                .names
                .of(|k| k == Kind::Metric)
                .first()
                .map_or("random(seed = 1)".into(), |m| m.to_string()),
        }
    }

    fn proposed(&self, axis: &Axis) -> Help {
        let metric = self.proposal(axis);
        Help::instead(format!("write `by {metric}`"), [metric])
    }

    fn score(&mut self, axis: &'static Axis, by: &Expr) -> Option<Score> {
        let Some(call) = call_of(by) else {
            self.report(
                Diagnostic::new("E0407", by.span, "a metric is wanted after `by`").help(self.proposed(axis)),
            );
            return None;
        };
        match metrics::ranking(&call.name).map(|r| r.kind) {
            Some(RankingKind::Random) => {
                let arguments = self.arguments(&call, RANDOM)?;
                return Some(Score::Random { seed: arguments.whole("seed") });
            }
            Some(RankingKind::Reverse) => return self.reverse(axis, &call),
            Some(RankingKind::Iterative) => {
                return self.of_layers(axis, &call, "removes one layer at a time", Score::Iterative);
            }
            Some(RankingKind::Contiguous) => {
                return self.of_layers(axis, &call, "removes a block of layers", Score::Contiguous);
            }
            Some(RankingKind::Residual) => return self.residual(axis, &call),
            None => {}
        }
        self.no_arguments(&call)?;
        if call.name == PCA.name {
            return self.pca(axis, &call);
        }
        if let Some(metric) = metrics::layer_metric(&call.name) {
            if axis.scope == Scope::Depth {
                return Some(Score::Layer(metric));
            }
            self.unfit(axis, &call, "ranks layers");
            return None;
        }
        self.declared_metric(axis, &call)
    }

    fn pca(&mut self, axis: &Axis, call: &Call) -> Option<Score> {
        if axis.scope == Scope::Model {
            return Some(Score::Pca);
        }
        self.unfit(axis, call, "rotates the residual stream, and so cuts `hidden_size` alone");
        None
    }

    fn declared_metric(&mut self, axis: &Axis, call: &Call) -> Option<Score> {
        let declared = self.names.of(|k| k == Kind::Metric);
        match self.names.get(&call.name) {
            Some((name, entry)) if entry.kind == Kind::Metric => {
                self.used.insert(name);
                if axis.scope == Scope::Depth {
                    self.unfit(axis, call, "scores the members of a tap, not layers");
                    return None;
                }
                Some(Score::Metric(name.to_string()))
            }
            Some((name, entry)) => {
                self.used.insert(name);
                let ident = ast::Ident::new(call.name.clone(), call.name_span);
                self.wrong_kind(&ident, entry, "metric", suggestion(&call.name, "metrics", &declared));
                None
            }
            None => {
                let mut known: Vec<&str> = if axis.scope == Scope::Depth { Vec::new() } else { declared };
                known.extend(builtins().into_iter().filter(|b| fits(axis, b)));
                self.report(
                    Diagnostic::new("E0202", call.name_span, format!("no metric is called `{}`", call.name))
                        .label("neither built in nor declared in this recipe")
                        .help(match nearest(&call.name, known.iter().copied()) {
                            Some(near) => Help::meant(near),
                            None => format!(
                                "declare it, as in `metric {}(w) = {}(w)`; there are {}",
                                call.name,
                                reducer(&call.name),
                                list(&known)
                            )
                            .into(),
                        }),
                );
                None
            }
        }
    }

    fn unfit(&mut self, axis: &Axis, call: &Call, why: &str) {
        let help = match axis.scope {
            Scope::Depth => {
                let names = layer_names();
                let help = format!("layers are ranked by {}", list(&names));
                Help::instead(help, names.iter().map(|n| n.to_string()))
            }
            _ => self.proposed(axis),
        };
        self.report(
            Diagnostic::new("E0408", call.span, format!("`{}` cannot rank `{}`", call.name, axis.name))
                .label(format!("`{}` {why}", call.name))
                .help(help),
        );
    }

    fn no_arguments(&mut self, call: &Call) -> Option<()> {
        self.arguments(call, &[]).map(|_| ())
    }

    /// The metric within `reverse(..)`, `iterative(..)` or `contiguous(..)`.
    fn inner<'e>(&mut self, axis: &Axis, call: &Call<'e>) -> Option<&'e Expr> {
        if let [ast::Argument { name: None, value }] = call.arguments {
            return Some(value);
        }
        self.report(
            Diagnostic::new("E0308", call.span, format!("`{}` takes one metric", call.name))
                .label("of which metric?")
                .help(format!("write `{}({})`", call.name, self.proposal(axis))),
        );
        None
    }

    fn reverse(&mut self, axis: &'static Axis, call: &Call) -> Option<Score> {
        let inner = self.inner(axis, call)?;
        match self.score(axis, inner)? {
            Score::Reverse(_) | Score::Random { .. } | Score::Pca => {
                self.report(
                    Diagnostic::new("E0408", inner.span, "`reverse` takes a metric")
                        .label("has no reverse")
                        .help(format!("write `by reverse({})`", self.proposal(axis))),
                );
                None
            }
            score => Some(Score::Reverse(Box::new(score))),
        }
    }

    /// `iterative(METRIC)` and `contiguous(METRIC)`.
    fn of_layers(
        &mut self,
        axis: &'static Axis,
        call: &Call,
        does: &str,
        make: fn(hir::LayerMetric) -> Score,
    ) -> Option<Score> {
        let inner = self.inner(axis, call)?;
        if axis.scope != Scope::Depth {
            self.unfit(axis, call, does);
            return None;
        }
        match self.score(axis, inner)? {
            Score::Layer(metric) => Some(make(metric)),
            _ => {
                self.report(
                    Diagnostic::new("E0408", inner.span, format!("`{}` takes a layer metric", call.name))
                        .label("this is none")
                        .help(Help::instead(
                            format!("layer metrics: {}", list(&layer_names())),
                            layer_names().into_iter().map(str::to_string),
                        )),
                );
                None
            }
        }
    }

    fn residual(&mut self, axis: &'static Axis, call: &Call) -> Option<Score> {
        let arguments = self.arguments(call, RESIDUAL)?;
        if axis.read_at().is_none() {
            self.unfit(axis, call, "ranks what the last matrix of a block reads");
            return None;
        }
        Some(Score::Residual { damping: arguments.number("damping") })
    }

    /// The tap that an axis is scored at; its name is checked even where the ranking is not known.
    pub(super) fn axis_tap(
        &mut self,
        axis: &'static Axis,
        score: Option<&Score>,
        at: &Option<Path>,
    ) -> Option<&'static Tap> {
        let looked_at = match score {
            Some(Score::Reverse(inner)) => Some(inner.as_ref()),
            other => other,
        };
        let tap = match at {
            Some(path) => {
                let tap = self.legal_tap(axis, path, &dotted(path))?;
                if let (Some(Score::Residual { .. }), Some(read)) = (looked_at, axis.read_at()) {
                    self.read_alone(path, tap, read);
                }
                tap
            }
            None => axis.taps.first().and_then(|t| axes::find_tap(t))?,
        };
        // A control stands in for a metric: its tap says nothing, and may stay.
        matches!(looked_at, Some(Score::Metric(_))).then_some(tap)
    }

    /// `residual` has no choice of a tap.
    fn read_alone(&mut self, path: &Path, tap: &Tap, read: &Tap) {
        if tap.name == read.name {
            return;
        }
        self.report(
            Diagnostic::new("E0406", path.span, format!("`residual` does not look at `{}`", tap.name))
                .label(format!("it looks at `{}`: {}", read.name, read.doc))
                .help("leave out `at`")
                .fix(format!("write `at {}`", read.name), path.span, read.name),
        );
    }

    fn legal_tap(&mut self, axis: &'static Axis, path: &Path, name: &str) -> Option<&'static Tap> {
        let Some(tap) = axes::find_tap(name) else {
            let known: Vec<&str> =
                if axis.taps.is_empty() { TAPS.iter().map(|t| t.name).collect() } else { axis.taps.to_vec() };
            self.report(
                Diagnostic::new("E0406", path.span, format!("there is no tap `{name}`"))
                    .label("unknown tap")
                    .help(suggestion(name, "taps", &known)),
            );
            return None;
        };
        if axis.taps.contains(&name) {
            return Some(tap);
        }
        let help = match axis.taps {
            [] => "leave out `at`: layers are ranked as a whole".into(),
            taps => Help::instead(
                format!("taps that score it: {}", list(taps)),
                taps.iter().map(|tap| tap.to_string()),
            ),
        };
        let scores: Vec<String> = tap.dims.iter().map(|d| format!("`{d}`")).collect();
        self.report(
            Diagnostic::new("E0406", path.span, format!("`{name}` does not score `{}`", axis.name))
                .label(format!("scores {}", scores.join(" x ")))
                .help(help),
        );
        None
    }

    /// Whether a ranking looks at data; unknown metrics are taken to.
    pub(super) fn needs_data(&self, score: &Score) -> bool {
        match score {
            Score::Metric(name) => match self.metrics.get(name.as_str()) {
                Some(Some(program)) => program.uses_x(),
                _ => false,
            },
            Score::Layer(_)
            | Score::Iterative(_)
            | Score::Contiguous(_)
            | Score::Residual { .. }
            | Score::Pca => true,
            Score::Random { .. } => false,
            Score::Reverse(inner) => self.needs_data(inner),
        }
    }
}

/// A reducer for a metric of this name.
fn reducer(name: &str) -> &'static str {
    metrics::REDUCERS.iter().map(|r| r.name).find(|r| name.contains(r)).unwrap_or("l2")
}

fn layer_names() -> Vec<&'static str> {
    LAYER_METRICS.iter().map(|m| m.name).collect()
}

/// Names that `by` finds before the recipe's own.
pub(crate) fn builtins() -> Vec<&'static str> {
    LAYER_METRICS.iter().map(|m| m.name).chain(RANKINGS.iter().map(|r| r.name)).chain([PCA.name]).collect()
}

pub(super) fn is_builtin(name: &str) -> bool {
    name == PCA.name || metrics::ranking(name).is_some() || metrics::layer_metric(name).is_some()
}

pub(crate) fn fits(axis: &Axis, builtin: &str) -> bool {
    match builtin {
        "random" | "reverse" => true,
        "pca" => axis.scope == Scope::Model,
        "residual" => axis.read_at().is_some(),
        _ => axis.scope == Scope::Depth,
    }
}
