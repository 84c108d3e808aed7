//! Elementary functions that the compiler can vectorise, and the choice of vector instructions.
//!
//! No fused multiply-add here: every machine computes the same bits.

/// Runs `f` compiled for the widest vectors of this machine. `f` must be `#[inline(always)]` all the way
/// down, and must not wait for other threads. Its loops are `for` loops: `for_each` and `fold` are functions
/// of their own, which are compiled for the oldest machine when they are not inlined.
#[inline]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        fn v4<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma")]
        fn v3<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match Level::of_machine() {
            // SAFETY: the level is the machine's, so it has the instructions of the level.
            Level::V4 => return unsafe { v4(f) },
            // SAFETY: as above.
            Level::V3 => return unsafe { v3(f) },
            Level::Base => {}
        }
    }
    f()
}

/// Vector instructions by the levels of the x86-64 psABI; other machines are `Base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Base,
    /// AVX2 and FMA.
    V3,
    /// AVX-512 F, VL, BW and DQ.
    V4,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Base => "baseline",
            Level::V3 => "x86-64-v3",
            Level::V4 => "x86-64-v4",
        }
    }

    /// What the kernels use on this machine.
    #[inline]
    pub fn of_machine() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let v4 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            match (v3, v4) {
                (true, true) => return Level::V4,
                (true, false) => return Level::V3,
                _ => {}
            }
        }
        Level::Base
    }
}

/// e^x, within 2 units in the last place. Below -87.3 it is 0; above 88.3 it stays at e^88.3.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two pieces: a multiple of the first is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x > 88.3 { 88.3 } else { x };
    let bounded = if bounded < -87.3 { -87.3 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (bounded - n * LN2_HIGH) - n * LN2_LOW;
    // e^r - 1 - r on |r| <= ln 2 / 2, minimax coefficients (Cephes expf).
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { value * scale }
}

/// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), relative error within a few units in the last place.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let e = exp(-x.abs());
    // ln(1 + e) = 2 artanh(e / (2 + e)); the argument is at most 1/3.
    let t = e / (2.0 + e);
    let s = t * t;
    let p = 1.0 / 17.0;
    let p = p * s + 1.0 / 15.0;
    let p = p * s + 1.0 / 13.0;
    let p = p * s + 1.0 / 11.0;
    let p = p * s + 1.0 / 9.0;
    let p = p * s + 1.0 / 7.0;
    let p = p * s + 1.0 / 5.0;
    let p = p * s + 1.0 / 3.0;
    x.max(0.0) + 2.0 * (t + t * s * p)
}

/// x * sigmoid(x)
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// silu(x) and its derivative, sigmoid(x) + silu(x) (1 - sigmoid(x)).
#[inline(always)]
pub fn silu_and_slope(x: f32) -> (f32, f32) {
    let e = exp(-x);
    let sigmoid = 1.0 / (1.0 + e);
    let silu = x * sigmoid;
    // 1 - sigmoid without its cancellation.
    (silu, sigmoid + silu * (e * sigmoid))
}

const LANES: usize = 16;

/// sum of f(x[i], y[i]) in f64: sixteen running sums, folded pairwise at the end.
#[inline(always)]
pub fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for (i, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += f(*x, *y);
    }
    fold(lanes)
}

/// x . y in f64
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    sum(x, y, |x, y| f64::from(x) * f64::from(y))
}

/// sum of x[i] y[i] z[i] in f64; x[i] y[i] is rounded to f32.
#[inline(always)]
pub fn dot3(x: &[f32], y: &[f32], z: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    let (zs, z_rest) = z.as_chunks::<LANES>();
    for ((x, y), z) in xs.iter().zip(ys).zip(zs) {
        for i in 0..LANES {
            lanes[i] += f64::from(x[i] * y[i]) * f64::from(z[i]);
        }
    }
    for (i, ((x, y), z)) in x_rest.iter().zip(y_rest).zip(z_rest).enumerate() {
        lanes[i] += f64::from(x * y) * f64::from(*z);
    }
    fold(lanes)
}

/// x . y in f32: thirty-two running sums, folded pairwise at the end, and one of what is left.
#[inline(always)]
pub fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 2 * LANES];
    let (xs, x_rest) = x.as_chunks::<{ 2 * LANES }>();
    let (ys, y_rest) = y.as_chunks::<{ 2 * LANES }>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..2 * LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let (xs, x_rest) = x_rest.as_chunks::<LANES>();
    let (ys, y_rest) = y_rest.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let mut n = LANES;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    // Apart from the lanes, which stay in registers.
    let mut rest = 0.0;
    for (x, y) in x_rest.iter().zip(y_rest) {
        rest += x * y;
    }
    lanes[0] + rest
}

/// The largest element, minus infinity for none; those that are not numbers are passed over.
#[inline(always)]
pub fn maximum(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    let mut top = f32::NEG_INFINITY;
    for lane in lanes {
        top = larger(top, lane);
    }
    top
}

#[inline(always)]
fn fold(mut lanes: [f64; LANES]) -> f64 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        let ulp = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(got) - exact).abs() / ulp
    }

    #[test]
    fn exp_is_within_two_ulps() {
        let worst =
            (0..2_000_000).map(|i| -87.2 + i as f32 * 8.77e-5).map(|x| ulps(exp(x), f64::from(x).exp()));
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst} units");
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && exp(1e9).is_finite());
    }

    #[test]
    fn softplus_is_relatively_exact() {
        for i in 0..400_000 {
            let x = -80.0 + i as f32 * 4e-4;
            let exact = f64::from(x).exp().ln_1p();
            let error = (f64::from(softplus(x)) / exact - 1.0).abs();
            assert!(error < 4e-7, "softplus({x}): {error}");
        }
        assert_eq!(softplus(200.0), 200.0);
        assert!(softplus(f32::NAN).is_nan());
    }

    #[test]
    fn silu_is_exact_and_bounded() {
        for i in 0..200_000 {
            let x = -80.0 + i as f32 * 8e-4;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() <= 3e-7 * exact.abs(), "silu({x})");
        }
        assert!(silu(-1e4).abs() < 1e-30 && silu(1e4) == 1e4);
    }

    #[test]
    fn the_slope_of_silu_is_exact() {
        for i in 0..200_000 {
            let x = -80.0 + i as f32 * 8e-4;
            let sigmoid = 1.0 / (1.0 + (-f64::from(x)).exp());
            let exact = sigmoid * (1.0 + f64::from(x) / (1.0 + f64::from(x).exp()));
            let (silu, slope) = silu_and_slope(x);
            assert!((f64::from(slope) - exact).abs() <= 4e-7, "slope of silu({x})");
            let exact = f64::from(x) * sigmoid;
            assert!((f64::from(silu) - exact).abs() <= 4e-7 * exact.abs(), "silu({x})");
        }
        assert!(silu_and_slope(-1e4).1.abs() < 1e-30 && silu_and_slope(1e4).1 == 1.0);
    }

    #[test]
    fn every_element_of_a_product_counts_once() {
        for len in [0, 1, 5, 16, 20, 31, 32, 33, 64, 100] {
            let vector = |seed: usize| (0..len).map(|i| ((i * seed) % 17) as f32 - 8.0).collect::<Vec<f32>>();
            let (x, y) = (vector(3), vector(7));
            assert_eq!(dot_f32(&x, &y), x.iter().zip(&y).map(|(x, y)| x * y).sum::<f32>(), "{len}");
        }
    }

    #[test]
    fn sums_do_not_lose_small_terms() {
        let mut x = vec![1e-4f32; 10_001];
        x[0] = 1.0;
        let exact: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!((dot(&x, &x) / exact - 1.0).abs() < 1e-12);
    }
}
