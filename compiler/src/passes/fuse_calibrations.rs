//! Calibrations of one model on the same samples become one pass over them.

use super::Pass;
use crate::plan::{Plan, Stage, Value};
use petgraph::graph::NodeIndex;

pub const PASS: Pass = Pass {
    name: "fuse_calibrations",
    doc: "gather all metrics of one model on one data set in one pass",
    run,
};

fn run(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let mut into: Vec<NodeIndex> = plan.graph.node_indices().collect();
    let mut first: Vec<NodeIndex> = Vec::new();
    for id in plan.order() {
        let Stage::Calibrate(wanted) = plan.node(id).stage.clone() else { continue };
        match first.iter().copied().find(|other| passes_over(&plan, *other) == passes_over(&plan, id)) {
            Some(other) => {
                if let Stage::Calibrate(all) = &mut plan.graph[other].stage {
                    all.absorb(&wanted);
                }
                into[id.index()] = other;
            }
            None => first.push(id),
        }
    }
    plan.contracted(&into)
}

/// The model and the samples of a calibration.
fn passes_over(plan: &Plan, id: NodeIndex) -> (Option<NodeIndex>, Option<NodeIndex>) {
    (plan.source(id, Value::Model), plan.source(id, Value::Samples))
}
