//! What the candidates of a search are trained on and beside, where a rung asks for it. The model that is distilled
//! from the winner says so, and is declared after the search: this is decided when all else is.

use super::Checker;
use super::schedule::Known;
use super::streams::Candidates;
use super::value::count;
use crate::hir::{self, RungTraining};
use minic_grammar::ast::{self, Declaration, Rank, SearchItem};
use minic_grammar::{Diagnostic, Span};

/// A rung that trains, by a schedule that could be read.
struct Trained<'a> {
    rank: &'a Rank,
    /// Where it names its schedule.
    after: Span,
    name: &'a str,
    schedule: Known<'a>,
}

impl<'a> Checker<'a> {
    pub(super) fn rung_trainings(&mut self) {
        let recipe = self.recipe;
        for declaration in &recipe.declarations {
            if let Declaration::Search(search) = declaration
                && self.is_first(&search.name)
            {
                self.rung_training(search);
            }
        }
    }

    fn rung_training(&mut self, search: &'a ast::Search) {
        let rungs: Vec<Trained<'a>> = search.items.iter().filter_map(|item| self.trained(item)).collect();
        let Some(first) = rungs.first() else { return };
        let teacher = self.rung_teacher(search, &rungs);
        let distilled = self.data_of_the_winner(search);
        let open = rungs.iter().find(|rung| rung.schedule.phases.iter().any(|phase| phase.data.is_none()));
        match open {
            Some(rung) if distilled.is_none() => {
                let report = self.on_which_data(search, rung);
                self.found.extend(report);
            }
            _ => self.trained_enough(&rungs, distilled),
        }
        if let Some(teacher) = &teacher {
            for rung in &rungs {
                let name = &search.name.node;
                self.compared_streams(&rung.schedule, rung.after, name, teacher, Candidates::All);
            }
        }
        let own = first.schedule.phases.iter().find_map(|phase| phase.data.map(|(name, _)| name));
        if let Some(data) = distilled.or(own)
            && let Some(item) = self.out.searches.get_mut(&search.name.node)
        {
            item.training = Some(RungTraining { teacher, data: data.to_string() });
        }
    }

    fn trained(&self, item: &'a SearchItem) -> Option<Trained<'a>> {
        let SearchItem::Rank(rank) = item else { return None };
        let ident = rank.after.as_ref()?;
        let (name, _) = self.names.get(&ident.node)?;
        Some(Trained { rank, after: ident.span, name, schedule: self.schedules.get(name)?.clone() })
    }

    /// The models that are distilled or trained from the winner, those that could be read.
    fn trained_from(&self, search: &str) -> impl Iterator<Item = &hir::Distill> {
        self.out.distills.values().filter(move |distill| distill.from == search)
    }

    /// The data that all of them are trained on.
    fn data_of_the_winner(&self, search: &ast::Search) -> Option<&'a str> {
        let data = agreed(self.trained_from(&search.name.node).map(|distill| distill.data.as_str()))?;
        self.names.get(data).map(|(name, _)| name)
    }

    /// Their common teacher, and else the model that the space is cut from; `None` where no loss looks at one.
    fn rung_teacher(&self, search: &ast::Search, rungs: &[Trained]) -> Option<String> {
        if !rungs.iter().any(|rung| rung.schedule.reads_teacher()) {
            return None;
        }
        let name = &search.name.node;
        let common = agreed(self.trained_from(name).map(|distill| distill.teacher.as_deref())).flatten();
        let known_before = common.filter(|teacher| !self.depends_on(teacher, name));
        let parent = || self.out.prunes.get(&search.space.node).map(|space| space.from.as_str());
        known_before.or_else(parent).map(str::to_string)
    }

    /// Whether a model can only be there after the search was made.
    fn depends_on(&self, model: &str, search: &str) -> bool {
        let mut waiting = vec![model];
        let mut seen: Vec<&str> = Vec::new();
        while let Some(name) = waiting.pop() {
            if name == search {
                return true;
            }
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let out = &self.out;
            waiting.extend(out.prunes.get(name).map(|prune| prune.from.as_str()));
            waiting.extend(out.distills.get(name).map(|distill| distill.from.as_str()));
            waiting.extend(out.distills.get(name).and_then(|distill| distill.teacher.as_deref()));
            waiting.extend(out.searches.get(name).map(|search| search.space.as_str()));
            let training = out.searches.get(name).and_then(|search| search.training.as_ref());
            waiting.extend(training.and_then(|training| training.teacher.as_deref()));
        }
        false
    }

    /// `None` where a distillation that may have said it could not be understood.
    fn on_which_data(&self, search: &ast::Search, rung: &Trained) -> Option<Diagnostic> {
        let name = &search.name.node;
        let written = self.recipe.declarations.iter().filter(
            |declaration| matches!(declaration, Declaration::Distill(distill) if distill.from.node == *name),
        );
        let understood: Vec<&hir::Distill> = self.trained_from(name).collect();
        if written.count() > understood.len() {
            return None;
        }
        let mut report =
            Diagnostic::new("E0610", rung.after, "the rung trains its candidates, and on which data?")
                .label(format!("`{}` names none", rung.name));
        for distill in understood {
            report = report.also(distill.span, format!("trained on `{}`", distill.data));
        }
        let data = self.some_data();
        Some(report.help(format!(
            "write `data = {data}` in schedule `{}`, or `distill STUDENT from {name} {{ data = {data}; .. }}`: rungs train as the model that is distilled from the winner",
            rung.name
        )))
    }

    /// Updates and tokens of every rung on its data.
    fn trained_enough(&mut self, rungs: &[Trained<'a>], data: Option<&'a str>) {
        for (i, rung) in rungs.iter().enumerate() {
            let data = data.map(|name| (name, rung.after));
            let schedule = &rung.schedule;
            let tokens = rung.rank.tokens.as_ref().map(|e| self.whole(e));
            let part = match tokens {
                None => {
                    self.updates_on(schedule, data);
                    schedule.clone()
                }
                Some(None) => continue,
                Some(Some(tokens)) => {
                    self.short_training(rung.rank, schedule, tokens, data);
                    schedule.until(tokens)
                }
            };
            // A later rung of the schedule goes on from here, and wants the more.
            if !rungs[i + 1..].iter().any(|later| later.name == rung.name) {
                self.tokens_on(&part, data);
            }
        }
    }

    /// A rung's training: within its schedule, with updates, and beyond the warm-up.
    fn short_training(&mut self, rank: &Rank, schedule: &Known, tokens: u64, data: Option<(&str, Span)>) {
        let place = rank.tokens.as_ref().map_or(rank.span, |e| e.span);
        if let Some(whole) = schedule.tokens().filter(|whole| tokens > *whole) {
            self.report(
                Diagnostic::new("E0609", place, "the rung trains longer than its schedule")
                    .label(format!("{} tokens", count(tokens as f64)))
                    .also(schedule.span, format!("{} tokens in all", count(whole as f64)))
                    .help("leave out `for` to train the whole schedule"),
            );
            return;
        }
        let Some(first) = schedule.phases.first() else { return };
        let trained_on = first.data.or(data).and_then(|(name, _)| self.data.get(name));
        let sequence = trained_on.and_then(|known| known.sequence);
        let (Some(update), Some((warmup, _))) = (first.update(sequence), first.warmup) else { return };
        let updates = tokens / update.max(1);
        if updates == 0 {
            self.report(
                Diagnostic::new("E0703", place, "no optimizer update would be made")
                    .label(format!("{} tokens", count(tokens as f64)))
                    .also(schedule.span, format!("one update takes {update} tokens"))
                    .help(format!("at least {update} tokens")),
            );
        } else if updates <= warmup {
            self.report(
                Diagnostic::new("W0601", place, "the rung ends within the warm-up of its schedule")
                    .label(format!("{updates} updates"))
                    .also(schedule.span, format!("{warmup} updates of warm-up"))
                    .help(format!("train for more than {} tokens", count((warmup * update) as f64))),
            );
        }
    }
}

/// What all of them are, where there is one and they are the same.
fn agreed<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}
