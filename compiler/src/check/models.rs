//! `model NAME { checkpoint = ..; dt_floor = .. }`, and what is known of every name that stands for a model.

use super::Checker;
use super::named::{Named, word};
use super::names::{Want, legible, list};
use super::outline::Outline;
use super::space::Space;
use crate::families::{self, ConfigError};
use crate::model::ModelDesc;
use crate::{config, hir};
use minic_grammar::ast::{Expr, Ident, Settings};
use minic_grammar::{Diagnostic, Span};

/// What a model's name stands for, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Unknown,
    One(Box<Outline>),
    /// A prune with sets of values: many models.
    Space(Space),
    /// The winner of a search: one of many.
    Chosen(Space),
}

pub(crate) const KEYS: &[Named] = &[
    word("checkpoint", "a Hugging Face folder (config.json and safetensors), or `hf://org/name@revision`"),
    word(
        "dt_floor",
        "the lower clamp of Mamba's dt, instead of the config's; 0 for checkpoints of the published kernels",
    ),
];

impl<'a> Checker<'a> {
    pub(super) fn model(&mut self, model: &'a Settings) {
        let name = &model.name.node;
        let fields =
            self.fields(format!("model `{name}`"), model.name.span, &model.settings, model.span, KEYS);
        let checkpoint = self.required(&fields, "checkpoint", "\"models/..\"");
        let floor = fields.get("dt_floor").map(|e| (e, self.plain(e)));
        let path = checkpoint.and_then(|e| self.string(e, "the path of the checkpoint"));
        let desc = match (checkpoint, &path) {
            (Some(place), Some(path)) => self.described(name, place.span, path),
            _ => None,
        };
        let desc = desc.map(|desc| self.with_floor(desc, checkpoint.map_or(model.span, |c| c.span), floor));
        if let Some((place, Some(value))) = floor.filter(|(_, v)| v.is_some_and(|v| v < 0.0)) {
            self.report(
                Diagnostic::new("E0304", place.span, "`dt_floor` must not be negative")
                    .label(format!("this is {value}"))
                    .help("time steps are positive: write 0 for no clamp"),
            );
        }
        if !self.is_first(&model.name) {
            return;
        }
        let shape = desc.clone().map_or(Shape::Unknown, |d| Shape::One(Box::new(Outline::of(d))));
        self.shapes.insert(name, shape);
        if let Some((path, place)) = path.as_ref().zip(checkpoint)
            && self.environment.is_weightless(path)
        {
            self.weightless.insert(name, place.span);
        }
        if let Some(checkpoint) = path {
            let dt_floor = floor.and_then(|(_, v)| v);
            self.out.models.insert(name.clone(), hir::Model { checkpoint, dt_floor, desc, span: model.span });
        }
    }

    /// Whether this is the declaration that holds the name.
    pub(super) fn is_first(&self, name: &Ident) -> bool {
        self.names.get(&name.node).is_some_and(|(_, entry)| entry.span == name.span)
    }

    fn described(&mut self, name: &str, place: Span, path: &str) -> Option<ModelDesc> {
        if path.strip_prefix("hf://").is_some_and(|remote| !is_remote(remote)) {
            self.report(
                Diagnostic::new("E0401", place, format!("`{path}` names no checkpoint"))
                    .label("an organisation and a name are wanted")
                    .help("write `hf://org/name`, or `hf://org/name@revision`"),
            );
            return None;
        }
        let text = match self.environment.config(path) {
            Ok(Some(text)) => text,
            Ok(None) => {
                self.report(
                    Diagnostic::new("W0401", place, format!("config.json of `{name}` is not at hand"))
                        .label("its sizes are not checked")
                        .help(fetched(path)),
                );
                return None;
            }
            Err(cause) => {
                self.report(
                    Diagnostic::new("E0401", place, format!("config.json of `{name}` cannot be read"))
                        .label(cause)
                        .help(format!("mend `{}`, or name another checkpoint", config_file(path))),
                );
                return None;
            }
        };
        match config::parse(&text).and_then(|map| families::describe(&map)) {
            Ok(desc) => Some(desc),
            Err(error) => {
                self.report(bad_config(name, place, path, &error));
                None
            }
        }
    }

    fn with_floor(
        &mut self,
        mut desc: ModelDesc,
        place: Span,
        floor: Option<(&Expr, Option<f64>)>,
    ) -> ModelDesc {
        match (floor, desc.dt_conflict) {
            (Some((expr, Some(value))), _) => {
                if value > desc.dt.hi {
                    self.report(
                        Diagnostic::new("E0304", expr.span, "`dt_floor` lies above the upper limit of dt")
                            .label(format!("config.json limits dt to {}", desc.dt.hi))
                            .help(format!("write at most {}", desc.dt.hi)),
                    );
                }
                desc.dt.lo = value;
                desc.dt_conflict = None;
            }
            (None, Some(other)) => self.report(
                Diagnostic::new(
                    "W0402",
                    place,
                    format!("config.json names two lower limits of dt: {} and {other}", desc.dt.lo),
                )
                .label(format!("{} is used, as transformers does", desc.dt.lo))
                .help(format!(
                    "state the one that the model was trained with: `dt_floor = {}` or `dt_floor = {other}`",
                    desc.dt.lo
                )),
            ),
            _ => {}
        }
        desc
    }

    /// A name in a place that wants one model; a space is refused.
    pub(super) fn one_model(&mut self, ident: &Ident) -> Option<&'a str> {
        let name = self.resolve(ident, Want::Model)?;
        let Some(Shape::Space(space)) = self.shapes.get(name) else { return Some(name) };
        let declared = self.names.get(name).map_or(ident.span, |(_, e)| e.span);
        let report = Diagnostic::new(
            "E0412",
            ident.span,
            format!("`{name}` is a space of {} models, and one model is wanted", space.len()),
        )
        .label("one model is wanted here")
        .also(declared, "its axes have several values")
        .help(format!("search it: `search best in {name} {{ .. }}`, then write `best` here"));
        self.report(report);
        None
    }

    /// The same, of a model whose weights are read. A recipe can be planned with its config.json alone.
    pub(super) fn weighted_model(&mut self, ident: &Ident) -> Option<&'a str> {
        let name = self.one_model(ident)?;
        // Once is enough.
        let Some(checkpoint) = self.weightless.remove(name) else { return Some(name) };
        self.report(
            Diagnostic::new("W0405", ident.span, format!("the checkpoint of `{name}` holds no weights"))
                .label("its weights are wanted here")
                .also(checkpoint, "config.json is there, and no safetensors file")
                .help(format!(
                    "nothing can be run before they are there; or train it: `train NAME from {name} {{ weights = random(seed = 1); .. }}`"
                )),
        );
        Some(name)
    }

    pub(super) fn outline(&self, name: &str) -> Option<&Outline> {
        match self.shapes.get(name) {
            Some(Shape::One(outline)) => Some(outline),
            _ => None,
        }
    }

    /// Size of the vocabulary, which no cut changes.
    fn vocabulary(&self, name: &str) -> Option<usize> {
        let dim = |o: &Outline| o.dim(crate::dim::Dim::VocabSize);
        match self.shapes.get(name)? {
            Shape::Unknown => None,
            Shape::One(outline) => dim(outline),
            Shape::Space(space) | Shape::Chosen(space) => space.parent().and_then(dim),
        }
    }

    /// Two models whose distributions over tokens are compared must have the same tokens.
    pub(super) fn same_vocabulary(&mut self, a: (&str, Span), b: (&str, Span)) {
        let (Some(x), Some(y)) = (self.vocabulary(a.0), self.vocabulary(b.0)) else { return };
        if x != y {
            self.report(
                Diagnostic::new("E0415", b.1, format!("`{}` and `{}` have different vocabularies", a.0, b.0))
                    .label(format!("`{}` has {y} tokens", b.0))
                    .also(a.1, format!("`{}` has {x} tokens", a.0))
                    .help(self.of_vocabulary(x, a.0)),
            );
        }
    }
}

impl Checker<'_> {
    /// Models that have this many tokens, too.
    fn of_vocabulary(&self, tokens: usize, but: &str) -> String {
        let models = self.names.of(|kind| Want::Model.accepts(kind));
        let fit: Vec<&str> =
            models.into_iter().filter(|m| *m != but && self.vocabulary(m) == Some(tokens)).collect();
        match fit.as_slice() {
            [] => format!("both must have the same tokenizer: no other model has {tokens} tokens"),
            fit => {
                let there = if fit.len() == 1 { "is" } else { "are" };
                format!("both must have the same tokenizer; with {tokens} tokens there {there} {}", list(fit))
            }
        }
    }
}

/// `org/name`, `org/name@revision`
fn is_remote(path: &str) -> bool {
    let (name, revision) = path.split_once('@').unwrap_or((path, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() == 2 && parts.iter().chain([&revision]).all(|part| !part.trim().is_empty())
}

fn config_file(path: &str) -> String {
    let path = legible(path);
    match path.ends_with("config.json") {
        true => path,
        false => format!("{}/config.json", path.trim_end_matches('/')),
    }
}

/// How a config.json comes to be at hand.
fn fetched(path: &str) -> String {
    match path.strip_prefix("hf://") {
        Some(_) => {
            let path = legible(path);
            format!("`minic run` fetches `{path}`; until then nothing that depends on its sizes is checked")
        }
        None => format!(
            "put it at `{}`: until then nothing that depends on its sizes is checked",
            config_file(path)
        ),
    }
}

fn bad_config(name: &str, place: Span, path: &str, error: &ConfigError) -> Diagnostic {
    let file = config_file(path);
    let fallback = match error.key.as_str() {
        "config.json" => format!("mend `{file}`, or name another checkpoint"),
        key => format!("mend `{key}` in `{file}`, or name another checkpoint"),
    };
    let what = match error.message.as_str() {
        message if error.key == "config.json" => format!("config.json {message}"),
        message if message.starts_with('`') => format!("`{}`: {message}", error.key),
        message => format!("`{}` {message}", error.key),
    };
    Diagnostic::new("E0401", place, format!("the checkpoint of `{name}` cannot be used: {what}"))
        .label(format!("in {file}"))
        .help(error.help.clone().unwrap_or(fallback))
}
