//! The head of a language model with the losses of its training: z = hidden head^T, the losses of z, and with
//! G = dloss/dz, dhidden = G head and dhead += G^T hidden.
//!
//! Positions pass in chunks, so that the logits of at most [`LOGITS`] elements a model are there at a time; G
//! takes the place of z. Losses and G of one position are in [`position`].

mod position;
mod shader;
mod tail;
#[cfg(test)]
mod tests;

use super::math::wide;
use super::parallel::{for_each, row_block, with_buffer};
use super::product::{Factor, products, products_scratch};
use super::{Call, Exact, Kernel, View, ViewMut, logits};
use minic_compiler::graph::{HeadLoss, HeadTerm, Op, TopK, reads_teacher, targets_of};
use position::{LANES, Position};
use std::collections::BTreeMap;
use tail::Tail;

pub const KERNEL: Kernel = Kernel {
    name: "head_loss",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-5,
    shaders: shader::KERNEL,
};

/// Most logits of a model at a time, 16 MiB: they stay in the last cache.
const LOGITS: usize = 1 << 22;

/// Positions that are a chunk however large the vocabulary, because the weight and its gradient come from
/// memory for each chunk: 128 MiB of logits for 131072 tokens.
const POSITIONS: usize = 256;

fn terms(op: &Op) -> &[HeadTerm] {
    match op {
        Op::HeadLoss { terms } => terms,
        _ => panic!("bug: `{}` is no head with losses", op.name()),
    }
}

/// Elements from one row of logits to the next: an odd number of cache lines, because rows that lie a power of two
/// apart drive each other out of the cache.
fn stride(vocab: usize) -> usize {
    (vocab.div_ceil(LANES) | 1) * LANES
}

/// Logits of a row with those that fill up its last vector.
fn whole(vocab: usize) -> usize {
    vocab.next_multiple_of(LANES)
}

/// Positions to a chunk, nearly the same number in each.
fn chunk(positions: usize, vocab: usize) -> usize {
    let most = (LOGITS / stride(vocab)).max(POSITIONS);
    positions.div_ceil(positions.div_ceil(most).max(1))
}

/// Elements of the logits of one chunk.
fn logits_len(terms: &[HeadTerm], chunk: usize, vocab: usize) -> usize {
    chunk * stride(vocab) * (1 + usize::from(reads_teacher(terms)))
}

/// The logits of one call, and the space of the deepest product. A worker that waits for a product may begin
/// another call; but calls that run at a time are no more than workers, for each of which this is counted.
fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let [(positions, width), (vocab, _), ..] = *operands else { return 0 };
    let teacher = operands.get(3).map_or(0, |hidden| hidden.1);
    let depth = width.max(teacher).max(vocab).max(positions);
    let tails = targets_of(terms(op)).map(|targets| Tail::bytes(whole(vocab), targets.k)).sum::<usize>();
    (logits_len(terms(op), chunk(positions, vocab), vocab) + LANES) * size_of::<f32>()
        + tails
        + products_scratch(depth, width.max(vocab))
}

fn cpu(call: Call) {
    let (positions, vocab) = (call.f32(0).rows(), call.f32(1).rows());
    let chunk = chunk(positions, vocab);
    // Not the worker's own scratch: that is taken by the products, for which this waits.
    let len = logits_len(terms(call.op), chunk, vocab) + LANES;
    with_buffer(len, |space| by_chunks(call, chunk, space));
}

fn by_chunks(mut call: Call, chunk: usize, space: &mut [f32]) {
    let terms = terms(call.op);
    let (hidden, head, tokens) = (call.f32(0), call.f32(1), call.tokens(2));
    let teacher = reads_teacher(terms).then(|| [call.f32(3), call.f32(4)]);
    let targets: Vec<View> =
        (first_targets(terms)..).zip(targets_of(terms)).map(|(i, _)| call.f32(i)).collect();
    let mut gradient = call.changed();
    let out = call.out_f32();
    let (vocab, width, columns) = (head.rows(), hidden.cols(), out.cols());

    let len = logits_len(terms, chunk, vocab);
    let start = space.as_ptr().align_offset(LANES * size_of::<f32>()).min(LANES);
    let (student_logits, teacher_logits) = space[start..start + len].split_at_mut(chunk * stride(vocab));

    for (first, _, mut out) in out.blocks(chunk, columns) {
        let n = out.rows();
        let hidden = hidden.block(first, n, 0, width);
        let (student, compared) = (&mut *student_logits, &mut *teacher_logits);
        let (student, compared) = rayon::join(
            move || project(hidden, head, student),
            move || {
                teacher
                    .map(|[hidden, head]| project(hidden.block(first, n, 0, hidden.cols()), head, compared))
            },
        );
        let losses = out.block(0, n, width, terms.len());
        let given = Given { targets: &targets, tokens, first };
        differentiate(Position::new(terms, vocab), student, compared, given, losses);

        let slopes = View::new(student_logits, n, vocab, stride(vocab));
        let (by_hidden, by_head) = (out.block(0, n, 0, width), gradient.block(0, vocab, 0, width));
        rayon::join(
            || products(Factor::of(slopes), Factor::of(head), by_hidden, false, |_, _, _| {}),
            || products(Factor::transposed(slopes), Factor::of(hidden), by_head, true, |_, _, _| {}),
        );
    }
}

/// The operand with the targets of the first term that has any.
fn first_targets(terms: &[HeadTerm]) -> usize {
    3 + 2 * usize::from(reads_teacher(terms))
}

/// What the positions of a chunk are compared with, beside the teacher's logits.
#[derive(Clone, Copy)]
struct Given<'a> {
    /// Of all positions, one for each term that has them.
    targets: &'a [View<'a>],
    tokens: &'a [u32],
    /// The chunk's first position.
    first: usize,
}

/// logits = hidden head^T, as rows of whole vectors.
fn project<'a>(hidden: View, head: View, logits: &'a mut [f32]) -> ViewMut<'a> {
    let (rows, vocab) = (hidden.rows(), head.rows());
    let out = ViewMut::new(logits, rows, vocab, stride(vocab));
    products(Factor::of(hidden), Factor::transposed(head), out, false, |_, _, _| {});
    ViewMut::new(logits, rows, whole(vocab), stride(vocab))
}

/// Puts the losses of every position into `losses`, and the slopes of their weighed sum over the student's
/// logits.
fn differentiate(
    position: Position,
    student: ViewMut,
    teacher: Option<ViewMut>,
    given: Given,
    losses: ViewMut,
) {
    let (rows, cols, terms) = (row_block(student.cols()), student.cols(), losses.cols());
    let mut teacher = teacher.into_iter().flat_map(|teacher| teacher.blocks(rows, cols));
    let mut losses = losses.blocks(rows, terms).into_iter();
    let tasks = student.blocks(rows, cols).into_iter();
    let tasks = tasks.map(|student| (student, teacher.next(), losses.next())).collect();
    for_each(tasks, |((first, _, mut student), mut teacher, mut losses)| {
        let mut position = position.clone();
        for i in 0..student.rows() {
            let losses = losses.as_mut().map_or(&mut [][..], |(_, _, losses)| losses.row(i));
            let teacher = teacher.as_mut().map(|(_, _, teacher)| teacher.row(i));
            let (student, at) = (student.row(i), given.first + first + i);
            let (target, targets) = (given.tokens.get(at + 1).copied(), |n: usize| given.targets[n].row(at));
            wide(
                #[inline(always)]
                || position.differentiate(student, teacher, targets, target, losses),
            );
        }
    });
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let terms = terms(op);
    let (hidden, head, tokens) = (&operands[0], &operands[1], operands[2].tokens());
    let mut gradient = operands[operands.len() - 1].data().to_vec();
    let mut out = Vec::new();
    for t in 0..hidden.rows() {
        let student = logits::reference(hidden.row(t), head);
        let teacher = reads_teacher(terms).then(|| logits::reference(operands[3].row(t), &operands[4]));
        let mut slopes = vec![0.0; head.rows()];
        let mut losses = Vec::new();
        let mut targets = operands[first_targets(terms)..].iter();
        for HeadTerm { weight, scale, loss } in terms {
            let target = tokens.get(t + 1).map(|token| *token as usize);
            let targets = loss.targets().and_then(|_| targets.next()).map(|targets| targets.row(t));
            let beside = targets.or(teacher.as_deref());
            let (value, by_logits) = reference_loss(*loss, &student, beside, target);
            losses.push(value);
            slopes.iter_mut().zip(by_logits).for_each(|(sum, slope)| *sum += weight * scale * slope);
        }
        let by_hidden = |e: usize| slopes.iter().enumerate().map(|(v, s)| s * head.row(v)[e]).sum::<f64>();
        out.extend((0..hidden.cols()).map(by_hidden));
        out.extend(losses);
        for (v, slope) in slopes.iter().enumerate() {
            for (e, x) in hidden.row(t).iter().enumerate() {
                gradient[v * hidden.cols() + e] += slope * x;
            }
        }
    }
    out.extend(gradient);
    out
}

/// The loss of one position, and its gradient by the student's logits. `teacher` are logits, or targets where the
/// loss reads them.
fn reference_loss(
    loss: HeadLoss,
    student: &[f64],
    teacher: Option<&[f64]>,
    target: Option<usize>,
) -> (f64, Vec<f64>) {
    let log_softmax = |logits: &[f64], temperature: f64| -> Vec<f64> {
        let logits: Vec<f64> = logits.iter().map(|x| x / temperature).collect();
        let total = logits::reference_log_sum_exp(&logits);
        logits.iter().map(|x| x - total).collect()
    };
    let kl = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum::<f64>();
    let both = |temperature: f64| {
        (log_softmax(teacher.unwrap_or(student), temperature), log_softmax(student, temperature))
    };
    match loss {
        HeadLoss::ForwardKl { temperature } => {
            let (p, q) = both(temperature);
            let slopes = p.iter().zip(&q).map(|(p, q)| temperature * (q.exp() - p.exp())).collect();
            (temperature.powi(2) * kl(&p, &q), slopes)
        }
        HeadLoss::TopK(TopK { k, temperature }) => {
            let q = log_softmax(student, temperature);
            let (ids, log_p) = teacher.unwrap_or_default().split_at(k);
            let (log_p, rest) = (&log_p[..k], log_p[k]);
            let known: BTreeMap<usize, f64> =
                ids.iter().map(|id| *id as usize).zip(log_p.iter().copied()).collect();
            let others = |v: &usize| !known.contains_key(v);
            let share = (0..q.len()).filter(others).map(|v| q[v].exp()).sum::<f64>();
            let in_rest = if rest > 0.0 { rest * (rest / share).ln() } else { 0.0 };
            let value = known.iter().map(|(v, p)| p.exp() * (p - q[*v])).sum::<f64>() + in_rest;
            // The sum of what is given is 1 up to its rounding.
            let sum = known.values().map(|p| p.exp()).sum::<f64>() + rest;
            let slope = |v: usize| match known.get(&v) {
                Some(p) => temperature * (sum * q[v].exp() - p.exp()),
                None => temperature * q[v].exp() * (sum - rest / share),
            };
            (temperature.powi(2) * value, (0..q.len()).map(slope).collect())
        }
        HeadLoss::ReverseKl { temperature } => {
            let (p, q) = both(temperature);
            let mean = kl(&q, &p);
            let slopes = p.iter().zip(&q).map(|(p, q)| temperature * q.exp() * (q - p - mean)).collect();
            (temperature.powi(2) * mean, slopes)
        }
        HeadLoss::Js { beta, temperature } => {
            let (p, q) = both(temperature);
            let mixed = p.iter().zip(&q).map(|(p, q)| (beta * p.exp() + (1.0 - beta) * q.exp()).ln());
            let m: Vec<f64> = mixed.collect();
            let mean = kl(&q, &m);
            let slope = |(q, m): (&f64, &f64)| temperature * (1.0 - beta) * q.exp() * (q - m - mean);
            let value = beta * kl(&p, &m) + (1.0 - beta) * mean;
            (temperature.powi(2) * value, q.iter().zip(&m).map(slope).collect())
        }
        HeadLoss::CrossEntropy => {
            let Some(target) = target else { return (0.0, vec![0.0; student.len()]) };
            let q = log_softmax(student, 1.0);
            let slopes = q.iter().enumerate().map(|(v, q)| q.exp() - f64::from(u8::from(v == target)));
            (-q[target], slopes.collect())
        }
    }
}
