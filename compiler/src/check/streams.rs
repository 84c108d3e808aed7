//! Losses between residual streams, against the two models whose streams they compare.

use super::Checker;
use super::axis::either;
use super::models::Shape;
use super::schedule::Known;
use crate::dim::Dim;
use crate::hir::{LossTerm, Score};
use crate::losses::{Streams, Term};
use minic_grammar::{Diagnostic, Span};

/// Which of the models that a student may turn out to be are trained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidates {
    /// The one that is found: it is enough that some of them fit.
    Winner,
    /// Each of them.
    All,
}

impl Candidates {
    fn fit(self, sizes: &[usize], fits: impl Fn(&usize) -> bool) -> bool {
        match self {
            Candidates::Winner => sizes.iter().any(fits),
            Candidates::All => sizes.iter().all(fits),
        }
    }
}

impl<'a> Checker<'a> {
    /// Widths and layers of every loss between streams; `used` is where the schedule meets its models.
    pub(super) fn compared_streams(
        &mut self,
        schedule: &Known,
        used: Span,
        student: &str,
        teacher: &str,
        which: Candidates,
    ) {
        let terms = schedule.phases.iter().filter_map(|p| p.loss.as_ref()).flat_map(|(terms, _)| terms);
        let mut told: Vec<String> = Vec::new();
        for term in terms {
            let Term::Streams(streams) = &term.term else { continue };
            let widths = || self.unequal_widths(student, teacher, which);
            let fault = widths().or_else(|| self.unequal_bases(student, teacher)).or_else(|| {
                let own = self.outside(student, streams.layers.as_deref(), which);
                own.or_else(|| self.outside(teacher, streams.teacher_layers.as_deref(), Candidates::Winner))
                    .or_else(|| self.unpaired(streams, student, teacher, which))
            });
            // What is wrong with two models is wrong for each of the losses.
            if let Some(fault) = fault.filter(|fault| !told.contains(&fault.message)) {
                told.push(fault.message.clone());
                self.report(fault.at(term, used));
            }
        }
    }

    /// The sizes that a dimension of a model may have, where they are known.
    fn possible(&self, name: &str, dim: Dim) -> Option<Vec<usize>> {
        match self.shapes.get(name)? {
            Shape::Unknown => None,
            Shape::One(outline) => outline.dim(dim).map(|size| vec![size]),
            Shape::Space(space) | Shape::Chosen(space) => {
                match space.axes.iter().find(|(axis, _)| *axis == dim) {
                    Some((_, sizes)) => Some(sizes.clone()),
                    None => space.parent()?.dim(dim).map(|size| vec![size]),
                }
            }
        }
    }

    fn unequal_widths(&self, student: &str, teacher: &str, which: Candidates) -> Option<Fault> {
        let [own, other] = [student, teacher].map(|name| self.possible(name, Dim::HiddenSize));
        let (own, other) = (own?, other?);
        if which.fit(&own, |size| other.contains(size)) {
            return None;
        }
        Some(Fault {
            code: "E0708",
            message: format!("the streams of `{student}` and `{teacher}` differ in width"),
            label: format!("{} channels against {}", either(&own), either(&other)),
            help: "hidden-state losses compare streams of one width: leave `hidden_size` uncut, or use `forward_kl()`"
                .into(),
        })
    }

    /// Channel by channel, a rotated stream can be compared with one of the same basis alone.
    fn unequal_bases(&self, student: &str, teacher: &str) -> Option<Fault> {
        (self.turned(student) != self.turned(teacher)).then(|| Fault {
            code: "E0708",
            message: format!("the streams of `{student}` and `{teacher}` stand in different bases"),
            label: "channels of one are no channels of the other".into(),
            help: "one of them was cut `by pca`: use `forward_kl()`, or rank `hidden_size` by a metric"
                .into(),
        })
    }

    /// The prunes that turned the stream of a model, the last one first.
    fn turned(&self, model: &str) -> Vec<&str> {
        let turns = |name: &&str| {
            let prune = self.out.prunes.get(*name);
            prune.is_some_and(|prune| prune.axes.iter().any(|axis| axis.score == Score::Pca))
        };
        self.origins(model).filter(turns).collect()
    }

    /// A listed layer that the model does not have.
    fn outside(&self, model: &str, layers: Option<&[usize]>, which: Candidates) -> Option<Fault> {
        let totals = self.possible(model, Dim::NumLayers)?.into_iter();
        let total = if which == Candidates::All { totals.min() } else { totals.max() }?;
        let layer = layers?.iter().find(|layer| **layer >= total)?;
        Some(Fault {
            code: "E0707",
            message: format!("`{model}` has no layer {layer}"),
            label: format!("it has {total} layers, counted from 0"),
            help: format!("name a layer from 0 to {}", total.saturating_sub(1)),
        })
    }

    /// The student's layers, where they are not listed, against the teacher's.
    fn unpaired(&self, streams: &Streams, student: &str, teacher: &str, which: Candidates) -> Option<Fault> {
        let [own, other] = [student, teacher].map(|name| self.possible(name, Dim::NumLayers));
        let own = own?;
        let fault = |message: String, label: String| {
            let help = "list the layers that are compared: `layers = [..], teacher_layers = [..]`".into();
            Some(Fault { code: "E0707", message, label, help })
        };
        match (&streams.layers, &streams.teacher_layers) {
            (None, Some(listed)) if !which.fit(&own, |total| *total == listed.len()) => fault(
                format!("`teacher_layers` does not name one layer for each of `{student}`"),
                format!("{} against {} layers", listed.len(), either(&own)),
            ),
            (_, None) if !self.descends(student, teacher) => {
                let other = other?;
                if which.fit(&own, |total| other.contains(total)) {
                    return None;
                }
                fault(
                    format!("the layers of `{student}` were not cut from those of `{teacher}`"),
                    format!("{} layers against {}", either(&own), either(&other)),
                )
            }
            _ => None,
        }
    }

    /// Whether a model was made from another one, or is it.
    fn descends(&self, model: &str, ancestor: &str) -> bool {
        model == ancestor || self.origins(model).any(|name| name == ancestor)
    }

    /// A model, what it was made from, what that was made from, and so on.
    fn origins(&self, model: &str) -> impl Iterator<Item = &str> {
        let before = |name: &str| {
            let prune = self.out.prunes.get(name).map(|p| &p.from);
            let search = self.out.searches.get(name).map(|s| &s.space);
            prune.or(search).or(self.out.distills.get(name).map(|d| &d.from)).map(String::as_str)
        };
        let own = self.shapes.get_key_value(model).map(|(name, _)| *name);
        // A chain is no longer than the recipe: a cycle was reported, and is left.
        std::iter::successors(own, move |name| before(name)).take(self.shapes.len() + 1)
    }
}

/// What is wrong with two streams.
struct Fault {
    code: &'static str,
    message: String,
    label: String,
    help: String,
}

impl Fault {
    fn at(self, term: &LossTerm, used: Span) -> Diagnostic {
        Diagnostic::new(self.code, used, self.message)
            .label(self.label)
            .also(term.span, "the loss that compares them")
            .help(self.help)
    }
}
