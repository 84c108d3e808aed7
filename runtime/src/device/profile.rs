//! Where the time of a device goes.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

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
    /// One that begins now.
    pub fn begin() -> Profile {
        Profile { began: Instant::now(), totals: BTreeMap::new(), spans: Vec::new(), passes: Vec::new() }
    }

    /// Takes down a pass that the host began at `start`: of every dispatch its operation and its shader, and when it
    /// began in the pass and how long it took, in nanoseconds.
    pub fn pass(
        &mut self,
        start: Instant,
        dispatches: impl Iterator<Item = ((&'static str, &'static str), (f64, f64))>,
    ) {
        let begin = (start - self.began).as_nanos() as f64;
        self.passes.push((begin, start.elapsed().as_nanos() as f64));
        for ((op, shader), (at, took)) in dispatches {
            let took = took.max(0.0);
            let total = self.totals.entry((op, shader)).or_default();
            total.dispatches += 1;
            total.seconds += took / 1e9;
            if self.spans.len() < MOST_SPANS {
                self.spans.push(Span { shader, op, start: begin + at, took });
            }
        }
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
