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
        let index = self.index(n);
        self.samples.window(index)
    }

    /// The place of the `n`-th window among the samples.
    pub fn index(&mut self, n: u64) -> usize {
        let count = self.samples.len() as u64;
        let epoch = n / count;
        if self.epoch != Some(epoch) {
            self.order = self.order(epoch);
            self.epoch = Some(epoch);
        }
        self.order[(n % count) as usize]
    }

    /// The samples of an epoch as they follow each other.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let count = self.samples.len();
        SplitMix64::stream(self.seed, epoch).sample(count, count)
    }

    pub fn samples(&self) -> &Arc<Samples> {
        &self.samples
    }

    /// What the orders follow from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Windows that so many epochs have; part of the last one may be asked for.
    pub fn windows_in(&self, epochs: f64) -> u64 {
        (self.samples.len() as f64 * epochs).floor() as u64
    }
}
