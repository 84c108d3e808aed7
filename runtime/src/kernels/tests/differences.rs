//! Gradients by central differences of a reference: what the references of reverse mode are compared with.

use super::{Draw, Exact, Kernel, Op};

/// A matrix of numbers in [-1, 1), the same for the same seed.
pub fn drawn(seed: u64, rows: usize, cols: usize) -> Exact {
    let mut draw = Draw(seed);
    Exact::F64 { data: (0..rows * cols).map(|_| 2.0 * draw.next() - 1.0).collect(), rows, cols }
}

pub fn zeros(rows: usize, cols: usize) -> Exact {
    Exact::F64 { data: vec![0.0; rows * cols], rows, cols }
}

/// The gradient of sum(dy * value) by operand `by`.
pub fn differences(kernel: &Kernel, op: &Op, operands: &[Exact], by: usize, dy: &Exact) -> Vec<f64> {
    const H: f64 = 1e-5;
    let at = |i: usize, shift: f64| {
        let mut operands = operands.to_vec();
        if let Exact::F64 { data, .. } = &mut operands[by] {
            data[i] += shift;
        }
        let value = (kernel.reference)(op, &operands);
        assert_eq!(value.len(), dy.data().len());
        value.iter().zip(dy.data()).map(|(v, dy)| v * dy).sum::<f64>()
    };
    (0..operands[by].data().len()).map(|i| (at(i, H) - at(i, -H)) / (2.0 * H)).collect()
}

/// Equal up to what differences lose.
pub fn assert_near(gradient: &[f64], slopes: &[f64]) {
    assert_eq!(gradient.len(), slopes.len());
    let largest = slopes.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(largest > 1e-2, "slopes that tell nothing");
    for (i, (g, s)) in gradient.iter().zip(slopes).enumerate() {
        assert!((g - s).abs() <= 1e-7 * largest, "element {i}: {g} where the slope is {s}");
    }
}
