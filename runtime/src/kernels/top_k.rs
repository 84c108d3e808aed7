//! The k likeliest tokens of p = softmax(logits / T) with ln p, and the sum of p over all others. Logits pass in
//! chunks of the vocabulary; of what was seen so far a position holds its best, two sums of exponentials, of all
//! and of the tokens that are out of the question, and no logits. The second is a sum of its own because 1 - P
//! would have no digits where P is near 1.

mod shader;

use super::logits::{self, CHUNK, LogSumExp, by_chunks, positions};
use super::math::wide;
use super::parallel::{for_each, scratch_size};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::{Op, TopK};

pub const KERNEL: Kernel =
    Kernel { name: "top_k", version: 1, cpu, reference, scratch, tolerance: 1e-5, shaders: shader::KERNEL };

fn targets(op: &Op) -> TopK {
    match op {
        Op::TopK(targets) => *targets,
        _ => panic!("bug: `{}` makes no targets", op.name()),
    }
}

fn scratch(op: &Op, operands: &[(usize, usize)]) -> usize {
    let rows = operands.first().map_or(0, |hidden| positions(hidden.0).min(hidden.0));
    let running = size_of::<Running>() + room(targets(op).k) * size_of::<(f32, u32)>();
    logits::scratch(&operands[..operands.len().min(1)]) + rows * running + scratch_size(CHUNK)
}

/// Candidates to a position, before those that are too many are left out.
fn room(k: usize) -> usize {
    2 * k.max(CHUNK) + CHUNK
}

fn cpu(call: Call) {
    let targets = targets(call.op);
    let (hidden, head) = (call.f32(0), call.f32(1));
    let out = call.out_f32();
    let (block, columns) = (positions(out.rows()), out.cols());
    for_each(out.blocks(block, columns), |(first, _, out)| {
        likeliest(targets, hidden.block(first, out.rows(), 0, hidden.cols()), head, out);
    });
}

/// What one position has seen of the vocabulary.
struct Running {
    total: LogSumExp,
    /// Of the tokens that are not among the best.
    rest: LogSumExp,
    /// Logits over T, with their tokens; at least the k best.
    best: Vec<(f32, u32)>,
    /// The k-th best of some time before: what is not above it is not among the best.
    bar: Option<f32>,
}

impl Running {
    fn new(k: usize) -> Running {
        let best = Vec::with_capacity(room(k));
        Running { total: LogSumExp::EMPTY, rest: LogSumExp::EMPTY, best, bar: None }
    }

    /// The logits over T of the tokens from `start` on; overwritten.
    #[inline(always)]
    fn add(&mut self, k: usize, start: usize, logits: &mut [f32]) {
        self.total.add(logits);
        for (j, x) in logits.iter_mut().enumerate() {
            if self.bar.is_none_or(|bar| *x > bar) {
                self.best.push((*x, (start + j) as u32));
                *x = f32::NEG_INFINITY;
            }
        }
        self.leave_out(logits);
        if self.best.len() > 2 * k.max(CHUNK) {
            self.settle(k);
        }
    }

    #[inline(always)]
    fn leave_out(&mut self, logits: &[f32]) {
        if logits.iter().any(|x| *x != f32::NEG_INFINITY) {
            self.rest.add(logits);
        }
    }

    /// Leaves no more than k.
    fn settle(&mut self, k: usize) {
        // Tokens differ, so that the order is whole.
        self.best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let over: Vec<f32> = self.best.drain(k.min(self.best.len())..).map(|(x, _)| x).collect();
        self.leave_out(&over);
        self.bar = self.best.last().map(|(x, _)| *x).filter(|_| self.best.len() == k);
    }

    fn write(mut self, k: usize, out: &mut [f32]) {
        self.settle(k);
        let total = self.total.value();
        let (ids, rest) = out.split_at_mut(k);
        let (log_p, rest) = rest.split_at_mut(k);
        for ((x, token), (id, log_p)) in self.best.iter().zip(ids.iter_mut().zip(log_p)) {
            (*id, *log_p) = (*token as f32, (f64::from(*x) - total) as f32);
        }
        let share = if self.rest.sum == 0.0 { 0.0 } else { (self.rest.value() - total).exp() };
        rest.fill(share as f32);
    }
}

fn likeliest(TopK { k, temperature }: TopK, hidden: View, head: View, mut out: ViewMut) {
    let rate = (1.0 / temperature) as f32;
    let mut running: Vec<Running> = (0..hidden.rows()).map(|_| Running::new(k)).collect();
    by_chunks([[hidden, head]], |start, [logits]| {
        let mut scaled = [0.0f32; CHUNK];
        wide(
            #[inline(always)]
            || {
                for (i, running) in running.iter_mut().enumerate() {
                    let row = logits.row(i);
                    let scaled = &mut scaled[..row.len()];
                    for (scaled, x) in scaled.iter_mut().zip(row) {
                        // Of two zeros neither is above the other.
                        *scaled = x * rate + 0.0;
                    }
                    running.add(k, start, scaled);
                }
            },
        )
    });
    for (i, running) in running.into_iter().enumerate() {
        running.write(k, out.row(i));
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let TopK { k, temperature } = targets(op);
    let mut out = Vec::new();
    for t in 0..operands[0].rows() {
        let logits = logits::reference(operands[0].row(t), &operands[1]);
        let logits: Vec<f64> = logits.iter().map(|x| x / temperature).collect();
        let total = logits::reference_log_sum_exp(&logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        out.extend(order[..k].iter().map(|v| *v as f64));
        out.extend(order[..k].iter().map(|v| logits[*v] - total));
        out.push(order[k..].iter().map(|v| (logits[*v] - total).exp()).sum());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Arg;
    use super::super::Out;
    use super::*;
    use crate::device::vulkan::once;
    use crate::testing;

    /// One position of one channel, whose logits are the head; and by shaders, where there is a device for them.
    fn compute(targets: TopK, head: &[f32]) -> Vec<Vec<f32>> {
        let (op, vocab, columns) = (Op::TopK(targets), head.len(), 2 * targets.k + 1);
        let mut out = vec![f32::NAN; columns];
        let args = [Arg::F32(View::new(&[1.0], 1, 1, 1)), Arg::F32(View::new(head, vocab, 1, 1))];
        let out_view = Out::F32(ViewMut::new(&mut out, 1, columns, columns));
        cpu(Call { op: &op, args: &args, out: out_view, changed: None });
        let mut all = vec![out];
        if let Some(gpu) = testing::vulkan(None) {
            let given = [(&[1.0][..], 1), (head, vocab)];
            let given = given.map(|(data, rows)| once::Given::F32 { data, rows, cols: 1, stride: 1 });
            let value =
                once::once(gpu, crate::shader::Precision::F32, shader::KERNEL, &op, &given, (1, columns))
                    .unwrap();
            all.push(value.iter().map(|x| *x as f32).collect());
        }
        all
    }

    #[test]
    fn of_equals_the_lower_ids_are_taken() {
        let mut head = vec![1.0f32; 1500];
        (head[3], head[700], head[1400], head[900]) = (5.0, 5.0, 5.0, -0.0);
        for row in compute(TopK { k: 5, temperature: 1.0 }, &head) {
            assert_eq!(row[..5], [3.0, 700.0, 1400.0, 0.0, 1.0]);
        }
        for row in compute(TopK { k: 3, temperature: 1.0 }, &[-0.0, 0.0, -0.0, 0.0]) {
            assert_eq!(row[..3], [0.0, 1.0, 2.0]);
        }
    }

    /// One position whose logits are the head itself: of a head in any order, and of its worst one.
    #[test]
    fn what_is_left_out_is_summed_with_its_digits() {
        for (k, vocab, temperature) in [(1, 2000, 0.5), (16, 5000, 2.0), (64, 5000, 1.0), (700, 5000, 1.0)] {
            let drawn = |i: usize| ((i * 2_654_435_761) % 100_003) as f32 / 4000.0;
            for (name, head) in [
                ("any", (0..vocab).map(drawn).collect::<Vec<f32>>()),
                ("rising", (0..vocab).map(|i| i as f32 / 200.0).collect()),
                ("sure", (0..vocab).map(|i| if i == 4 { 30.0 } else { drawn(i) / 10.0 }).collect()),
            ] {
                let targets = TopK { k, temperature };
                let wide = |data: &[f32], rows, cols| Exact::F64 {
                    data: data.iter().map(|x| f64::from(*x)).collect(),
                    rows,
                    cols,
                };
                let exact = reference(&Op::TopK(targets), &[wide(&[1.0], 1, 1), wide(&head, vocab, 1)]);
                for row in compute(targets, &head) {
                    assert!(row[..k].iter().zip(&exact).all(|(id, e)| f64::from(*id) == *e), "{name} {k}");
                    for (log_p, e) in row[k..2 * k].iter().zip(&exact[k..]) {
                        let close = (f64::from(*log_p) - e).abs() < 3e-7 * e.abs().max(0.1);
                        assert!(close, "{name} {k}: {log_p} for {e}");
                    }
                    let (rest, e) = (f64::from(row[2 * k]), exact[2 * k]);
                    assert!((rest - e).abs() < 3e-6 * e, "{name} {k}: the rest is {rest:e}, exactly {e:e}");
                }
            }
        }
    }

    #[test]
    fn a_logit_that_is_not_a_number_shows() {
        let mut head = vec![1.0f32; 600];
        head[400] = f32::NAN;
        for row in compute(TopK { k: 2, temperature: 1.0 }, &head) {
            assert!(row[2..4].iter().all(|log_p| log_p.is_nan()));
        }
    }

    #[test]
    fn the_whole_vocabulary_leaves_nothing() {
        let head: Vec<f32> = (0..300).map(|i| (i % 7) as f32).collect();
        for row in compute(TopK { k: 300, temperature: 1.0 }, &head) {
            assert_eq!(row[600], 0.0);
            let sum: f64 = row[300..600].iter().map(|x| f64::from(*x).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }
}
