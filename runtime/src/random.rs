//! Seeded random numbers that are the same on every platform and in every version.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood 2014, <https://doi.org/10.1145/2660193.2660195>).
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The published generator from this state.
    pub fn new(state: u64) -> SplitMix64 {
        SplitMix64 { state }
    }

    /// The `index`-th of the independent streams of a seed. (States one step apart would give the same
    /// numbers shifted by one, so both are mixed.)
    pub fn stream(seed: u64, index: u64) -> SplitMix64 {
        SplitMix64::new(mix(mix(seed) ^ index))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// The number that comes after `n` others, without drawing those.
    pub fn nth_u64(&self, n: u64) -> u64 {
        mix(self.state.wrapping_add(GAMMA.wrapping_mul(n.wrapping_add(1))))
    }

    /// Uniform in 0..bound, without bias: numbers of the incomplete last round are drawn again. `bound` > 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let rounds = u64::MAX - u64::MAX % bound;
        loop {
            let n = self.next_u64();
            if n < rounds {
                return n % bound;
            }
        }
    }

    /// `n` different indices of 0..`len` in random order: the first `n` of a Fisher-Yates shuffle, so a
    /// smaller `n` gives the beginning of a larger one's answer. All of them where `n` > `len`.
    pub fn sample(&mut self, len: usize, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        let n = n.min(len);
        for i in 0..n {
            let j = i + self.below((len - i) as u64) as usize;
            order.swap(i, j);
        }
        order.truncate(n);
        order
    }
}

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference implementation for state 1234567.
    #[test]
    fn numbers_are_the_published_ones() {
        let mut rng = SplitMix64::new(1_234_567);
        let numbers: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423,
                4593380528125082431,
                16408922859458223821
            ]
        );
        let at: Vec<u64> = (0..5).map(|n| SplitMix64::new(1_234_567).nth_u64(n)).collect();
        assert_eq!(at, numbers);
    }

    #[test]
    fn a_sample_is_a_prefix_of_a_permutation() {
        let sample = |n| SplitMix64::stream(3, 0).sample(100, n);
        let mut all = sample(100);
        assert_eq!(sample(10), all[..10]);
        assert_eq!(sample(1000), all);
        assert_ne!(SplitMix64::stream(3, 1).sample(100, 10), sample(10));
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(sample(0).is_empty() && SplitMix64::new(0).sample(0, 5).is_empty());
    }

    #[test]
    fn numbers_below_a_bound_are_even() {
        let mut rng = SplitMix64::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 400), "{counts:?}");
    }
}
