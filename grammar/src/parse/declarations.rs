//! Declarations and the lines of their blocks, from pest's pairs.

use super::{Grammar, Reader, Rule, first_word, messages};
use crate::ast::{self, Declaration, Ident, Path};
use crate::diagnostic::Diagnostic;
use crate::span::{Span, Spanned};
use crate::suggest::nearest;
use pest::Parser as _;
use pest::iterators::{Pair, Pairs};

/// How a statement is written, by its first word.
type Form = (&'static str, &'static str);

/// In the order of [`ast::DECLARATIONS`].
pub(super) const DECLARATION_FORMS: &[Form] = &[
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
    ("deploy", "deploy MODEL for TARGET, .."),
    ("export", "export MODEL to \"DIR\" { .. }"),
];

/// A block that holds lines.
struct Block {
    name: &'static str,
    forms: &'static [Form],
    /// The form of a line that begins with another name; where there is none, such a line is refused.
    other: Option<&'static str>,
    /// The rule of one line by itself.
    line: Rule,
}

const SETTINGS: Block =
    Block { name: "block of settings", forms: &[], other: Some("KEY = VALUE"), line: Rule::only_setting };

const GROUP: Block = Block {
    name: "`group`",
    forms: &[
        ("protect", "protect layers {N, ..}"),
        ("keep", "keep KIND N"),
        ("order", "order DIM before DIM"),
    ],
    other: Some("DIM within DIM [equal]`, `DIM shared across DIM`, `DIM per DIM` or `DIM multiple_of N"),
    line: Rule::only_group_line,
};

const PRUNE: Block = Block {
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

const RANK: &str = "rank by QUANTITY [descending] [on DATA] [after SCHEDULE [for TOKENS]] keep N";

const SEARCH: Block = Block {
    name: "`search`",
    forms: &[
        ("require", "require QUANTITY in A ..= B`, or `require QUANTITY <= A"),
        ("rank", RANK),
        ("break", "break ties within TOLERANCE by QUANTITY"),
        ("control", "control CONTROL, .."),
    ],
    other: None,
    line: Rule::only_search_line,
};

const SCHEDULE: Block = Block {
    name: "`schedule`",
    forms: &[("phase", "phase \"NAME\" { .. }")],
    other: Some("KEY = VALUE"),
    line: Rule::only_schedule_line,
};

impl Block {
    fn form(&self, word: &str) -> Option<&'static str> {
        form(self.forms, word).or(self.other)
    }
}

pub(super) fn form(forms: &[Form], word: &str) -> Option<&'static str> {
    forms.iter().find(|(first, _)| *first == word).map(|(_, form)| *form)
}

impl Reader {
    pub(super) fn declaration(&mut self, pair: Pair<Rule>) -> Option<Declaration> {
        let span = self.span(&pair);
        let rule = pair.as_rule();
        let mut parts = pair.into_inner();
        let parts = &mut parts;
        Some(match rule {
            Rule::param => Declaration::Param(ast::Param {
                name: self.name(parts)?,
                value: self.next_expr(parts)?,
                span,
            }),
            Rule::model => Declaration::Model(self.settings_declaration(parts, span)?),
            Rule::data => Declaration::Data(self.settings_declaration(parts, span)?),
            Rule::metric => Declaration::Metric(self.metric(parts, span)?),
            Rule::group => Declaration::Group(ast::Group {
                name: self.name(parts)?,
                rules: self.lines(parts, &GROUP, Self::group_rule),
                span,
            }),
            Rule::prune => Declaration::Prune(ast::Prune {
                name: self.name(parts)?,
                from: self.name(parts)?,
                items: self.lines(parts, &PRUNE, Self::prune_item),
                span,
            }),
            Rule::search => Declaration::Search(ast::Search {
                name: self.name(parts)?,
                space: self.name(parts)?,
                items: self.lines(parts, &SEARCH, Self::search_item),
                span,
            }),
            Rule::schedule => Declaration::Schedule(self.schedule(parts, span)?),
            Rule::distill => Declaration::Distill(ast::Distill {
                teacherless: parts.next()?.as_rule() == Rule::kw_train,
                name: self.name(parts)?,
                from: self.name(parts)?,
                settings: self.settings(parts),
                span,
            }),
            Rule::evaluate => Declaration::Evaluate(self.evaluate(parts, span)?),
            Rule::deploy => Declaration::Deploy(ast::Deploy {
                model: self.name(parts)?,
                targets: self.references(parts)?,
                span,
            }),
            Rule::export => Declaration::Export(ast::Export {
                model: self.name(parts)?,
                to: self.string(&skip_to(parts, Rule::string)?)?,
                settings: self.settings(parts),
                span,
            }),
            _ => return None,
        })
    }

    fn settings_declaration(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Settings> {
        Some(ast::Settings { name: self.name(parts)?, settings: self.settings(parts), span })
    }

    fn metric(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Metric> {
        let name = self.name(parts)?;
        let mut parameters = Vec::new();
        for part in parts.by_ref() {
            match part.as_rule() {
                Rule::ident => parameters.push(self.ident(&part)),
                Rule::expr => return Some(ast::Metric { name, parameters, body: self.expr(part)?, span }),
                _ => {}
            }
        }
        None
    }

    fn schedule(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Schedule> {
        let name = self.name(parts)?;
        let (mut settings, mut phases) = (Vec::new(), Vec::new());
        for line in self.lines(parts, &SCHEDULE, Self::schedule_line) {
            match line {
                ScheduleLine::Setting(setting) => settings.push(setting),
                ScheduleLine::Phase(phase) => phases.push(phase),
            }
        }
        Some(ast::Schedule { name, settings, phases, span })
    }

    fn schedule_line(&mut self, line: Pair<Rule>) -> Option<ScheduleLine> {
        if line.as_rule() == Rule::setting {
            return self.setting(line).map(ScheduleLine::Setting);
        }
        let span = self.span(&line);
        let mut parts = line.into_inner();
        let name = self.string(&skip_to(&mut parts, Rule::string)?)?;
        Some(ScheduleLine::Phase(ast::Phase { name, settings: self.settings(&mut parts), span }))
    }

    fn evaluate(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Evaluate> {
        let model = self.name(parts)?;
        let mut against = None;
        let mut names = Vec::new();
        for part in parts.by_ref() {
            match part.as_rule() {
                Rule::kw_on if names.len() == 1 => against = names.pop(),
                Rule::ident => names.push(self.ident(&part)),
                _ => {}
            }
        }
        let on = if names.is_empty() { return None } else { names.remove(0) };
        Some(ast::Evaluate { model, against, on, quantities: names, span })
    }

    /// The next name among the parts.
    fn name(&self, parts: &mut Pairs<Rule>) -> Option<Ident> {
        skip_to(parts, Rule::ident).map(|part| self.ident(&part))
    }

    fn names(&self, parts: &mut Pairs<Rule>) -> Vec<Ident> {
        parts.filter(|p| p.as_rule() == Rule::ident).map(|p| self.ident(&p)).collect()
    }

    fn references(&mut self, parts: &mut Pairs<Rule>) -> Option<Vec<ast::Expr>> {
        parts.filter(|p| p.as_rule() == Rule::reference).map(|p| self.reference(p)).collect()
    }

    fn next_expr(&mut self, parts: &mut Pairs<Rule>) -> Option<ast::Expr> {
        skip_to(parts, Rule::expr).and_then(|part| self.expr(part))
    }

    fn next_reference(&mut self, parts: &mut Pairs<Rule>) -> Option<ast::Expr> {
        skip_to(parts, Rule::reference).and_then(|part| self.reference(part))
    }

    fn settings(&mut self, parts: &mut Pairs<Rule>) -> Vec<ast::Setting> {
        self.lines(parts, &SETTINGS, Self::setting)
    }

    pub(super) fn setting(&mut self, line: Pair<Rule>) -> Option<ast::Setting> {
        let mut parts = line.into_inner();
        Some(ast::Setting { key: self.name(&mut parts)?, value: self.next_expr(&mut parts)? })
    }

    /// Every line of a block that can be read; the others are reported, each for itself.
    fn lines<T>(
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
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let words = block.forms.iter().map(|f| format!("`{}`", f.0));
                format!("the lines of a {} begin with {}", block.name, messages::alternatives(words))
            }
        };
        let message = format!("no line of a {} begins with `{word}`", block.name);
        self.report(Diagnostic::new("E0104", at, message).help(help));
    }

    fn group_rule(&mut self, line: Pair<Rule>) -> Option<ast::GroupRule> {
        use ast::GroupRuleKind as Kind;
        let span = self.span(&line);
        let rule = line.as_rule();
        let mut inner = line.into_inner();
        let parts = &mut inner;
        let kind = match rule {
            Rule::protect => Kind::Protect { what: self.name(parts)?, members: self.next_expr(parts)? },
            Rule::keep => Kind::Keep { what: self.name(parts)?, count: self.next_expr(parts)? },
            Rule::order => Kind::Order { first: self.name(parts)?, then: self.name(parts)? },
            Rule::dim_rule => self.dim_rule(self.name(parts)?, parts.next()?)?,
            _ => return None,
        };
        Some(ast::GroupRule { kind, span })
    }

    fn dim_rule(&mut self, dim: Ident, rule: Pair<Rule>) -> Option<ast::GroupRuleKind> {
        use ast::GroupRuleKind as Kind;
        let kind = rule.as_rule();
        let mut inner = rule.into_inner();
        let parts = &mut inner;
        Some(match kind {
            Rule::within => {
                let outer = self.name(parts)?;
                Kind::Within { dim, outer, equal: skip_to(parts, Rule::kw_equal).is_some() }
            }
            Rule::shared => Kind::Shared { dim, across: self.name(parts)? },
            Rule::per => Kind::Per { dim, per: self.name(parts)? },
            Rule::multiple_of => Kind::MultipleOf { dim, factor: self.next_expr(parts)? },
            _ => return None,
        })
    }

    fn prune_item(&mut self, line: Pair<Rule>) -> Option<ast::PruneItem> {
        let span = self.span(&line);
        let rule = line.as_rule();
        let mut inner = line.into_inner();
        let parts = &mut inner;
        Some(match rule {
            Rule::calibrate => ast::PruneItem::Calibrate { data: self.name(parts)?, span },
            Rule::under => ast::PruneItem::Under { groups: self.names(parts), span },
            Rule::axis => ast::PruneItem::Axis(self.axis(parts, span)?),
            Rule::repair => ast::PruneItem::Repair(self.repair(parts, span)?),
            _ => return None,
        })
    }

    fn axis(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Axis> {
        let name = self.name(parts)?;
        let fixed = parts.next()?.as_rule() == Rule::assign;
        let domain = self.next_expr(parts)?;
        let (mut by, mut at) = (Once::new("by"), Once::new("at"));
        for clause in parts.by_ref() {
            let place = self.span(&clause);
            let inner = &mut clause.clone().into_inner();
            match clause.as_rule() {
                Rule::axis_by => by.give(self, place, |r| r.next_reference(inner))?,
                Rule::axis_at => at.give(self, place, |r| r.next_path(inner))?,
                _ => {}
            }
        }
        Some(ast::Axis { name, fixed, domain, by: by.value, at: at.value, span })
    }

    fn next_path(&self, parts: &mut Pairs<Rule>) -> Option<Path> {
        skip_to(parts, Rule::path).map(|part| self.path(&part))
    }

    fn repair(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Repair> {
        let what = self.name(parts)?;
        let (mut modifiers, mut by) = (Vec::new(), None);
        for part in parts.by_ref() {
            match part.as_rule() {
                Rule::ident => modifiers.push(self.ident(&part)),
                Rule::repair_by => by = Some(self.next_reference(&mut part.into_inner())?),
                _ => {}
            }
        }
        Some(ast::Repair { what, modifiers, by, span })
    }

    fn search_item(&mut self, line: Pair<Rule>) -> Option<ast::SearchItem> {
        let span = self.span(&line);
        let rule = line.as_rule();
        let mut inner = line.into_inner();
        let parts = &mut inner;
        Some(match rule {
            Rule::require => {
                let condition = skip_to(parts, Rule::condition)?;
                ast::SearchItem::Require { condition: self.expr(condition)?, span }
            }
            Rule::rank => ast::SearchItem::Rank(self.rank(parts, span)?),
            Rule::break_ties => ast::SearchItem::BreakTies {
                within: self.next_expr(parts)?,
                by: self.next_reference(parts)?,
                span,
            },
            Rule::control => ast::SearchItem::Control { controls: self.references(parts)?, span },
            _ => return None,
        })
    }

    fn rank(&mut self, parts: &mut Pairs<Rule>, span: Span) -> Option<ast::Rank> {
        let by = self.next_reference(parts)?;
        let (mut descending, mut on, mut after) =
            (Once::new("descending"), Once::new("on"), Once::new("after"));
        let (mut tokens, mut keep) = (Once::new("for"), Once::new("keep"));
        let mut last = (0, "");
        for clause in parts.by_ref() {
            let place = self.span(&clause);
            let inner = &mut clause.clone().into_inner();
            let (order, word) = match clause.as_rule() {
                Rule::descending => descending.give(self, place, |_| Some(())).map(|()| (1, "descending"))?,
                Rule::rank_on => on.give(self, place, |r| r.name(inner)).map(|()| (2, "on"))?,
                Rule::rank_after => after.give(self, place, |r| r.name(inner)).map(|()| (3, "after"))?,
                Rule::rank_for => tokens.give(self, place, |r| r.next_expr(inner)).map(|()| (4, "for"))?,
                Rule::rank_keep => keep.give(self, place, |r| r.next_expr(inner)).map(|()| (5, "keep"))?,
                _ => continue,
            };
            if order < last.0 {
                self.out_of_order(place, word, last.1);
            }
            last = last.max((order, word));
        }
        if let (Some(place), None) = (tokens.place, after.place) {
            let message = "`for` says how long to train, so it stands after `after SCHEDULE`";
            self.report(Diagnostic::new("E0108", place, message).help("add `after SCHEDULE` before it"));
            tokens.value = None;
        }
        let Some(keep) = keep.value else {
            let end = Span::new(span.end, span.end);
            let message = "`rank` does not say how many candidates to keep";
            self.report(
                Diagnostic::new("E0108", end, message)
                    .label("`keep N` is missing")
                    .help("end the line with `keep N`"),
            );
            return None;
        };
        Some(ast::Rank {
            by,
            descending: descending.value.is_some(),
            on: on.value,
            after: after.value,
            tokens: tokens.value,
            keep,
            span,
        })
    }

    fn out_of_order(&mut self, place: Span, word: &str, before: &str) {
        let message = format!("`{word}` must stand before `{before}`");
        let help = format!("the order is `{RANK}`");
        self.report(Diagnostic::new("E0108", place, message).help(help));
    }
}

enum ScheduleLine {
    Setting(ast::Setting),
    Phase(ast::Phase),
}

/// A clause that may be given once.
struct Once<T> {
    word: &'static str,
    value: Option<T>,
    place: Option<Span>,
}

impl<T> Once<T> {
    fn new(word: &'static str) -> Self {
        Once { word, value: None, place: None }
    }

    /// Takes the clause's value; a second one is reported and dropped.
    fn give(
        &mut self,
        reader: &mut Reader,
        place: Span,
        read: impl FnOnce(&mut Reader) -> Option<T>,
    ) -> Option<()> {
        if let Some(first) = self.place {
            let message = format!("`{}` is given twice", self.word);
            let diagnostic = Diagnostic::new("E0108", place, message).also(first, "first given here");
            reader.report(diagnostic.help("remove one of them"));
            return Some(());
        }
        self.place = Some(place);
        self.value = Some(read(reader)?);
        Some(())
    }
}

/// Marks of a block that are no lines of it.
fn is_mark(rule: Rule) -> bool {
    matches!(rule, Rule::separator | Rule::open_brace | Rule::close_brace | Rule::EOI)
}

/// The next part of a kind; those before it are passed over.
pub(super) fn skip_to<'a>(parts: &mut Pairs<'a, Rule>, rule: Rule) -> Option<Pair<'a, Rule>> {
    parts.find(|part| part.as_rule() == rule)
}

impl Reader {
    /// A string's text, with its escapes put in.
    pub(super) fn string(&mut self, pair: &Pair<Rule>) -> Option<Spanned<String>> {
        let span = self.span(pair);
        // The end of its line may close it; that has been reported.
        let inner = pair.as_str().strip_prefix('"')?;
        let inner = inner.strip_suffix('"').unwrap_or(inner.trim_end());
        let mut text = String::with_capacity(inner.len());
        let mut chars = inner.char_indices();
        while let Some((_, c)) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c @ ('"' | '\\'))) => text.push(c),
                Some((at, c)) => {
                    // `at` counts from after the opening quote, whose place the backslash before `c` makes up for.
                    let place = Span::new(span.start + at, span.start + at + 1 + c.len_utf8());
                    let message = format!("`\\{c}` is no escape of a string");
                    let help = "the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; write a backslash as `\\\\`";
                    self.report(Diagnostic::new("E0105", place, message).help(help));
                    return None;
                }
                None => text.push('\\'),
            }
        }
        Some(Spanned::new(text, span))
    }
}
