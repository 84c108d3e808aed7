//! Activation functions and their gradients, element by element.

use super::super::Shaders;
use crate::shader::common::{SIGMOID, elementwise};
use crate::shader::{Call, Plan, Unfit};

pub const RELU2: Shaders = Shaders {
    version: 1,
    plan: |plan, call| of(plan, call, "relu2", "max(x(r, c), 0.0) * max(x(r, c), 0.0)"),
    tolerance: 1e-7,
};
pub const SILU: Shaders =
    Shaders { version: 1, plan: |plan, call| of(plan, call, "silu", "silu(x(r, c))"), tolerance: 2e-6 };
pub const RELU2_GRAD: Shaders = Shaders {
    version: 1,
    plan: |plan, call| of(plan, call, "relu2_grad", "2.0 * max(x(r, c), 0.0) * dy(r, c)"),
    tolerance: 1e-6,
};
pub const SILU_GRAD: Shaders = Shaders {
    version: 1,
    plan: |plan, call| of(plan, call, "silu_activation_grad", "silu_slope(x(r, c)) * dy(r, c)"),
    tolerance: 2e-6,
};

fn of(plan: &mut Plan, call: Call, name: &'static str, value: &str) -> Result<(), Unfit> {
    let operands: Vec<_> = ["x", "dy"].into_iter().zip(call.args).collect();
    elementwise(plan, name, call.out, &operands, &[], SIGMOID, value)
}
