//! The text of a graph: one line a node, `%3 = rms_norm(%1, %2) [sequence:64, hidden_size:160]`.

use super::{Graph, Op, TopK};
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
        for id in &self.effects {
            writeln!(f, "effect %{}", id.index())?;
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
        Op::ConvSilu { kernel, .. } | Op::ConvStep { kernel, .. } => format!(" kernel={kernel}"),
        Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi }
        | Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi }
        | Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi }
        | Op::SsdStep { heads, head_dim, groups, state, dt_lo, dt_hi } => {
            format!(" heads={heads} head_dim={head_dim} groups={groups} state={state} dt={dt_lo}..={dt_hi}")
        }
        Op::GatedNorm { groups, eps, active } => format!(" groups={groups} eps={eps} active={active}"),
        Op::Attention { heads, kv_heads, head_dim } | Op::AttentionGrad { heads, kv_heads, head_dim } => {
            format!(" heads={heads} kv_heads={kv_heads} head_dim={head_dim}")
        }
        Op::AttentionStep { heads, kv_heads, head_dim, window } => {
            format!(" heads={heads} kv_heads={kv_heads} head_dim={head_dim} window={window}")
        }
        Op::Keep { positions, window } => format!(" positions={positions} window={window}"),
        Op::TopK(TopK { k, temperature }) => format!(" k={k} T={temperature}"),
        Op::Metric { program } => format!(" {program}"),
        Op::State { name } | Op::Gradient { name } => format!(" \"{name}\""),
        Op::HeadLoss { terms } => terms.iter().map(|term| format!(" {term}")).collect(),
        Op::StreamLoss { loss, scale } => format!(" {loss:?} * {scale}").to_lowercase(),
        Op::RmsNormGrad { eps, onto } => format!(" eps={eps}{}", if *onto { " onto" } else { "" }),
        Op::RmsNormWeightGrad { eps } => format!(" eps={eps}"),
        Op::GatedNormGrad { groups, eps } | Op::GatedNormWeightGrad { groups, eps } => {
            format!(" groups={groups} eps={eps}")
        }
        Op::SiluGrad { kernel, .. } | Op::ConvGrad { kernel } | Op::ConvWeightGrad { kernel } => {
            format!(" kernel={kernel}")
        }
        _ => String::new(),
    }
}
