//! relu(x)^2 and silu(x), in place; and in reverse, in place over dy, dx = dy 2 relu(x) and dx = dy silu'(x).

mod shader;

use super::math::{silu, silu_and_slope, wide};
use super::parallel::{by_rows, row_block};
use super::{Call, Exact, Kernel, View, ViewMut, no_scratch};
use minic_compiler::graph::Op;

pub const RELU2: Kernel = Kernel {
    name: "relu2",
    version: 1,
    cpu: relu2_cpu,
    reference: relu2_reference,
    scratch: no_scratch,
    tolerance: 1e-7,
    shaders: shader::RELU2,
};

pub const SILU: Kernel = Kernel {
    name: "silu",
    version: 1,
    cpu: silu_cpu,
    reference: silu_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::SILU,
};

pub const RELU2_GRAD: Kernel = Kernel {
    name: "relu2_grad",
    version: 1,
    cpu: relu2_grad,
    reference: relu2_grad_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::RELU2_GRAD,
};

pub const SILU_GRAD: Kernel = Kernel {
    name: "silu_activation_grad",
    version: 1,
    cpu: silu_grad,
    reference: silu_grad_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::SILU_GRAD,
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

fn relu2_grad(call: Call) {
    let x = call.f32(0);
    multiply(
        x,
        call.out_f32(),
        #[inline(always)]
        |x| 2.0 * x.max(0.0),
    );
}

fn silu_grad(call: Call) {
    let x = call.f32(0);
    multiply(
        x,
        call.out_f32(),
        #[inline(always)]
        |x| silu_and_slope(x).1,
    );
}

/// dy *= slope(x)
fn multiply(x: View, dy: ViewMut, slope: impl Fn(f32) -> f32 + Sync) {
    let block = row_block(dy.cols());
    by_rows(dy, block, |first, mut dy| {
        wide(
            #[inline(always)]
            || {
                for i in 0..dy.rows() {
                    for (dy, x) in dy.row(i).iter_mut().zip(x.row(first + i)) {
                        *dy *= slope(*x);
                    }
                }
            },
        )
    });
}

fn relu2_grad_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    operands[0].data().iter().zip(operands[1].data()).map(|(x, dy)| dy * 2.0 * x.max(0.0)).collect()
}

fn silu_grad_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let slope = |x: f64| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    operands[0].data().iter().zip(operands[1].data()).map(|(x, dy)| dy * slope(*x)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::differences::{assert_near, differences, drawn};
    use super::*;
    use minic_compiler::graph::Activation;

    #[test]
    fn gradients_are_slopes() {
        let (x, dy) = (drawn(1, 4, 5), drawn(2, 4, 5));
        for (activation, forward, backward) in
            [(Activation::Relu2, RELU2, RELU2_GRAD), (Activation::Silu, SILU, SILU_GRAD)]
        {
            let slopes = differences(&forward, &Op::Activation(activation), std::slice::from_ref(&x), 0, &dy);
            let operands = [x.clone(), dy.clone()];
            assert_near(&(backward.reference)(&Op::ActivationGrad(activation), &operands), &slopes);
        }
    }
}
