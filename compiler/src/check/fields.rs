//! The settings of a block, read by key: unknown keys, missing ones, and ones that stand twice.

use super::Checker;
use super::named::{self, Named};
use super::names::suggestion;
use minic_grammar::ast::{Expr, Ident, Setting};
use minic_grammar::{Diagnostic, Span, nearest};

/// Settings by key.
pub(super) struct Fields<'a> {
    /// "model `parent`"
    owner: String,
    /// Where a missing setting is reported.
    place: Span,
    entries: Vec<(&'a Ident, &'a Expr)>,
    /// Where a setting may be added, and what stands before it there: behind the last one, or in the empty block.
    end: Option<(usize, &'static str)>,
    /// Keys that an unknown one was most likely meant to be.
    misspelled: Vec<String>,
}

impl<'a> Fields<'a> {
    pub fn get(&self, key: &str) -> Option<&'a Expr> {
        self.entries.iter().find(|(k, _)| k.node == key).map(|(_, value)| *value)
    }

    pub fn key(&self, key: &str) -> Option<&'a Ident> {
        self.entries.iter().find(|(k, _)| k.node == key).map(|(key, _)| *key)
    }

    /// These settings, and those of `outer` where they are silent: a phase overrides its schedule.
    pub fn over(mut self, outer: &Fields<'a>) -> Fields<'a> {
        self.misspelled.extend(outer.misspelled.iter().cloned());
        for &(key, value) in &outer.entries {
            if self.get(&key.node).is_none() {
                self.entries.push((key, value));
            }
        }
        self
    }
}

impl<'a> Checker<'a> {
    pub(super) fn fields(
        &mut self,
        owner: String,
        place: Span,
        settings: &'a [Setting],
        whole: Span,
        keys: &'static [Named],
    ) -> Fields<'a> {
        let mut entries: Vec<(&'a Ident, &'a Expr)> = Vec::new();
        let mut misspelled = Vec::new();
        for setting in settings {
            let key = &setting.key;
            if named::find(keys, &key.node).is_none() {
                let known = named::names(keys);
                misspelled.extend(nearest(&key.node, known.iter().copied()).map(str::to_string));
                self.report(
                    Diagnostic::new("E0205", key.span, format!("{owner} has no setting `{}`", key.node))
                        .label("unknown setting")
                        .help(suggestion(&key.node, "settings", &known)),
                );
            } else if let Some((first, _)) = entries.iter().find(|(k, _)| k.node == key.node) {
                self.report(
                    Diagnostic::new("E0207", key.span, format!("`{}` is set twice", key.node))
                        .label("set again here")
                        .also(first.span, "first set here")
                        .help("keep one of the two")
                        .fix("remove this one", key.span.to(setting.value.span), ""),
                );
            } else {
                entries.push((key, &setting.value));
            }
        }
        let brace = Span::new(whole.end.saturating_sub(1), whole.end);
        let end = match settings.last() {
            Some(setting) => Some((setting.value.span.end, "; ")),
            None => (self.sources.text(brace) == "}").then_some((brace.start, " ")),
        };
        Fields { owner, place, entries, end, misspelled }
    }

    /// `example` shows how the setting is written.
    pub(super) fn required(&mut self, fields: &Fields<'a>, key: &str, example: &str) -> Option<&'a Expr> {
        let value = fields.get(key);
        if value.is_none() && !fields.misspelled.iter().any(|m| m == key) {
            let setting = format!("{key} = {example}");
            let report = Diagnostic::new("E0206", fields.place, format!("{} lacks `{key}`", fields.owner))
                .label(format!("`{key}` is missing"))
                .help(format!("add `{setting}`"));
            self.report(match fields.end {
                Some((end, before)) => {
                    report.fix(format!("add `{setting}`"), Span::at(end), format!("{before}{setting}"))
                }
                None => report,
            });
        }
        value
    }
}
