//! The column of the largest element of a row, of equals the first; NaN where there is none.

mod shader;

use super::math::{maximum, wide};
use super::parallel::by_rows;
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "argmax",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 0.0,
    shaders: shader::KERNEL,
};

fn cpu(call: Call) {
    let x = call.f32(0);
    by_rows(call.out_f32(), 1, |r, mut out| {
        let largest = wide(
            #[inline(always)]
            || maximum(x.row(r)),
        );
        let first = x.row(r).iter().position(|x| *x == largest);
        out.row(0).fill(first.map_or(f32::NAN, |c| c as f32));
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let x = &operands[0];
    let largest = |r: usize| {
        let columns = x.row(r).iter().enumerate();
        columns.fold((0, f64::NEG_INFINITY), |best, (c, x)| if *x > best.1 { (c, *x) } else { best }).0
    };
    (0..x.rows()).map(|r| largest(r) as f64).collect()
}
