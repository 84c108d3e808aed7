//! Sums over positions.

use super::super::Shaders;
use crate::shader::common::column_sums;

pub const KERNEL: Shaders = Shaders {
    version: 1,
    plan: |plan, call| {
        let (x, gradient) = (&call.args[0], &call.args[1]);
        column_sums(plan, "column_sum", gradient, &[("x", x)], |source| source, "x(r, c)")
    },
    tolerance: 2e-6,
};
