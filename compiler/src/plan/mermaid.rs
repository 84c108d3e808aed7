//! The plan as a Mermaid flowchart, which code hosts draw in Markdown.

use super::{Plan, Stage};
use std::fmt::Write;

impl Plan {
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let order = self.order();
        for &id in &order {
            let node = self.node(id);
            let (open, close) = match node.stage {
                Stage::Load(_) => ("[(", ")]"),
                Stage::Export(_) | Stage::Report => ("([", "])"),
                _ => ("[", "]"),
            };
            let name = escaped(&node.name);
            let _ = writeln!(out, "  n{}{open}\"{name}<br/>{}\"{close}", id.index(), node.stage.name());
        }
        for &id in &order {
            for (to, value) in self.outputs(id) {
                let _ = writeln!(out, "  n{} -->|{}| n{}", id.index(), value.name(), to.index());
            }
        }
        out
    }
}

/// Mermaid reads entities, not backslashes, inside quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}
