//! Blocks: how their lines are written, and how one that cannot be read is told from the others.

use super::{Grammar, Reader, Rule, first_word, messages};
use crate::ast;
use crate::diagnostic::{Diagnostic, Help};
use crate::span::Span;
use crate::suggest::nearest;
use pest::Parser as _;
use pest::iterators::{Pair, Pairs};

/// How a statement is written, by its first word.
pub(super) type Form = (&'static str, &'static str);

/// In the order of [`ast::DECLARATIONS`].
pub(crate) const DECLARATION_FORMS: &[Form] = &[
    ("use", "use \"FILE\" [{ PARAM = VALUE }]"),
    ("param", "param NAME = VALUE"),
    ("model", "model NAME { checkpoint = PATH }"),
    ("data", "data NAME { files = [..]; sequence = N }"),
    ("metric", "metric NAME(x, w) = EXPRESSION"),
    ("group", "group NAME { .. }"),
    ("prune", "prune NAME from MODEL { .. }"),
    ("search", "search NAME in SPACE { .. }"),
    ("schedule", "schedule NAME { .. }"),
    ("distill", "distill NAME from MODEL { teacher = MODEL; data = DATA; schedule = SCHEDULE }"),
    ("train", "train NAME from MODEL { data = DATA; schedule = SCHEDULE }"),
    ("evaluate", "evaluate MODEL [against MODEL] on DATA { QUANTITY, .. }"),
    ("sensitivity", "sensitivity NAME of SPACE on DATA { QUANTITY, .. }"),
    ("deploy", "deploy MODEL for TARGET, .."),
    ("export", "export MODEL to \"DIR\" { .. }"),
];

/// A block that holds lines.
pub(super) struct Block {
    name: &'static str,
    forms: &'static [Form],
    /// The form of a line that begins with another name; where there is none, such a line is refused.
    other: Option<&'static str>,
    /// The rule of one line by itself.
    line: Rule,
}

pub(super) const SETTINGS: Block =
    Block { name: "block of settings", forms: &[], other: Some("KEY = VALUE"), line: Rule::only_setting };

pub(super) const GROUP: Block = Block {
    name: "`group`",
    forms: &[
        ("protect", "protect layers {N, ..}"),
        ("keep", "keep KIND N"),
        ("order", "order DIM before DIM"),
    ],
    other: Some("DIM within DIM [equal]`, `DIM shared across DIM`, `DIM per DIM` or `DIM multiple_of N"),
    line: Rule::only_group_line,
};

pub(super) const PRUNE: Block = Block {
    name: "`prune`",
    forms: &[
        ("calibrate", "calibrate on DATA"),
        ("under", "under GROUP, .."),
        ("axis", "axis NAME = VALUE [by METRIC] [at TAP]`, or `axis NAME in VALUES .."),
        ("repair", "repair WHAT [MODIFIER] [by METHOD]"),
    ],
    other: None,
    line: Rule::only_prune_line,
};

pub(super) const RANK: &str = "rank by QUANTITY [descending] [on DATA] [after SCHEDULE [for TOKENS]] keep N";

pub(super) const SEARCH: Block = Block {
    name: "`search`",
    forms: &[
        ("require", "require QUANTITY in A ..= B`, `require QUANTITY <= A`, or `require deployable"),
        ("rank", RANK),
        ("break", "break ties within TOLERANCE by QUANTITY"),
        ("control", "control CONTROL, .."),
    ],
    other: None,
    line: Rule::only_search_line,
};

pub(super) const SCHEDULE: Block = Block {
    name: "`schedule`",
    forms: &[("phase", "phase \"NAME\" { .. }")],
    other: Some("KEY = VALUE"),
    line: Rule::only_schedule_line,
};

/// The lines of every declaration that holds lines.
pub(crate) const LINE_FORMS: &[(&str, &[Form])] =
    &[("group", GROUP.forms), ("prune", PRUNE.forms), ("search", SEARCH.forms), ("schedule", SCHEDULE.forms)];

/// Does a line of some block begin with this word?
pub(super) fn is_line(word: &str) -> bool {
    LINE_FORMS.iter().any(|(_, forms)| form(forms, word).is_some())
}

impl Block {
    fn form(&self, word: &str) -> Option<&'static str> {
        form(self.forms, word).or(self.other)
    }
}

pub(super) fn form(forms: &[Form], word: &str) -> Option<&'static str> {
    forms.iter().find(|(first, _)| *first == word).map(|(_, form)| *form)
}

impl Reader {
    /// Every line of a block that can be read; the others are reported, each for itself.
    pub(super) fn lines<T>(
        &mut self,
        parts: &mut Pairs<Rule>,
        block: &Block,
        read: fn(&mut Self, Pair<Rule>) -> Option<T>,
    ) -> Vec<T> {
        let mut lines = Vec::new();
        for line in parts {
            let span = self.span(&line);
            let before = self.diagnostics.len();
            let made = match line.as_rule() {
                Rule::unreadable => {
                    self.unreadable_line(&line, block);
                    None
                }
                rule if is_mark(rule) => continue,
                _ => read(self, line),
            };
            match made {
                Some(line) => lines.push(line),
                None => {
                    self.ensure_reported(before, span);
                    self.recipe.broken.push(ast::Broken { name: None, span });
                }
            }
        }
        lines
    }

    fn unreadable_line(&mut self, line: &Pair<Rule>, block: &Block) {
        let span = self.span(line);
        if self.layout_reported(span) {
            return;
        }
        let written = line.as_str().trim_end_matches([' ', '\t']);
        let word = first_word(written, 0);
        let form = block.form(word);
        if !word.is_empty() && form.is_none() {
            self.unknown_line(word, span, block);
        } else if let Err(error) = Grammar::parse(block.line, written) {
            let base = std::mem::replace(&mut self.base, span.start);
            self.unreadable(&error, written, form);
            self.base = base;
        }
    }

    fn unknown_line(&mut self, word: &str, span: Span, block: &Block) {
        let at = Span::new(span.start, span.start + word.len());
        let help = match nearest(word, block.forms.iter().map(|f| f.0)) {
            Some(near) => Help::meant(near),
            None => {
                let words = block.forms.iter().map(|f| format!("`{}`", f.0));
                format!("the lines of a {} begin with {}", block.name, messages::alternatives(words)).into()
            }
        };
        let message = format!("no line of a {} begins with `{word}`", block.name);
        self.report(Diagnostic::new("E0104", at, message).help(help));
    }
}

/// Marks of a block that are no lines of it.
fn is_mark(rule: Rule) -> bool {
    matches!(rule, Rule::separator | Rule::open_brace | Rule::close_brace | Rule::EOI)
}
