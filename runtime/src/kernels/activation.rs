//! relu(x)^2 and silu(x), in place.

use super::math::{silu, wide};
use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const RELU2: Kernel = Kernel {
    name: "relu2",
    version: 1,
    cpu: relu2_cpu,
    reference: relu2_reference,
    scratch: no_scratch,
    tolerance: 1e-7,
};

pub const SILU: Kernel = Kernel {
    name: "silu",
    version: 1,
    cpu: silu_cpu,
    reference: silu_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
};

#[inline(always)]
fn relu2(x: f32) -> f32 {
    let x = x.max(0.0);
    x * x
}

fn relu2_cpu(call: Call) {
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |_, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    for x in out.row(i) {
                        *x = relu2(*x);
                    }
                }
            },
        )
    });
}

fn silu_cpu(call: Call) {
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |_, mut out| {
        wide(
            #[inline(always)]
            || {
                for i in 0..out.rows() {
                    for x in out.row(i) {
                        *x = silu(*x);
                    }
                }
            },
        )
    });
}

fn relu2_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    operands[0].data().iter().map(|x| x.max(0.0) * x.max(0.0)).collect()
}

fn silu_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    operands[0].data().iter().map(|x| x / (1.0 + (-x).exp())).collect()
}
