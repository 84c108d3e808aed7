//! The losses of one position, and their gradient by its logits. With the student's logits z, the teacher's t,
//! p = softmax(t / T), q = softmax(z / T), and m = beta p + (1 - beta) q:
//!
//! - forward:        T^2 KL(p || q)                                   T (q - p)
//! - forward, top k: see [`super::tail`]
//! - reverse:        T^2 KL(q || p)                                   T q (ln(q / p) - KL(q || p))
//! - JS:             T^2 (beta KL(p || m) + (1 - beta) KL(q || m))    T (1 - beta) q (ln(q / m) - KL(q || m))
//! - cross entropy:  -ln q[target]                                    q - [target]
//!
//! KL(a || b) is the sum of a (b/a - 1 - ln(b/a)), in which no term is below zero: distributions that are nearly
//! the same cost no digits, and errors of ln(b/a) common to all terms fall out.
//!
//! Terms are f32, in as many sums as a vector has lanes; every [`BLOCK`] logits the sums are added up in f64.

use super::super::math::{exp, maximum, softplus};
use super::tail::Tail;
use minic_compiler::graph::{HeadLoss, HeadTerm, targets_of};

/// Rows of logits are whole vectors of this many elements, which is a cache line, too.
pub const LANES: usize = 16;

/// Logits to a block: few enough for sums in f32, and for their slopes to stay in the first-level cache until
/// all terms are in.
const BLOCK: usize = 16 * LANES;

/// What fills up the last vector of a row: the logit of a token of no probability.
pub const NEVER: f32 = -1e30;

/// The losses of positions, one after the other.
#[derive(Clone)]
pub struct Position<'a> {
    terms: &'a [HeadTerm],
    vocab: usize,
    /// One a term.
    pairs: Vec<Pair>,
    /// One a term with targets.
    tails: Vec<Tail>,
}

impl<'a> Position<'a> {
    pub fn new(terms: &'a [HeadTerm], vocab: usize) -> Position<'a> {
        let tails = targets_of(terms).map(|_| Tail::default()).collect();
        Position { terms, vocab, pairs: Vec::with_capacity(terms.len()), tails }
    }

    /// Writes the losses, and in place of the student's logits the gradient of their weighed sum. Without a
    /// teacher nothing of it is used, and the student takes its place. Logits are whole vectors, of which those
    /// past the vocabulary are filled here. `targets` are those of the n-th term that has any.
    #[inline(always)]
    pub fn differentiate<'t>(
        &mut self,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        targets: impl Fn(usize) -> &'t [f32],
        target: Option<u32>,
        losses: &mut [f32],
    ) {
        student[self.vocab..].fill(NEVER);
        let teacher = teacher.map(|teacher| {
            teacher[self.vocab..].fill(NEVER);
            &*teacher
        });
        self.compare(student, teacher.unwrap_or(&*student), targets);
        let target = target.map(|target| target as usize);
        let logit = target.map(|target| student[..self.vocab].get(target).copied().unwrap_or(f32::NAN));
        let mut start = 0;
        while start < student.len() {
            let end = student.len().min(start + BLOCK);
            let mut slopes = [0.0f32; BLOCK];
            let slopes = &mut slopes[..end - start];
            let logits = [&student[start..end], &teacher.unwrap_or(&*student)[start..end]];
            for (term, pair) in self.terms.iter().zip(&mut self.pairs) {
                if target.is_some() || term.loss.needs_teacher() {
                    pair.add_slopes(term, logits, slopes);
                }
            }
            for tail in &self.tails {
                tail.add_slopes_of_rest(start..end, slopes);
            }
            student[start..end].copy_from_slice(slopes);
            start = end;
        }
        for tail in &self.tails {
            tail.add_slopes_of_targets(student);
        }
        for ((term, pair), loss) in self.terms.iter().zip(&self.pairs).zip(losses) {
            *loss = pair.loss(term.loss, logit) as f32;
            if let (HeadLoss::CrossEntropy, Some(slope)) =
                (term.loss, target.and_then(|v| student.get_mut(v)))
            {
                *slope -= (term.weight * term.scale) as f32;
            }
        }
    }

    /// Makes the pairs and tails, up to the slopes.
    #[inline(always)]
    fn compare<'t>(&mut self, student: &[f32], teacher: &[f32], targets: impl Fn(usize) -> &'t [f32]) {
        let tops = [maximum(student), maximum(teacher)];
        let mut tails = self.tails.iter_mut().enumerate();
        self.pairs.clear();
        for term in self.terms {
            let rate = (1.0 / temperature(term.loss)) as f32;
            let known = self.pairs.iter().find(|pair| pair.student.rate == rate).map(|pair| pair.student);
            let of_student = match known {
                Some(softmax) => softmax,
                None => Softmax::of(student, tops[0], rate),
            };
            let of_teacher = match term.loss.needs_teacher() {
                true => Softmax::of(teacher, tops[1], rate),
                false => of_student,
            };
            let mut pair = Pair::new(of_student, of_teacher);
            pair.set_student_kl(term.loss, [student, teacher]);
            if term.loss.targets().is_some()
                && let Some((n, tail)) = tails.next()
            {
                pair.teacher_kl = tail.compare(term, student, self.vocab, of_student, targets(n));
            }
            self.pairs.push(pair);
        }
    }
}

/// One where the loss has none.
pub fn temperature(loss: HeadLoss) -> f64 {
    match loss {
        HeadLoss::ForwardKl { temperature } | HeadLoss::ReverseKl { temperature } => temperature,
        HeadLoss::Js { temperature, .. } => temperature,
        HeadLoss::TopK(targets) => targets.temperature,
        HeadLoss::CrossEntropy => 1.0,
    }
}

/// The softmax of one row at a temperature.
#[derive(Clone, Copy)]
pub struct Softmax {
    max: f32,
    /// 1 / T
    pub rate: f32,
    /// 1 / sum(e^((x - max) / T))
    share: f32,
    pub log_sum_exp: f64,
}

impl Softmax {
    #[inline(always)]
    pub fn of(logits: &[f32], max: f32, rate: f32) -> Softmax {
        let total = sum([logits, logits], |x, _| exp((x - max) * rate));
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

/// Student and teacher at the temperature of one term. Logits of both are given side by side.
#[derive(Clone)]
struct Pair {
    student: Softmax,
    teacher: Softmax,
    /// ln(q / p) = (z - t) / T + offset
    offset: f32,
    /// KL(q || p) or KL(q || m), by which the slopes are moved so that their sum is zero.
    student_kl: f64,
    /// KL(p || q) or KL(p || m), of the blocks whose slopes are made; beside targets, of the whole row.
    teacher_kl: f64,
}

impl Pair {
    #[inline(always)]
    fn new(student: Softmax, teacher: Softmax) -> Pair {
        let offset = (teacher.log_sum_exp - student.log_sum_exp) as f32;
        Pair { student, teacher, offset, student_kl: 0.0, teacher_kl: 0.0 }
    }

    /// p, q and ln(q / p)
    #[inline(always)]
    fn at(&self, z: f32, t: f32) -> (f32, f32, f32) {
        (self.teacher.at(t), self.student.at(z), (z - t) * self.student.rate + self.offset)
    }

    #[inline(always)]
    fn set_student_kl(&mut self, loss: HeadLoss, logits: [&[f32]; 2]) {
        self.student_kl = match loss {
            HeadLoss::ForwardKl { .. } | HeadLoss::TopK(_) | HeadLoss::CrossEntropy => return,
            HeadLoss::ReverseKl { .. } => sum(logits, |z, t| {
                let (p, q, d) = self.at(z, t);
                divergence(q, p, -d)
            }),
            HeadLoss::Js { beta, .. } => {
                let mixture = Mixture::new(beta);
                sum(logits, |z, t| {
                    let (p, q, d) = self.at(z, t);
                    let (m, _, by_q) = mixture.at(p, q, d);
                    divergence(q, m, by_q)
                })
            }
        };
    }

    /// Adds weight * scale * the slopes of some logits; those of a cross entropy are without its target.
    #[inline(always)]
    fn add_slopes(&mut self, term: &HeadTerm, logits: [&[f32]; 2], slopes: &mut [f32]) {
        let weight = term.weight * term.scale * temperature(term.loss);
        let mean = self.student_kl as f32;
        self.teacher_kl += match term.loss {
            HeadLoss::ForwardKl { .. } => self.sum_slopes(logits, weight, slopes, difference),
            // Of their tail.
            HeadLoss::TopK(_) => return,
            HeadLoss::ReverseKl { .. } => {
                self.sum_slopes(logits, weight, slopes, |_, q, d| (q * (d - mean), 0.0))
            }
            HeadLoss::Js { beta, .. } => {
                let mixture = Mixture::new(beta);
                self.sum_slopes(logits, weight * (1.0 - beta), slopes, |p, q, d| {
                    let (m, by_p, by_q) = mixture.at(p, q, d);
                    (q * (-by_q - mean), divergence(p, m, by_p))
                })
            }
            HeadLoss::CrossEntropy => self.sum_slopes(logits, weight, slopes, |_, q, _| (q, 0.0)),
        };
    }

    /// With f(p, q, ln(q / p)) -> (slope, x): slopes += weight * slope, and the sum of x.
    #[inline(always)]
    fn sum_slopes(
        &self,
        [student, teacher]: [&[f32]; 2],
        weight: f64,
        slopes: &mut [f32],
        f: impl Fn(f32, f32, f32) -> (f32, f32),
    ) -> f64 {
        let weight = weight as f32;
        let mut sums = [0.0f32; LANES];
        let (slopes, student) = (slopes.as_chunks_mut::<LANES>().0, student.as_chunks::<LANES>().0);
        for ((slopes, z), t) in slopes.iter_mut().zip(student).zip(teacher.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let (p, q, d) = self.at(z[i], t[i]);
                let (slope, x) = f(p, q, d);
                slopes[i] += weight * slope;
                sums[i] += x;
            }
        }
        total(&sums)
    }

    /// The loss; `logit` is the student's of the target.
    #[inline(always)]
    fn loss(&self, loss: HeadLoss, logit: Option<f32>) -> f64 {
        let nats = match loss {
            HeadLoss::ForwardKl { .. } | HeadLoss::TopK(_) => self.teacher_kl,
            HeadLoss::ReverseKl { .. } => self.student_kl,
            HeadLoss::Js { beta, .. } => beta * self.teacher_kl + (1.0 - beta) * self.student_kl,
            HeadLoss::CrossEntropy => logit.map_or(0.0, |x| self.student.log_sum_exp - f64::from(x)),
        };
        temperature(loss).powi(2) * nats
    }
}

/// The sum of f over pairs of elements.
#[inline(always)]
fn sum([x, y]: [&[f32]; 2], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut whole = 0.0;
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        let mut sums = [0.0f32; LANES];
        for (x, y) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                sums[i] += f(x[i], y[i]);
            }
        }
        whole += total(&sums);
    }
    whole
}

#[inline(always)]
fn total(sums: &[f32; LANES]) -> f64 {
    let mut halves: [f64; LANES / 2] = [0.0; LANES / 2];
    for i in 0..LANES / 2 {
        halves[i] = f64::from(sums[i]) + f64::from(sums[i + LANES / 2]);
    }
    ((halves[0] + halves[4]) + (halves[1] + halves[5])) + ((halves[2] + halves[6]) + (halves[3] + halves[7]))
}

/// m = beta p + (1 - beta) q
pub struct Mixture {
    pub beta: f32,
    pub log_beta: f32,
    pub log_rest: f32,
}

impl Mixture {
    /// A beta of zero, which is allowed, is as good as one that leaves no trace in f32.
    #[inline(always)]
    pub fn new(beta: f64) -> Mixture {
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
fn divergence(a: f32, b: f32, d: f32) -> f32 {
    if d.abs() < NEAR { a * (d * d * excess(d)) } else { (b - a) - a * d }
}

/// b - a, and the divergence of b from a, with d = ln(b/a).
#[inline(always)]
pub fn difference(a: f32, b: f32, d: f32) -> (f32, f32) {
    let near = a * (d * d * excess(d));
    let is_near = d.abs() < NEAR;
    let difference = if is_near { a * d + near } else { b - a };
    (difference, if is_near { near } else { difference - a * d })
}
