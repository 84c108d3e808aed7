//! One candidate of a space, once its sizes are known: the same kinds of stages that a recipe's own models have,
//! beside copies of those that feed the search.

use crate::dim::Dim;
use crate::hir::{self, Control};
use crate::plan::{Cut, CutAxis, Plan, PlanNode, Stage, Training, Value};
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

/// The stages of a candidate. Those that feed the search come first, under their own names.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub plan: Plan,
    /// How many of the stages are copies of what feeds the search.
    pub given: usize,
    pub cut: NodeIndex,
    /// The one that completes it: the cut, or its repair.
    pub made: NodeIndex,
    /// Its trainings, by the schedules of the search.
    pub trainings: Vec<NodeIndex>,
}

/// `sizes` are those of the axes that are cut; a control is ranked in its own way. `None` for a stage that has no space.
pub fn candidate(
    plan: &Plan,
    id: NodeIndex,
    name: &str,
    sizes: &BTreeMap<Dim, usize>,
    control: Option<&Control>,
) -> Option<Candidate> {
    let (space, training, schedules) = match &plan.node(id).stage {
        Stage::Search(search) => (&search.space, search.search.training.as_ref(), &search.schedules[..]),
        Stage::Sensitivity(sensitivity) => (&sensitivity.space, None, &[][..]),
        _ => return None,
    };
    let (own, copies) = (Plan::default(), BTreeMap::new());
    let mut lowering = Lowering { of: plan, id, space, training, name, plan: own, copies };
    for (from, _) in plan.inputs(id) {
        let place = lowering.plan.add(plan.node(from).clone());
        lowering.copies.insert(from, place);
    }
    let given = lowering.plan.graph.node_count();
    let (cut, made) = lowering.made(sizes, control);
    let trainings = schedules.iter().map(|(name, schedule)| lowering.training(made, name, schedule));
    let trainings = trainings.collect();
    Some(Candidate { plan: lowering.plan, given, cut, made, trainings })
}

struct Lowering<'a> {
    of: &'a Plan,
    id: NodeIndex,
    space: &'a hir::Prune,
    training: Option<&'a hir::RungTraining>,
    name: &'a str,
    plan: Plan,
    copies: BTreeMap<NodeIndex, NodeIndex>,
}

impl Lowering<'_> {
    /// The copies of the stages that send `value` to the search.
    fn given(&self, value: Value) -> Vec<NodeIndex> {
        self.of.sources(self.id, value).iter().filter_map(|from| self.copies.get(from)).copied().collect()
    }

    fn samples(&self, data: &str) -> Option<NodeIndex> {
        self.copies.get(&self.of.samples_of(self.id, data)?).copied()
    }

    fn add(&mut self, suffix: &str, stage: Stage) -> NodeIndex {
        let span = self.of.node(self.id).span;
        self.plan.add(PlanNode::new(format!("{}{suffix}", self.name), stage, span))
    }

    /// The model that is cut: rotated where an axis keeps fewer directions than there are.
    fn source(&self, leading: bool) -> Option<NodeIndex> {
        let rotated = |id: &NodeIndex| matches!(self.plan.node(*id).stage, Stage::Rotate);
        self.given(Value::Model).into_iter().find(|id| rotated(id) == leading)
    }

    fn made(&mut self, sizes: &BTreeMap<Dim, usize>, control: Option<&Control>) -> (NodeIndex, NodeIndex) {
        let space = self.space;
        let random = matches!(control, Some(Control::Random { .. }));
        let axis = |cut: &hir::AxisCut| {
            let leading = cut.score == hir::Score::Pca && !random;
            Some(CutAxis { axis: cut.axis, size: *sizes.get(&cut.axis.dim)?, leading })
        };
        let axes: Vec<CutAxis> = space.axes.iter().filter_map(axis).collect();
        let source = self.source(axes.iter().any(|axis| axis.leading));
        let constraints = space.constraints.clone();
        let suffix = if space.repairs.is_empty() { "" } else { ".cut" };
        let repairs: Vec<hir::RepairKind> = space.repairs.iter().map(|r| r.kind.clone()).collect();
        let calibration = space.calibrate.as_deref().and_then(|data| self.samples(data));
        let scores = self.given(Value::Scores);
        let cut = self.add(suffix, Stage::Cut(Cut { axes, constraints, control: control.cloned() }));
        source.into_iter().for_each(|source| self.plan.connect(source, cut, Value::Model));
        scores.into_iter().for_each(|scores| self.plan.connect(scores, cut, Value::Scores));
        if repairs.is_empty() {
            return (cut, cut);
        }
        let repair = self.add("", Stage::Repair(repairs));
        self.plan.connect(cut, repair, Value::Model);
        source.into_iter().for_each(|source| self.plan.connect(source, repair, Value::Teacher));
        calibration.into_iter().for_each(|samples| self.plan.connect(samples, repair, Value::Samples));
        (cut, repair)
    }

    fn training(&mut self, made: NodeIndex, name: &str, schedule: &hir::Schedule) -> NodeIndex {
        let default = self.training;
        let training = Training {
            name: format!("{}.{name}", self.name),
            schedule_name: name.to_string(),
            data: default.map(|training| training.data.clone()).unwrap_or_default(),
            schedule: schedule.clone(),
            weights: hir::Weights::Own,
            heldout: None,
        };
        let teacher = self.given(Value::Teacher).first().copied();
        let of_phase = |phase: &hir::Phase| {
            let data = phase.data.as_deref().or(default.map(|training| training.data.as_str()))?;
            self.samples(data)
        };
        let data: Vec<NodeIndex> = schedule.phases.iter().filter_map(of_phase).collect();
        let stage = if teacher.is_some() { Stage::Distill(training) } else { Stage::Train(training) };
        let id = self.add(&format!(".{name}"), stage);
        self.plan.connect(made, id, Value::Model);
        teacher.into_iter().for_each(|teacher| self.plan.connect(teacher, id, Value::Teacher));
        data.into_iter().for_each(|data| self.plan.connect(data, id, Value::Samples));
        id
    }
}
