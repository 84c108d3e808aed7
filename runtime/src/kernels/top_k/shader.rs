//! The same as shaders. One workgroup a position finds the place of the k-th likeliest token digit by digit, so
//! that what is to be sorted are k tokens alone: each goes where the number of those before it says.

use super::super::Shaders;
use super::super::logits::shader::{LANES, chunks, position, project, space};
use super::targets;
use crate::shader::{Call, Elem, Plan, Source, Unfit, common};
use minic_compiler::graph::TopK;

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 3e-7 };

/// Where a token stands among all: a word that is lower for larger logits, of zeros the same, and its id.
const PLACE: &str = "
fn place(x: f32, id: u32) -> vec2<u32> {
    let bits = bitcast<u32>(select(x, 0.0, x == 0.0));
    return vec2(select(~(bits | 0x80000000u), bits, bits >= 0x80000000u), id);
}
fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x < b.x || (a.x == b.x && a.y < b.y); }";

/// `known` are the bits of the digits of `last`, the k-th place, that were found. Every digit is the one of the place
/// that is the `wanted`-th of those that agree in the digits before; where it is the last of them, so are all of
/// whatever digits are left.
const SELECT: &str = "
    var running = none(1.0);
    for (var c = lane; c < p.vocab; c += 256u) { running = seen(running, logits(r, c) * p.rate); }
    let total = softmax(running, lane);

    var known = vec2(0u, 0u);
    var last = vec2(0u, 0u);
    var wanted = p.k;
    for (var digit = 0u; digit < 8u; digit++) {
        let word = digit / 4u;
        let shift = 24u - 8u * (digit % 4u);
        atomicStore(&counts[lane], 0u);
        workgroupBarrier();
        for (var c = lane; c < p.vocab; c += 256u) {
            let here = place(logits(r, c) * p.rate, c);
            if (all((here & known) == last)) { atomicAdd(&counts[(here[word] >> shift) & 255u], 1u); }
        }
        workgroupBarrier();
        if (lane == 0u) {
            var value = 0u;
            var rest = wanted;
            while (rest > atomicLoad(&counts[value])) {
                rest -= atomicLoad(&counts[value]);
                value++;
            }
            found[0] = vec3(value, rest, atomicLoad(&counts[value]));
        }
        let next = workgroupUniformLoad(&found[0]);
        known[word] |= 255u << shift;
        last[word] |= next.x << shift;
        wanted = next.y;
        if (next.y == next.z) { break; }
    }

    if (lane == 0u) { atomicStore(&counts[0], 0u); }
    workgroupBarrier();
    var rest = vec2(0.0, 0.0);
    for (var c = lane; c < p.vocab; c += 256u) {
        let x = logits(r, c) * p.rate;
        if (comes_before(last, place(x, c) & known)) {
            rest = pair_add(rest, exp_of(x - total.top));
        } else {
            set_picked(r, atomicAdd(&counts[0], 1u), vec2(x, f32(c)));
        }
    }
    rest = whole(rest, lane);
    if (lane == 0u) {
        set_left_out(r, 0u, rest.x * total.share);
        set_totals(r, 0u, pair_add(total.log_sum, total.top));
    }";

const ORDER: &str = "
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let r = index / p.k;
    let mine = picked(r, index % p.k);
    let here = place(mine.x, u32(mine.y));
    var rank = 0u;
    for (var i = 0u; i < p.k; i++) {
        let other = picked(r, i);
        rank += select(0u, 1u, comes_before(place(other.x, u32(other.y)), here));
    }
    set_ids(r, rank, mine.y);
    set_log_p(r, rank, pair_add(-totals(r, 0u), mine.x).x);";

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let TopK { k, temperature } = targets(call.op);
    let ([hidden, head], out) = ([&call.args[0], &call.args[1]], call.out);
    let chunks = chunks(plan, out.rows, head.rows.max(2 * k), &[out])?;
    let logits = space(plan, &chunks, Elem::F32, head.rows)?;
    let (picked, totals) = (space(plan, &chunks, Elem::Pair, k)?, space(plan, &chunks, Elem::Pair, 1)?);
    for chunk in &chunks {
        let (logits, out) = (project(plan, [hidden, head], chunk, &logits)?, out.rows(chunk.clone()));
        let source = position("top_k")
            .with(PLACE)
            .shared("counts", "atomic<u32>", LANES)
            .shared("found", "vec3<u32>", 1)
            .read("logits", &logits)
            .write("picked", &picked.rows(0..chunk.len()))
            .write("totals", &totals.rows(0..chunk.len()))
            .write("left_out", &out.columns(2 * k, 1))
            .u32("vocab", head.rows)
            .u32("k", k)
            .f32("rate", 1.0 / temperature)
            .body(SELECT);
        plan.run(source, chunk.len());
        let count = chunk.len() * k;
        let source = Source::new("top_k_order", common::LANES)
            .with(common::PAIRS)
            .with(PLACE)
            .read("picked", &picked.rows(0..chunk.len()))
            .read("totals", &totals.rows(0..chunk.len()))
            .write("ids", &out.columns(0, k))
            .write("log_p", &out.columns(k, k))
            .u32("k", k)
            .u32("count", count)
            .body(ORDER);
        plan.run(source, count.div_ceil(common::LANES));
    }
    Ok(())
}
