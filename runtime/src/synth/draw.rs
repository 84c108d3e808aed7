//! Values of one weight, from any element on.

use crate::random::SplitMix64;
use minic_compiler::init::Init;
use std::ops::Range;
use std::sync::LazyLock;

/// A weight's distribution and its stream of random numbers.
pub struct Draw {
    init: Init,
    random: SplitMix64,
}

/// Values that are drawn at once.
const DRAWN: usize = 1 << 14;

impl Draw {
    /// The stream follows from seed and name.
    pub fn new(init: Init, seed: u64, name: &str) -> Draw {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let mut state = [0; 8];
        hasher.finalize_xof().fill(&mut state);
        Draw { init, random: SplitMix64::new(u64::from_le_bytes(state)) }
    }

    /// The values of a range of elements, in parts.
    pub fn each<E>(
        &self,
        elements: Range<usize>,
        mut give: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut values = Vec::with_capacity(DRAWN.min(elements.len()));
        for begin in elements.clone().step_by(DRAWN) {
            let part = begin..elements.end.min(begin + DRAWN);
            values.clear();
            match self.init {
                Init::Constant(value) => values.resize(part.len(), value as f32),
                Init::Normal { deviation } => {
                    let (table, deviation) = (&*QUANTILES, deviation as f32);
                    values.extend(part.map(|i| deviation * normal(table, self.bits(i))));
                }
                Init::Uniform { bound } => values.extend(part.map(|i| self.uniform(i, -bound, bound) as f32)),
                Init::LogOfIndex => values.extend(part.map(|i| ((i + 1) as f64).ln() as f32)),
                Init::TimeStep { lo, hi } => values.extend(part.map(|i| {
                    let dt = self.uniform(i, lo.ln(), hi.ln()).exp();
                    (dt + (-(-dt).exp_m1()).ln()) as f32
                })),
            }
            give(&values)?;
        }
        Ok(())
    }

    /// Two elements share a number.
    fn bits(&self, element: usize) -> u32 {
        (self.random.nth_u64(element as u64 / 2) >> (element % 2 * 32)) as u32
    }

    fn uniform(&self, element: usize, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * (f64::from(self.bits(element)) + 0.5) / 2f64.powi(32)
    }
}

/// Quantiles of the normal distribution at multiples of 2^-14, the outermost at 2^-16 and 1 - 2^-16.
static QUANTILES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let n = 1 << STEPS;
    let at = |k: usize| (k as f64 / n as f64).clamp(0.25 / n as f64, 1.0 - 0.25 / n as f64);
    (0..=n).map(|k| quantile(at(k)) as f32).collect()
});

const STEPS: u32 = 14;

/// Between two neighbors of the table the distribution is even: within 1e-8 of the normal one up to 3.8
/// deviations, and nothing lies beyond 4.2.
fn normal(table: &[f32], bits: u32) -> f32 {
    let fraction = (bits << STEPS >> STEPS) as f32 / (1u32 << (32 - STEPS)) as f32;
    let index = (bits >> (32 - STEPS)) as usize;
    table[index] + fraction * (table[index + 1] - table[index])
}

/// PPND7 of Wichura 1988, algorithm AS 241 (<https://doi.org/10.2307/2347330>): exact to seven digits.
fn quantile(p: f64) -> f64 {
    let horner = |x: f64, c: &[f64]| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * horner(r, &[3.387_132_717_9, 50.434_271_938, 159.291_132_02, 59.109_374_72])
            / horner(r, &[1.0, 17.895_169_469, 78.757_757_664, 67.187_563_6]);
    }
    let r = (-p.min(1.0 - p).ln()).sqrt() - 1.6;
    let tail = horner(r, &[1.423_437_277_7, 2.756_815_39, 1.306_728_481_6, 0.170_238_211_03])
        / horner(r, &[1.0, 0.737_001_642_5, 0.120_211_329_75]);
    if q < 0.0 { -tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(init: Init, n: usize) -> Vec<f32> {
        let mut out = Vec::new();
        let _ = Draw::new(init, 7, "a").each::<()>(0..n, |part| {
            out.extend_from_slice(part);
            Ok(())
        });
        out
    }

    /// The share of values below some quantiles, and the moments; six standard errors are allowed.
    #[test]
    fn normal_values_are_normal() {
        let n = 1 << 20;
        let drawn = values(Init::Normal { deviation: 2.0 }, n);
        let moment = |k: i32| drawn.iter().map(|v| f64::from(*v / 2.0).powi(k)).sum::<f64>() / n as f64;
        for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let allowed = 6.0 * f64::sqrt(variance / n as f64);
            assert!((moment(k) - expected).abs() < allowed, "moment {k}: {}", moment(k));
        }
        for (z, p) in
            [(-3.090_232, 0.001), (-1.281_552, 0.1), (0.0, 0.5), (0.674_490, 0.75), (2.326_348, 0.99)]
        {
            let share = drawn.iter().filter(|v| f64::from(**v) < 2.0 * z).count() as f64 / n as f64;
            assert!((share - p).abs() < 6.0 * f64::sqrt(p * (1.0 - p) / n as f64), "below {z}: {share}");
        }
        let neighbors: f64 = drawn.windows(2).map(|w| f64::from(w[0] * w[1] / 4.0)).sum();
        assert!((neighbors / n as f64).abs() < 6.0 / f64::sqrt(n as f64), "{neighbors}");
    }

    #[test]
    fn other_values_are_in_their_range() {
        let uniform = values(Init::Uniform { bound: 0.5 }, 10_000);
        assert!(uniform.iter().all(|v| v.abs() <= 0.5) && uniform.iter().any(|v| *v > 0.49));
        let softplus = |v: &f32| f64::from(*v).exp().ln_1p();
        let steps: Vec<f64> =
            values(Init::TimeStep { lo: 1e-3, hi: 0.1 }, 10_000).iter().map(softplus).collect();
        assert!(steps.iter().all(|dt| (0.000_999..0.100_1).contains(dt)));
        let below = steps.iter().filter(|dt| **dt < 0.01).count();
        assert!((4700..5300).contains(&below), "the logarithm is even: {below}");
        assert_eq!(values(Init::LogOfIndex, 3), [0.0, 2f32.ln(), 3f32.ln()]);
    }

    #[test]
    fn a_value_follows_from_its_index() {
        let draw = Draw::new(Init::Normal { deviation: 1.0 }, 7, "a");
        let all = values(Init::Normal { deviation: 1.0 }, 50_000);
        let mut part = Vec::new();
        let _ = draw.each::<()>(20_001..40_000, |values| {
            part.extend_from_slice(values);
            Ok(())
        });
        assert_eq!(part, all[20_001..40_000]);
    }
}
