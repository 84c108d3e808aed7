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
use super::position::{Pair, difference, divergence};
use minic_compiler::graph::{HeadTerm, TopK};

/// What one term with targets needs of a position.
#[derive(Default)]
pub struct Tail {
    /// The student's logits, minus infinity where there is a target.
    pub logits: Vec<f32>,
    /// Tokens of targets, with the slopes of the loss over their logits.
    kept: Vec<(usize, f32)>,
}

impl Tail {
    /// Bytes for a vocabulary and k targets.
    pub fn bytes(vocab: usize, k: usize) -> usize {
        vocab * size_of::<f32>() + k * size_of::<(usize, f32)>()
    }

    /// The loss of a position, and the softmax of both the student and its rest; the mean of the pair becomes
    /// R - r. A target outside of the vocabulary gives NaN.
    #[inline(always)]
    pub fn loss(
        &mut self,
        term: &HeadTerm,
        TopK { k, temperature }: TopK,
        student: &[f32],
        top: f32,
        targets: &[f32],
    ) -> (Pair, f64) {
        let (ids, rest) = targets.split_at(k);
        let (log_p, rest) = rest.split_at(k);
        self.logits.clear();
        self.logits.extend_from_slice(student);
        for id in ids {
            if let Some(logit) = self.logits.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let top_of_rest = maximum(&self.logits);
        let mut pair = Pair::of(term.loss, student, &self.logits, [top, top_of_rest]);
        let weight = (term.weight * term.scale * temperature) as f32;
        let mut sum = 0.0;
        self.kept.clear();
        for (id, log_p) in ids.iter().zip(log_p) {
            let logit = student.get(*id as usize).copied().unwrap_or(f32::NAN);
            let (p, q, d) =
                (exp(*log_p), pair.student.at(logit), pair.student.log(logit) - f64::from(*log_p));
            sum += f64::from(divergence(p, q, d as f32));
            self.kept.push((*id as usize, weight * difference(p, q, d as f32)));
        }
        let rest = rest.first().copied().unwrap_or(0.0);
        if top_of_rest > f32::NEG_INFINITY {
            let share = pair.teacher.log_sum_exp - pair.student.log_sum_exp;
            // A rest of the teacher that is zero leaves the student's.
            let d = ((share - f64::from(rest).ln()) as f32).min(f32::MAX);
            sum += f64::from(divergence(rest, share.exp() as f32, d));
            pair.mean = difference(rest, share.exp() as f32, d);
        }
        (pair, temperature * temperature * sum)
    }

    /// Adds the slopes of the targets; those of the rest are not theirs.
    #[inline(always)]
    pub fn add_kept(&self, slopes: &mut [f32]) {
        for (token, slope) in &self.kept {
            if let Some(sum) = slopes.get_mut(*token) {
                *sum += slope;
            }
        }
    }
}
