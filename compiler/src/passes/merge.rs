//! Merges stages that do the same to the same inputs.

use super::Pass;
use crate::plan::{Plan, Value};
use petgraph::graph::NodeIndex;

pub const PASS: Pass = Pass { name: "merge", doc: "merge equal stages", run };

fn run(plan: &Plan) -> Plan {
    let mut into: Vec<NodeIndex> = plan.graph.node_indices().collect();
    let order = plan.order();
    for (i, &id) in order.iter().enumerate() {
        let inputs = inputs(plan, &into, id);
        let same = |&&other: &&NodeIndex| {
            into[other.index()] == other
                && plan.node(other).stage == plan.node(id).stage
                && self::inputs(plan, &into, other) == inputs
        };
        if let Some(&first) = order[..i].iter().find(same) {
            into[id.index()] = first;
        }
    }
    plan.contracted(&into)
}

/// What comes in once the merges so far are made.
fn inputs(plan: &Plan, into: &[NodeIndex], id: NodeIndex) -> Vec<(NodeIndex, Value)> {
    let mut inputs: Vec<_> = plan.inputs(id).into_iter().map(|(from, v)| (into[from.index()], v)).collect();
    inputs.sort();
    inputs.dedup();
    inputs
}
