//! A cut model, mended.

use super::identity::Identity;
use super::load::SampleSet;
use super::{Artifact, Executor, Made, RunError};
use crate::checkpoint::WEIGHTS_FILE;
use crate::evaluate;
use crate::provenance::RepairRecord;
use crate::publish::StagedFolder;
use crate::repair::{self, Fitted, Mended, Outputs, Powers};
use crate::safetensors::{Entry, Writer};
use crate::samples::Pass;
use crate::source::Patch;
use crate::store::Key;
use crate::walk::Walk;
use minic_compiler::forward::Comparison;
use minic_compiler::hir::RepairKind;
use minic_compiler::model::{DType, Weight};
use minic_compiler::plan::Value;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the store keeps of a repair, beside the folder with the matrices that were solved.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The powers that norms were scaled by.
    powers: Option<Powers>,
    /// Where they were searched for: that of the stream, and that of gated norms.
    fitted: Vec<Fitted>,
    outputs: Vec<Mended>,
    /// BLAKE3 of every file of the folder.
    files: BTreeMap<String, String>,
}

impl Executor<'_> {
    pub(super) fn repair(
        &mut self,
        id: NodeIndex,
        repairs: &[RepairKind],
    ) -> Result<(Artifact, String), RunError> {
        let (made, parent) = (self.model(id, Value::Model)?, self.model(id, Value::Teacher)?);
        let key = self.repair_key(id, repairs)?;
        let kept = match self.recall_folder::<Kept>(id, &key)? {
            Some(kept) => kept,
            None if self.preview => return Err(RunError::NotStored),
            None => self.mended(id, &key, &parent, &made, repairs)?,
        };
        let (before, after) = (parent.source.desc(), made.source.desc());
        let norms = kept.powers.map(|powers| repair::factors(before, after, powers)).unwrap_or_default();
        let mut source = made.source.scale(norms.clone());
        if !kept.outputs.is_empty() {
            let patch = Patch::open(&self.store.folder(&key).join(WEIGHTS_FILE))?;
            source = source.overwrite(Arc::new(patch))?;
        }
        let told = told(&kept, &norms);
        let record = RepairRecord {
            lines: repairs.iter().map(ToString::to_string).collect(),
            powers: kept.powers,
            norms,
            outputs: kept.outputs,
            weights: kept.files.get(WEIGHTS_FILE).cloned(),
        };
        let node = self.plan.node(id);
        let name = node.makes.first().unwrap_or(&node.name).clone();
        for name in &node.makes {
            self.summary.model(name, source.desc());
        }
        self.summary.repairs.insert(node.name.clone(), record.clone());
        let identity = Identity::repaired(&made.identity, &record, &key);
        let mut made = Made { name: name.clone(), source, identity, ..made };
        if let Some(step) = made.steps.last_mut() {
            (step.name, step.repair) = (name, Some(record));
        }
        Ok((Artifact::Model(made), told))
    }

    pub(super) fn repair_key(&self, id: NodeIndex, repairs: &[RepairKind]) -> Result<Key, RunError> {
        let (made, parent) = (self.model(id, Value::Model)?, self.model(id, Value::Teacher)?);
        let samples = match repairs.iter().any(RepairKind::reads_data) {
            true => Some(self.samples(id)?),
            false => None,
        };
        self.keys().repair(&parent, &made, samples.as_deref(), repairs)
    }

    fn mended(
        &self,
        id: NodeIndex,
        key: &Key,
        parent: &Made,
        made: &Made,
        repairs: &[RepairKind],
    ) -> Result<Kept, RunError> {
        let mut kept = Kept { powers: None, fitted: Vec::new(), outputs: Vec::new(), files: BTreeMap::new() };
        let mut student = made.source.clone();
        // Norms first, whichever line comes first: matrices are solved for what they will read.
        for kind in repairs {
            let RepairKind::Norms { power } = kind else { continue };
            let powers = match power {
                Some(power) => Powers { stream: *power, gated: 0.0 },
                None => self.fitted(id, parent, made, &mut kept.fitted)?,
            };
            student = student.scale(repair::factors(parent.source.desc(), student.desc(), powers));
            kept.powers = Some(powers);
        }
        for kind in repairs {
            let RepairKind::LeastSquares { damping, sequential } = kind else { continue };
            let set = self.samples(id)?;
            let loaded = set.load(self.store)?;
            let windows: Vec<&[u32]> = loaded.windows().collect();
            let unplanned = || RunError::Unplanned { what: "the cut that is repaired".into() };
            let plan = made.source.cuts().last().map(|(plan, _)| plan.clone()).ok_or_else(unplanned)?;
            let watch = self.watch(id);
            let walk =
                Walk { device: self.device.exact(), samples: &windows, store: self.store, watch: &watch };
            let outputs = Outputs {
                walk,
                parent: &parent.source,
                student: &student,
                plan: &plan,
                damping: *damping,
                sequential: *sequential,
            };
            (kept.outputs, kept.files) = self.solved(key, &outputs)?;
        }
        parent.source.base().unchanged()?;
        self.store.put(key, &kept)?;
        Ok(kept)
    }

    /// The solved matrices in a file of the store, written one by one.
    fn solved(
        &self,
        key: &Key,
        outputs: &Outputs,
    ) -> Result<(Vec<Mended>, BTreeMap<String, String>), RunError> {
        let staged = StagedFolder::new(&self.store.folder(key), true)?;
        let entries: Vec<Entry> = outputs.student.desc().writers().into_iter().map(entry).collect();
        let mut writer = Writer::create(&staged.path().join(WEIGHTS_FILE), &entries)?;
        let mut order = entries.iter();
        let mended = outputs.mend(|weight, values| {
            if order.next().is_none_or(|entry| entry.name != weight.name) {
                return Err(RunError::Unplanned { what: format!("`{}` in its place", weight.name) });
            }
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Ok(writer.write(&bytes)?)
        })?;
        let digest = writer.finish()?.to_hex().to_string();
        staged.publish()?;
        Ok((mended, BTreeMap::from([(WEIGHTS_FILE.to_string(), digest)])))
    }

    /// The powers of least loss on the calibration set: that of the stream first, then that of gated norms.
    fn fitted(
        &self,
        id: NodeIndex,
        parent: &Made,
        made: &Made,
        fitted: &mut Vec<Fitted>,
    ) -> Result<Powers, RunError> {
        let set: Arc<SampleSet> = self.samples(id)?;
        let loaded = set.load(self.store)?;
        let windows: Vec<&[u32]> = loaded.windows().collect();
        let watch = self.watch(id);
        let comparison = [Comparison { model: &made.name, against: None }];
        let loss = |powers: Powers| {
            let factors = repair::factors(parent.source.desc(), made.source.desc(), powers);
            let scaled = made.source.scale(factors);
            let models = [(made.name.as_str(), &scaled)];
            let pass = Pass { answers: loaded.answers(), ..Pass::over(&windows, &watch) };
            let figures = evaluate::evaluate(self.device.exact(), &models, &comparison, &pass)?;
            let loss = figures.first().map(|f| f.loss).ok_or(RunError::NoSamples)?;
            let Powers { stream, gated } = powers;
            watch.note(&format!(
                "norms by (old / new)^{stream:.3}, gated ones by ^{gated:.3}: loss {loss:.4}"
            ));
            Ok::<f64, RunError>(loss)
        };
        let changes = |powers| !repair::factors(parent.source.desc(), made.source.desc(), powers).is_empty();
        let mut powers = Powers::default();
        if changes(Powers { stream: 1.0, gated: 0.0 }) {
            let found = repair::fit(|stream| loss(Powers { stream, ..powers }))?;
            powers.stream = found.power;
            fitted.push(found);
        }
        if changes(Powers { stream: 0.0, gated: 1.0 }) {
            let found = repair::fit(|gated| loss(Powers { gated, ..powers }))?;
            powers.gated = found.power;
            fitted.push(found);
        }
        Ok(powers)
    }
}

fn entry(weight: Weight) -> Entry {
    Entry { shape: weight.sizes(), dtype: DType::F32, name: weight.name }
}

fn told(kept: &Kept, norms: &BTreeMap<String, f64>) -> String {
    let mut parts = Vec::new();
    if let Some(Powers { stream, gated }) = kept.powers {
        let gated = if gated == 0.0 { String::new() } else { format!(", gated ones by ^{gated:.3}") };
        parts.push(format!("{} norms scaled by (old / new)^{stream:.3}{gated}", norms.len()));
    }
    let mean = |error: fn(&Mended) -> f64| {
        kept.outputs.iter().map(error).sum::<f64>() / kept.outputs.len().max(1) as f64
    };
    if !kept.outputs.is_empty() {
        parts.push(format!(
            "{} matrices solved; mean error of the blocks' outputs {:.1} % -> {:.1} %",
            kept.outputs.len(),
            100.0 * mean(|m| m.before),
            100.0 * mean(|m| m.after)
        ));
    }
    parts.join("; ")
}
