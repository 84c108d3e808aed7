//! Rows of a table by tokens, as shaders; and in reverse, in an order that tokens alone decide: the first position
//! of a token adds up all of its positions, one after the other.

use super::super::Shaders;
use crate::shader::{Call, Plan, Source, Unfit, common::LANES, cuts};

pub const KERNEL: Shaders = Shaders { version: 1, plan: gather, tolerance: 0.0 };
pub const GRAD: Shaders = Shaders { version: 1, plan: scatter, tolerance: 1e-6 };

/// Tables that no binding holds pass window by window; tokens outside of a window are left to the others.
fn gather(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (tokens, table, out) = (call.args[0].flat(), &call.args[1], call.out);
    for rows in cuts(&[table], table.rows, 1, plan.caps)? {
        for positions in cuts(&[out], out.rows, 1, plan.caps)? {
            let count = positions.len() * out.cols;
            let source = Source::new("embed", LANES)
                .read("tokens", &tokens.columns(positions.start, positions.len()))
                .read("table", &table.rows(rows.clone()))
                .write("out", &out.rows(positions.clone()))
                .u32("cols", out.cols)
                .u32("count", count)
                .u32("first", rows.start)
                .u32("end", rows.end)
                .u32("is_last", usize::from(rows.end == table.rows))
                .f32("nan", f64::NAN)
                .body(
                    "    let at = group * 64u + lane;
    if (at >= p.count) { return; }
    let r = at / p.cols;
    let c = at % p.cols;
    let token = tokens(0u, r);
    if (token < p.first) { return; }
    if (token < p.end) { set_out(r, c, table(token - p.first, c)); return; }
    if (p.is_last == 1u) { set_out(r, c, p.nan); }",
                );
            plan.run(source, count.div_ceil(LANES));
        }
    }
    Ok(())
}

fn scatter(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (tokens, dx, gradient) = (call.args[0].flat(), &call.args[1], &call.args[2]);
    let positions = dx.rows;
    for rows in cuts(&[gradient], gradient.rows, 1, plan.caps)? {
        // A window of positions adds what lies in it to what earlier windows have added.
        for window in cuts(&[dx], positions, 1, plan.caps)? {
            let source = Source::new("embed_grad", LANES)
                .read("tokens", &tokens.columns(window.start, window.len()))
                .read("dx", &dx.rows(window.clone()))
                .write("gradient", &gradient.rows(rows.clone()))
                .u32("cols", dx.cols)
                .u32("positions", window.len())
                .u32("first", rows.start)
                .u32("end", rows.end)
                .shared("earlier", "atomic<u32>", 1)
                .shared("same", "u32", LANES)
                .body(
                    "    let t = group;
    let token = tokens(0u, t);
    if (token < p.first || token >= p.end) { return; }
    if (lane == 0u) { atomicStore(&earlier[0], 0u); }
    workgroupBarrier();
    for (var s = lane; s < t; s += 64u) {
        if (tokens(0u, s) == token) { atomicStore(&earlier[0], 1u); }
    }
    workgroupBarrier();
    if (lane == 0u) { same[0] = atomicLoad(&earlier[0]); }
    if (workgroupUniformLoad(&same[0]) == 1u) { return; }
    for (var s = t; s < p.positions; s += 64u) {
        workgroupBarrier();
        same[lane] = u32(s + lane < p.positions && tokens(0u, min(s + lane, p.positions - 1u)) == token);
        workgroupBarrier();
        for (var i = 0u; i < 64u; i++) {
            if (same[i] == 0u) { continue; }
            for (var c = lane; c < p.cols; c += 64u) {
                set_gradient(token - p.first, c, gradient(token - p.first, c) + dx(s + i, c));
            }
        }
    }",
                );
            plan.run(source, window.len());
        }
    }
    Ok(())
}
