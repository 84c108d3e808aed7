//! Evaluations share forward passes.
//!
//! - An evaluation of a model by itself on samples that calibrate the same model joins the calibration.
//! - Evaluations on the same samples that have a model in common, be it evaluated or compared with, run
//!   together, if they compare with one teacher at most.
//!
//! Nothing is made to wait for a search or a training that it does not need itself: evaluations run together
//! only if they depend on the same ones.

use super::Pass;
use crate::plan::{Plan, Stage, Value};
use petgraph::graph::NodeIndex;
use std::collections::BTreeSet;

pub const PASS: Pass = Pass {
    name: "fuse_evaluations",
    doc: "evaluate beside calibrations, and students of one teacher together",
    run,
};

fn run(plan: &Plan) -> Plan {
    let plan = join_calibrations(plan);
    let mut groups: Vec<Group> = Vec::new();
    let order = plan.order();
    for id in order.into_iter().filter(|id| matches!(plan.node(*id).stage, Stage::Evaluate(_))) {
        let group = Group::of(&plan, id);
        match groups.iter_mut().find(|other| other.shares_passes(&group)) {
            Some(other) => other.absorb(group),
            None => groups.push(group),
        }
    }
    fuse(plan, &groups)
}

fn join_calibrations(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let mut into: Vec<NodeIndex> = plan.graph.node_indices().collect();
    for id in plan.order() {
        let Stage::Evaluate(evaluations) = plan.node(id).stage.clone() else { continue };
        let (models, samples) = (plan.sources(id, Value::Model), plan.source(id, Value::Samples));
        let alone = plan.source(id, Value::Teacher).is_none();
        let [model] = models.as_slice() else { continue };
        let calibrates = |other: &NodeIndex| {
            matches!(plan.node(*other).stage, Stage::Calibrate(_))
                && plan.source(*other, Value::Model) == Some(*model)
                && plan.source(*other, Value::Samples) == samples
        };
        let Some(calibration) = plan.graph.node_indices().find(calibrates).filter(|_| alone) else {
            continue;
        };
        if let Stage::Calibrate(wanted) = &mut plan.graph[calibration].stage {
            wanted.evaluations.extend(evaluations);
        }
        into[id.index()] = calibration;
    }
    plan.contracted(&into)
}

/// Evaluations that run together.
struct Group {
    members: Vec<NodeIndex>,
    samples: Option<NodeIndex>,
    /// All models that pass over the samples.
    models: BTreeSet<NodeIndex>,
    teacher: Option<NodeIndex>,
    /// The searches and trainings that it has to wait for.
    waits: BTreeSet<NodeIndex>,
}

impl Group {
    fn of(plan: &Plan, id: NodeIndex) -> Group {
        let teacher = plan.source(id, Value::Teacher);
        let models = plan.sources(id, Value::Model).into_iter().chain(teacher).collect();
        let waits = plan.ancestors(id).into_iter().filter(|a| plan.node(*a).stage.is_long()).collect();
        Group { members: vec![id], samples: plan.source(id, Value::Samples), models, teacher, waits }
    }

    fn shares_passes(&self, other: &Group) -> bool {
        self.samples == other.samples
            && self.waits == other.waits
            && !self.models.is_disjoint(&other.models)
            && (self.teacher.is_none() || other.teacher.is_none() || self.teacher == other.teacher)
    }

    fn absorb(&mut self, other: Group) {
        self.members.extend(other.members);
        self.models.extend(other.models);
        self.teacher = self.teacher.or(other.teacher);
    }
}

fn fuse(mut plan: Plan, groups: &[Group]) -> Plan {
    let mut into: Vec<NodeIndex> = plan.graph.node_indices().collect();
    for group in groups {
        let Some((&first, rest)) = group.members.split_first() else { continue };
        for &id in rest {
            let Stage::Evaluate(more) = plan.node(id).stage.clone() else { continue };
            if let Stage::Evaluate(all) = &mut plan.graph[first].stage {
                all.extend(more);
            }
            into[id.index()] = first;
        }
    }
    plan.contracted(&into)
}
