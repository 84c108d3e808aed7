//! The losses of one position, and their gradient by its logits. With the student's logits z, the teacher's t,
//! p = softmax(t / T), q = softmax(z / T), and m = beta p + (1 - beta) q:
//!
//! - forward:        T^2 KL(p || q)                                   T (q - p)
//! - forward, top k: see [`super::tail`]
//! - reverse:        T^2 KL(q || p)                                   T q (ln(q / p) - KL(q || p))
//! - JS:             T^2 (beta KL(p || m) + (1 - beta) KL(q || m))    T (1 - beta) q (ln(q / m) - KL(q || m))
//! - cross entropy:  -ln q[target]                                    q - [target]
//!
//! Sums are f64, of f32 terms. KL(a || b) is the sum of a (b/a - 1 - ln(b/a)), in which no term is below zero:
//! distributions that are nearly the same cost no digits, and errors of ln(b/a) common to all terms fall out.

use super::super::math::{exp, maximum, softplus, sum};
use super::tail::Tail;
use minic_compiler::graph::{HeadLoss, HeadTerm, targets_of};

/// The losses of positions, one after the other.
pub struct Position<'a> {
    terms: &'a [HeadTerm],
    /// One a term.
    pairs: Vec<Pair>,
    /// One a term with targets.
    tails: Vec<Tail>,
}

/// Logits whose slopes are added up before they take the place of the logits.
const BLOCK: usize = 256;

impl<'a> Position<'a> {
    pub fn new(terms: &'a [HeadTerm]) -> Position<'a> {
        let tails = targets_of(terms).map(|_| Tail::default()).collect();
        Position { terms, pairs: Vec::with_capacity(terms.len()), tails }
    }

    /// Writes the losses, and in place of the student's logits the gradient of their weighed sum. `targets` are
    /// those of the n-th term that has any.
    #[inline(always)]
    pub fn differentiate<'t>(
        &mut self,
        student: &mut [f32],
        teacher: Option<&[f32]>,
        targets: impl Fn(usize) -> &'t [f32],
        target: Option<u32>,
        losses: &mut [f32],
    ) {
        // Without a teacher nothing of it is used; the student takes its place.
        let logits = teacher.unwrap_or(&*student);
        self.pairs.clear();
        let tops = [maximum(student), maximum(logits)];
        let mut tails = self.tails.iter_mut().enumerate();
        for (term, loss) in self.terms.iter().zip(losses) {
            let tail = term.loss.targets().and_then(|wanted| Some((wanted, tails.next()?)));
            let (pair, value) = match tail {
                Some((wanted, (n, tail))) => tail.loss(term, wanted, student, tops[0], targets(n)),
                None => {
                    let mut pair = Pair::of(term.loss, student, logits, tops);
                    let value = pair.loss(term.loss, student, logits, target);
                    (pair, value)
                }
            };
            *loss = value as f32;
            self.pairs.push(pair);
        }
        let mut start = 0;
        while start < student.len() {
            let end = student.len().min(start + BLOCK);
            let mut slopes = [0.0f32; BLOCK];
            let slopes = &mut slopes[..end - start];
            let logits = &teacher.unwrap_or(&*student)[start..end];
            let mut tails = self.tails.iter();
            for (term, pair) in self.terms.iter().zip(&self.pairs) {
                let tail = term.loss.targets().and_then(|_| tails.next());
                let logits = tail.map_or(logits, |tail| &tail.logits[start..end]);
                pair.slopes(term, &student[start..end], logits, target, slopes);
            }
            student[start..end].copy_from_slice(slopes);
            start = end;
        }
        for tail in &self.tails {
            tail.add_kept(student);
        }
        let targets = self.terms.iter().filter(|term| term.loss == HeadLoss::CrossEntropy);
        if let Some(slope) = target.and_then(|target| student.get_mut(target as usize)) {
            targets.for_each(|term| *slope -= (term.weight * term.scale) as f32);
        }
    }
}

/// The softmax of one row at a temperature.
#[derive(Clone, Copy)]
pub struct Softmax {
    max: f32,
    /// 1 / T
    rate: f32,
    /// 1 / sum(e^((x - max) / T))
    share: f32,
    pub log_sum_exp: f64,
}

impl Softmax {
    #[inline(always)]
    fn of(logits: &[f32], max: f32, rate: f32) -> Softmax {
        let total = sum(logits, logits, |x, _| f64::from(exp((x - max) * rate)));
        let log_sum_exp = f64::from(max) * f64::from(rate) + total.ln();
        Softmax { max, rate, share: (1.0 / total) as f32, log_sum_exp }
    }

    #[inline(always)]
    pub fn at(&self, x: f32) -> f32 {
        exp((x - self.max) * self.rate) * self.share
    }

    /// ln of [`Softmax::at`]
    #[inline(always)]
    pub fn log(&self, x: f32) -> f64 {
        f64::from(x) * f64::from(self.rate) - self.log_sum_exp
    }
}

/// Student and teacher at the temperature of one term; in place of a teacher that is known by targets, the rest
/// of the student.
pub struct Pair {
    pub student: Softmax,
    pub teacher: Softmax,
    /// ln(q / p) = (z - t) / T + offset
    offset: f32,
    /// What the slopes of the position are moved by so that their sum is zero; beside targets, R - r.
    pub mean: f32,
}

impl Pair {
    #[inline(always)]
    pub fn of(loss: HeadLoss, student: &[f32], teacher: &[f32], tops: [f32; 2]) -> Pair {
        let temperature = match loss {
            HeadLoss::ForwardKl { temperature } | HeadLoss::ReverseKl { temperature } => temperature,
            HeadLoss::Js { temperature, .. } => temperature,
            HeadLoss::TopK(targets) => targets.temperature,
            HeadLoss::CrossEntropy => 1.0,
        };
        let rate = (1.0 / temperature) as f32;
        let student = Softmax::of(student, tops[0], rate);
        let teacher = match loss {
            HeadLoss::CrossEntropy => student,
            _ => Softmax::of(teacher, tops[1], rate),
        };
        let offset = (teacher.log_sum_exp - student.log_sum_exp) as f32;
        Pair { student, teacher, offset, mean: 0.0 }
    }

    /// The sum of f(p, q, ln(q / p)).
    #[inline(always)]
    fn sum(&self, student: &[f32], teacher: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f64 {
        sum(student, teacher, |z, t| {
            let d = (z - t) * self.student.rate + self.offset;
            f64::from(f(self.teacher.at(t), self.student.at(z), d))
        })
    }

    /// The loss; sets the mean.
    #[inline(always)]
    fn loss(&mut self, loss: HeadLoss, student: &[f32], teacher: &[f32], target: Option<u32>) -> f64 {
        match loss {
            HeadLoss::ForwardKl { temperature } => {
                temperature * temperature * self.sum(student, teacher, divergence)
            }
            HeadLoss::ReverseKl { temperature } => {
                let kl = self.sum(student, teacher, |p, q, d| divergence(q, p, -d));
                self.mean = kl as f32;
                temperature * temperature * kl
            }
            HeadLoss::Js { beta, temperature } => {
                let mixture = Mixture::new(beta);
                let of_teacher = self.sum(student, teacher, |p, q, d| {
                    let (m, by_p, _) = mixture.at(p, q, d);
                    divergence(p, m, by_p)
                });
                let of_student = self.sum(student, teacher, |p, q, d| {
                    let (m, _, by_q) = mixture.at(p, q, d);
                    divergence(q, m, by_q)
                });
                self.mean = of_student as f32;
                temperature * temperature * (beta * of_teacher + (1.0 - beta) * of_student)
            }
            HeadLoss::CrossEntropy => target.map_or(0.0, |target| {
                let logit = student.get(target as usize).copied().unwrap_or(f32::NAN);
                self.student.log_sum_exp - f64::from(logit)
            }),
            HeadLoss::TopK(_) => panic!("bug: targets are compared by `Tail`"),
        }
    }

    /// Adds weight * scale * the slopes of some logits; of a cross entropy, without its target.
    #[inline(always)]
    fn slopes(
        &self,
        term: &HeadTerm,
        student: &[f32],
        teacher: &[f32],
        target: Option<u32>,
        slopes: &mut [f32],
    ) {
        let weight = term.weight * term.scale;
        match term.loss {
            HeadLoss::ForwardKl { temperature } => {
                self.add(temperature * weight, student, teacher, slopes, difference);
            }
            HeadLoss::TopK(targets) if self.mean != 0.0 => {
                let weight = targets.temperature * weight;
                self.add(weight, student, teacher, slopes, |of_rest, _, _| of_rest * self.mean);
            }
            HeadLoss::TopK(_) => {}
            HeadLoss::ReverseKl { temperature } => {
                self.add(temperature * weight, student, teacher, slopes, |_, q, d| q * (d - self.mean));
            }
            HeadLoss::Js { beta, temperature } => {
                let mixture = Mixture::new(beta);
                let weight = temperature * (1.0 - beta) * weight;
                self.add(weight, student, teacher, slopes, |p, q, d| {
                    q * (-mixture.at(p, q, d).2 - self.mean)
                });
            }
            HeadLoss::CrossEntropy if target.is_some() => {
                self.add(weight, student, teacher, slopes, |_, q, _| q);
            }
            HeadLoss::CrossEntropy => {}
        }
    }

    /// slopes += weight * f(p, q, ln(q / p))
    #[inline(always)]
    fn add(
        &self,
        weight: f64,
        student: &[f32],
        teacher: &[f32],
        slopes: &mut [f32],
        f: impl Fn(f32, f32, f32) -> f32,
    ) {
        let weight = weight as f32;
        for ((slope, &z), &t) in slopes.iter_mut().zip(student).zip(teacher) {
            let d = (z - t) * self.student.rate + self.offset;
            *slope += weight * f(self.teacher.at(t), self.student.at(z), d);
        }
    }
}

/// m = beta p + (1 - beta) q
struct Mixture {
    beta: f32,
    log_beta: f32,
    log_rest: f32,
}

impl Mixture {
    /// A beta of zero, which is allowed, is as good as one that leaves no trace in f32.
    #[inline(always)]
    fn new(beta: f64) -> Mixture {
        let log_beta = beta.max(1e-30).ln() as f32;
        Mixture { beta: beta as f32, log_beta, log_rest: (-beta).ln_1p() as f32 }
    }

    /// m, ln(m / p) and ln(m / q), from d = ln(q / p): with x = ln((1 - beta) q / (beta p)),
    /// ln(m / p) = ln beta + softplus(x) and ln(m / q) = ln(1 - beta) + softplus(-x).
    #[inline(always)]
    fn at(&self, p: f32, q: f32, d: f32) -> (f32, f32, f32) {
        let x = d + (self.log_rest - self.log_beta);
        let small = softplus(-x.abs());
        let positive = if x > 0.0 { x } else { 0.0 };
        let m = self.beta * p + (1.0 - self.beta) * q;
        (m, self.log_beta + positive + small, self.log_rest + (positive - x) + small)
    }
}

/// The logarithms of ratios below which they are used in place of the ratios.
const NEAR: f32 = 0.5;

/// (e^d - 1 - d) / d^2 for d up to [`NEAR`]
#[inline(always)]
fn excess(d: f32) -> f32 {
    let sum = 1.0 / 40320.0;
    let sum = sum * d + 1.0 / 5040.0;
    let sum = sum * d + 1.0 / 720.0;
    let sum = sum * d + 1.0 / 120.0;
    let sum = sum * d + 1.0 / 24.0;
    let sum = sum * d + 1.0 / 6.0;
    sum * d + 0.5
}

/// a (b/a - 1 - ln(b/a)), never below zero, with d = ln(b/a).
#[inline(always)]
pub fn divergence(a: f32, b: f32, d: f32) -> f32 {
    if d.abs() < NEAR { a * (d * d * excess(d)) } else { (b - a) - a * d }
}

/// q - p, with d = ln(q / p).
#[inline(always)]
pub fn difference(p: f32, q: f32, d: f32) -> f32 {
    if d.abs() < NEAR { p * (d + d * d * excess(d)) } else { q - p }
}
