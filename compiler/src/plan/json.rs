//! The plan as JSON: `{nodes: [{name, stage, group, detail, makes, aliases, inputs: [{from, value}]}]}`.

use super::{Plan, Stage, text};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One stage as plain text: what a plan is drawn from, and what the result of a run remembers of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub name: String,
    /// The word for its kind: `load`, `cut`, ..
    pub stage: String,
    pub group: Group,
    /// What the kind does not say.
    pub detail: String,
    /// The declared models that it completes.
    pub makes: Vec<String>,
    pub aliases: Vec<String>,
    pub inputs: Vec<InputRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The stage that it comes from, and what flows.
    pub from: String,
    pub value: String,
}

/// What a stage is about: drawings give each group a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    Input,
    Importance,
    Cut,
    Learning,
    Evaluation,
    Output,
}

impl Group {
    pub const ALL: &[Group] =
        &[Group::Input, Group::Importance, Group::Cut, Group::Learning, Group::Evaluation, Group::Output];

    pub fn name(self) -> &'static str {
        match self {
            Group::Input => "input",
            Group::Importance => "importance",
            Group::Cut => "cut",
            Group::Learning => "learning",
            Group::Evaluation => "evaluation",
            Group::Output => "output",
        }
    }

    fn of(stage: &Stage) -> Group {
        match stage {
            Stage::Load(_) => Group::Input,
            Stage::Calibrate(_) | Stage::Score(_) => Group::Importance,
            Stage::Rotate | Stage::Cut(_) | Stage::Repair(_) => Group::Cut,
            Stage::Search(_) | Stage::Sensitivity(_) | Stage::Train(_) | Stage::Distill(_) => Group::Learning,
            Stage::Evaluate(_) => Group::Evaluation,
            Stage::Export(_) | Stage::Report => Group::Output,
        }
    }
}

impl NodeRecord {
    /// A stage in one line, its kind first.
    pub fn line(&self) -> String {
        format!("{} {}", self.stage, self.detail).trim_end().to_string()
    }
}

impl Plan {
    /// In the order of the run.
    pub fn records(&self) -> Vec<NodeRecord> {
        self.order().into_iter().map(|id| self.record(id)).collect()
    }

    fn record(&self, id: NodeIndex) -> NodeRecord {
        let node = self.node(id);
        let input = |(from, value): (NodeIndex, super::Value)| InputRecord {
            from: self.node(from).name.clone(),
            value: value.name().into(),
        };
        NodeRecord {
            name: node.name.clone(),
            stage: node.stage.name().into(),
            group: Group::of(&node.stage),
            detail: text::detail(&node.stage),
            makes: node.makes.clone(),
            aliases: node.aliases.clone(),
            inputs: self.inputs(id).into_iter().map(input).collect(),
        }
    }

    /// Nodes in the order of the run.
    pub fn to_json(&self) -> Value {
        json!({ "nodes": self.records() })
    }
}
