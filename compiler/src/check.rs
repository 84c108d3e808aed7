//! From syntax tree to checked recipe: names, units, models, and everything that can be decided before a run.
//!
//! All findings of a recipe are gathered, each at the place at fault, sorted by place. A declaration that
//! could not be understood stands for something unknown afterwards, so that nothing is reported twice: what
//! depends on it is checked as far as it can be.

pub(crate) mod arguments;
mod axis;
pub(crate) mod data;
mod deploy;
pub(crate) mod distill;
mod eval;
mod evaluate;
pub(crate) mod export;
mod fields;
mod groups;
mod loss;
pub(crate) mod models;
mod modules;
mod named;
pub(crate) mod names;
mod objective;
mod outline;
mod overrides;
mod prune;
pub(crate) mod quantity;
pub(crate) mod repair;
mod require;
pub(crate) mod schedule;
pub(crate) mod score;
pub(crate) mod search;
mod sensitivity;
pub(crate) mod space;
mod streams;
mod training;
mod typed;
pub(crate) mod value;

pub use arguments::{Accepts, Argument, Arguments, Default};
pub use modules::{Replaced, resolved};
pub use named::Named;
pub use outline::{Counts, LayerCounts, LayerRules, Outline, counts_of};
pub use overrides::Override;

use crate::hir;
use crate::metrics::Program;
use minic_grammar::ast::{self, Declaration};
use minic_grammar::{Diagnostic, Severity, Sources, Span};
pub(crate) use models::Shape;
use names::Names;
use space::Counted;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use value::Value;

/// What the checker asks of the world outside the recipe. The compiler itself reads nothing.
pub trait Environment {
    /// The text of config.json of the checkpoint named in a recipe; `None` where it is not at hand
    /// (a remote checkpoint that was not fetched, a folder that does not exist); `Err` says why a file that
    /// is there cannot be read.
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String>;

    /// The text of a used file, by its path from the recipe's folder; `None` where there is none.
    fn module(&self, _path: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// The folder of a checkpoint has its config.json and no weights: the shape of a model, and nothing more.
    fn is_weightless(&self, _checkpoint: &str) -> bool {
        false
    }

    /// What is known of the files that these patterns match; `None` where nothing is.
    fn data(&self, _files: &[String]) -> Option<DataFacts> {
        None
    }

    /// What stands in the way of exporting to this folder, as `holds another model`; `None` where nothing does.
    fn occupied(&self, _folder: &str) -> Option<String> {
        None
    }
}

/// Facts of the files of one source of data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Patterns that match no file.
    pub unmatched: Vec<String>,
    /// No tokenizer makes more tokens of these files than this; `None` where that cannot be said cheaply
    /// (compressed files). The size in bytes is such a bound for text.
    pub most_tokens: Option<u64>,
}

/// Whether there is no error and no value that is computed from a model whose config.json is not at hand; what was found;
/// and what is known all the same.
fn check(
    recipe: &ast::Recipe,
    sources: &Sources,
    environment: &dyn Environment,
    overrides: &[Override],
    before: &Known,
) -> (bool, Vec<Diagnostic>, Known) {
    let (recipe, mut applied) = overrides::apply(recipe, overrides);
    let mut checker = Checker::new(&recipe, sources, environment, &before.counted);
    checker.recipe();
    applied.explain(&mut checker.found);
    checker.found.append(&mut applied.found);
    checker.finish()
}

/// What a recipe says, as far as it could be understood.
#[derive(Default)]
pub struct Known {
    /// Declarations with faults are absent.
    pub(crate) recipe: hir::Recipe,
    /// Of every name that stands for a model.
    pub(crate) shapes: BTreeMap<String, Shape>,
    counted: Vec<Counted>,
}

/// Codes of faults that a statement which could not be read may be the cause of.
const PERHAPS_LOST: &[&str] = &["E0202", "E0206", "E0414", "E0606", "E0610", "E0801"];

/// A recipe as written and as understood.
pub struct Checked {
    /// With the declarations of used files after the recipe's own.
    pub ast: ast::Recipe,
    pub sources: Sources,
    /// Params of used files with other values than theirs.
    pub replaced: Vec<Replaced>,
    /// Absent where there is an error, and where a value is computed from a model whose config.json is not at hand.
    pub hir: Option<hir::Recipe>,
    /// Of the parser and the checker, sorted by place.
    pub found: Vec<Diagnostic>,
    pub known: Known,
}

/// Parses and checks the text of a recipe, `file` as it is shown, and the files that it uses. Where something could not
/// be read, what may be missing only for that reason is not reported.
pub fn check_text(file: &str, text: &str, environment: &dyn Environment, overrides: &[Override]) -> Checked {
    check_again(file, text, environment, overrides, &Known::default())
}

/// The same, after a check of much the same recipe: points of spaces that were counted there are not counted again.
pub fn check_again(
    file: &str,
    text: &str,
    environment: &dyn Environment,
    overrides: &[Override],
    before: &Known,
) -> Checked {
    let modules::Loaded { ast, sources, replaced, mut found, lacking } =
        modules::load(file, text, environment);
    let (sound, mut more, known) = check(&ast, &sources, environment, overrides, before);
    let unread = lacking || found.iter().any(|d| d.severity() == Severity::Error);
    if unread {
        more.retain(|d| !PERHAPS_LOST.contains(&d.code) && !d.code.starts_with("W02"));
    }
    found.append(&mut more);
    sort(&mut found);
    let hir = (sound && !unread).then(|| known.recipe.clone());
    Checked { ast, sources, replaced, hir, found, known }
}

/// By place; the same finding at the same place, of a setting that several phases share, is told once.
fn sort(found: &mut Vec<Diagnostic>) {
    found.sort_by(|a, b| a.message.cmp(&b.message));
    minic_grammar::diagnostic::sort(found);
    found.dedup();
}

struct Checker<'a> {
    recipe: &'a ast::Recipe,
    sources: &'a Sources,
    environment: &'a dyn Environment,
    names: Names<'a>,
    used: BTreeSet<&'a str>,
    found: Vec<Diagnostic>,
    counted: Vec<Counted>,
    /// Of the check before this one.
    before: &'a [Counted],
    /// A value depends on a config.json that is not at hand.
    incomplete: bool,
    params: BTreeMap<&'a str, Option<Value>>,
    shapes: BTreeMap<&'a str, Shape>,
    /// Models without weights, with the places of their checkpoints.
    weightless: BTreeMap<&'a str, Span>,
    data: BTreeMap<&'a str, data::Known>,
    metrics: BTreeMap<&'a str, Option<Arc<Program>>>,
    groups: BTreeMap<&'a str, Vec<groups::Rule>>,
    schedules: BTreeMap<&'a str, schedule::Known<'a>>,
    out: hir::Recipe,
}

impl<'a> Checker<'a> {
    fn new(
        recipe: &'a ast::Recipe,
        sources: &'a Sources,
        environment: &'a dyn Environment,
        before: &'a [Counted],
    ) -> Self {
        let mut found = Vec::new();
        let names = Names::collect(recipe, &mut found);
        Checker {
            recipe,
            sources,
            environment,
            names,
            used: BTreeSet::new(),
            found,
            counted: Vec::new(),
            before,
            incomplete: false,
            params: BTreeMap::new(),
            shapes: BTreeMap::new(),
            weightless: BTreeMap::new(),
            data: BTreeMap::new(),
            metrics: BTreeMap::new(),
            groups: BTreeMap::new(),
            schedules: BTreeMap::new(),
            out: hir::Recipe::default(),
        }
    }

    /// Every declaration after those it refers to.
    fn recipe(&mut self) {
        let recipe = self.recipe;
        for index in names::order(recipe, &self.names, &mut self.found) {
            self.declaration(&recipe.declarations[index]);
        }
        self.rung_trainings();
        self.exports_apart();
        // Something that could not be understood may have been the use.
        if !modules::is_library(recipe) && self.found.iter().all(|d| d.severity() == Severity::Warning) {
            self.unused();
        }
    }

    fn declaration(&mut self, declaration: &'a Declaration) {
        match declaration {
            Declaration::Use(_) => {}
            Declaration::Param(p) => self.param(p),
            Declaration::Model(m) => self.model(m),
            Declaration::Data(d) => self.data(d),
            Declaration::Metric(m) => self.metric(m),
            Declaration::Group(g) => self.group(g),
            Declaration::Prune(p) => self.prune(p),
            Declaration::Search(s) => self.search(s),
            Declaration::Schedule(s) => self.schedule(s),
            Declaration::Distill(d) => self.distill(d),
            Declaration::Evaluate(e) => self.evaluate(e),
            Declaration::Sensitivity(s) => self.sensitivity(s),
            Declaration::Deploy(d) => self.deploy(d),
            Declaration::Export(e) => self.export(e),
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    fn finish(self) -> (bool, Vec<Diagnostic>, Known) {
        let mut found = self.found;
        sort(&mut found);
        let failed = self.incomplete || found.iter().any(|d| d.severity() == Severity::Error);
        let mut recipe = self.out;
        recipe.sort();
        let shapes = self.shapes.into_iter().map(|(name, shape)| (name.to_string(), shape)).collect();
        (!failed, found, Known { recipe, shapes, counted: self.counted })
    }
}
