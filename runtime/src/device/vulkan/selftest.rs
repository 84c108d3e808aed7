//! What a device is asked before its matrix units are trusted: a product of some tiles, and the same by the scalar twin.

use super::super::DeviceError;
use super::gpu::Gpu;
use super::program::run_once;
use crate::random::SplitMix64;
use crate::shader::{Caps, Elem, Factor, Mat, Memory, Onto, Plan, Precision, Source, product};

/// Rows, columns and inner dimension: whole tiles and parts of them, and as many as keep a GPU busy, so that a race
/// would show.
pub fn size(caps: &Caps) -> [usize; 3] {
    if caps.software { [200, 150, 100] } else { [1100, 900, 4096] }
}

/// How often the same product is made; its bits have to be the same.
const TIMES: usize = 3;

/// Why products of this precision on a device of capabilities `caps` cannot be trusted; nothing where they can.
pub fn fault(gpu: &Gpu, caps: &Caps, precision: Precision, size: [usize; 3]) -> Option<String> {
    let values = |caps: &Caps| values(gpu, caps, precision, size);
    let scalar = Caps { cooperative: Vec::new(), cooperative_bf16: Vec::new(), ..caps.clone() };
    let [fast, slow] = match [values(caps), values(&scalar)] {
        [Ok(fast), Ok(slow)] => [fast, slow],
        [Err(error), _] | [_, Err(error)] => return Some(error.to_string()),
    };
    if (1..TIMES).any(|_| values(caps).ok().as_ref() != Some(&fast)) {
        return Some("the same product gives other bits each time".into());
    }
    let largest = slow.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let off = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    let worst = fast.iter().zip(&slow).map(off).fold(0.0, f32::max);
    // Both round the same factors; their sums differ by the rounding of f32.
    let holds = worst <= 1e-4 * largest;
    (!holds).then(|| format!("its products are {worst:e} off, the largest of them is {largest:e}"))
}

/// Rounds after which Mesa ends the loops of an invocation.
pub const ROUNDS: usize = 65535;

/// Whether loops run to their ends, however many rounds that takes.
pub fn loops_end(gpu: &Gpu) -> Result<bool, DeviceError> {
    let place = |at| Mat::new(Memory::Arena, Elem::F32, at, 1, 1, 1);
    let mut plan = Plan::new(&gpu.caps);
    let source =
        Source::new("loops_end", 1).read("x", &place(0)).write("y", &place(64)).u32("count", ROUNDS + 9);
    let body = "    var sum = 0.0;
    for (var i = 0u; i < p.count; i++) { sum += x(0u, 0u); }
    set_y(0u, 0u, sum);";
    plan.run(source.body(body), 1);
    let mut words = vec![0; 128];
    words[0] = 1.0f32.to_bits();
    let after = run_once(gpu, &plan, &[(Memory::Arena, words)])?;
    Ok(f32::from_bits(after[0][64]) == (ROUNDS + 9) as f32)
}

fn values(
    gpu: &Gpu,
    caps: &Caps,
    precision: Precision,
    [m, n, k]: [usize; 3],
) -> Result<Vec<f32>, DeviceError> {
    let mut random = SplitMix64::new(5);
    let mut data: Vec<u32> = Vec::new();
    let mut mat = |rows: usize, cols: usize, words: &mut Vec<u32>| {
        let at = words.len();
        let mut element = || (random.below(1 << 16) as f32 / f32::from(1u16 << 15) - 1.0).to_bits();
        words.extend((0..rows * cols).map(|_| element()));
        words.resize(words.len().next_multiple_of(64), 0);
        Mat::new(Memory::Arena, Elem::F32, at, rows, cols, cols)
    };
    let (a, b, c) = (mat(m, k, &mut data), mat(n, k, &mut data), mat(m, n, &mut data));
    let mut plan = Plan::new(caps).rounding(precision);
    product(&mut plan, &Factor::of(&a), &Factor::transposed(&b), &c, Onto::default())?;
    let after = run_once(gpu, &plan, &[(Memory::Arena, data)])?;
    Ok(after[0][c.at..c.at + c.len()].iter().map(|word| f32::from_bits(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const SMALL: [usize; 3] = [200, 150, 100];

    #[test]
    fn what_a_device_cuts_short_is_an_error() {
        // Of its own, because whoever waits is told.
        let Some(device) = testing::vulkan_device() else { return };
        let gpu = device.gpu();
        let most = gpu.caps.rounds.unwrap_or(usize::MAX);
        for (rounds, holds) in [(1000, true), (60_000, true), (70_000, most > 70_000)] {
            let place = |at| Mat::new(Memory::Arena, Elem::F32, at, 1, 1, 1);
            let mut plan = Plan::new(&gpu.caps);
            let source = Source::new("rounds", 8).write("y", &place(0)).u32("count", rounds / 2);
            let body = "    for (var j = 0u; j < 2u; j++) {
        for (var i = 0u; i < p.count; i++) { set_y(0u, 0u, y(0u, 0u) + 1.0); }
    }";
            plan.run(source.body(body), 1);
            let done = run_once(gpu, &plan, &[(Memory::Arena, vec![0; 64])]);
            assert_eq!(done.is_ok(), holds, "{rounds}: {done:?}");
        }
    }

    #[test]
    fn variants_that_agree_are_trusted_and_others_are_not() {
        let Some(gpu) = testing::vulkan(None) else { return };
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(fault(gpu, &gpu.caps, precision, SMALL), None);
        }
        // A device that says to have what it has not.
        if gpu.caps.cooperative.is_empty() {
            let boast = Caps {
                subgroup: (32, 32),
                cooperative: vec![[16, 16, 16]],
                workgroup_memory: 1 << 20,
                ..gpu.caps.clone()
            };
            assert!(fault(gpu, &boast, Precision::F16, SMALL).is_some());
        }
    }
}
