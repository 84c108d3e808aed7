//! `distill NAME from MODEL { .. }` and `train NAME from MODEL { .. }`

use super::Checker;
use super::arguments::call_of;
use super::fields::Fields;
use super::models::Shape;
use super::named::{Named, word};
use super::names::Want;
use super::schedule::Known;
use super::score::RANDOM;
use super::streams::Candidates;
use crate::hir;
use minic_grammar::ast::{Distill, Expr, ExprKind, Ident};
use minic_grammar::{Diagnostic, Help, Span};

pub(crate) const DISTILL: &[Named] =
    &[word("teacher", "the model that is imitated"), DATA, SCHEDULE, HELDOUT, EVERY, WEIGHTS];
pub(crate) const TRAIN: &[Named] = &[DATA, SCHEDULE, HELDOUT, EVERY, WEIGHTS];

const DATA: Named = word("data", "what it is trained on; phases of the schedule may name data of their own");
const SCHEDULE: Named = word("schedule", "how it is trained");
const HELDOUT: Named = word(
    "heldout",
    "data on which the loss is measured before the first update, after the last, and in between",
);
const EVERY: Named =
    word("every", "tokens of training between two measurements on `heldout`; a tenth of all by default");
const WEIGHTS: Named = word(
    "weights",
    "`random(seed = N)`: begin with weights drawn as the family draws them, not the model's own",
);

/// Evaluations on held-out data between the first and the last, where `every` is left out.
const EVALUATIONS: u64 = 10;

impl<'a> Checker<'a> {
    pub(super) fn distill(&mut self, distill: &'a Distill) {
        let name = &distill.name;
        let (verb, keys) = if distill.teacherless { ("train", TRAIN) } else { ("distill", DISTILL) };
        let fields =
            self.fields(format!("{verb} `{}`", name.node), name.span, &distill.settings, distill.span, keys);
        let weights = fields.get("weights").map_or(Some(hir::Weights::Own), |e| self.weights(e));
        let from = match weights {
            Some(hir::Weights::Own) => self.weighted_model(&distill.from),
            _ => self.one_model(&distill.from),
        };
        let teacher = if distill.teacherless {
            Some(None)
        } else {
            let ident = self
                .required(&fields, "teacher", &self.some(Want::Model, &name.node))
                .and_then(|e| self.named(e, "teacher"));
            ident.and_then(|ident| self.weighted_model(ident).map(|name| Some((name, ident.span))))
        };
        let data = self.required(&fields, "data", &self.some_data()).and_then(|e| self.named(e, "data"));
        let data = data.and_then(|ident| self.resolve_text(ident).map(|name| (name, ident.span)));
        let schedule = self
            .required(&fields, "schedule", &self.some(Want::Schedule, &name.node))
            .and_then(|e| self.named(e, "schedule"));
        let schedule = schedule.and_then(|i| self.resolve(i, Want::Schedule).map(|name| (name, i.span)));
        let total = schedule.and_then(|(name, _)| self.schedules.get(name)).and_then(Known::tokens);
        let heldout = self.heldout(&fields, data, total);
        if let (Some(from), Some(Some((teacher, span)))) = (from, teacher) {
            self.same_vocabulary((from, distill.from.span), (teacher, span));
        }
        if let Some((schedule, span)) = schedule
            && let Some(known) = self.schedules.get(schedule).cloned()
        {
            self.teacher_for(&known, span, !distill.teacherless);
            if let (Some(from), Some(Some((teacher, _)))) = (from, teacher) {
                self.compared_streams(&known, span, from, teacher, Candidates::Winner);
            }
            self.updates_on(&known, data);
            self.tokens_on(&known, data);
        }
        if !self.is_first(name) {
            return;
        }
        let shape = from.and_then(|from| self.shapes.get(from)).cloned().unwrap_or(Shape::Unknown);
        self.shapes.insert(&name.node, shape);
        if let (
            Some(from),
            Some(teacher),
            Some((data, _)),
            Some((schedule, _)),
            Some(weights),
            Some(heldout),
        ) = (from, teacher, data, schedule, weights, heldout)
        {
            let teacher = teacher.map(|(name, _)| name.to_string());
            let (from, data, schedule) = (from.to_string(), data.to_string(), schedule.to_string());
            let span = distill.span;
            let item = hir::Distill { from, teacher, data, schedule, weights, heldout, span };
            self.out.distills.insert(name.node.clone(), item);
        }
    }

    /// `weights = random(seed = 1)`
    fn weights(&mut self, expr: &Expr) -> Option<hir::Weights> {
        let Some(call) = call_of(expr).filter(|call| call.name == "random") else {
            self.report(
                Diagnostic::new("E0706", expr.span, "there are no such initial weights")
                    .label("unknown")
                    .help("write `weights = random(seed = 1)`, or leave it out: the model's own weights"),
            );
            return None;
        };
        let seed = self.arguments(&call, RANDOM)?.whole("seed");
        Some(hir::Weights::Random { seed })
    }

    /// `heldout = DATA` and `every = TOKENS`, of a training of `total` tokens; `None` after a fault.
    fn heldout(
        &mut self,
        fields: &Fields<'a>,
        data: Option<(&'a str, Span)>,
        total: Option<u64>,
    ) -> Option<Option<hir::Heldout>> {
        let every = fields.get("every").map(|e| self.at_least(e, "`every`", 1));
        let Some(expr) = fields.get("heldout") else {
            let Some(key) = fields.key("every") else { return Some(None) };
            self.report(
                Diagnostic::new(
                    "E0704",
                    key.span,
                    "`every` says how often to evaluate, and no data is held out",
                )
                .label("evaluate on what?")
                .help(format!("add `heldout = {}`, or remove `every`", self.some_data()))
                .fix(
                    "remove `every`",
                    key.span.to(fields.get("every").map_or(key.span, |e| e.span)),
                    "",
                ),
            );
            return None;
        };
        let ident = self.named(expr, "heldout")?;
        let name = self.resolve_text(ident)?;
        if let Some((_, span)) = data.filter(|(trained, _)| *trained == name) {
            self.report(
                Diagnostic::new("W0704", ident.span, format!("`{name}` is what the model is trained on"))
                    .label("held out")
                    .also(span, "trained on")
                    .help(format!(
                        "hold out other data than `{name}`: figures of what was trained on say little"
                    )),
            );
        }
        let every = match every {
            Some(every) => every?,
            None => (total? / EVALUATIONS).max(1),
        };
        Some(Some(hir::Heldout { data: name.to_string(), every }))
    }

    /// Updates of a schedule whose phases name no length, on this data where they name no other.
    pub(super) fn updates_on(&mut self, schedule: &Known, data: Option<(&str, Span)>) {
        for phase in schedule.phases.iter().filter(|phase| phase.sequence.is_none()) {
            let known = phase.data.or(data).and_then(|(name, _)| self.data.get(name));
            self.enough_updates(phase, known.and_then(|known| known.sequence));
        }
    }

    /// Tokens of all phases on the same data, against those that it has.
    pub(super) fn tokens_on(&mut self, schedule: &Known<'a>, data: Option<(&'a str, Span)>) {
        let mut wanted: Vec<(&'a str, Span, u64)> = Vec::new();
        for phase in &schedule.phases {
            let Some((name, span)) = phase.data.or(data) else { continue };
            let sequence = self.data.get(name).and_then(|d| d.sequence);
            let tokens = phase.trained(sequence);
            match wanted.iter_mut().find(|(other, ..)| *other == name) {
                Some((_, _, sum)) => *sum = sum.saturating_add(tokens),
                None => wanted.push((name, span, tokens)),
            }
        }
        for (name, span, tokens) in wanted {
            self.enough_tokens((name, span), tokens, schedule.span);
        }
    }

    /// The name that a setting refers to.
    pub(super) fn named(&mut self, expr: &'a Expr, key: &str) -> Option<&'a Ident> {
        if let ExprKind::Path(path) = &expr.kind
            && let [ident] = path.segments.as_slice()
        {
            return Some(ident);
        }
        self.report(
            Diagnostic::new("E0301", expr.span, format!("`{key}` is the name of a declaration"))
                .label("no name")
                .help(match &expr.kind {
                    ExprKind::String(name) if self.names.get(name).is_some() => {
                        Help::instead(format!("write `{key} = {name}`, without quotes"), [name.clone()])
                    }
                    _ => format!("write `{key} = NAME`, without quotes").into(),
                }),
        );
        None
    }
}
