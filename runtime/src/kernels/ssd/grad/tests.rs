//! Each part of the gradient by itself, extreme decays among the cases, and the formulas against differences.

use super::*;
use crate::kernels::{Arg, Exact, Out, ssd};

/// Tokens, and the sizes.
fn sizes(
    tokens: usize,
    [heads, head_dim, groups, state]: [usize; 4],
    (dt_lo, dt_hi): (f64, f64),
) -> (usize, Sizes) {
    (tokens, Sizes { heads, head_dim, groups, state, dt_lo, dt_hi })
}

fn gradient_op(s: Sizes) -> Op {
    let Sizes { heads, head_dim, groups, state, dt_lo, dt_hi } = s;
    Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi }
}

fn scan_op(s: Sizes) -> Op {
    let Sizes { heads, head_dim, groups, state, dt_lo, dt_hi } = s;
    Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi }
}

/// Operands of the gradient, the same in every run: the raw dt and A_log from the given ranges, all else from
/// -1..1.
fn operands(tokens: usize, s: Sizes, dt: (f64, f64), a_log: (f64, f64)) -> Vec<Exact> {
    let (inner, states) = (s.heads * s.head_dim, s.groups * s.state);
    let unit = (-1.0, 1.0);
    let mut seed = 11u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f64 / (1u64 << 24) as f64
    };
    [
        (tokens, inner, unit),
        (tokens, s.heads, dt),
        (tokens, states, unit),
        (tokens, states, unit),
        (1, s.heads, unit),
        (1, s.heads, a_log),
        (1, s.heads, unit),
        (tokens, inner, unit),
    ]
    .map(|(rows, cols, (low, high))| {
        let element = |_| f64::from((low + next() * (high - low)) as f32);
        Exact::F64 { data: (0..rows * cols).map(element).collect(), rows, cols }
    })
    .into()
}

/// First column of each part, and the width of the whole.
fn parts(s: Sizes) -> [usize; 7] {
    let (inner, states, heads) = (s.heads * s.head_dim, s.groups * s.state, s.heads);
    let mut start = 0;
    [0, inner, states, states, heads, heads, heads].map(|width| {
        start += width;
        start
    })
}

fn compute(op: &Op, operands: &[Exact], cols: usize) -> Vec<f32> {
    let tokens = operands[0].rows();
    let data: Vec<Vec<f32>> = operands.iter().map(|m| m.data().iter().map(|x| *x as f32).collect()).collect();
    let views = data.iter().zip(operands).map(|(data, m)| View::new(data, m.rows(), m.cols(), m.cols()));
    let args: Vec<Arg> = views.map(Arg::F32).collect();
    let mut out = vec![f32::NAN; tokens * cols];
    let place = Out::F32(ViewMut::new(&mut out, tokens, cols, cols));
    (GRAD.cpu)(Call { op, args: &args, out: place, changed: None });
    out
}

#[test]
fn every_part_is_exact_by_its_own_measure() {
    let infinite = f64::INFINITY;
    let (mild, strong) = ((-2.0, 2.8), (2.0, 2.8));
    let cases = [
        (sizes(600, [16, 20, 4, 16], (1e-3, infinite)), (-6.0, 3.0), mild),
        (sizes(131, [6, 1, 2, 7], (0.0, 0.5)), (-6.0, 3.0), mild),
        (sizes(257, [3, 13, 1, 33], (0.0, infinite)), (-6.0, 3.0), mild),
        (sizes(200, [4, 64, 2, 128], (1e-3, 0.1)), (-6.0, 3.0), mild),
        (sizes(150, [5, 24, 1, 96], (0.0, infinite)), (-6.0, 3.0), mild),
        // Decays of exp(-50) and less at every token, and hardly any decay over many.
        (sizes(200, [4, 20, 2, 16], (0.0, infinite)), (2.0, 5.0), strong),
        (sizes(200, [4, 40, 2, 64], (0.0, infinite)), (-6.0, 6.0), strong),
        (sizes(600, [4, 20, 2, 16], (0.0, infinite)), (-9.0, -6.0), (-3.0, -2.0)),
    ];
    for ((tokens, s), dt, a_log) in cases {
        let (op, operands) = (gradient_op(s), operands(tokens, s, dt, a_log));
        let starts = parts(s);
        let (cols, expected) = (starts[6], reference(&op, &operands));
        let value = compute(&op, &operands, cols);
        for (part, name) in ["x", "B", "C", "dt", "A_log", "D"].into_iter().enumerate() {
            let columns = starts[part]..starts[part + 1];
            let places = (0..tokens).flat_map(|t| columns.clone().map(move |c| t * cols + c));
            let (mut largest, mut worst) = (0.0f64, 0.0f64);
            for at in places {
                assert!(value[at].is_finite(), "{name} of {op:?}");
                largest = largest.max(expected[at].abs());
                worst = worst.max((f64::from(value[at]) - expected[at]).abs());
            }
            assert!(worst <= 1e-5 * largest, "d{name} of {op:?}: off by {worst:e}, largest {largest:e}");
        }
    }
}

#[test]
fn the_reference_agrees_with_differences_of_the_scan() {
    let (tokens, s) = sizes(7, [4, 3, 2, 5], (0.3, 1.5));
    let mut operands = operands(tokens, s, (-2.0, 3.0), (-1.0, 1.0));
    let (cols, starts) = (parts(s)[6], parts(s));
    let gradient = reference(&gradient_op(s), &operands);
    let column_sum = |column: usize| (0..tokens).map(|t| gradient[t * cols + column]).sum::<f64>();
    let expected = |operand: usize, i: usize| {
        let of_part = |part: usize, width: usize| gradient[i / width * cols + starts[part] + i % width];
        match operand {
            0 => of_part(0, s.heads * s.head_dim),
            1 => of_part(3, s.heads),
            2 => of_part(1, s.groups * s.state),
            3 => of_part(2, s.groups * s.state),
            4 => column_sum(starts[3] + i),
            5 => column_sum(starts[4] + i),
            _ => column_sum(starts[5] + i),
        }
    };
    let mut cut = 0;
    for operand in 0..7 {
        for i in 0..operands[operand].data().len() {
            let mut loss = |change: f64| {
                shift(&mut operands[operand], i, change);
                let y = (ssd::KERNEL.reference)(&scan_op(s), &operands[..7]);
                shift(&mut operands[operand], i, -change);
                y.iter().zip(operands[7].data()).map(|(y, dy)| y * dy).sum::<f64>()
            };
            let h = 1e-5;
            let difference = (loss(h) - loss(-h)) / (2.0 * h);
            let analytic = expected(operand, i);
            cut += usize::from(operand == 1 && analytic == 0.0);
            let off = (difference - analytic).abs() / analytic.abs().max(1.0);
            assert!(off < 1e-7, "operand {operand}, element {i}: {analytic} is not {difference}");
        }
    }
    assert!(cut > 0 && cut < tokens * s.heads, "{cut} numbers were cut");
}

fn shift(m: &mut Exact, i: usize, by: f64) {
    if let Exact::F64 { data, .. } = m {
        data[i] += by;
    }
}
