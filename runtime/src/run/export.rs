//! Publishing a model: written, read back, proved, and only then given its name.

use super::folder::RECIPE_FILE;
use super::{Artifact, Executor, ExportSummary, Made, ProofRecord, RunError, Settings};
use crate::events::Stop;
use crate::gate;
use crate::provenance::{self, EvaluationRecord, ModelRecord, Provenance, RecipeRecord};
use crate::publish::{self, StagedFolder};
use crate::safetensors::Entry;
use crate::source::WeightSource;
use minic_compiler::config;
use minic_compiler::model::DType;
use minic_compiler::plan::{self, Plan, Stage, Value};
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Nothing is computed for a folder that could not be published in the end: one that holds something may only be
/// replaced with `overwrite`, or left alone if this very recipe made it.
pub fn refuse_occupied_folders(plan: &Plan, settings: &Settings) -> Result<(), RunError> {
    for id in plan.order() {
        let Stage::Export(export) = &plan.node(id).stage else { continue };
        let folder = settings.out.join(&export.to);
        let occupied = folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if !occupied || settings.overwrite {
            continue;
        }
        let ours = Provenance::read(&folder).is_ok_and(|p| p.recipe == recipe_record(settings));
        if !ours {
            return Err(RunError::Occupied { folder });
        }
    }
    Ok(())
}

fn recipe_record(settings: &Settings) -> RecipeRecord {
    let overrides = settings.overrides.iter().filter_map(|o| o.split_once('='));
    RecipeRecord {
        file: RECIPE_FILE.into(),
        digest: blake3::hash(settings.recipe_text.as_bytes()).to_hex().to_string(),
        overrides: overrides.map(|(k, v)| (k.trim().to_string(), v.trim().to_string())).collect(),
    }
}

impl Executor<'_> {
    pub(super) fn export(
        &mut self,
        id: NodeIndex,
        export: &plan::Export,
    ) -> Result<(Artifact, String), RunError> {
        let made = self.model(id, Value::Model)?;
        let target = self.settings.out.join(&export.to);
        let dtype = export.dtype.or(made.dtype);
        let mut provenance = self.provenance(export, &made);
        let there = Provenance::read(&target).ok().filter(|there| same_origin(there, &provenance));
        if self.preview {
            let held = there.map(|_| (Artifact::Told, "holds exactly this already".to_string()));
            return held.ok_or(RunError::NotStored);
        }
        let there = there.filter(|_| !self.redo.contains(&id));
        if there.is_some() && provenance::verify(&target).is_ok() {
            let proof = self.prove(id, &target, &made.source, dtype)?;
            let bytes = folder_bytes(&target);
            let told = format!("{} holds exactly this already, proved again", target.display());
            self.tell(id, export, target, bytes, proof, true);
            return Ok((Artifact::Told, told));
        }
        let ours = there.is_some() || self.redo.contains(&id);
        let staged = StagedFolder::new(&target, self.settings.overwrite || ours)?;
        staged.keep_clear_of(made.source.base().folder())?;
        let began = Instant::now();
        let known = write_model(&staged, &made.source, dtype, export.shard, &self.settings.stop)?;
        let stage = self.plan.node(id).name.clone();
        self.summary.write_seconds.insert(stage, began.elapsed().as_secs_f64());
        publish::copy_companions(made.source.base().folder(), &staged)?;
        staged.write(RECIPE_FILE, self.settings.recipe_text.as_bytes())?;
        let proof = self.prove(id, staged.path(), &made.source, dtype)?;
        made.source.base().unchanged()?;
        provenance.record_folder(staged.path(), &known)?;
        provenance.write(&staged)?;
        let folder = staged.publish()?;
        let bytes = folder_bytes(&folder);
        let told = format!("{} parameters in {}, read back and proved", proof.params, target.display());
        self.tell(id, export, target, bytes, proof, false);
        Ok((Artifact::Told, told))
    }

    /// The proof of a folder, timed.
    fn prove(
        &mut self,
        id: NodeIndex,
        folder: &Path,
        source: &WeightSource,
        dtype: Option<DType>,
    ) -> Result<gate::FolderProof, RunError> {
        let began = Instant::now();
        let proof = gate::prove_folder(folder, source, dtype)?;
        let stage = self.plan.node(id).name.clone();
        self.summary.proof_seconds.insert(stage, began.elapsed().as_secs_f64());
        Ok(proof)
    }

    fn tell(
        &mut self,
        id: NodeIndex,
        export: &plan::Export,
        folder: PathBuf,
        bytes: u64,
        proof: gate::FolderProof,
        unchanged: bool,
    ) {
        let proof = ProofRecord::from(&proof);
        let summary = ExportSummary { model: export.model.clone(), folder, bytes, proof, unchanged };
        self.summary.exports.insert(self.plan.node(id).name.clone(), summary);
    }

    /// Everything but what only the written folder can tell.
    fn provenance(&self, export: &plan::Export, made: &Made) -> Provenance {
        let evaluations = self.summary.evaluations.values().filter(|e| e.model == export.model);
        let evaluations = evaluations.map(|e| EvaluationRecord {
            model: e.model.clone(),
            on: e.data.clone(),
            figures: e.figures.clone(),
        });
        Provenance {
            format: provenance::FORMAT,
            minic: env!("CARGO_PKG_VERSION").into(),
            recipe: recipe_record(self.settings),
            model: export.model.clone(),
            parents: made.parents.clone(),
            data: self.summary.data.clone(),
            steps: made.steps.clone(),
            trainings: made.trainings.clone(),
            searches: made.searches.clone(),
            result: ModelRecord::of(made.source.desc()),
            planned_params: made.source.desc().params(),
            proved_params: 0,
            evaluations: evaluations.collect(),
            files: BTreeMap::new(),
            tensors: BTreeMap::new(),
        }
    }
}

/// Writes config.json and the weights; the digests of the weights' files.
fn write_model(
    staged: &StagedFolder,
    source: &WeightSource,
    dtype: Option<DType>,
    shard: Option<u64>,
    stop: &Stop,
) -> Result<BTreeMap<String, String>, RunError> {
    let mut desc = source.desc().clone();
    desc.dtype = dtype.or(desc.dtype);
    let config = desc.family().write_config(&desc);
    staged.write(crate::checkpoint::CONFIG_FILE, config::to_text(&config).as_bytes())?;
    let going_on = || if stop.is_set() { Err(RunError::Stopped) } else { Ok(()) };
    let open = |entry: &Entry| {
        going_on()?;
        Ok(source.slice(&entry.name)?)
    };
    let entries = source.entries(dtype)?;
    let written = publish::write_weights(staged.path(), &entries, shard, open, |slice, rows, piece| {
        going_on()?;
        match slice.stored() {
            Some(stored) => piece.fill(stored.dtype(), |bytes| Ok::<(), RunError>(stored.read(rows, bytes)?)),
            None => {
                let mut values = vec![0.0; piece.elements().len()];
                slice.read_f32(rows, &mut values)?;
                Ok(piece.write_f32(&values)?)
            }
        }
    })?;
    Ok(written.files.into_iter().map(|f| (f.name, f.digest)).collect())
}

/// The two folders are made by the same recipe of the same inputs in the same way.
fn same_origin(there: &Provenance, now: &Provenance) -> bool {
    there.recipe == now.recipe
        && there.minic == now.minic
        && there.model == now.model
        && there.parents == now.parents
        && there.steps == now.steps
        && there.trainings == now.trainings
        && there.searches == now.searches
        && there.result == now.result
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

#[cfg(test)]
mod tests;
