//! The settings of a block, read by key: unknown keys, missing ones, and ones that stand twice.

use super::Checker;
use super::named::{self, Named};
use super::names::{Known, meant, suggestion_of};
use minic_grammar::ast::{Expr, Ident, Setting};
use minic_grammar::{Diagnostic, Span, nearest};

/// As other programs call a setting.
fn also(key: &str) -> &'static [&'static str] {
    match key {
        "batch" => &["batch_size", "global_batch_size", "train_batch_size"],
        "checkpoint" => &["path", "name", "model", "repo", "repo_id", "model_name", "source"],
        "data" => &["dataset", "train_data", "corpus"],
        "dtype" => &["torch_dtype", "precision", "type"],
        "epochs" => &["num_epochs", "num_train_epochs"],
        "field" => &["column", "text_field", "text_column"],
        "files" => &["path", "paths", "file", "source", "data_files", "dataset"],
        "heldout" => &["validation", "eval_data", "eval_dataset"],
        "loss" => &["objective", "criterion"],
        "optimizer" => &["optim", "optimiser"],
        "rate" => &["lr", "learning_rate", "lr_scheduler", "scheduler"],
        "samples" => &["num_samples", "n_samples", "max_samples", "calib_size"],
        "sequence" => &["seq_len", "seq_length", "sequence_length", "max_length", "context_length"],
        "shard" => &["max_shard_size", "shard_size"],
        "tokens" => &["steps", "max_steps", "num_tokens", "train_tokens"],
        _ => &[],
    }
}

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
                let known: Vec<Known> = keys.iter().map(|key| (key.name, also(key.name))).collect();
                let near = meant(&key.node, &known).or_else(|| nearest(&key.node, named::names(keys)));
                misspelled.extend(near.map(str::to_string));
                self.report(
                    Diagnostic::new("E0205", key.span, format!("{owner} has no setting `{}`", key.node))
                        .label("unknown setting")
                        .help(suggestion_of(&key.node, "settings", &known)),
                );
            } else if let Some((first, _)) = entries.iter().find(|(k, _)| k.node == key.node) {
                self.report(
                    Diagnostic::new("E0207", key.span, format!("`{}` is set twice", key.node))
                        .label("set again here")
                        .also(first.span, "first set here")
                        .help(format!("keep one `{}`", key.node))
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
