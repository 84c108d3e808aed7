//! The words that may stand in a place, with what they mean.

use super::Draft;
use super::cards;
use super::place::Place;
use crate::axes::{self, AXES, Scope, TAPS};
use crate::check::names::{Kind, Want, declared};
use crate::check::score::{self, fits};
use crate::check::{
    self, Accepts, Argument, Default, Named, Shape, data, distill, export, models, repair, schedule,
};
use crate::dim::Dim;
use crate::hir::Measure;
use crate::losses::LOSSES;
use crate::metrics::{FUNCTIONS, LAYER_METRICS, OVER, PARAMETERS, RANKINGS, REDUCERS};
use crate::model::{DType, LayerKind};
use crate::targets::TARGETS;
use minic_grammar::ast::{DECLARATIONS, Declaration};
use minic_grammar::forms;

/// What a word is, for the picture that an editor puts beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordKind {
    Keyword,
    Setting,
    Function,
    /// A name that the recipe declares.
    Name,
    /// A value out of a registry: an axis, a tap, a type.
    Constant,
}

/// One thing that may stand in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub label: String,
    pub kind: WordKind,
    /// A few words beside it: a form, a size.
    pub detail: String,
    /// What it means, as Markdown.
    pub doc: String,
    /// What is put in, where it is more than the label.
    pub insert: Option<String>,
}

impl Word {
    fn new(
        kind: WordKind,
        label: impl Into<String>,
        detail: impl Into<String>,
        doc: impl Into<String>,
    ) -> Word {
        Word { label: label.into(), kind, detail: detail.into(), doc: doc.into(), insert: None }
    }

    fn inserting(self, text: impl Into<String>) -> Word {
        Word { insert: Some(text.into()), ..self }
    }

    /// The whole entry as Markdown.
    pub fn card(&self) -> String {
        let head = if self.detail.is_empty() { &self.label } else { &self.detail };
        if self.doc.is_empty() { format!("`{head}`") } else { format!("`{head}`\n\n{}", self.doc) }
    }
}

/// Everything that may stand in a place, which is at an offset.
pub fn of(draft: &Draft, place: &Place, offset: usize) -> Vec<Word> {
    let names = |accepts: &dyn Fn(Kind) -> bool| names(draft, offset, accepts);
    match place {
        Place::Nothing => Vec::new(),
        Place::Declaration => declarations(draft),
        Place::Words(words) => words.iter().map(|word| keyword(word)).collect(),
        Place::Key { owner, given } if owner == "use" => used_params(draft, given),
        Place::Key { owner, given } => keys(owner, given),
        Place::Line { owner, given } => lines(owner, given),
        Place::Model => names(&|kind| Want::Model.accepts(kind)),
        Place::Space => names(&|kind| Want::Space.accepts(kind)),
        Place::Data => names(&|kind| Want::Data.accepts(kind)),
        Place::Group => names(&|kind| Want::Group.accepts(kind)),
        Place::Schedule => names(&|kind| Want::Schedule.accepts(kind)),
        Place::Axis { parent, given } => axes_of(draft, parent.as_deref(), given),
        Place::AxisValue { axis, parent } => {
            let mut all = cards::axis_values(draft, axis, parent.as_deref());
            all.extend(values(draft, offset));
            all
        }
        Place::Metric { axis } => metrics(draft, offset, axis),
        Place::Tap { axis } => taps(axis),
        Place::Repair => repairs(),
        Place::Method => methods(),
        Place::Dim => dims(),
        Place::LayerKind => LayerKind::ALL
            .iter()
            .map(|kind| Word::new(WordKind::Constant, kind.name(), "", "a kind of layer"))
            .collect(),
        Place::Loss => losses(),
        Place::Optimizer => optimizers(),
        Place::Rate => rates(),
        Place::Weights => {
            let doc = "weights drawn as the family draws them";
            vec![function("random", score::RANDOM, doc)]
        }
        Place::DType => dtypes(),
        Place::Quantity { measured } => quantities(*measured),
        Place::Measure => measures(),
        Place::Target => targets(),
        Place::Control => controls(),
        Place::Argument { of, callee } => arguments(of, callee),
        Place::Value => values(draft, offset),
        Place::Expression => expressions(draft, offset),
        Place::Over => OVER
            .iter()
            .map(|over| Word::new(WordKind::Constant, *over, "", "what a reducer goes over"))
            .collect(),
    }
}

fn declarations(draft: &Draft) -> Vec<Word> {
    let form = |word: &str| forms::declaration(word).unwrap_or_default();
    let mut all: Vec<Word> = DECLARATIONS
        .iter()
        .map(|word| Word::new(WordKind::Keyword, *word, form(word), forms::doc(word).unwrap_or_default()))
        .collect();
    if draft.checked.ast.version.is_none() {
        let doc = "the header: the version of the language";
        all.insert(0, Word::new(WordKind::Keyword, "mrecipe", "mrecipe 1", doc).inserting("mrecipe 1\n"));
    }
    all
}

fn keyword(word: &str) -> Word {
    Word::new(WordKind::Keyword, word, "", forms::doc(word).unwrap_or_default())
}

/// What has settings, and which.
pub(super) const SETTINGS: &[(&str, &[Named])] = &[
    ("model", models::KEYS),
    ("data", data::KEYS),
    ("source", data::SOURCE_KEYS),
    ("schedule", schedule::KEYS),
    ("phase", schedule::KEYS),
    ("distill", distill::DISTILL),
    ("train", distill::TRAIN),
    ("export", export::KEYS),
];

fn settings(owner: &str) -> &'static [Named] {
    SETTINGS.iter().find(|(of, _)| *of == owner).map_or(&[], |(_, keys)| keys)
}

fn keys(owner: &str, given: &[String]) -> Vec<Word> {
    let free = settings(owner).iter().filter(|key| !given.iter().any(|g| g == key.name));
    let mut all: Vec<Word> = free
        .map(|key| Word::new(WordKind::Setting, key.name, "", key.doc).inserting(format!("{} = ", key.name)))
        .collect();
    if owner == "schedule" {
        all.push(line("phase"));
    }
    all
}

/// The params of used files.
fn used_params(draft: &Draft, given: &[String]) -> Vec<Word> {
    let end = draft.checked.sources.own().end();
    let used = draft.checked.ast.declarations.iter().filter(|d| d.span().start > end).filter_map(declared);
    let free = used.filter(|(kind, name)| *kind == Kind::Param && !given.contains(&name.node));
    free.map(|(_, name)| {
        let detail = cards::short(draft, &name.node).unwrap_or_default();
        Word::new(WordKind::Setting, name.node.clone(), detail, "").inserting(format!("{} = ", name.node))
    })
    .collect()
}

fn line(word: &str) -> Word {
    let form = forms::line(word).unwrap_or_default();
    Word::new(WordKind::Keyword, word, form, forms::doc(word).unwrap_or_default())
}

fn lines(owner: &str, given: &[String]) -> Vec<Word> {
    let once = |word: &&str| *word != "calibrate" || !given.iter().any(|g| g == word);
    let mut all: Vec<Word> = forms::lines(owner).filter(once).map(line).collect();
    if owner == "group" {
        all.extend(dims());
    }
    all
}

/// Declared names of some kinds, each with what is known of it; not that of the declaration around an offset.
fn names(draft: &Draft, offset: usize, accepts: &dyn Fn(Kind) -> bool) -> Vec<Word> {
    let around = |d: &&Declaration| d.span().start <= offset && offset < d.span().end;
    let others = draft.checked.ast.declarations.iter().filter(|d| !around(d));
    others
        .filter_map(declared)
        .filter(|(kind, _)| accepts(*kind))
        .map(|(kind, name)| {
            let detail = cards::short(draft, &name.node).unwrap_or_else(|| kind.noun().to_string());
            Word::new(WordKind::Name, name.node.clone(), detail, "")
        })
        .collect()
}

fn axes_of(draft: &Draft, parent: Option<&str>, given: &[String]) -> Vec<Word> {
    let outline = parent.and_then(|name| cards::outline(draft, name));
    let there = |axis: &&axes::Axis| outline.is_none_or(|o| o.dim(axis.dim).is_some());
    let free = |axis: &&axes::Axis| !given.iter().any(|g| g == axis.name);
    let size =
        |axis: &axes::Axis| outline.and_then(|o| o.dim(axis.dim)).map_or(String::new(), |n| n.to_string());
    AXES.iter()
        .filter(there)
        .filter(free)
        .map(|axis| {
            let detail = match (size(axis).as_str(), parent) {
                ("", _) | (_, None) => String::new(),
                (size, Some(parent)) => format!("{size} in {parent}"),
            };
            Word::new(WordKind::Constant, axis.name, detail, axis.doc)
        })
        .collect()
}

fn metrics(draft: &Draft, offset: usize, axis: &str) -> Vec<Word> {
    let axis = axes::find(axis);
    let depth = axis.is_some_and(|axis| axis.scope == Scope::Depth);
    let mut all = if depth { Vec::new() } else { names(draft, offset, &|kind| kind == Kind::Metric) };
    all.extend(rankings().into_iter().filter(|word| axis.is_none_or(|axis| fits(axis, &word.label))));
    all
}

/// What ranks without being declared.
pub(super) fn rankings() -> Vec<Word> {
    let layer = LAYER_METRICS.iter().map(|m| Word::new(WordKind::Constant, m.name, "", m.doc));
    let rankings =
        RANKINGS.iter().map(|r| Word::new(WordKind::Function, r.name, r.form, r.doc).inserting(call(r.form)));
    let pca = Word::new(WordKind::Constant, score::PCA.name, "", score::PCA.doc);
    layer.chain(rankings).chain([pca]).collect()
}

/// `random(seed = N)` as it is begun: `random(`.
fn call(form: &str) -> String {
    form.find('(').map_or(form, |open| &form[..=open]).to_string()
}

fn taps(axis: &str) -> Vec<Word> {
    let scores = |name: &str| axes::find(axis).is_none_or(|axis| axis.taps.contains(&name));
    let default = axes::find(axis).and_then(|axis| axis.taps.first());
    let detail = |name: &str| if default == Some(&name) { "where nothing is said" } else { "" };
    let of = |tap: &axes::Tap| Word::new(WordKind::Constant, tap.name, detail(tap.name), tap.doc);
    TAPS.iter().filter(|tap| scores(tap.name)).map(of).collect()
}

fn dims() -> Vec<Word> {
    let axis = |dim: Dim| AXES.iter().find(|axis| axis.dim == dim).map_or("", |axis| axis.doc);
    let known = Dim::ALL.iter().filter(|dim| !matches!(dim, Dim::One | Dim::Sequence));
    known.map(|dim| Word::new(WordKind::Constant, dim.name(), "", axis(*dim))).collect()
}

pub(super) fn repairs() -> Vec<Word> {
    named(repair::REPAIRS, WordKind::Constant)
}

pub(super) fn methods() -> Vec<Word> {
    named(repair::METHODS, WordKind::Function)
}

pub(super) fn optimizers() -> Vec<Word> {
    named(schedule::OPTIMIZERS, WordKind::Function)
}

pub(super) fn rates() -> Vec<Word> {
    named(schedule::RATES, WordKind::Function)
}

pub(super) fn controls() -> Vec<Word> {
    named(check::search::CONTROLS, WordKind::Function)
}

pub(super) fn dtypes() -> Vec<Word> {
    let doc = |dtype: &DType| format!("`{}`, {} bytes a weight", dtype.torch_name(), dtype.bytes());
    DType::ALL.iter().map(|d| Word::new(WordKind::Constant, d.recipe_name(), "", doc(d))).collect()
}

pub(super) fn targets() -> Vec<Word> {
    TARGETS.iter().map(|t| function(t.name, t.arguments, t.doc)).collect()
}

pub(super) fn losses() -> Vec<Word> {
    LOSSES.iter().map(|loss| function(loss.name, loss.arguments, loss.doc)).collect()
}

pub(super) fn quantities(measured: bool) -> Vec<Word> {
    let mut all = named(check::quantity::ANALYTIC, WordKind::Function);
    if measured {
        all.extend(measures());
    }
    all
}

pub(super) fn measures() -> Vec<Word> {
    Measure::ALL.iter().map(|m| Word::new(WordKind::Constant, m.name(), "", m.doc())).collect()
}

fn named(words: &[Named], kind: WordKind) -> Vec<Word> {
    words
        .iter()
        .map(|word| match word.arguments {
            [] => Word::new(
                if kind == WordKind::Function { WordKind::Constant } else { kind },
                word.name,
                "",
                word.doc,
            ),
            arguments => function(word.name, arguments, word.doc),
        })
        .collect()
}

/// A word with arguments: its form as detail, and what each of them means.
fn function(name: &str, signature: &'static [Argument], doc: &str) -> Word {
    if signature.is_empty() {
        return Word::new(WordKind::Function, name, "", doc);
    }
    let given: Vec<String> = signature.iter().map(Argument::form).collect();
    let form = format!("{name}({})", given.join(", "));
    let lines: Vec<String> = signature.iter().map(|a| format!("- `{}`: {}", a.name, a.doc)).collect();
    let doc = format!("{doc}\n\n{}", lines.join("\n"));
    Word::new(WordKind::Function, name, form, doc).inserting(format!("{name}("))
}

/// The arguments of a callee that stands where `of` is wanted.
fn arguments(of: &Place, callee: &str) -> Vec<Word> {
    let among = |words: &'static [Named]| words.iter().find(|w| w.name == callee).map(|w| w.arguments);
    let signature = match of {
        Place::Loss => LOSSES.iter().find(|l| l.name == callee).map(|l| l.arguments),
        Place::Optimizer => among(schedule::OPTIMIZERS),
        Place::Rate => among(schedule::RATES),
        Place::Target => TARGETS.iter().find(|t| t.name == callee).map(|t| t.arguments),
        Place::Control => among(check::search::CONTROLS),
        Place::Quantity { .. } => among(check::quantity::ANALYTIC),
        Place::Method => among(repair::METHODS),
        Place::Metric { .. } if callee == "residual" => Some(score::RESIDUAL),
        Place::Metric { .. } | Place::Weights => Some(score::RANDOM).filter(|_| callee == "random"),
        _ => None,
    };
    let word = |a: &Argument| {
        Word::new(WordKind::Setting, a.name, a.form(), a.doc).inserting(format!("{} = ", a.name))
    };
    signature.unwrap_or_default().iter().map(word).collect()
}

impl Argument {
    /// `temperature = 1`, `peak = NUMBER`
    fn form(&self) -> String {
        let value = match (self.default, self.accepts) {
            (Default::Is(value), Accepts::Updates) => format!("{value} steps"),
            (Default::Is(value), _) => value.to_string(),
            (_, Accepts::Updates) => "N steps".into(),
            (_, Accepts::Layers) => "[N, ..]".into(),
            (_, Accepts::Count | Accepts::Whole) => "N".into(),
            (_, Accepts::Positive | Accepts::NotNegative | Accepts::Fraction) => "NUMBER".into(),
        };
        format!("{} = {value}", self.name)
    }
}

/// Params, and the models whose dimensions may be named.
fn values(draft: &Draft, offset: usize) -> Vec<Word> {
    let mut all = names(draft, offset, &|kind| kind == Kind::Param);
    for (name, shape) in &draft.checked.known.shapes {
        let Shape::One(outline) = shape else { continue };
        all.extend(outline.desc.dims.keys().map(|dim| {
            let size = outline.dim(*dim).unwrap_or_default();
            Word::new(WordKind::Constant, format!("{name}.{dim}"), size.to_string(), "")
        }));
    }
    all
}

fn expressions(draft: &Draft, offset: usize) -> Vec<Word> {
    let parameters = PARAMETERS.iter().map(|(name, doc)| Word::new(WordKind::Name, *name, "", *doc));
    parameters.chain(functions()).chain(names(draft, offset, &|kind| kind == Kind::Param)).collect()
}

/// What the expression of a metric calls.
pub(super) fn functions() -> Vec<Word> {
    let functions = FUNCTIONS
        .iter()
        .map(|f| Word::new(WordKind::Function, f.name, f.form, f.doc).inserting(format!("{}(", f.name)));
    let single = REDUCERS.iter().filter(|r| !FUNCTIONS.iter().any(|f| f.name == r.name));
    let reducers = single.map(|r| {
        let form = format!("{}(x, over = sequence)", r.name);
        Word::new(WordKind::Function, r.name, form, r.doc).inserting(format!("{}(", r.name))
    });
    functions.chain(reducers).collect()
}
