//! Matrices side by side: one copy a part.

use super::super::Shaders;
use crate::shader::common::elementwise;
use crate::shader::{Call, Plan, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 0.0 };

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let mut first = 0;
    for part in call.args {
        let out = call.out.columns(first, part.cols);
        elementwise(plan, "concat", &out, &[("x", part)], &[], "", "x(r, c)")?;
        first += part.cols;
    }
    Ok(())
}
