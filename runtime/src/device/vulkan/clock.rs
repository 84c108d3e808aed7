//! Where the time on the device goes: a timestamp between any two dispatches.

use super::super::DeviceError;
use super::buffers::Readback;
use super::gpu::{Gpu, lock};
use crate::device::profile::Profile;
use std::time::Instant;

/// Timestamps of one query set, as many as wgpu allows.
const QUERIES: usize = 4096;

/// The timestamps of one pass.
pub struct Clock {
    sets: Vec<wgpu::QuerySet>,
    count: usize,
    resolved: wgpu::Buffer,
    readback: Readback,
    start: Instant,
}

impl Gpu {
    /// Begins to measure every dispatch; false where the device has no timestamps.
    pub fn start_profile(&self) -> bool {
        let can = self.caps.timestamps;
        if can {
            *lock(&self.profile) = Some(Profile::begin());
        }
        can
    }

    /// Ends it.
    pub fn take_profile(&self) -> Option<Profile> {
        lock(&self.profile).take()
    }

    /// A clock for so many dispatches, while there is a profile.
    pub fn clock(&self, dispatches: usize) -> Result<Option<Clock>, DeviceError> {
        if lock(&self.profile).is_none() || dispatches == 0 {
            return Ok(None);
        }
        let count = dispatches + 1;
        let set = |i: usize| {
            self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: QUERIES.min(count - i * QUERIES) as u32,
            })
        };
        let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 8 * count.next_multiple_of(32) as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let sets = (0..count.div_ceil(QUERIES)).map(set).collect();
        let readback = Readback::new(self, 2 * count)?;
        Ok(Some(Clock { sets, count, resolved, readback, start: Instant::now() }))
    }

    /// Takes down what a clock has measured of dispatches, each of an operation and a shader.
    pub fn record(
        &self,
        clock: Clock,
        submitted: wgpu::SubmissionIndex,
        dispatches: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Result<(), DeviceError> {
        let period = f64::from(self.queue.get_timestamp_period());
        let times: Vec<f64> = clock.readback.read(self, submitted, |words| {
            let tick = |two: &[u32; 2]| (u64::from(two[0]) | u64::from(two[1]) << 32) as f64 * period;
            words.as_chunks::<2>().0.iter().map(tick).collect()
        })?;
        if let Some(profile) = lock(&self.profile).as_mut() {
            let steps = times.windows(2).map(|pair| (pair[0] - times[0], pair[1] - pair[0]));
            profile.pass(clock.start, dispatches.zip(steps));
        }
        Ok(())
    }
}

impl Clock {
    /// The time before the dispatch of this number; behind the last one, before what is none.
    pub fn tick(&self, pass: &mut wgpu::ComputePass, dispatch: usize) {
        pass.write_timestamp(&self.sets[dispatch / QUERIES], (dispatch % QUERIES) as u32);
    }

    /// Brings the times to where the host reads them.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        for (i, set) in self.sets.iter().enumerate() {
            let count = QUERIES.min(self.count - i * QUERIES) as u32;
            encoder.resolve_query_set(set, 0..count, &self.resolved, 8 * (i * QUERIES) as u64);
        }
        let bytes = 8 * self.count as u64;
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback.buffer, 0, bytes);
    }
}
