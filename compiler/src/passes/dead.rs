//! Drops stages that no evaluation and no export needs.

use super::Pass;
use crate::plan::{Plan, Stage};
use petgraph::Incoming;

pub const PASS: Pass = Pass { name: "dead", doc: "drop stages that nothing asked for needs", run };

fn run(plan: &Plan) -> Plan {
    let wanted: Vec<_> =
        plan.graph.node_indices().filter(|id| matches!(plan.node(*id).stage, Stage::Report)).collect();
    plan.restricted(&plan.reachable(&wanted, Incoming))
}
