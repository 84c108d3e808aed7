//! Sums, element by element.

use super::super::Shaders;
use crate::shader::common::elementwise;

pub const KERNEL: Shaders = Shaders {
    version: 1,
    plan: |plan, call| {
        let operands = [("a", &call.args[0]), ("b", &call.args[1])];
        elementwise(plan, "add", call.out, &operands, &[], "", "a(r, c) + b(r, c)")
    },
    tolerance: 1e-7,
};
