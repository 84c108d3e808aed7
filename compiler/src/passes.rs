//! Passes over the plan: each takes a plan and gives one that does the same with less.

mod dead;
mod fuse_calibrations;
mod fuse_evaluations;
mod merge;

use crate::plan::{Plan, VerifyError};

/// A rewriting of plans.
#[derive(Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    pub doc: &'static str,
    pub run: fn(&Plan) -> Plan,
}

/// In the order in which they run. To add a pass: its file, its `mod` line, and its line here.
pub const PASSES: &[Pass] =
    &[dead::PASS, merge::PASS, fuse_calibrations::PASS, fuse_evaluations::PASS, merge::PASS];

/// All passes, the plan verified before the first and after each. An error is a bug of the pass named last.
pub fn run(plan: &Plan) -> Result<Plan, (&'static str, VerifyError)> {
    plan.verify().map_err(|e| ("lower", e))?;
    let mut plan = plan.clone();
    for pass in PASSES {
        plan = (pass.run)(&plan);
        plan.verify().map_err(|e| (pass.name, e))?;
    }
    Ok(plan)
}

#[cfg(test)]
mod tests;
