//! The text of a plan: one line a stage, `half.cut <- model parent, scores half.score.hidden_size: cut
//! hidden_size = 128`, in the order of the run. `-> half` at the end names the models that it completes.

use super::{Calibrate, Cut, Evaluation, Export, Plan, Score, Search, Sensitivity, Source, Stage, Training};
use crate::hir::{self, Weights};
use crate::model::LayerKind;
use petgraph::graph::NodeIndex;
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for id in self.order() {
            let node = self.node(id);
            f.write_str(&node.name)?;
            if !node.aliases.is_empty() {
                write!(f, " (also {})", node.aliases.join(", "))?;
            }
            let inputs = self.input_list(id);
            if !inputs.is_empty() {
                write!(f, " <- {inputs}")?;
            }
            write!(f, ": {}", node.stage)?;
            if !node.makes.is_empty() {
                write!(f, " -> {}", node.makes.join(", "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Plan {
    fn input_list(&self, id: NodeIndex) -> String {
        let one =
            |(from, value): &(NodeIndex, super::Value)| format!("{} {}", value.name(), self.node(*from).name);
        self.inputs(id).iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// A stage in one line, its kind first.
pub(super) fn stage(stage: &Stage) -> String {
    let detail = detail(stage);
    if detail.is_empty() { stage.name().to_string() } else { format!("{} {detail}", stage.name()) }
}

/// What the kind of the stage does not say.
pub(super) fn detail(stage: &Stage) -> String {
    match stage {
        Stage::Load(Source::Checkpoint { path, dt_floor }) => {
            let floor = dt_floor.map(|v| format!(", dt_floor {v}")).unwrap_or_default();
            format!("{path:?}{floor}")
        }
        Stage::Load(Source::Data(data)) => data.to_string(),
        Stage::Calibrate(wanted) => calibrate(wanted),
        Stage::Score(score) => self::score(score),
        Stage::Rotate => "the residual stream".into(),
        Stage::Cut(cut) => self::cut(cut),
        Stage::Repair(repairs) => repairs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Stage::Search(search) => self::search(search),
        Stage::Sensitivity(sensitivity) => self::sensitivity(sensitivity),
        Stage::Train(training) | Stage::Distill(training) => self::training(training),
        Stage::Evaluate(evaluations) => evaluations.iter().map(evaluation).collect::<Vec<_>>().join("; "),
        Stage::Export(export) => self::export(export),
        Stage::Report => String::new(),
    }
}

fn calibrate(wanted: &Calibrate) -> String {
    let mut parts: Vec<String> =
        wanted.requests.iter().map(|r| format!("{} at {}", r.metric, r.tap.name)).collect();
    parts.extend(wanted.layers.iter().map(|m| format!("layers by {}", m.name())));
    if wanted.covariance {
        parts.push("covariance of the stream".into());
    }
    parts.extend(wanted.evaluations.iter().map(evaluation));
    parts.join("; ")
}

fn score(score: &Score) -> String {
    let tap = score.tap.map(|t| format!(" at {}", t.name)).unwrap_or_default();
    format!("{} by {}{tap}", score.axis.name, score.score)
}

fn cut(cut: &Cut) -> String {
    let mut parts: Vec<String> = cut
        .axes
        .iter()
        .map(|a| {
            let leading = if a.leading { " (leading directions)" } else { "" };
            format!("{} = {}{leading}", a.axis.name, a.size)
        })
        .collect();
    let c = &cut.constraints;
    parts.extend(cut.control.iter().map(|control| format!("control {control}")));
    if c.channels_per_head {
        parts.push("channels per head".into());
    }
    if c.heads_before_channels {
        parts.push("heads before channels".into());
    }
    parts.extend(c.keep.iter().map(|(kind, n): (&LayerKind, _)| format!("keep {} {n}", kind.name())));
    if !c.protect.is_empty() {
        parts.push(format!("protect layers {:?}", c.protect));
    }
    parts.join(", ")
}

fn axes(space: &hir::Prune, between: &str) -> String {
    let axes = space.axes.iter().map(|a| format!("{} of {}", a.values.len(), a.axis.name));
    axes.collect::<Vec<_>>().join(between)
}

fn sensitivity(of: &Sensitivity) -> String {
    let quantities: Vec<String> = of.sensitivity.quantities.iter().map(ToString::to_string).collect();
    format!("{} on {}: {}", axes(&of.space, ", "), of.sensitivity.on, quantities.join(", "))
}

fn search(search: &Search) -> String {
    let mut parts = vec![axes(&search.space, " x ")];
    parts.extend(search.search.require.iter().map(|r| format!("require {r}")));
    parts.extend(search.search.rungs.iter().map(|r| format!("rank by {r}")));
    parts.extend(search.search.ties.iter().map(|t| format!("ties within {} by {}", t.within, t.by)));
    parts.extend(search.search.controls.iter().map(|c| format!("control {c}")));
    parts.join("; ")
}

fn training(training: &Training) -> String {
    let phases = training.schedule.phases.iter();
    let tokens: u64 = phases.clone().map(|p| p.tokens).sum();
    let heldout = training.heldout.as_ref().map(|h| format!("; held out {h}")).unwrap_or_default();
    format!(
        "on {} by {}: {tokens} tokens in {}{heldout}{}",
        training.data,
        training.schedule_name,
        count(phases.len(), "phase"),
        if training.weights == Weights::Own { String::new() } else { format!(";{}", training.weights) },
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn evaluation(evaluation: &Evaluation) -> String {
    let against = evaluation.against.as_ref().map(|a| format!(" against {a}")).unwrap_or_default();
    let measures: Vec<&str> = evaluation.measures.iter().map(|m| m.name()).collect();
    format!("{}{against} on {}: {}", evaluation.model, evaluation.data, measures.join(", "))
}

fn export(export: &Export) -> String {
    let mut text = format!("{:?}", export.to);
    if let Some(dtype) = export.dtype {
        text += &format!(", {}", dtype.recipe_name());
    }
    if let Some(shard) = export.shard {
        text += &format!(", shards of {shard} bytes");
    }
    text
}
