//! AdamW (Loshchilov and Hutter, arXiv:1711.05101) over flat arrays of weights, as PyTorch computes it; g is the
//! gradient times the scale that clipping asks for:
//!
//! m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
//! w = (1 - rate decay) w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//!
//! and the sums over gradients that come before it. No operation of a graph; it runs between two of them.

pub(crate) mod shader;

use super::math::{sum, wide};
use super::parallel::for_each;
use rayon::prelude::*;

/// Elements to a task.
const BLOCK: usize = 1 << 14;

/// What one update has in common for all weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// The learning rate.
    pub rate: f64,
    /// The number of this update, the first being 1.
    pub step: u64,
    /// What all gradients are multiplied by: less than one where their norm is clipped.
    pub scale: f64,
}

/// One update of a weight: `mean` and `square` are its running averages m and v, zero before the first.
pub fn adamw(
    weight: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
    weight_decay: f64,
    update: &Update,
) {
    let lengths = [gradient.len(), mean.len(), square.len()];
    assert!(lengths == [weight.len(); 3], "bug: {} weights, and for them {lengths:?}", weight.len());
    let factors = Factors::of(update, weight_decay);
    let state = mean.chunks_mut(BLOCK).zip(square.chunks_mut(BLOCK));
    let blocks = weight.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK)).zip(state);
    for_each(blocks.collect(), |((weight, gradient), (mean, square))| {
        factors.apply(weight, gradient, mean, square);
    });
}

/// The constants of an update, each worked out in f64 and rounded once.
struct Factors {
    scale: f32,
    /// beta1 and 1 - beta1
    mean: (f32, f32),
    /// beta2 and 1 - beta2
    square: (f32, f32),
    /// 1 / sqrt(1 - beta2^t)
    correction: f32,
    eps: f32,
    /// rate / (1 - beta1^t)
    step: f32,
    /// rate * decay
    shrink: f32,
}

impl Factors {
    fn of(update: &Update, weight_decay: f64) -> Factors {
        let Update { beta1, beta2, eps, rate, step, scale } = *update;
        let missing = |beta: f64| 1.0 - beta.powf(step as f64);
        Factors {
            scale: scale as f32,
            mean: (beta1 as f32, (1.0 - beta1) as f32),
            square: (beta2 as f32, (1.0 - beta2) as f32),
            correction: missing(beta2).sqrt().recip() as f32,
            eps: eps as f32,
            step: (rate / missing(beta1)) as f32,
            shrink: (rate * weight_decay) as f32,
        }
    }

    fn apply(&self, weight: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let Factors { scale, mean: (keep_m, take_m), square: (keep_v, take_v), .. } = *self;
        let Factors { correction, eps, step, shrink, .. } = *self;
        wide(
            #[inline(always)]
            || {
                for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(mean).zip(square) {
                    let g = scale * *g;
                    *m = keep_m * *m + take_m * g;
                    *v = keep_v * *v + take_v * (g * g);
                    // What decays and the step in one difference: 1 - rate decay would be rounded to the last
                    // bits of one, most of what it takes away.
                    *w -= shrink * *w + step * *m / (v.sqrt() * correction + eps);
                }
            },
        );
    }
}

/// The sum of squares in f64, for the norm over all gradients.
pub fn square_sum(x: &[f32]) -> f64 {
    let of_block = |x: &[f32]| {
        wide(
            #[inline(always)]
            || sum(x, x, |x, y| f64::from(x) * f64::from(y)),
        )
    };
    // Blocks are added in their order.
    let sums: Vec<f64> = match x.len() {
        0..=BLOCK => vec![of_block(x)],
        _ => x.par_chunks(BLOCK).map(of_block).collect(),
    };
    sums.iter().sum()
}

/// into += from, element by element.
pub fn sum_into(into: &mut [f32], from: &[f32]) {
    assert!(into.len() == from.len(), "bug: {} elements added to {}", from.len(), into.len());
    let blocks = into.chunks_mut(BLOCK).zip(from.chunks(BLOCK));
    for_each(blocks.collect(), |(into, from)| {
        wide(
            #[inline(always)]
            || {
                for (x, y) in into.iter_mut().zip(from) {
                    *x += y;
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn draw(seed: u64, len: usize) -> Vec<f32> {
        let mut rng = SplitMix64::new(seed);
        (0..len).map(|_| rng.below(1 << 20) as f32 / (1u64 << 19) as f32 - 1.0).collect()
    }

    fn update(step: u64) -> Update {
        Update { beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 3e-3 / step as f64, step, scale: 0.37 }
    }

    const DECAY: f64 = 0.1;

    /// Weights, their averages and the sums after some updates.
    fn train(len: usize, steps: u64) -> (Vec<f32>, Vec<f32>, Vec<f32>, f64) {
        let (mut weight, mut mean, mut square) = (draw(0, len), vec![0.0; len], vec![0.0; len]);
        for step in 1..=steps {
            let mut gradient = draw(step, len);
            sum_into(&mut gradient, &draw(100 + step, len));
            adamw(&mut weight, &gradient, &mut mean, &mut square, DECAY, &update(step));
        }
        let norm = square_sum(&weight);
        (weight, mean, square, norm)
    }

    /// One weight by the formula at the head of this file, in f64.
    fn reference(mut w: f64, gradients: &[f64]) -> [f64; 3] {
        let (mut m, mut v) = (0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            let Update { beta1, beta2, eps, rate, step, scale } = update(i as u64 + 1);
            let g = g * scale;
            w *= 1.0 - rate * DECAY;
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m, v) = (m / (1.0 - beta1.powi(step as i32)), v / (1.0 - beta2.powi(step as i32)));
            w -= rate * m / (v.sqrt() + eps);
        }
        [w, m, v]
    }

    #[test]
    fn updates_follow_the_formula() {
        let (len, steps) = (1000, 7);
        let (weight, mean, square, norm) = train(len, steps);
        let begin = draw(0, len);
        let gradients: Vec<Vec<f32>> = (1..=steps)
            .map(|step| draw(step, len).iter().zip(draw(100 + step, len)).map(|(a, b)| a + b).collect())
            .collect();
        for i in 0..len {
            let gradients: Vec<f64> = gradients.iter().map(|g| f64::from(g[i])).collect();
            let expected = reference(f64::from(begin[i]), &gradients);
            for (got, expected) in [weight[i], mean[i], square[i]].into_iter().zip(expected) {
                assert!((f64::from(got) - expected).abs() < 5e-7, "{got}, not {expected}");
            }
        }
        let exact: f64 = weight.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
        assert!((norm / exact - 1.0).abs() < 1e-14);
    }

    #[test]
    fn the_first_update_is_a_step_of_the_rate() {
        let (mut weight, mut mean, mut square) = ([2.0f32, 2.0, 2.0], [0.0; 3], [0.0; 3]);
        let first = Update { rate: 0.5, ..update(1) };
        adamw(&mut weight, &[3.0, -1e-3, 0.0], &mut mean, &mut square, DECAY, &first);
        // 2 - 0.5 * 0.1 * 2 = 1.9, and 0.5 against the gradient's sign.
        let near = weight.iter().zip([1.4, 2.4, 1.9]).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near, "{weight:?}");
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let len = 5 * BLOCK + 77;
        let runs = [1, 2, 3, 7].map(|n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            let (weight, mean, square, norm) = pool.install(|| train(len, 3));
            let bits = [weight, mean, square].concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            (bits, norm.to_bits())
        });
        assert!(runs.iter().all(|run| *run == runs[0]));
    }

    #[test]
    fn no_weights_are_no_work() {
        adamw(&mut [], &[], &mut [], &mut [], DECAY, &update(1));
        assert_eq!(square_sum(&[]), 0.0);
    }
}
