//! Names: where they are declared, what they stand for, in what order they depend on each other.

use super::Checker;
use super::deploy::asks_deployable;
use super::named;
use super::quantity::is_quantity;
use super::repair::METHODS;
use super::schedule::{OPTIMIZERS, RATES};
use super::score::is_builtin;
use super::search::CONTROLS;
use crate::model::DType;
use crate::{losses, targets};
use indexmap::IndexMap;
use minic_grammar::ast::{
    self, Argument, Declaration, Expr, ExprKind, Ident, PruneItem, SearchItem, Setting,
};
use minic_grammar::{Diagnostic, Help, Span, nearest};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Param,
    Model,
    Data,
    Metric,
    Group,
    Prune,
    Search,
    Schedule,
    Distill,
    Sensitivity,
}

impl Kind {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Param => "a param",
            Kind::Model => "a model",
            Kind::Data => "a data source",
            Kind::Metric => "a metric",
            Kind::Group => "a group",
            Kind::Prune => "a prune",
            Kind::Search => "a search",
            Kind::Schedule => "a schedule",
            Kind::Distill => "a trained model",
            Kind::Sensitivity => "a sensitivity",
        }
    }
}

/// What a place wants a name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Model,
    Space,
    Data,
    Group,
    Schedule,
}

impl Want {
    pub(crate) fn accepts(self, kind: Kind) -> bool {
        match self {
            Want::Model => matches!(kind, Kind::Model | Kind::Prune | Kind::Search | Kind::Distill),
            Want::Space => kind == Kind::Prune,
            Want::Data => kind == Kind::Data,
            Want::Group => kind == Kind::Group,
            Want::Schedule => kind == Kind::Schedule,
        }
    }

    pub(crate) fn noun(self) -> &'static str {
        match self {
            Want::Model => "model",
            Want::Space => "space",
            Want::Data => "data source",
            Want::Group => "group",
            Want::Schedule => "schedule",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    /// Of the name in its declaration.
    pub span: Span,
    /// Index of the declaration.
    pub index: usize,
}

/// The names of a recipe, in the order of their declarations.
pub(super) struct Names<'a> {
    entries: IndexMap<&'a str, Entry>,
}

impl<'a> Names<'a> {
    /// The first declaration of a name holds; every later one is reported.
    pub fn collect(recipe: &'a ast::Recipe, found: &mut Vec<Diagnostic>) -> Names<'a> {
        let mut entries: IndexMap<&'a str, Entry> = IndexMap::new();
        for (index, declaration) in recipe.declarations.iter().enumerate() {
            let Some((kind, name)) = declared(declaration) else { continue };
            if let Some(first) = entries.get(name.node.as_str()) {
                found.push(
                    Diagnostic::new("E0201", name.span, format!("`{}` is declared twice", name.node))
                        .label("declared again here")
                        .also(first.span, format!("first declared here, as {}", first.kind.noun()))
                        .help(format!(
                            "names are unique among all declarations: call this one `{}2`",
                            name.node
                        )),
                );
                continue;
            }
            entries.insert(&name.node, Entry { kind, span: name.span, index });
        }
        Names { entries }
    }

    pub fn get(&self, name: &str) -> Option<(&'a str, Entry)> {
        self.entries.get_key_value(name).map(|(name, entry)| (*name, *entry))
    }

    pub fn of(&self, accepts: impl Fn(Kind) -> bool) -> Vec<&'a str> {
        self.entries.iter().filter(|(_, e)| accepts(e.kind)).map(|(name, _)| *name).collect()
    }

    fn iter(&self) -> impl Iterator<Item = (&'a str, Entry)> {
        self.entries.iter().map(|(name, entry)| (*name, *entry))
    }
}

pub(crate) fn declared(declaration: &Declaration) -> Option<(Kind, &Ident)> {
    Some(match declaration {
        Declaration::Param(d) => (Kind::Param, &d.name),
        Declaration::Model(d) => (Kind::Model, &d.name),
        Declaration::Data(d) => (Kind::Data, &d.name),
        Declaration::Metric(d) => (Kind::Metric, &d.name),
        Declaration::Group(d) => (Kind::Group, &d.name),
        Declaration::Prune(d) => (Kind::Prune, &d.name),
        Declaration::Search(d) => (Kind::Search, &d.name),
        Declaration::Schedule(d) => (Kind::Schedule, &d.name),
        Declaration::Distill(d) => (Kind::Distill, &d.name),
        Declaration::Sensitivity(d) => (Kind::Sensitivity, &d.name),
        Declaration::Use(_) | Declaration::Evaluate(_) | Declaration::Deploy(_) | Declaration::Export(_) => {
            return None;
        }
    })
}

/// `help` that lists what may stand in a place: the nearest name, else all of them, else how one is declared.
pub(super) fn suggestion(word: &str, what: &str, candidates: &[&str]) -> Help {
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return Help::meant(near);
    }
    if !candidates.is_empty() {
        return format!("{what}: {}", list(candidates)).into();
    }
    let form = match what {
        "spaces" => return "declare one: a `prune` whose axes have several values, `in {a, b}`".into(),
        "models" => "model NAME { checkpoint = \"models/..\" }",
        "data sources" => "data NAME { files = [\"data/*.txt\"]; sequence = 4096 }",
        "groups" => "group NAME { .. }",
        "schedules" => "schedule NAME { .. }",
        "params" => "param NAME = ..",
        "metrics" => "metric NAME(x) = ..",
        _ => return format!("the recipe declares no {what}").into(),
    };
    format!("the recipe declares no {what}: write `{}`", form.replace("NAME", word)).into()
}

/// A name of a registry, and what other programs call the same thing.
pub(super) type Known<'k> = (&'k str, &'k [&'k str]);

/// The name that means what another program's word means, in any case and with `_` or without.
pub(super) fn meant<'k>(word: &str, known: &[Known<'k>]) -> Option<&'k str> {
    let plain = |word: &str| word.to_lowercase().replace('_', "");
    let wanted = plain(word);
    known.iter().find(|(_, also)| also.iter().any(|a| plain(a) == wanted)).map(|(name, _)| *name)
}

/// As [`suggestion`], where the words of other programs are understood.
pub(super) fn suggestion_of(word: &str, what: &str, known: &[Known]) -> Help {
    match meant(word, known) {
        Some(name) => Help::meant(name),
        None => suggestion(word, what, &known.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
    }
}

/// Text of the recipe in a help line, which is drawn as it is: without what commands a terminal.
pub(super) fn legible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// `` `a`, `b`, `c` ``
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Indices of declarations, each after those that it refers to. Cycles are reported.
pub(super) fn order(recipe: &ast::Recipe, names: &Names, found: &mut Vec<Diagnostic>) -> Vec<usize> {
    let mut graph: DiGraph<(), ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = recipe.declarations.iter().map(|_| graph.add_node(())).collect();
    for (index, declaration) in recipe.declarations.iter().enumerate() {
        for name in references(declaration).into_iter().chain(deployed(recipe, declaration)) {
            if let Some((_, entry)) = names.get(&name.node) {
                graph.update_edge(nodes[index], nodes[entry.index], ());
            }
        }
    }
    let components = tarjan_scc(&graph);
    for component in &components {
        let mut members: Vec<NodeIndex> = component.clone();
        members.sort();
        if let Some(cycle) = shortest_cycle(&graph, members[0], &members) {
            found.push(cycle_report(recipe, &cycle));
        }
    }
    components.into_iter().flatten().map(NodeIndex::index).collect()
}

/// The shortest way from `start` back to itself within a component.
fn shortest_cycle(graph: &DiGraph<(), ()>, start: NodeIndex, within: &[NodeIndex]) -> Option<Vec<usize>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = Vec::new();
    while let Some(way) = ways.pop_front() {
        let last = *way.last()?;
        let mut next: Vec<NodeIndex> = graph.neighbors(last).filter(|n| within.contains(n)).collect();
        next.sort();
        for node in next {
            if node == start {
                return Some(way.iter().map(|n| n.index()).collect());
            }
            if !seen.contains(&node) {
                seen.push(node);
                ways.push_back(way.iter().copied().chain([node]).collect());
            }
        }
    }
    None
}

fn cycle_report(recipe: &ast::Recipe, cycle: &[usize]) -> Diagnostic {
    let members: Vec<&Ident> =
        cycle.iter().filter_map(|&i| declared(&recipe.declarations[i])).map(|(_, name)| name).collect();
    let first = members[0];
    let next = |i: usize| &members[(i + 1) % members.len()].node;
    let all: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
    let help = match all.as_slice() {
        [own] => format!("make `{own}` from something else"),
        all => format!("break the circle: make one of {} from something else", list(all)),
    };
    let mut report = Diagnostic::new("E0204", first.span, format!("`{}` depends on itself", first.node))
        .label(format!("is made from `{}`", next(0)))
        .help(help);
    for (i, member) in members.iter().enumerate().skip(1) {
        report = report.also(member.span, format!("is made from `{}`", next(i)));
    }
    report
}

/// What a metric reads besides its own parameters.
pub(super) fn read_by(metric: &ast::Metric) -> Vec<&Ident> {
    let mut out = Vec::new();
    walk(&metric.body, |_| false, &mut out);
    out.retain(|name| !metric.parameters.iter().any(|p| p.node == name.node));
    out
}

/// Every identifier of a declaration that may be the name of another one. Where a word of a registry may stand as
/// well, such words are left out: they go before names.
pub(crate) fn references(declaration: &Declaration) -> Vec<&Ident> {
    let mut out = Vec::new();
    match declaration {
        // Its values stand in the params that they are of.
        Declaration::Use(_) => {}
        Declaration::Param(d) => walk(&d.value, |_| false, &mut out),
        Declaration::Model(d) | Declaration::Data(d) => walk_settings(&d.settings, &mut out),
        Declaration::Metric(d) => out.extend(read_by(d)),
        Declaration::Group(d) => d.rules.iter().for_each(|r| match &r.kind {
            ast::GroupRuleKind::MultipleOf { factor: e, .. }
            | ast::GroupRuleKind::Protect { members: e, .. }
            | ast::GroupRuleKind::Keep { count: e, .. } => walk(e, |_| false, &mut out),
            _ => {}
        }),
        Declaration::Prune(d) => {
            out.push(&d.from);
            d.items.iter().for_each(|item| prune_references(item, &mut out));
        }
        Declaration::Search(d) => {
            out.push(&d.space);
            d.items.iter().for_each(|item| search_references(item, &mut out));
        }
        Declaration::Schedule(d) => {
            walk_settings(&d.settings, &mut out);
            d.phases.iter().for_each(|p| walk_settings(&p.settings, &mut out));
        }
        Declaration::Distill(d) => {
            out.push(&d.from);
            walk_settings(&d.settings, &mut out);
        }
        Declaration::Evaluate(d) => {
            out.push(&d.model);
            out.extend(&d.against);
            out.push(&d.on);
        }
        Declaration::Sensitivity(d) => {
            out.extend([&d.space, &d.on]);
            d.quantities.iter().for_each(|q| walk(q, is_quantity, &mut out));
        }
        Declaration::Deploy(d) => {
            out.push(&d.model);
            target_references(d, &mut out);
        }
        Declaration::Export(d) => {
            out.push(&d.model);
            walk_settings(&d.settings, &mut out);
        }
    }
    out
}

/// What the targets read that a search is to be deployable for.
fn deployed<'a>(recipe: &'a ast::Recipe, declaration: &Declaration) -> Vec<&'a Ident> {
    let mut out = Vec::new();
    let Declaration::Search(search) = declaration else { return out };
    if asks_deployable(search).is_some() {
        for declaration in &recipe.declarations {
            if let Declaration::Deploy(deploy) = declaration {
                target_references(deploy, &mut out);
            }
        }
    }
    out
}

fn target_references<'a>(deploy: &'a ast::Deploy, out: &mut Vec<&'a Ident>) {
    deploy.targets.iter().for_each(|t| walk(t, |name| targets::find(name).is_some(), out));
}

fn prune_references<'a>(item: &'a PruneItem, out: &mut Vec<&'a Ident>) {
    match item {
        PruneItem::Calibrate { data, .. } => out.push(data),
        PruneItem::Under { groups, .. } => out.extend(groups),
        PruneItem::Axis(axis) => {
            walk(&axis.domain, |_| false, out);
            axis.by.iter().for_each(|by| walk(by, is_builtin, out));
        }
        PruneItem::Repair(repair) => {
            repair.by.iter().for_each(|by| walk(by, |name| named::find(METHODS, name).is_some(), out));
        }
    }
}

fn search_references<'a>(item: &'a SearchItem, out: &mut Vec<&'a Ident>) {
    match item {
        SearchItem::Require { condition, .. } => walk(condition, is_quantity, out),
        SearchItem::Rank(rank) => {
            walk(&rank.by, is_quantity, out);
            out.extend([&rank.on, &rank.after].into_iter().flatten());
            rank.tokens.iter().chain([&rank.keep]).for_each(|e| walk(e, |_| false, out));
        }
        SearchItem::BreakTies { within, by, .. } => {
            walk(within, |_| false, out);
            walk(by, is_quantity, out);
        }
        SearchItem::Control { controls, .. } => {
            controls.iter().for_each(|c| walk(c, |name| named::find(CONTROLS, name).is_some(), out));
        }
    }
}

/// The first words of all paths of an expression.
pub(super) fn words(expr: &Expr) -> Vec<&Ident> {
    let mut out = Vec::new();
    walk(expr, |_| false, &mut out);
    out
}

fn walk_settings<'a>(settings: &'a [Setting], out: &mut Vec<&'a Ident>) {
    for Setting { key, value } in settings {
        let known: fn(&str) -> bool = match key.node.as_str() {
            "loss" => |name| losses::find(name).is_some(),
            "optimizer" => |name| named::find(OPTIMIZERS, name).is_some(),
            "rate" => |name| named::find(RATES, name).is_some(),
            "weights" => |name| name == "random",
            "dtype" => |name| DType::from_name(name).is_some(),
            _ => |_| false,
        };
        walk(value, known, out);
    }
}

/// `known`: words that are none of the recipe's names in this place.
fn walk<'a>(expr: &'a Expr, known: fn(&str) -> bool, out: &mut Vec<&'a Ident>) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Bool(_) => {}
        ExprKind::Path(path) => match path.segments.as_slice() {
            [word] if known(&word.node) => {}
            segments => out.extend(segments.first()),
        },
        ExprKind::List(items) | ExprKind::Set(items) => items.iter().for_each(|e| walk(e, known, out)),
        ExprKind::Record(settings) => walk_settings(settings, out),
        ExprKind::Range { start, end, step } => {
            [Some(start), Some(end), step.as_ref()].into_iter().flatten().for_each(|e| walk(e, known, out))
        }
        ExprKind::Unary { operand, .. } => walk(operand, known, out),
        ExprKind::Binary { left, right, .. } => [left, right].into_iter().for_each(|e| walk(e, known, out)),
        ExprKind::In { value, domain } => [value, domain].into_iter().for_each(|e| walk(e, known, out)),
        ExprKind::Call { arguments, .. } => {
            arguments.iter().for_each(|a: &Argument| walk(&a.value, known, out));
        }
    }
}

impl<'a> Checker<'a> {
    /// The first name that would do besides `but`, for examples: checkpoints before what is made of them, and
    /// `MODEL` where there is none.
    pub(super) fn some(&self, want: Want, but: &str) -> String {
        let checkpoints = self.names.of(|kind| kind == Kind::Model && want.accepts(kind));
        let mut names = checkpoints.into_iter().chain(self.names.of(|kind| want.accepts(kind)));
        names.find(|name| *name != but).map_or_else(|| want.noun().to_uppercase(), str::to_string)
    }

    /// The declaration that a name stands for, if it is of the kind that the place wants.
    pub(super) fn resolve(&mut self, ident: &Ident, want: Want) -> Option<&'a str> {
        let Some((name, entry)) = self.names.get(&ident.node) else {
            let wanted = self.names.of(|kind| want.accepts(kind));
            let near = nearest(&ident.node, wanted.iter().copied());
            let elsewhere = || nearest(&ident.node, self.names.iter().map(|(name, _)| name));
            let help = match near.or_else(elsewhere) {
                Some(near) => Help::meant(near),
                None => suggestion(&ident.node, &plural(want), &wanted),
            };
            self.report(
                Diagnostic::new(
                    "E0202",
                    ident.span,
                    format!("no {} is called `{}`", want.noun(), ident.node),
                )
                .label("not declared in this recipe")
                .help(help),
            );
            return None;
        };
        self.used.insert(name);
        if want.accepts(entry.kind) {
            return Some(name);
        }
        let wanted = self.names.of(|kind| want.accepts(kind));
        self.wrong_kind(ident, entry, want.noun(), suggestion(&ident.node, &plural(want), &wanted));
        None
    }

    pub(super) fn wrong_kind(&mut self, ident: &Ident, entry: Entry, wanted: &str, help: Help) {
        let article = if wanted.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        self.report(
            Diagnostic::new(
                "E0203",
                ident.span,
                format!("`{}` is {}, not {article} {wanted}", ident.node, entry.kind.noun()),
            )
            .label(format!("{article} {wanted} is wanted here"))
            .also(entry.span, "declared here")
            .help(help),
        );
    }

    /// What is declared and serves nothing.
    pub(super) fn unused(&mut self) {
        // A sensitivity is a figure: it is asked for by itself.
        let serves = |(name, entry): &(&'a str, Entry)| {
            self.used.contains(name) || entry.kind == Kind::Sensitivity || self.sources.is_used(entry.span)
        };
        let unused: Vec<(&str, Entry)> = self.names.iter().filter(|named| !serves(named)).collect();
        for (name, entry) in unused {
            let (code, help) = match entry.kind {
                Kind::Param => ("W0201", format!("remove it, or write `{name}` where its value is meant")),
                Kind::Group => ("W0203", format!("name it in the prune that it constrains: `under {name}`")),
                Kind::Prune | Kind::Search | Kind::Distill => {
                    let export = format!("export {name} to \"out/{name}\"");
                    ("W0202", format!("write `{export}`, or remove it: nothing will be run for it"))
                }
                _ => ("W0202", format!("remove it, or refer to `{name}`")),
            };
            let noun = entry.kind.noun().trim_start_matches("a ");
            let message = match entry.kind {
                Kind::Group => format!("the group `{name}` stands under no prune"),
                _ => format!("the {noun} `{name}` is never used"),
            };
            let whole = self.recipe.declarations[entry.index].span();
            let title = format!("remove `{name}`");
            self.report(Diagnostic::new(code, entry.span, message).help(help).fix(title, whole, ""));
        }
    }
}

fn plural(want: Want) -> String {
    format!("{}s", want.noun())
}
