//! Declarations, from pest's pairs.

use super::blocks::{GROUP, PRUNE, SCHEDULE, SEARCH, SETTINGS};
use super::{Reader, Rule};
use crate::ast::{self, Declaration, Ident};
use crate::span::Span;
use pest::iterators::{Pair, Pairs};

impl Reader {
    pub(super) fn declaration(&mut self, pair: Pair<Rule>) -> Option<Declaration> {
        let span = self.span(&pair);
        let rule = pair.as_rule();
        let mut parts = pair.into_inner();
        let parts = &mut parts;
        Some(match rule {
            Rule::use_file => Declaration::Use(ast::Use {
                file: self.string(&skip_to(parts, Rule::string)?)?,
                settings: self.settings(parts),
                span,
            }),
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
            Rule::sensitivity => Declaration::Sensitivity(ast::Sensitivity {
                name: self.name(parts)?,
                space: self.name(parts)?,
                on: self.name(parts)?,
                quantities: self.references(parts)?,
                span,
            }),
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
    pub(super) fn name(&self, parts: &mut Pairs<Rule>) -> Option<Ident> {
        skip_to(parts, Rule::ident).map(|part| self.ident(&part))
    }

    pub(super) fn names(&self, parts: &mut Pairs<Rule>) -> Vec<Ident> {
        parts.filter(|p| p.as_rule() == Rule::ident).map(|p| self.ident(&p)).collect()
    }

    pub(super) fn references(&mut self, parts: &mut Pairs<Rule>) -> Option<Vec<ast::Expr>> {
        parts.filter(|p| p.as_rule() == Rule::reference).map(|p| self.reference(p)).collect()
    }

    pub(super) fn next_expr(&mut self, parts: &mut Pairs<Rule>) -> Option<ast::Expr> {
        skip_to(parts, Rule::expr).and_then(|part| self.expr(part))
    }

    pub(super) fn next_reference(&mut self, parts: &mut Pairs<Rule>) -> Option<ast::Expr> {
        skip_to(parts, Rule::reference).and_then(|part| self.reference(part))
    }

    fn settings(&mut self, parts: &mut Pairs<Rule>) -> Vec<ast::Setting> {
        self.lines(parts, &SETTINGS, Self::setting)
    }

    pub(super) fn setting(&mut self, line: Pair<Rule>) -> Option<ast::Setting> {
        let mut parts = line.into_inner();
        Some(ast::Setting { key: self.name(&mut parts)?, value: self.next_expr(&mut parts)? })
    }
}

enum ScheduleLine {
    Setting(ast::Setting),
    Phase(ast::Phase),
}

/// The next part of a kind; those before it are passed over.
pub(super) fn skip_to<'a>(parts: &mut Pairs<'a, Rule>, rule: Rule) -> Option<Pair<'a, Rule>> {
    parts.find(|part| part.as_rule() == rule)
}
