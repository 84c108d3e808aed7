//! From scores to a proved cut.

use super::{Artifact, Executor, Made, RunError};
use crate::gate;
use crate::importance::{self, AxisScores, DepthRule, RankError};
use crate::provenance::{AxisRecord, ModelRecord, Step};
use crate::score::{By, Ranked};
use crate::source::WeightSource;
use minic_compiler::axes::Scope;
use minic_compiler::cut::CutPlan;
use minic_compiler::plan::{self, CutAxis, Value};
use petgraph::graph::NodeIndex;
use std::time::Instant;

impl Executor<'_> {
    pub(super) fn cut(&mut self, id: NodeIndex, stage: &plan::Cut) -> Result<(Artifact, String), RunError> {
        let Made { source: whole, root, mut steps } = self.model(id, Value::Model)?;
        let kept = self.kept(id, stage, &whole)?;
        let cut = whole.cut(kept.clone())?;
        let began = Instant::now();
        let proof = gate::prove_cut(self.device, &whole, &cut, &kept, self.settings.proof_memory)?;
        let seconds = began.elapsed().as_secs_f64();
        let told = format!(
            "{} -> {} parameters; masked and cut {} differ by {:.1e} of the largest, {:.0e} is allowed; the proof took {seconds:.1} s",
            proof.params_before,
            proof.params_after,
            proof.compared,
            proof.difference / proof.magnitude.max(f64::MIN_POSITIVE),
            proof.tolerance
        );
        let node = self.plan.node(id);
        let name = node.makes.first().unwrap_or(&node.name);
        let from = steps.last().map_or(&root, |step| &step.name);
        let mut step = Step::new(name, from, whole.desc(), cut.desc(), &kept, proof);
        for record in &mut step.axes {
            self.enter_scores(id, stage, record)?;
        }
        for name in &node.makes {
            self.summary.models.insert(name.clone(), ModelRecord::of(cut.desc()));
        }
        self.summary.proof_seconds.insert(node.name.clone(), seconds);
        self.summary.cuts.insert(node.name.clone(), step.clone());
        steps.push(step);
        Ok((Artifact::Model(Made { source: cut, root, steps }), told))
    }

    /// How an axis was ranked, for the record.
    fn enter_scores(
        &self,
        id: NodeIndex,
        stage: &plan::Cut,
        record: &mut AxisRecord,
    ) -> Result<(), RunError> {
        let Some(axis) = stage.axes.iter().find(|a| a.axis.name == record.axis) else { return Ok(()) };
        let ranked = self.ranked(id, axis)?;
        record.metric = Some(ranked.metric.clone());
        record.tap = ranked.tap.map(|tap| tap.name.to_string());
        record.scores = Some(ranked.digest());
        Ok(())
    }

    fn kept(&self, id: NodeIndex, stage: &plan::Cut, whole: &WeightSource) -> Result<CutPlan, RunError> {
        let mut layers: Vec<usize> = (0..whole.desc().layers.len()).collect();
        let mut axes = Vec::new();
        for axis in &stage.axes {
            let ranked = self.ranked(id, axis)?;
            match &ranked.by {
                By::Layers(scores) => {
                    let rule = DepthRule::new(&whole.desc().layers, axis.size, &stage.constraints)?;
                    let sign = if ranked.reverse { -1.0 } else { 1.0 };
                    layers = rule.choose(&scores.iter().map(|s| s * sign).collect::<Vec<_>>())?;
                }
                By::Members(table) => axes.push(AxisScores {
                    axis: axis.axis,
                    keep: axis.size,
                    reverse: ranked.reverse,
                    table: table.clone(),
                }),
            }
        }
        Ok(importance::choose(whole.desc(), &layers, &axes, &stage.constraints)?)
    }

    /// The scores of an axis among those that come in.
    fn ranked(&self, id: NodeIndex, axis: &CutAxis) -> Result<&Ranked, RunError> {
        let incoming = self.plan.sources(id, Value::Scores);
        let found = incoming.iter().find_map(|from| match self.done.get(from) {
            Some(Artifact::Scores(ranked)) if ranked.axis.name == axis.axis.name => Some(ranked),
            _ => None,
        });
        let depth = axis.axis.scope == Scope::Depth;
        let place = if depth { "layers".to_string() } else { axis.axis.dim.to_string() };
        Ok(found.ok_or(RankError::Missing { place })?)
    }
}
