//! What holds for every plan, before and after each pass:
//!
//! - names and aliases are not empty, and no two stages answer to one name;
//! - there is no cycle;
//! - there is exactly one report, and nothing comes after it;
//! - every edge carries a value that its source makes (see [`makes`]);
//! - every stage has the inputs that its kind takes, as many as it takes, and no other (see [`takes`]);
//! - a calibration gathers something, and what a score wants of a calibration is gathered there;
//! - a cut has a score for every axis but those that keep leading directions;
//! - a declared model is made by one stage, and a stage that speaks of a model by name is fed by its maker;
//! - an evaluation compares with a teacher if and only if one comes in.

use super::{Calibrate, Cut, Needs, Plan, PlanNode, Score, Source, Stage, Value};
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

/// A plan that is not one: a bug of the lowering or of a pass, never the user's fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the plan is broken at `{node}`: {rule}")]
pub struct VerifyError {
    pub node: String,
    pub rule: String,
}

type Checked = Result<(), VerifyError>;

fn ensure(holds: bool, node: &PlanNode, rule: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(VerifyError { node: node.name.clone(), rule: rule.into() }) }
}

impl Plan {
    /// The rules at the head of this file.
    pub fn verify(&self) -> Checked {
        self.names()?;
        self.acyclic()?;
        self.one_report()?;
        for id in self.graph.node_indices() {
            self.edges_carry_what_is_made(id)?;
            self.inputs_fit(id)?;
            self.stage_is_fed(id)?;
        }
        Ok(())
    }

    fn names(&self) -> Checked {
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut makers: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, node) in self.graph.node_weights().enumerate() {
            for name in std::iter::once(&node.name).chain(&node.aliases) {
                ensure(!name.is_empty(), node, "it has an empty name")?;
                let taken = answers.insert(name, i).is_some();
                ensure(!taken, node, format!("another stage answers to `{name}`"))?;
            }
            for model in &node.makes {
                let taken = makers.insert(model, i).is_some();
                ensure(!taken, node, format!("another stage makes `{model}`"))?;
            }
        }
        Ok(())
    }

    fn acyclic(&self) -> Checked {
        let order = self.order();
        let stuck = self.graph.node_indices().find(|id| !order.contains(id));
        stuck.map_or(Ok(()), |id| ensure(false, self.node(id), "it waits for itself"))
    }

    fn one_report(&self) -> Checked {
        let is_report = |id: &NodeIndex| matches!(self.node(*id).stage, Stage::Report);
        let reports: Vec<NodeIndex> = self.graph.node_indices().filter(is_report).collect();
        let Some(&first) = reports.first() else {
            // A plan cut short by `--until` ends elsewhere.
            return Ok(());
        };
        ensure(reports.len() == 1, self.node(first), "there is a second report")?;
        ensure(self.outputs(first).is_empty(), self.node(first), "something comes after it")
    }

    fn edges_carry_what_is_made(&self, id: NodeIndex) -> Checked {
        let node = self.node(id);
        for (_, value) in self.outputs(id) {
            let name = value.name();
            ensure(makes(&node.stage).contains(&value), node, format!("it makes no {name}"))?;
        }
        Ok(())
    }

    fn inputs_fit(&self, id: NodeIndex) -> Checked {
        let node = self.node(id);
        let takes = takes(&node.stage);
        for (_, value) in self.inputs(id) {
            let known = takes.iter().any(|(v, _, _)| *v == value);
            ensure(known, node, format!("it takes no {}", value.name()))?;
        }
        for (value, least, most) in takes {
            let n = self.sources(id, value).len();
            let rule = format!("{n} inputs of {}, not {least} to {most}", value.name());
            ensure((least..=most).contains(&n), node, rule)?;
        }
        Ok(())
    }

    fn stage_is_fed(&self, id: NodeIndex) -> Checked {
        let node = self.node(id);
        match &node.stage {
            Stage::Calibrate(wanted) => {
                ensure(!wanted.is_empty(), node, "it gathers nothing")?;
                wanted.evaluations.iter().try_for_each(|e| self.evaluated(id, e))
            }
            Stage::Score(score) => self.score_is_fed(id, score),
            Stage::Cut(cut) => self.cut_is_fed(id, cut),
            Stage::Evaluate(evaluations) => {
                ensure(!evaluations.is_empty(), node, "it evaluates nothing")?;
                let compares = evaluations.iter().any(|e| e.against.is_some());
                let teacher = self.source(id, Value::Teacher).is_some();
                ensure(compares == teacher, node, "a teacher comes in if and only if one is compared with")?;
                evaluations.iter().try_for_each(|e| self.evaluated(id, e))
            }
            Stage::Export(export) => self.fed_by(id, &export.model, Value::Model),
            Stage::Load(_)
            | Stage::Rotate
            | Stage::Repair(_)
            | Stage::Search(_)
            | Stage::Sensitivity(_)
            | Stage::Train(_)
            | Stage::Distill(_)
            | Stage::Report => Ok(()),
        }
    }

    fn score_is_fed(&self, id: NodeIndex, score: &Score) -> Checked {
        let partials = self.source(id, Value::Partials).map(|from| &self.node(from).stage);
        let gathered = |has: &dyn Fn(&Calibrate) -> bool| match partials {
            Some(Stage::Calibrate(calibrate)) => has(calibrate),
            _ => false,
        };
        let (fed, rule) = match score.needs() {
            Needs::Request(r) => (gathered(&|c| c.requests.contains(&r)), "its metric is not gathered"),
            Needs::Layer(m) => (gathered(&|c| c.layers.contains(&m)), "its layer metric is not gathered"),
            Needs::Covariance => (gathered(&|c| c.covariance), "the covariance is not gathered"),
            Needs::Iterative(_) | Needs::Contiguous(_) | Needs::Residual => {
                (self.source(id, Value::Samples).is_some(), "it has no samples")
            }
            Needs::Nothing => (partials.is_none(), "it needs no calibration"),
        };
        ensure(fed, self.node(id), rule)
    }

    fn cut_is_fed(&self, id: NodeIndex, cut: &Cut) -> Checked {
        let node = self.node(id);
        ensure(!cut.axes.is_empty(), node, "it cuts no axis")?;
        let scored = |name: &str| {
            let of =
                |from: &NodeIndex| matches!(&self.node(*from).stage, Stage::Score(s) if s.axis.name == name);
            self.sources(id, Value::Scores).iter().any(of)
        };
        for axis in &cut.axes {
            let rule = format!("{} is not scored", axis.axis.name);
            ensure(axis.leading || scored(axis.axis.name), node, rule)?;
        }
        Ok(())
    }

    fn evaluated(&self, id: NodeIndex, evaluation: &super::Evaluation) -> Checked {
        self.fed_by(id, &evaluation.model, Value::Model)?;
        match &evaluation.against {
            Some(teacher) => self.fed_by(id, teacher, Value::Teacher),
            None => Ok(()),
        }
    }

    fn fed_by(&self, id: NodeIndex, model: &str, value: Value) -> Checked {
        let maker = self.maker(model);
        let fed = maker.is_some_and(|from| self.sources(id, value).contains(&from));
        ensure(fed, self.node(id), format!("`{model}` does not come in as its {}", value.name()))
    }
}

/// What a stage can send on.
fn makes(stage: &Stage) -> &'static [Value] {
    match stage {
        Stage::Load(Source::Checkpoint { .. }) => &[Value::Model, Value::Teacher, Value::Tokenizer],
        Stage::Load(Source::Data(_)) => &[Value::Samples],
        Stage::Calibrate(_) => &[Value::Partials, Value::Figures],
        Stage::Score(_) => &[Value::Scores],
        Stage::Rotate
        | Stage::Cut(_)
        | Stage::Repair(_)
        | Stage::Search(_)
        | Stage::Train(_)
        | Stage::Distill(_) => &[Value::Model, Value::Teacher],
        Stage::Evaluate(_) | Stage::Sensitivity(_) => &[Value::Figures],
        Stage::Export(_) => &[Value::Folder],
        Stage::Report => &[],
    }
}

/// What a stage takes: of each value the least and the greatest number of inputs.
fn takes(stage: &Stage) -> Vec<(Value, usize, usize)> {
    const MANY: usize = usize::MAX;
    match stage {
        Stage::Load(Source::Checkpoint { .. }) => vec![],
        Stage::Load(Source::Data(data)) => {
            let from_model = usize::from(data.tokenizer.is_none());
            vec![(Value::Tokenizer, from_model, from_model)]
        }
        Stage::Calibrate(_) => vec![(Value::Model, 1, 1), (Value::Samples, 1, 1)],
        Stage::Score(_) => vec![(Value::Model, 1, 1), (Value::Partials, 0, 1), (Value::Samples, 0, 1)],
        Stage::Rotate => vec![(Value::Model, 1, 1), (Value::Partials, 1, 1)],
        Stage::Cut(cut) => {
            let scored = cut.axes.iter().filter(|a| !a.leading).count();
            vec![(Value::Model, 1, 1), (Value::Scores, scored, scored)]
        }
        Stage::Repair(_) => vec![(Value::Model, 1, 1), (Value::Teacher, 1, 1), (Value::Samples, 0, 1)],
        Stage::Search(_) => vec![
            (Value::Model, 1, 2),
            (Value::Teacher, 0, 1),
            (Value::Scores, 0, MANY),
            (Value::Samples, 0, MANY),
        ],
        Stage::Sensitivity(_) => {
            vec![(Value::Model, 1, 2), (Value::Scores, 0, MANY), (Value::Samples, 1, MANY)]
        }
        Stage::Train(_) => vec![(Value::Model, 1, 1), (Value::Samples, 1, MANY)],
        Stage::Distill(_) => vec![(Value::Model, 1, 1), (Value::Teacher, 1, 1), (Value::Samples, 1, MANY)],
        Stage::Evaluate(_) => vec![(Value::Model, 1, MANY), (Value::Teacher, 0, 1), (Value::Samples, 1, 1)],
        Stage::Export(_) => vec![(Value::Model, 1, 1)],
        Stage::Report => vec![(Value::Figures, 0, MANY), (Value::Folder, 0, MANY)],
    }
}
