//! Lines of groups, prunes and searches, from pest's pairs.

use super::blocks::RANK;
use super::declarations::skip_to;
use super::{Reader, Rule, messages};
use crate::ast::{self, Ident};
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use pest::iterators::{Pair, Pairs};

impl Reader {
    pub(super) fn group_rule(&mut self, line: Pair<Rule>) -> Option<ast::GroupRule> {
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

    pub(super) fn prune_item(&mut self, line: Pair<Rule>) -> Option<ast::PruneItem> {
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

    fn next_path(&self, parts: &mut Pairs<Rule>) -> Option<ast::Path> {
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

    pub(super) fn search_item(&mut self, line: Pair<Rule>) -> Option<ast::SearchItem> {
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
        let by = self.next_expr(parts)?;
        let mut clauses = RankClauses::new();
        for clause in parts.by_ref() {
            self.rank_clause(&mut clauses, clause)?;
        }
        if let (Some(place), None) = (clauses.tokens.place, clauses.after.place) {
            let message = "`for` says how long to train, so it stands after `after SCHEDULE`";
            self.report(Diagnostic::new("E0108", place, message).help("add `after SCHEDULE` before it"));
            clauses.tokens.value = None;
        }
        let Some(keep) = clauses.keep.value else {
            let message = "`rank` does not say how many candidates to keep";
            let diagnostic = Diagnostic::new("E0108", Span::new(span.end, span.end), message);
            self.report(diagnostic.label("`keep N` is missing").help("end the line with `keep N`"));
            return None;
        };
        Some(ast::Rank {
            by,
            descending: clauses.descending.value.is_some(),
            on: clauses.on.value,
            after: clauses.after.value,
            tokens: clauses.tokens.value,
            keep,
            span,
        })
    }

    fn rank_clause(&mut self, clauses: &mut RankClauses, clause: Pair<Rule>) -> Option<()> {
        let place = self.span(&clause);
        let rule = clause.as_rule();
        let inner = &mut clause.into_inner();
        let Some(order) = RANK_ORDER.iter().position(|r| *r == rule) else { return Some(()) };
        match rule {
            Rule::descending => clauses.descending.give(self, place, |_| Some(()))?,
            Rule::rank_on => clauses.on.give(self, place, |r| r.name(inner))?,
            Rule::rank_after => clauses.after.give(self, place, |r| r.name(inner))?,
            Rule::rank_for => clauses.tokens.give(self, place, |r| r.next_expr(inner))?,
            _ => clauses.keep.give(self, place, |r| r.next_expr(inner))?,
        }
        if let Some(before) = RANK_ORDER.get(clauses.last).filter(|_| order < clauses.last) {
            let (word, before) = (messages::name(rule), messages::name(*before));
            let diagnostic = Diagnostic::new("E0108", place, format!("{word} must stand before {before}"));
            self.report(diagnostic.help(format!("the order is `{RANK}`")));
        }
        clauses.last = clauses.last.max(order);
        Some(())
    }
}

/// The clauses of a `rank` in the order in which they stand.
const RANK_ORDER: [Rule; 5] =
    [Rule::descending, Rule::rank_on, Rule::rank_after, Rule::rank_for, Rule::rank_keep];

struct RankClauses {
    descending: Once<()>,
    on: Once<Ident>,
    after: Once<Ident>,
    tokens: Once<ast::Expr>,
    keep: Once<ast::Expr>,
    /// The last of [`RANK_ORDER`] that was given.
    last: usize,
}

impl RankClauses {
    fn new() -> Self {
        RankClauses {
            descending: Once::new("descending"),
            on: Once::new("on"),
            after: Once::new("after"),
            tokens: Once::new("for"),
            keep: Once::new("keep"),
            last: 0,
        }
    }
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
            let diagnostic = Diagnostic::new("E0108", place, message).label("given again here");
            let help = format!("keep one `{}`", self.word);
            let diagnostic = diagnostic.also(first, "first given here").help(help);
            reader.report(diagnostic.fix("remove this one", place, ""));
            return Some(());
        }
        self.place = Some(place);
        self.value = Some(read(reader)?);
        Some(())
    }
}
