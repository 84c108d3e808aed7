//! The forward divergence from a teacher of which the k likeliest tokens K and the probability r of all others
//! are known. With q = softmax(z / T), R the sum of q outside of K, and u = q / R there, the student's own
//! distribution over the rest:
//!
//! - loss: T^2 (sum over K of p ln(p / q) + r ln(r / R))
//! - by z in K: T (q - p)
//! - by z outside of K: T u (R - r), which is zero where the rest has the weight that the teacher gives it
//!
//! R and u come of a softmax over the rest alone: nothing is subtracted from 1, and a rest of no weight beside
//! the student's best tokens keeps its digits.

use super::super::math::{exp, maximum};
use super::position::{NEVER, Softmax, difference, temperature};
use minic_compiler::graph::HeadTerm;
use std::ops::Range;

/// What one term with targets needs of a position.
#[derive(Clone, Default)]
pub struct Tail {
    /// The student's logits, [`NEVER`] where there is a target.
    logits: Vec<f32>,
    /// u, and what it is weighed by; none where the rest is empty.
    rest: Option<(Softmax, f32)>,
    /// Tokens of targets, with the slopes of their logits.
    kept: Vec<(usize, f32)>,
}

impl Tail {
    /// Bytes for so many logits and k targets.
    pub fn bytes(logits: usize, k: usize) -> usize {
        logits * size_of::<f32>() + k * size_of::<(usize, f32)>()
    }

    /// The divergence, in nats. A target outside of the vocabulary gives NaN.
    #[inline(always)]
    pub fn compare(
        &mut self,
        term: &HeadTerm,
        student: &[f32],
        vocab: usize,
        softmax: Softmax,
        targets: &[f32],
    ) -> f64 {
        let k = targets.len() / 2;
        let (ids, rest) = targets.split_at(k);
        let (log_p, rest) = rest.split_at(k);
        let weight = (term.weight * term.scale * temperature(term.loss)) as f32;
        let mut sum = 0.0;
        self.logits.clear();
        self.logits.extend_from_slice(student);
        self.kept.clear();
        for (id, log_p) in ids.iter().zip(log_p) {
            let token = *id as usize;
            let logit = student[..vocab].get(token).copied().unwrap_or(f32::NAN);
            let d = (softmax.log(logit) - f64::from(*log_p)) as f32;
            let (slope, nats) = difference(exp(*log_p), softmax.at(logit), d);
            sum += f64::from(nats);
            self.kept.push((token, weight * slope));
            if let Some(logit) = self.logits.get_mut(token) {
                *logit = NEVER;
            }
        }
        let top = maximum(&self.logits);
        self.rest = (top > NEVER).then(|| {
            let of_rest = Softmax::of(&self.logits, top, softmax.rate);
            let share = of_rest.log_sum_exp - softmax.log_sum_exp;
            let rest = rest.first().copied().unwrap_or(0.0);
            // A rest of the teacher that is zero leaves the student's.
            let d = ((share - f64::from(rest).ln()) as f32).min(f32::MAX);
            let (excess, nats) = difference(rest, share.exp() as f32, d);
            sum += f64::from(nats);
            (of_rest, weight * excess)
        });
        sum
    }

    /// Adds the slopes of some logits, which are zero for targets.
    #[inline(always)]
    pub fn add_slopes_of_rest(&self, logits: Range<usize>, slopes: &mut [f32]) {
        if let Some((softmax, weight)) = self.rest {
            for (slope, x) in slopes.iter_mut().zip(&self.logits[logits]) {
                *slope += weight * softmax.at(*x);
            }
        }
    }

    /// Adds the slopes of the targets.
    #[inline(always)]
    pub fn add_slopes_of_targets(&self, slopes: &mut [f32]) {
        for (token, slope) in &self.kept {
            if let Some(sum) = slopes.get_mut(*token) {
                *sum += slope;
            }
        }
    }
}
