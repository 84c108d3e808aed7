//! KL(teacher || student) and the mean squared difference of the logits, chunk by chunk of the vocabulary:
//! KL = sum(p (t - s)) - lse(t) + lse(s) with p = e^(t - lse(t)), where sum and both lse run along in f64.

use super::linear::product;
use super::math::{exp, wide};
use super::token_loss::{LogSumExp, VOCAB, logits_scratch, reference_log_sum_exp, reference_logits};
use super::{Call, Exact, Kernel, View, ViewMut};
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel { name: "divergence", cpu, reference, scratch, tolerance: 1e-5 };

/// Positions to a block.
const ROWS: usize = 64;

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    let depth = operands.iter().map(|operand| operand.1).max().unwrap_or(0);
    logits_scratch(depth) + 2 * ROWS * VOCAB * size_of::<f32>()
}

fn cpu(call: Call) {
    let [teacher, teacher_head, student, student_head] = [0, 1, 2, 3].map(|i| call.f32(i));
    let out = call.out_f64();
    let work = |(block, out): (usize, &mut [f64])| {
        let rows = out.len() / 2;
        let t = teacher.block(block * ROWS, rows, 0, teacher.cols());
        let s = student.block(block * ROWS, rows, 0, student.cols());
        divergences([t, teacher_head], [s, student_head], out);
    };
    out.par_chunks_mut(2 * ROWS).with_max_len(1).enumerate().for_each(work);
}

/// What one position has seen of the vocabulary.
#[derive(Clone, Copy)]
struct Running {
    teacher: LogSumExp,
    student: LogSumExp,
    /// sum(e^(t - max) (t - s)), max being that of the teacher.
    weighted: f64,
    squares: f64,
}

impl Running {
    const EMPTY: Running =
        Running { teacher: LogSumExp::EMPTY, student: LogSumExp::EMPTY, weighted: 0.0, squares: 0.0 };

    #[inline(always)]
    fn add(&mut self, teacher: &[f32], student: &[f32]) {
        let before = self.teacher.max();
        self.teacher.add(teacher);
        self.student.add(student);
        let max = self.teacher.max();
        let (mut weighted, mut squares) = ([0.0f64; 16], [0.0f64; 16]);
        for (t, s) in teacher.chunks(16).zip(student.chunks(16)) {
            for (i, (t, s)) in t.iter().zip(s).enumerate() {
                let difference = f64::from(*t) - f64::from(*s);
                weighted[i] += f64::from(exp(t - max)) * difference;
                squares[i] += difference * difference;
            }
        }
        self.weighted = self.weighted * f64::from(before - max).exp() + weighted.iter().sum::<f64>();
        self.squares += squares.iter().sum::<f64>();
    }

    fn kl(&self) -> f64 {
        self.weighted / self.teacher.sum() - self.teacher.value() + self.student.value()
    }
}

fn divergences(teacher: [View; 2], student: [View; 2], out: &mut [f64]) {
    let (rows, vocab) = (teacher[0].rows(), teacher[1].rows());
    let mut running = [Running::EMPTY; ROWS];
    let mut logits = vec![0.0f32; 2 * rows * VOCAB];
    let (of_teacher, of_student) = logits.split_at_mut(rows * VOCAB);
    for start in (0..vocab).step_by(VOCAB) {
        let n = VOCAB.min(vocab - start);
        for ([hidden, head], logits) in [(teacher, &mut *of_teacher), (student, &mut *of_student)] {
            product(
                hidden,
                head.block(start, n, 0, head.cols()),
                ViewMut::new(logits, rows, n, VOCAB),
                false,
            );
        }
        for (i, running) in running.iter_mut().enumerate().take(rows) {
            let at = i * VOCAB..i * VOCAB + n;
            wide(
                #[inline(always)]
                || running.add(&of_teacher[at.clone()], &of_student[at]),
            );
        }
    }
    for (running, out) in running.iter().zip(out.chunks_exact_mut(2)) {
        out[0] = running.kl();
        out[1] = running.squares / vocab as f64;
    }
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let mut out = Vec::new();
    for r in 0..operands[0].rows() {
        let teacher = reference_logits(operands[0].row(r), &operands[1]);
        let student = reference_logits(operands[2].row(r), &operands[3]);
        let (t_lse, s_lse) = (reference_log_sum_exp(&teacher), reference_log_sum_exp(&student));
        let pairs = || teacher.iter().zip(&student);
        let kl = pairs().map(|(t, s)| (t - t_lse).exp() * ((t - t_lse) - (s - s_lse))).sum();
        let mse = pairs().map(|(t, s)| (t - s) * (t - s)).sum::<f64>() / teacher.len() as f64;
        out.extend([kl, mse]);
    }
    out
}
