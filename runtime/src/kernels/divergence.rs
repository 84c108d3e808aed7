//! KL(teacher || student) and the mean squared difference of the logits, chunk by chunk of the vocabulary:
//! KL = sum(p (t - s)) - lse(t) + lse(s) with p = e^(t - lse(t)), where sum and both lse run along in f64.

mod shader;

use super::logits::{self, LogSumExp, by_chunks, positions};
use super::math::{exp, sum, wide};
use super::{Call, Exact, Kernel, View};
use minic_compiler::graph::Op;
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel {
    name: "divergence",
    version: 1,
    cpu,
    reference,
    scratch,
    tolerance: 1e-5,
    shaders: shader::KERNEL,
};

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    let hidden: Vec<(usize, usize)> = operands.iter().copied().step_by(2).collect();
    let running = hidden.first().map_or(0, |hidden| positions(hidden.0) * size_of::<Running>());
    logits::scratch(&hidden) + running
}

fn cpu(call: Call) {
    let [teacher, teacher_head, student, student_head] = [0, 1, 2, 3].map(|i| call.f32(i));
    let out = call.out_f64();
    let block = positions(out.len() / 2);
    let work = |(i, out): (usize, &mut [f64])| {
        let [t, s] =
            [teacher, student].map(|hidden| hidden.block(i * block, out.len() / 2, 0, hidden.cols()));
        divergences([t, teacher_head], [s, student_head], out);
    };
    out.par_chunks_mut(2 * block).with_max_len(1).enumerate().for_each(work);
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
        let before = self.teacher.max;
        self.teacher.add(teacher);
        self.student.add(student);
        let max = self.teacher.max;

        let difference = |t: f32, s: f32| f64::from(t) - f64::from(s);

        let weighted = sum(teacher, student, |t, s| f64::from(exp(t - max)) * difference(t, s));
        self.weighted = self.weighted * f64::from(before - max).exp() + weighted;
        self.squares += sum(teacher, student, |t, s| difference(t, s) * difference(t, s));
    }

    fn kl(&self) -> f64 {
        self.weighted / self.teacher.sum - self.teacher.value() + self.student.value()
    }
}

fn divergences(teacher: [View; 2], student: [View; 2], out: &mut [f64]) {
    let vocab = teacher[1].rows();
    let mut running = vec![Running::EMPTY; teacher[0].rows()];
    by_chunks([teacher, student], |_, [teacher, student]| {
        wide(
            #[inline(always)]
            || {
                for (i, running) in running.iter_mut().enumerate() {
                    running.add(teacher.row(i), student.row(i));
                }
            },
        )
    });
    for (running, out) in running.iter().zip(out.chunks_exact_mut(2)) {
        out[0] = running.kl();
        out[1] = running.squares / vocab as f64;
    }
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let mut out = Vec::new();
    for r in 0..operands[0].rows() {
        let teacher = logits::reference(operands[0].row(r), &operands[1]);
        let student = logits::reference(operands[2].row(r), &operands[3]);
        let (t_lse, s_lse) =
            (logits::reference_log_sum_exp(&teacher), logits::reference_log_sum_exp(&student));
        let pairs = || teacher.iter().zip(&student);
        let kl = pairs().map(|(t, s)| (t - t_lse).exp() * ((t - t_lse) - (s - s_lse))).sum();
        let mse = pairs().map(|(t, s)| (t - s) * (t - s)).sum::<f64>() / teacher.len() as f64;
        out.extend([kl, mse]);
    }
    out
}
