//! Rows that are remembered, one invocation an element. Rings that no binding holds pass window by window; rows that go
//! elsewhere are left to the others.

use super::super::Shaders;
use super::constants;
use crate::shader::{Call, Plan, Source, Unfit, common::LANES, cuts};

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 0.0 };

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((positions, window), [x, begin, ring]) = (constants(call.op), [0, 1, 2].map(|i| &call.args[i]));
    // Of one long sequence only the last rows matter.
    let skipped = if x.rows == positions { positions.saturating_sub(window) } else { 0 };
    let last = x.rows(skipped..x.rows);
    for places in cuts(&[ring], ring.rows, 1, plan.caps)? {
        for rows in cuts(&[&last], last.rows, 1, plan.caps)? {
            let count = rows.len() * x.cols;
            let source = Source::new("keep", LANES)
                .read("x", &last.rows(rows.clone()))
                .read("begin", &begin.flat())
                .write("ring", &ring.rows(places.clone()))
                .u32("first", skipped + rows.start)
                .u32("positions", positions)
                .u32("window", window)
                .u32("low", places.start)
                .u32("high", places.end)
                .u32("cols", x.cols)
                .u32("count", count)
                .body(&format!(
                    "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let r = at / p.cols;
    let c = at % p.cols;
    let t = (p.first + r) % p.positions;
    if (t + p.window < p.positions) {{ return; }}
    let sequence = u32(begin(0u, 0u)) + (p.first + r) / p.positions;
    let place = sequence * p.window + (u32(begin(0u, 1u)) + t) % p.window;
    if (place >= p.low && place < p.high) {{ set_ring(place - p.low, c, x(r, c)); }}"
                ));
            plan.run(source, count.div_ceil(LANES));
        }
    }
    Ok(())
}
