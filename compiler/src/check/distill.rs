//! `distill NAME from MODEL { .. }` and `train NAME from MODEL { .. }`

use super::Checker;
use super::models::Shape;
use super::names::Want;
use super::schedule::Known;
use crate::hir;
use minic_grammar::ast::{Distill, Expr, ExprKind, Ident};
use minic_grammar::{Diagnostic, Span};

const DISTILL: &[&str] = &["teacher", "data", "schedule"];
const TRAIN: &[&str] = &["data", "schedule"];

impl<'a> Checker<'a> {
    pub(super) fn distill(&mut self, distill: &'a Distill) {
        let name = &distill.name;
        let (verb, keys) = if distill.teacherless { ("train", TRAIN) } else { ("distill", DISTILL) };
        let from = self.one_model(&distill.from);
        let fields = self.fields(format!("{verb} `{}`", name.node), name.span, &distill.settings, keys);
        let teacher = if distill.teacherless {
            Some(None)
        } else {
            let ident = self.required(&fields, "teacher", "MODEL").and_then(|e| self.named(e, "teacher"));
            ident.and_then(|ident| self.one_model(ident).map(|name| Some((name, ident.span))))
        };
        let data = self.required(&fields, "data", &self.some_data()).and_then(|e| self.named(e, "data"));
        let data = data.and_then(|ident| self.resolve_data(ident).map(|name| (name, ident.span)));
        let schedule = self.required(&fields, "schedule", "SCHEDULE").and_then(|e| self.named(e, "schedule"));
        let schedule = schedule.and_then(|i| self.resolve(i, Want::Schedule).map(|name| (name, i.span)));
        if let (Some(from), Some(Some((teacher, span)))) = (from, teacher) {
            self.same_vocabulary((from, distill.from.span), (teacher, span));
        }
        if let Some((schedule, span)) = schedule
            && let Some(known) = self.schedules.get(schedule).cloned()
        {
            self.teacher_for(&known, span, !distill.teacherless);
            self.trained_on(&known, data);
        }
        if !self.is_first(name) {
            return;
        }
        let shape = from.and_then(|from| self.shapes.get(from)).cloned().unwrap_or(Shape::Unknown);
        self.shapes.insert(&name.node, shape);
        if let (Some(from), Some(teacher), Some((data, _)), Some((schedule, _))) =
            (from, teacher, data, schedule)
        {
            let teacher = teacher.map(|(name, _)| name.to_string());
            let (from, data, schedule) = (from.to_string(), data.to_string(), schedule.to_string());
            let item = hir::Distill { from, teacher, data, schedule, span: distill.span };
            self.out.distills.insert(name.node.clone(), item);
        }
    }

    /// Updates and tokens of a schedule, on this data where its phases name no other.
    fn trained_on(&mut self, schedule: &Known<'a>, data: Option<(&'a str, Span)>) {
        let mut wanted: Vec<(&'a str, Span, u64)> = Vec::new();
        for phase in &schedule.phases {
            let Some((name, span)) = phase.data.or(data) else { continue };
            if phase.sequence.is_none() {
                let sequence = self.data.get(name).and_then(|d| d.sequence);
                self.enough_updates(phase, sequence);
            }
            let tokens = phase.tokens.map_or(0, |(tokens, _)| tokens);
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
                .help(format!("write `{key} = NAME`, without quotes")),
        );
        None
    }
}
