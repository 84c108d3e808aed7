//! From scores to a proved cut.

use super::identity::Identity;
use super::ranking::AxisRanking;
use super::{Artifact, Executor, Made, RunError};
use crate::gate::{self, CutProof};
use crate::importance::{self, AxisScores, DepthRule, RankError, Ranking, Scores, Table};
use crate::provenance::{AxisRecord, Step};
use crate::score::{self, By, Ranked};
use crate::store::Key;
use minic_compiler::axes::Scope;
use minic_compiler::cut::CutPlan;
use minic_compiler::hir::{self, Control};
use minic_compiler::plan::{self, CutAxis, Value};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a cut keeps, and its proof: from these the cut model is made again without computing anything.
#[derive(Serialize, Deserialize)]
struct Proved {
    kept: CutPlan,
    proof: CutProof,
    /// How long the proof took.
    seconds: f64,
}

impl Executor<'_> {
    pub(super) fn cut(&mut self, id: NodeIndex, stage: &plan::Cut) -> Result<(Artifact, String), RunError> {
        let made = self.model(id, Value::Model)?;
        let key = self.cut_key(id, &made, stage)?;
        let recalled = self.recall::<Proved>(id, &key)?;
        if recalled.is_none() && self.preview {
            return Err(RunError::NotStored);
        }
        let (chosen, rankings) = self.kept(id, stage, &made)?;
        let Proved { kept, proof, seconds } = match recalled {
            Some(proved) => proved,
            None => self.proved_cut(&key, chosen, &made)?,
        };
        let identity = Identity::cut(&made.identity, &kept, &key);
        let Made { source: whole, name: from, .. } = &made;
        let cut = whole.cut(kept.clone())?;
        let told = format!(
            "{} -> {} parameters; masked and cut {} differ by {:.1e} of the largest, {:.0e} is allowed; the proof took {seconds:.1} s",
            proof.params_before,
            proof.params_after,
            proof.compared,
            proof.share(),
            proof.tolerance
        );
        let node = self.plan.node(id);
        let name = node.makes.first().unwrap_or(&node.name).clone();
        let mut step = Step::new(&name, from, whole.desc(), cut.desc(), &kept, proof);
        step.rotation = made.turned.as_ref().map(|turned| turned.cut(&kept));
        for record in &mut step.axes {
            self.enter_scores(id, stage, record)?;
        }
        for name in &node.makes {
            self.summary.model(name, cut.desc());
        }
        self.summary.proof_seconds.insert(node.name.clone(), seconds);
        self.summary.cuts.insert(node.name.clone(), step.clone());
        self.summary.rankings.insert(node.name.clone(), rankings);
        let layers = kept.layers.iter().filter_map(|layer| made.layers.get(*layer).copied()).collect();
        let mut made = Made { name, source: cut, identity, layers, turned: None, ..made };
        made.steps.push(step);
        Ok((Artifact::Model(made), told))
    }

    /// The cut model before its proof: for what is looked at, and made only if it is chosen.
    pub(super) fn drafted(&self, id: NodeIndex, stage: &plan::Cut) -> Result<Made, RunError> {
        let made = self.model(id, Value::Model)?;
        let key = self.cut_key(id, &made, stage)?;
        let kept = match self.recall::<Proved>(id, &key)? {
            Some(proved) => proved.kept,
            None => self.kept(id, stage, &made)?.0,
        };
        let identity = Identity::cut(&made.identity, &kept, &key);
        let layers = kept.layers.iter().filter_map(|layer| made.layers.get(*layer).copied()).collect();
        let (name, source) = (self.plan.node(id).name.clone(), made.source.cut(kept)?);
        Ok(Made { name, source, identity, layers, turned: None, ..made })
    }

    fn proved_cut(&self, key: &Key, kept: CutPlan, made: &Made) -> Result<Proved, RunError> {
        let whole = &made.source;
        let cut = whole.cut(kept.clone())?;
        let began = Instant::now();
        let proof = gate::prove_cut(self.device.exact(), whole, &cut, &kept, self.settings.proof_memory)?;
        whole.base().unchanged()?;
        let proved = Proved { kept, proof, seconds: began.elapsed().as_secs_f64() };
        self.store.put(key, &proved)?;
        Ok(proved)
    }

    pub(super) fn cut_key(&self, id: NodeIndex, made: &Made, stage: &plan::Cut) -> Result<Key, RunError> {
        let mut scores = BTreeMap::new();
        // The leading directions are those of the model that comes in; a random choice looks at nothing.
        let random = matches!(stage.control, Some(Control::Random { .. }));
        for axis in stage.axes.iter().filter(|axis| !axis.leading && !random) {
            let (_, identity) = self.ranked(id, axis)?;
            scores.insert(axis.axis.name.to_string(), identity.clone());
        }
        self.keys().cut(made, stage, &scores)
    }

    /// How an axis was ranked, for the record.
    fn enter_scores(
        &self,
        id: NodeIndex,
        stage: &plan::Cut,
        record: &mut AxisRecord,
    ) -> Result<(), RunError> {
        let Some(axis) = stage.axes.iter().find(|a| a.axis.name == record.axis) else { return Ok(()) };
        record.metric = Some(self.metric(id, stage, axis)?);
        if !axis.leading && !matches!(stage.control, Some(Control::Random { .. })) {
            let (ranked, identity) = self.ranked(id, axis)?;
            record.tap = ranked.tap.map(|tap| tap.name.to_string());
            record.scores = Some(identity.digest.clone());
        }
        Ok(())
    }

    /// What an axis is ranked by, as the recipe writes it.
    fn metric(&self, id: NodeIndex, stage: &plan::Cut, axis: &CutAxis) -> Result<String, RunError> {
        Ok(match &stage.control {
            Some(control @ Control::Random { .. }) => control.to_string(),
            _ if axis.leading => hir::Score::Pca.to_string(),
            _ => self.ranked(id, axis)?.0.metric.clone(),
        })
    }

    /// What a cut keeps, and by which scores.
    fn kept(
        &self,
        id: NodeIndex,
        stage: &plan::Cut,
        made: &Made,
    ) -> Result<(CutPlan, Vec<AxisRanking>), RunError> {
        let whole = &made.source;
        let mut layers: Vec<usize> = (0..whole.desc().layers.len()).collect();
        let (mut axes, mut metrics, mut shown) = (Vec::new(), BTreeMap::new(), Vec::new());
        for axis in &stage.axes {
            let ranked = self.ranking(id, stage, axis, made)?;
            let metric = self.metric(id, stage, axis)?;
            match &ranked.by {
                By::Layers(_) | By::Blocks(_) => {
                    let rule = DepthRule::new(&whole.desc().layers, axis.size, &stage.constraints)?;
                    layers = ranked.survivors(&rule)?;
                    shown.extend(AxisRanking::depth(&metric, ranked.reverse, &ranked.by, &rule));
                }
                By::Members(table) => axes.push(AxisScores {
                    axis: axis.axis,
                    keep: axis.size,
                    reverse: ranked.reverse,
                    table: table.clone(),
                }),
            }
            metrics.insert(axis.axis.name, (metric, ranked.reverse));
        }
        let regrouped = stage.control == Some(Control::GroupUnaware);
        let (plan, rankings) =
            importance::choose_by(whole.desc(), &layers, &axes, &stage.constraints, regrouped)?;
        for (name, (metric, reverse)) in &metrics {
            let of: Vec<&Ranking> = rankings.iter().filter(|ranking| ranking.axis.name == *name).collect();
            shown.extend(AxisRanking::members(metric, *reverse, &of));
        }
        Ok((plan, shown))
    }

    /// How an axis is ranked: as its scores say, or as a control does.
    fn ranking(
        &self,
        id: NodeIndex,
        stage: &plan::Cut,
        axis: &CutAxis,
        made: &Made,
    ) -> Result<Ranked, RunError> {
        if let Some(Control::Random { seed }) = stage.control {
            return Ok(Ranked::by(axis.axis, score::random(made.source.desc(), axis.axis, seed)));
        }
        let mut ranked = match axis.leading {
            true => {
                let unplanned = || RunError::Unplanned { what: "a rotation".into() };
                let turned = made.turned.as_ref().ok_or_else(unplanned)?;
                // Variances along the directions, the largest first.
                let scores = vec![Scores::of(axis.axis.dim, turned.variances.clone())];
                Ranked::by(axis.axis, By::Members(Table::Model(scores)))
            }
            false => self.ranked(id, axis)?.0.clone(),
        };
        ranked.reverse ^= stage.control == Some(Control::Reverse);
        Ok(ranked)
    }

    /// The scores of an axis among those that come in.
    fn ranked(&self, id: NodeIndex, axis: &CutAxis) -> Result<(&Ranked, &Identity), RunError> {
        let incoming = self.plan.sources(id, Value::Scores);
        let found = incoming.iter().find_map(|from| match self.done.get(from) {
            Some(Artifact::Scores(ranked, identity)) if ranked.axis.name == axis.axis.name => {
                Some((ranked, identity))
            }
            _ => None,
        });
        let depth = axis.axis.scope == Scope::Depth;
        let place = if depth { "layers".to_string() } else { axis.axis.dim.to_string() };
        Ok(found.ok_or(RankError::Missing { place })?)
    }
}
