//! The graph of training: the student forwards and backwards, beside a teacher where a loss compares with one,
//! or beside targets that were made of the teacher before.

use super::{Ends, ends, output};
use crate::autodiff::{self, Recompute};
use crate::dim::{Dim, Extent};
use crate::graph::{
    Builder, Graph, HeadLoss, HeadTerm, Op, ShapeError, StreamLoss, TopK, reads_teacher, targets_of,
};
use crate::hir::LossTerm;
use crate::losses::Term;
use crate::model::ModelDesc;

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
    let mut b = Builder::new();
    let tokens = b.tokens(sequence);
    b.scope = format!("{TEACHER}/");
    let beside = teacher.filter(|_| objective.reads_teacher()).map(|desc| ends(&mut b, desc, tokens));
    b.scope.clear();
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
            let after = |ends: &Ends, layer: usize| ends.streams.get(layer + 1).copied();
            let (Some(x), Some(y)) = (after(&own, layer), after(teacher, of_teacher)) else {
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

/// What a teacher's targets at every position of a sample are made by.
pub fn targets(teacher: &ModelDesc, sequence: usize, targets: TopK) -> Result<Graph, ShapeError> {
    let mut b = Builder::new();
    let tokens = b.tokens(sequence);
    let Ends { hidden, head, .. } = ends(&mut b, teacher, tokens);
    b.layer = None;
    let value = b.add_op(Op::TopK(targets), &[hidden, head]);
    b.output(output::TARGETS, value);
    b.finish()
}
