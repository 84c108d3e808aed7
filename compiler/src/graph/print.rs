//! The text of a graph: one line a node, `%3 = rms_norm(%1, %2) [sequence:64, hidden_size:160]`.

use super::{Graph, Op};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for id in self.order() {
            let node = self.node(id);
            let operands: Vec<String> = self.operands(id).iter().map(|o| format!("%{}", o.index())).collect();
            let shape: Vec<String> = node.shape.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "%{} = {}({}){} [{}]",
                id.index(),
                node.op.name(),
                operands.join(", "),
                attributes(&node.op),
                shape.join(", ")
            )?;
        }
        for (name, id) in &self.outputs {
            writeln!(f, "output {name} = %{}", id.index())?;
        }
        Ok(())
    }
}

fn attributes(op: &Op) -> String {
    match op {
        Op::Input { name } | Op::Weight { name } | Op::Part { name } => format!(" \"{name}\""),
        Op::RmsNorm { eps, active } => format!(" eps={eps} active={active}"),
        Op::Linear { bias, residual } => {
            format!("{}{}", if *bias { " bias" } else { "" }, if *residual { " residual" } else { "" })
        }
        Op::ConvSilu { kernel, .. } => format!(" kernel={kernel}"),
        Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
            format!(" heads={heads} head_dim={head_dim} groups={groups} state={state} dt={dt_lo}..={dt_hi}")
        }
        Op::GatedNorm { groups, eps, active } => format!(" groups={groups} eps={eps} active={active}"),
        Op::Attention { heads, kv_heads, head_dim } => {
            format!(" heads={heads} kv_heads={kv_heads} head_dim={head_dim}")
        }
        Op::Metric { program } => format!(" {program}"),
        _ => String::new(),
    }
}
