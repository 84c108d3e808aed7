//! The graph of training: the student forwards and backwards, beside a teacher where a loss compares with one,
//! or beside targets that were made of the teacher before.

use super::{Ends, ends, output};
use crate::autodiff::{self, Recompute};
use crate::dim::{Dim, Extent, Part};
use crate::graph::{
    Builder, Graph, HeadLoss, HeadTerm, Op, ShapeError, StreamLoss, TopK, ValueId, reads_teacher, targets_of,
};
use crate::hir::LossTerm;
use crate::losses::Term;
use crate::model::ModelDesc;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the weights of the teacher are named with: `teacher/lm_head.weight`. The student's have no prefix.
pub const TEACHER: &str = "teacher";

/// A weighted sum of losses, each a mean over positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    terms: Vec<(f64, Wanted)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Head(HeadLoss),
    /// Pairs of a layer of the student and one of the teacher.
    Streams(StreamLoss, Vec<(usize, usize)>),
}

impl Objective {
    /// `origins` are the teacher's layers from which the student's were cut, one for each of the student's.
    pub fn new(terms: &[LossTerm], origins: &[usize]) -> Objective {
        let wanted = |term: &Term| match term {
            Term::Head(loss) => Wanted::Head(*loss),
            Term::Streams(streams) => {
                let layers = streams.layers.clone().unwrap_or_else(|| (0..origins.len()).collect());
                let origin = |layer: &usize| origins.get(*layer).copied().unwrap_or(*layer);
                let beside = streams.teacher_layers.clone();
                let beside = beside.unwrap_or_else(|| layers.iter().map(origin).collect());
                Wanted::Streams(streams.loss, layers.into_iter().zip(beside).collect())
            }
        };
        Objective { terms: terms.iter().map(|term| (term.weight, wanted(&term.term))).collect() }
    }

    /// Cross-entropy of the next token alone.
    pub fn cross_entropy() -> Objective {
        Objective { terms: vec![(1.0, Wanted::Head(HeadLoss::CrossEntropy))] }
    }

    /// KL(teacher || student) of the logits alone.
    pub fn forward_kl() -> Objective {
        Objective { terms: vec![(1.0, Wanted::Head(HeadLoss::ForwardKl { temperature: 1.0 }))] }
    }

    /// The teacher runs beside the student.
    pub fn reads_teacher(&self) -> bool {
        self.terms.iter().any(|(_, term)| match term {
            Wanted::Head(loss) => loss.needs_teacher(),
            Wanted::Streams(..) => true,
        })
    }

    /// The targets that terms read, each once.
    pub fn targets(&self, vocab: usize) -> Vec<TopK> {
        let mut all = Vec::new();
        for targets in targets_of(&self.head(2, 1, vocab).0) {
            if !all.contains(&targets) {
                all.push(targets);
            }
        }
        all
    }

    /// What the terms read of a teacher that runs beside the student.
    pub fn shown(&self) -> Option<Shown> {
        if !self.reads_teacher() {
            return None;
        }
        let of = |term: &Wanted| match term {
            Wanted::Head(_) => Vec::new(),
            Wanted::Streams(_, pairs) => pairs.iter().map(|(_, layer)| *layer).collect(),
        };
        Some(Shown { layers: self.terms.iter().flat_map(|(_, term)| of(term)).collect() })
    }

    /// What is to be written down of a teacher before students are trained; with `shows` all that they read of it.
    pub fn written(&self, vocab: usize, shows: bool) -> Vec<Written> {
        let shown = self.shown().filter(|_| shows).map(Written::Shown);
        self.targets(vocab).into_iter().map(Written::Targets).chain(shown).collect()
    }

    /// Weights of the terms.
    pub fn weights(&self) -> Vec<f64> {
        self.terms.iter().map(|(weight, _)| *weight).collect()
    }

    /// The terms over the logits, with their places among all terms.
    fn head(&self, sequence: usize, batch: usize, vocab: usize) -> (Vec<HeadTerm>, Vec<usize>) {
        let of = |(i, (weight, term)): (usize, &(f64, Wanted))| {
            let Wanted::Head(loss) = term else { return None };
            let scale = 1.0 / (batch * term.positions(sequence)) as f64;
            let loss = loss.targets().map_or(*loss, |targets| HeadLoss::TopK(targets.of(vocab)));
            Some((HeadTerm { weight: *weight, scale, loss }, i))
        };
        self.terms.iter().enumerate().filter_map(of).unzip()
    }
}

impl Wanted {
    fn positions(&self, sequence: usize) -> usize {
        match self {
            Wanted::Head(HeadLoss::CrossEntropy) => sequence - 1,
            _ => sequence,
        }
    }
}

/// A teacher's values at every position that students of several trainings read: the hidden state that its head
/// reads, and the streams after some of its layers. Logits are V / E times as many; whoever reads these makes
/// the logits of a few positions at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub layers: BTreeSet<usize>,
}

impl Shown {
    /// [hidden | stream 3 | ..], each of the teacher's width.
    fn columns(&self, teacher: &ModelDesc) -> Extent {
        let width = (Dim::HiddenSize, teacher.size(Dim::HiddenSize));
        let streams = self.layers.iter().map(|layer| Shown::stream(*layer));
        let names = std::iter::once(HIDDEN.to_string()).chain(streams);
        Extent::concat(names.map(|name| Part::new(&name, &[width])).collect())
    }

    fn stream(layer: usize) -> String {
        format!("stream {layer}")
    }
}

const HIDDEN: &str = "hidden";

/// What is written down of a teacher, window by window, for trainings that read it as an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    Targets(TopK),
    Shown(Shown),
}

impl Written {
    /// Its columns at a position.
    pub fn columns(&self, teacher: &ModelDesc) -> Extent {
        match self {
            Written::Targets(targets) => targets.columns(),
            Written::Shown(shown) => shown.columns(teacher),
        }
    }

    /// What the input of a graph that holds it is called.
    pub fn input(&self) -> String {
        match self {
            Written::Targets(targets) => targets.input(),
            Written::Shown(_) => format!("{TEACHER} {self}"),
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Written::Targets(targets) => targets.fmt(f),
            Written::Shown(Shown { layers }) if layers.is_empty() => f.write_str("hidden states"),
            Written::Shown(Shown { layers }) => write!(f, "hidden states and streams {layers:?}"),
        }
    }
}

/// The teacher of a training.
#[derive(Clone, Copy)]
pub enum Beside<'a> {
    /// It runs in the same graph.
    Running(&'a ModelDesc),
    /// What is read of it comes in ([`Shown`]), but for its head.
    Written(&'a ModelDesc),
}

/// The teacher's values in a graph of training.
struct Teacher {
    hidden: ValueId,
    head: ValueId,
    /// After each layer.
    streams: BTreeMap<usize, ValueId>,
}

impl Teacher {
    fn new(
        b: &mut Builder,
        beside: Beside,
        objective: &Objective,
        tokens: ValueId,
        sequence: usize,
    ) -> Teacher {
        b.scope = format!("{TEACHER}/");
        let teacher = match beside {
            Beside::Running(desc) => {
                let Ends { streams, hidden, head } = ends(b, desc, tokens);
                Teacher { hidden, head, streams: streams.into_iter().skip(1).enumerate().collect() }
            }
            Beside::Written(desc) => {
                let shown = objective.shown().unwrap_or(Shown { layers: BTreeSet::new() });
                let shape = vec![Extent::of(Dim::Sequence, sequence), shown.columns(desc)];
                let all = b.input(&Written::Shown(shown.clone()).input(), shape);
                let stream = |layer: &usize| (*layer, b.part(all, &Shown::stream(*layer)));
                let streams = shown.layers.iter().map(stream).collect();
                Teacher { hidden: b.part(all, HIDDEN), head: desc.family().head(b, desc), streams }
            }
        };
        b.scope.clear();
        teacher
    }
}

/// A graph of training, and where its losses are.
pub struct Training {
    pub graph: Graph,
    pub readings: Vec<Reading>,
}

/// One column of an output: the losses of a term at every position of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The term's place in the objective.
    pub term: usize,
    pub output: String,
    pub column: usize,
    /// What the sum of the column is multiplied by, so that the term is the sum of its readings.
    pub scale: f64,
}

/// Forward and backward of one sample of an update of `batch` samples. The gradients of the student's weights
/// are added up, those of the mean over all samples of the update.
pub fn training(
    student: &ModelDesc,
    teacher: Option<&ModelDesc>,
    objective: &Objective,
    sequence: usize,
    batch: usize,
    recompute: Recompute,
) -> Result<Training, ShapeError> {
    training_beside(student, teacher.map(Beside::Running), objective, sequence, batch, recompute)
}

/// The same beside a teacher that need not run.
pub fn training_beside(
    student: &ModelDesc,
    teacher: Option<Beside>,
    objective: &Objective,
    sequence: usize,
    batch: usize,
    recompute: Recompute,
) -> Result<Training, ShapeError> {
    let mut b = Builder::new();
    let tokens = b.tokens(sequence);
    let teacher = teacher.filter(|_| objective.reads_teacher());
    let beside = teacher.map(|teacher| Teacher::new(&mut b, teacher, objective, tokens, sequence));
    let own = ends(&mut b, student, tokens);
    b.layer = None;
    let (mut seeds, mut readings) = (Vec::new(), Vec::new());
    let (terms, places) = objective.head(sequence, batch, student.size(Dim::VocabSize));
    if !terms.is_empty() {
        let teacher = beside.as_ref().filter(|_| reads_teacher(&terms));
        let mut read = vec![own.hidden, own.head, tokens];
        read.extend(teacher.into_iter().flat_map(|t| [t.hidden, t.head]));
        for targets in targets_of(&terms) {
            let shape = vec![Extent::of(Dim::Sequence, sequence), targets.columns()];
            read.push(b.input(&targets.input(), shape));
        }
        read.push(b.gradient(own.head));
        let scales: Vec<f64> = terms.iter().map(|term| term.scale * batch as f64).collect();
        let loss = b.add_op(Op::HeadLoss { terms }, &read);
        seeds.push((own.hidden, b.part(loss, "hidden")));
        let losses = b.part(loss, "losses");
        b.output(output::LOSSES, losses);
        let output = || output::LOSSES.to_string();
        let columns = places.iter().zip(scales).enumerate();
        readings.extend(columns.map(|(column, (&term, scale))| Reading {
            term,
            output: output(),
            column,
            scale,
        }));
    }
    for (term, (weight, wanted)) in objective.terms.iter().enumerate() {
        let (Wanted::Streams(loss, pairs), Some(teacher)) = (wanted, &beside) else { continue };
        let scale = 1.0 / (wanted.positions(sequence) * pairs.len()) as f64;
        for &(layer, of_teacher) in pairs {
            let (x, y) = (own.streams.get(layer + 1).copied(), teacher.streams.get(&of_teacher).copied());
            let (Some(x), Some(y)) = (x, y) else {
                let message = format!("there is no layer {layer} beside layer {of_teacher} of the teacher");
                return Err(ShapeError { op: "stream_loss", message });
            };
            let op = Op::StreamLoss { loss: *loss, scale: weight * scale / batch as f64 };
            let value = b.add_op(op, &[x, y]);
            seeds.push((x, b.part(value, "hidden")));
            let losses = b.part(value, "losses");
            let output = format!("{} {term}.{layer}", output::LOSSES);
            b.output(&output, losses);
            readings.push(Reading { term, output, column: 0, scale });
        }
    }
    autodiff::reverse(&mut b, &seeds, recompute)?;
    Ok(Training { graph: b.finish()?, readings })
}

/// Parts of an update whose gradients are summed side by side. Part of what is computed, so it follows from
/// shapes alone: where gradients are large, fewer sums of them are held.
pub fn lanes(params: u64, batch: usize) -> usize {
    let most = match params {
        0..=16_777_216 => 4,
        16_777_217..=1_073_741_824 => 2,
        _ => 1,
    };
    most.min(batch)
}

/// A teacher over a sample: what is written down of it at every position.
pub fn written(teacher: &ModelDesc, sequence: usize, written: &Written) -> Result<Graph, ShapeError> {
    let mut b = Builder::new();
    let tokens = b.tokens(sequence);
    let Ends { streams, hidden, head } = ends(&mut b, teacher, tokens);
    b.layer = None;
    let value = match written {
        Written::Targets(targets) => b.add_op(Op::TopK(*targets), &[hidden, head]),
        Written::Shown(shown) => {
            let mut parts = vec![hidden];
            parts.extend(shown.layers.iter().filter_map(|layer| streams.get(layer + 1)));
            b.add_op(Op::Concat { extent: shown.columns(teacher) }, &parts)
        }
    };
    b.output(output::WRITTEN, value);
    b.finish()
}
