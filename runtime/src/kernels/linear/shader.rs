//! Linear layers and their gradients are products.

use super::super::Shaders;
use super::constants;
use crate::shader::{Call, Factor, Onto, Plan, Unfit, product};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 2e-5 };
pub const GRAD: Shaders = Shaders { version: 1, plan: grad, tolerance: 2e-5 };
pub const WEIGHT_GRAD: Shaders = Shaders { version: 1, plan: weight_grad, tolerance: 2e-5 };

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((has_bias, residual), args) = (constants(call.op), call.args);
    let onto =
        Onto { bias: has_bias.then(|| &args[2]), sum: residual.then(|| &args[2 + usize::from(has_bias)]) };
    product(plan, &Factor::of(&args[0]), &Factor::transposed(&args[1]), call.out, onto)
}

fn grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [dy, weight] = [&call.args[0], &call.args[1]];
    product(plan, &Factor::of(dy), &Factor::of(weight), call.out, Onto::default())
}

fn weight_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let [dy, x, gradient] = [&call.args[0], &call.args[1], &call.args[2]];
    let onto = Onto { sum: Some(gradient), ..Onto::default() };
    product(plan, &Factor::transposed(dy), &Factor::of(x), gradient, onto)
}
