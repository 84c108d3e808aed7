//! Where the time on the device goes: a timestamp between any two dispatches.

use super::super::DeviceError;
use super::buffers::Readback;
use super::gpu::{Gpu, lock};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

/// Timestamps of one query set, as many as wgpu allows.
const QUERIES: usize = 4096;

/// Dispatches of which a trace shows every single one; the table counts all.
const MOST_SPANS: usize = 200_000;

/// What was measured of one shader of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Total {
    pub dispatches: u64,
    pub seconds: f64,
}

/// A dispatch.
struct Span {
    shader: &'static str,
    op: &'static str,
    /// Nanoseconds since the profile began, and how many it took.
    start: f64,
    took: f64,
}

/// A pass over all dispatches of a schedule is measured from its first timestamp on; passes lie in the trace where
/// the host submitted them.
pub struct Profile {
    began: Instant,
    /// By operation and shader.
    pub totals: BTreeMap<(&'static str, &'static str), Total>,
    spans: Vec<Span>,
    /// Host's time in passes, in nanoseconds: start, and how many.
    passes: Vec<(f64, f64)>,
}

impl Profile {
    fn new() -> Profile {
        Profile { began: Instant::now(), totals: BTreeMap::new(), spans: Vec::new(), passes: Vec::new() }
    }

    pub fn seconds(&self) -> f64 {
        self.totals.values().map(|total| total.seconds).sum()
    }

    /// Chrome's trace events, which Perfetto reads too: passes of the host on one line, dispatches on another.
    pub fn trace(&self) -> Value {
        let event = |name: &str, thread: u32, start: f64, took: f64, args: Value| json!({ "name": name, "ph": "X", "pid": 1, "tid": thread, "ts": start / 1e3, "dur": took / 1e3, "args": args });
        let name = |thread: u32, name: &str| json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": thread, "args": { "name": name } });
        let passes = self.passes.iter().map(|(start, took)| event("pass", 1, *start, *took, json!({})));
        let spans = self.spans.iter().map(|s| event(s.op, 2, s.start, s.took, json!({ "shader": s.shader })));
        let events: Vec<Value> =
            [name(1, "host"), name(2, "device")].into_iter().chain(passes).chain(spans).collect();
        let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
        json!({ "traceEvents": events, "displayTimeUnit": "ms", "otherData": { "made": made } })
    }
}

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
            *lock(&self.profile) = Some(Profile::new());
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
        let mut profile = lock(&self.profile);
        let Some(profile) = profile.as_mut() else { return Ok(()) };
        let begin = (clock.start - profile.began).as_nanos() as f64;
        profile.passes.push((begin, clock.start.elapsed().as_nanos() as f64));
        for (pair, (op, shader)) in times.windows(2).zip(dispatches) {
            let took = (pair[1] - pair[0]).max(0.0);
            let total = profile.totals.entry((op, shader)).or_default();
            total.dispatches += 1;
            total.seconds += took / 1e9;
            if profile.spans.len() < MOST_SPANS {
                profile.spans.push(Span { shader, op, start: begin + pair[0] - times[0], took });
            }
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
