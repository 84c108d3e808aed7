//! The plan in the language of Graphviz.

use super::{Plan, text};
use std::fmt::Write;

impl Plan {
    /// A digraph, left to right.
    pub fn to_dot(&self) -> String {
        let mut out = String::from(
            "digraph plan {\n  rankdir = LR;\n  node [shape = box, fontname = \"sans-serif\"];\n",
        );
        let order = self.order();
        for &id in &order {
            let node = self.node(id);
            let detail = text::detail(&node.stage);
            let label = format!("{}\\n{}", escaped(&node.name), node.stage.name());
            let _ =
                writeln!(out, "  n{} [label = \"{label}\", tooltip = \"{}\"];", id.index(), escaped(&detail));
        }
        for &id in &order {
            for (to, value) in self.outputs(id) {
                let _ = writeln!(out, "  n{} -> n{} [label = \"{}\"];", id.index(), to.index(), value.name());
            }
        }
        out + "}\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}
