//! The plan as JSON: `{nodes: [{name, stage, detail, makes, aliases, inputs: [{from, value}]}]}`.

use super::{Plan, text};
use serde_json::{Value, json};

impl Plan {
    /// Nodes in the order of the run.
    pub fn to_json(&self) -> Value {
        let node = |id| {
            let node = self.node(id);
            let inputs = self.inputs(id).into_iter();
            let inputs: Vec<Value> =
                inputs.map(|(from, v)| json!({ "from": self.node(from).name, "value": v.name() })).collect();
            json!({
                "name": node.name,
                "stage": node.stage.name(),
                "detail": text::detail(&node.stage),
                "makes": node.makes,
                "aliases": node.aliases,
                "inputs": inputs,
            })
        };
        json!({ "nodes": self.order().into_iter().map(node).collect::<Vec<_>>() })
    }
}
