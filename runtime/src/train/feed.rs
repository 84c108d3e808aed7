//! The windows of a training, in the order in which they are seen.

use crate::data::Samples;
use crate::random::SplitMix64;
use std::sync::Arc;

/// Windows without end: every epoch passes over all of them once, in an order of its own.
pub struct Feed {
    samples: Arc<Samples>,
    seed: u64,
    /// The epoch whose order is held.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Feed {
    /// The orders follow from the seed of the data.
    pub fn new(samples: Arc<Samples>, seed: u64) -> Feed {
        Feed { samples, seed, epoch: None, order: Vec::new() }
    }

    /// The `n`-th window of a training.
    pub fn window(&mut self, n: u64) -> &[u32] {
        let count = self.samples.len();
        let (epoch, index) = (n / count as u64, (n % count as u64) as usize);
        if self.epoch != Some(epoch) {
            self.order = SplitMix64::stream(self.seed, epoch).sample(count, count);
            self.epoch = Some(epoch);
        }
        self.samples.window(self.order[index])
    }

    /// Windows that so many epochs have; part of the last one may be asked for.
    pub fn windows_in(&self, epochs: f64) -> u64 {
        (self.samples.len() as f64 * epochs).floor() as u64
    }
}
