//! Masks, element by element.

use super::super::Shaders;
use crate::shader::common::elementwise;

pub const KERNEL: Shaders = Shaders {
    version: 1,
    plan: |plan, call| {
        let (x, mask) = (("x", &call.args[0]), ("mask", &call.args[1]));
        elementwise(plan, "mask", call.out, &[x], &[mask], "", "x(r, c) * mask(0u, c)")
    },
    tolerance: 1e-7,
};
