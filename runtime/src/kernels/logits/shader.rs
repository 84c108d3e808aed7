//! Logits on a device: positions pass in chunks, so that the logits of one chunk are there at a time, and one
//! workgroup goes over the vocabulary of one position.

use crate::shader::common::{IS_NAN, PAIRS};
use crate::shader::{Elem, Factor, Mat, Onto, Plan, Source, Unfit, cuts, product};
use std::ops::Range;

/// Most logits of a model at a time: 256 MiB.
const LOGITS: usize = 64 << 20;

/// Invocations of a workgroup.
pub const LANES: usize = 256;

/// Cuts positions so that one binding holds the rows of a chunk in scratch, each of so many words, and those of
/// `beside`.
pub fn chunks(
    plan: &Plan,
    positions: usize,
    words: usize,
    beside: &[&Mat],
) -> Result<Vec<Range<usize>>, Unfit> {
    let most = (plan.caps.reach().min(LOGITS) / words.max(1)).max(1);
    // Nearly the same number in each.
    let rows = positions.div_ceil(positions.div_ceil(most).max(1)).max(1);
    let mut chunks = Vec::new();
    for piece in cuts(beside, positions, 1, plan.caps)? {
        let end = piece.end;
        chunks.extend(piece.step_by(rows).map(|first| first..end.min(first + rows)));
    }
    Ok(chunks)
}

/// Scratch with a row for every position of a chunk.
pub fn space(plan: &mut Plan, chunks: &[Range<usize>], elem: Elem, cols: usize) -> Result<Mat, Unfit> {
    let mat = plan.scratch(elem, chunks.iter().map(Range::len).max().unwrap_or(0), cols);
    mat.reach(0, plan.caps)?;
    Ok(mat)
}

/// The logits hidden head^T of a chunk, in the first rows of `logits`.
pub fn project(
    plan: &mut Plan,
    [hidden, head]: [&Mat; 2],
    chunk: &Range<usize>,
    logits: &Mat,
) -> Result<Mat, Unfit> {
    let (hidden, logits) = (hidden.rows(chunk.clone()), logits.rows(0..chunk.len()));
    product(plan, &Factor::of(&hidden), &Factor::transposed(head), &logits, Onto::default())?;
    Ok(logits)
}

/// A shader of one workgroup a position, whose row is `r`.
pub fn position(name: &'static str) -> Source {
    let source = Source::new(name, LANES).shared("pairs", "vec2<f32>", LANES);
    source.with(PAIRS).with(IS_NAN).with(ELEMENTARY).with(REDUCED).with(SOFTMAX).body("    let r = group;")
}

/// Exponentials and logarithms that are as exact on every device; what devices have of their own may be off by many
/// units of the last place, and by 2^-21 in the logarithm of what is near 1.
const ELEMENTARY: &str = "
// As on the processor: ln 2 in two pieces, and rounding by 1.5 * 2^23.
fn exp_of(x: f32) -> f32 {
    let bounded = clamp(x, -87.3, 88.3);
    let shifted = as_it_is(bounded * 1.44269504 + 12582912.0);
    let n = shifted - 12582912.0;
    let r = (bounded - n * 0.693359375) + n * 2.1219444e-4;
    var y = 1.9875691e-4;
    y = y * r + 1.3982e-3;
    y = y * r + 8.333452e-3;
    y = y * r + 4.1665796e-2;
    y = y * r + 1.6666665e-1;
    y = y * r + 0.5;
    let value = (y * (r * r) + r + 1.0) * bitcast<f32>((bitcast<u32>(shifted) << 23u) + 0x3f800000u);
    return select(select(value, 0.0, x < -87.3), x, is_nan(x));
}
// ln(1 + x) = 2 artanh(x / (2 + x)) for x from -0.3 to 1
fn ln_1p(x: f32) -> f32 {
    let t = x / (2.0 + x);
    let s = t * t;
    var y = 1.0 / 17.0;
    y = y * s + 1.0 / 15.0;
    y = y * s + 1.0 / 13.0;
    y = y * s + 1.0 / 11.0;
    y = y * s + 1.0 / 9.0;
    y = y * s + 1.0 / 7.0;
    y = y * s + 1.0 / 5.0;
    y = y * s + 1.0 / 3.0;
    return 2.0 * (t + t * s * y);
}
// ln(2^n (1 + f)) = n ln 2 + ln(1 + f), with 1 + f from sqrt(1/2) to sqrt(2)
fn ln_of(x: vec2<f32>) -> vec2<f32> {
    let bits = bitcast<u32>(max(x.x, 1.17549435e-38)) + (0x3f800000u - 0x3f3504f3u);
    let exponent = bits >> 23u;
    let f = (bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0)
        + x.y * bitcast<f32>((254u - exponent) << 23u);
    let n = f32(exponent) - 127.0;
    let value = pair_add(pair_add(vec2(n * 0.693359375, 0.0), n * -2.1219444e-4), ln_1p(f));
    return select(value, x, is_nan(x.x));
}";

/// What all invocations of the workgroup get of what each of them has; called by all of them.
const REDUCED: &str = "
fn whole(x: vec2<f32>, lane: u32) -> vec2<f32> {
    workgroupBarrier();
    pairs[lane] = x;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (lane < half) { pairs[lane] = pair_sum(pairs[lane], pairs[lane + half]); }
        workgroupBarrier();
    }
    return pairs[0];
}
fn largest(x: f32, lane: u32) -> f32 {
    workgroupBarrier();
    pairs[lane].x = x;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (lane < half) { pairs[lane].x = max(pairs[lane].x, pairs[lane + half].x); }
        workgroupBarrier();
    }
    return pairs[0].x;
}";

/// The softmax of logits times a rate: `Seen` of those that one invocation has seen, `Softmax` of all.
const SOFTMAX: &str = "
const LOWEST = -1e30;
struct Seen { rate: f32, top: f32, sum: vec2<f32> }
struct Softmax { rate: f32, top: f32, share: f32, log_sum: vec2<f32> }
fn none(rate: f32) -> Seen { return Seen(rate, LOWEST, vec2(0.0, 0.0)); }
fn seen(s: Seen, x: f32) -> Seen {
    var next = s;
    if (x > s.top) {
        next.top = x;
        next.sum *= exp_of((s.top - x) * s.rate);
    }
    next.sum = pair_add(next.sum, exp_of((x - next.top) * s.rate));
    return next;
}
fn softmax(s: Seen, lane: u32) -> Softmax {
    let top = largest(s.top, lane);
    let sum = whole(s.sum * exp_of((s.top - top) * s.rate), lane);
    return Softmax(s.rate, top, 1.0 / sum.x, ln_of(sum));
}
fn at(s: Softmax, x: f32) -> f32 { return exp_of((x - s.top) * s.rate) * s.share; }
// ln of it
fn log_at(s: Softmax, x: f32) -> vec2<f32> { return pair_add(-s.log_sum, (x - s.top) * s.rate); }
// ln(at(b, y) / at(a, x)) = (y - x) rate + the offset
fn offset(a: Softmax, b: Softmax) -> f32 {
    return (a.top - b.top) * a.rate + pair_sum(a.log_sum, -b.log_sum).x;
}";

/// `differ(a, b, d)`: b - a, and a (b/a - 1 - ln(b/a)), with d = ln(b/a). The second is never below zero and keeps
/// its digits where b is near a; summed over distributions it is KL(a || b).
pub const DIFFER: &str = "
fn differ(a: f32, b: f32, d: f32) -> vec2<f32> {
    if (abs(d) < 0.5) {
        // (e^d - 1 - d) / d^2
        var y = 1.0 / 40320.0;
        y = y * d + 1.0 / 5040.0;
        y = y * d + 1.0 / 720.0;
        y = y * d + 1.0 / 120.0;
        y = y * d + 1.0 / 24.0;
        y = y * d + 1.0 / 6.0;
        y = y * d + 0.5;
        let near = a * (d * d * y);
        return vec2(a * d + near, near);
    }
    return vec2(b - a, (b - a) - a * d);
}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shader::{Caps, Memory};

    #[test]
    fn chunks_are_even_and_fit_a_binding() {
        let caps = Caps { binding: 1 << 31, ..Caps::least() };
        let sizes = |caps: &Caps, positions, words, beside: &[&Mat]| -> Vec<usize> {
            let chunks = chunks(&Plan::new(caps), positions, words, beside).unwrap();
            assert!(chunks.iter().zip(&chunks[1..]).all(|(a, b)| a.end == b.start));
            chunks.iter().map(Range::len).collect()
        };
        assert_eq!(sizes(&caps, 8192, 131072, &[]), [512; 16]);
        assert_eq!(sizes(&caps, 600, 131072, &[]), [300; 2]);
        assert_eq!(sizes(&caps, 3, LOGITS + 1, &[]), [1; 3]);
        assert_eq!(sizes(&Caps::least(), 510, 131072, &[]), [255; 2]);
        let wide = Mat::new(Memory::Arena, Elem::F32, 0, 10, 10_000_000, 10_000_000);
        assert_eq!(sizes(&Caps::least(), 10, 1000, &[&wide]), [3, 3, 3, 1]);
    }
}
