//! Proves a folder again from its provenance.

use super::{
    DERIVED, FileRecord, LOCK_FILE, ModelRecord, PROVENANCE_FILE, Provenance, ProvenanceError, RepairRecord,
    RotationRecord, Step, WEIGHTS_EXTENSION, file_names, lock_text, tensors,
};
use crate::checkpoint::{Checkpoint, digest_file};
use crate::convert;
use crate::gate::CutProof;
use crate::input;
use crate::repair;
use crate::source::WeightSource;
use minic_compiler::axes;
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::families;
use minic_compiler::model::{DType, LayerKind, ModelDesc, Role};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// What was proved.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    pub model: String,
    pub params: u64,
    pub files: usize,
    pub tensors: usize,
    pub steps: usize,
}

/// Checks a folder against its provenance.json: sizes and digests of all files; the weights against
/// config.json; shapes, dtypes and counts of the tensors; and of every step, that the kept indices are
/// possible for its model, leave every group whole, and give the shape that the next step begins with.
/// Everything that differs is told at once.
pub fn verify(folder: &Path) -> Result<Verified, ProvenanceError> {
    let provenance = Provenance::read(folder)?;
    let mut faults = check_files(folder, &provenance)?;
    if faults.is_empty() {
        let checkpoint = Checkpoint::open(folder)?;
        faults.extend(check_tensors(folder, &provenance)?);
        faults.extend(check_model(&provenance, checkpoint.desc()));
        faults.extend(check_steps(&provenance, checkpoint.desc()));
        faults.extend(check_norms(&provenance, checkpoint)?);
    }
    if !faults.is_empty() {
        return Err(ProvenanceError::Refuted { folder: folder.to_path_buf(), faults });
    }
    Ok(Verified {
        model: provenance.model,
        params: provenance.proved_params,
        files: provenance.files.len(),
        tensors: provenance.tensors.len(),
        steps: provenance.steps.len(),
    })
}

fn check_files(folder: &Path, provenance: &Provenance) -> Result<Vec<String>, ProvenanceError> {
    let check = |(name, record): (&String, &FileRecord)| -> Result<Option<String>, ProvenanceError> {
        let path = folder.join(name);
        // A name with a separator would lead out of the folder.
        if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
            return Ok(Some(format!("`{name}` is not the name of a file in the folder")));
        }
        let Ok(metadata) = path.metadata() else { return Ok(Some(format!("{name} is missing"))) };
        if metadata.len() != record.bytes {
            return Ok(Some(format!("{name} has {} bytes, recorded are {}", metadata.len(), record.bytes)));
        }
        let digest = digest_file(&path)?;
        Ok((digest != record.digest).then(|| format!("{name} has other contents than recorded")))
    };
    let found: Vec<_> = provenance.files.par_iter().map(check).collect::<Result<_, _>>()?;
    let mut faults: Vec<String> = found.into_iter().flatten().collect();
    // Loaders prefer some names of weights to others, so a file more can be another model.
    for name in file_names(folder)? {
        if name.ends_with(WEIGHTS_EXTENSION) && !provenance.files.contains_key(&name) {
            faults.push(format!("{name} is not recorded"));
        }
    }
    if !provenance.files.keys().any(|name| name.ends_with(WEIGHTS_EXTENSION)) {
        faults.push(format!("{PROVENANCE_FILE} records no file of weights"));
    }
    if let Some(name) = DERIVED.iter().find(|name| provenance.files.contains_key(**name)) {
        faults.push(format!("{PROVENANCE_FILE} records {name}, which is derived from it"));
    }
    if input::read(&folder.join(LOCK_FILE), input::PROVENANCE).ok()
        != Some(lock_text(provenance).into_bytes())
    {
        faults.push(format!("{LOCK_FILE} is not the one that follows from {PROVENANCE_FILE}"));
    }
    Ok(faults)
}

fn check_tensors(folder: &Path, provenance: &Provenance) -> Result<Vec<String>, ProvenanceError> {
    let found = tensors(folder, &file_names(folder)?)?;
    let mut faults = Vec::new();
    for (name, recorded) in &provenance.tensors {
        match found.get(name) {
            None => faults.push(format!("tensor `{name}` is recorded but not there")),
            Some(found) if found != recorded => faults.push(format!(
                "tensor `{name}` is {} {:?}, recorded is {} {:?}",
                found.dtype, found.shape, recorded.dtype, recorded.shape
            )),
            Some(_) => {}
        }
    }
    let more = found.keys().filter(|name| !provenance.tensors.contains_key(*name));
    faults.extend(more.map(|name| format!("tensor `{name}` is not recorded")));
    let params: u64 = found.values().map(|t| t.shape.iter().map(|&n| n as u64).product::<u64>()).sum();
    for (recorded, what) in [(provenance.planned_params, "planned"), (provenance.proved_params, "proved")] {
        if recorded != params {
            faults.push(format!("{recorded} parameters are recorded as {what}, the tensors hold {params}"));
        }
    }
    Ok(faults)
}

/// config.json describes the recorded model.
fn check_model(provenance: &Provenance, desc: &ModelDesc) -> Option<String> {
    let found = ModelRecord::of(desc);
    (found != provenance.result)
        .then(|| format!("config.json describes {}, recorded is {}", told(&found), told(&provenance.result)))
}

fn told(model: &ModelRecord) -> String {
    let dims: Vec<String> = model.dims.iter().map(|(dim, size)| format!("{dim} {size}")).collect();
    format!("{} `{}` of {} parameters ({})", model.family, model.pattern, model.params, dims.join(", "))
}

/// The chain of models, each made from the one before it by the recorded indices.
fn check_steps(provenance: &Provenance, desc: &ModelDesc) -> Vec<String> {
    let mut faults = Vec::new();
    let mut models: Vec<&ModelRecord> = provenance.steps.iter().map(|step| &step.before).collect();
    models.push(&provenance.result);
    for (step, next) in provenance.steps.iter().zip(&models[1..]) {
        let at = |fault: String| format!("step `{}`: {fault}", step.name);
        if step.after != **next {
            faults.push(at(format!("it makes {}, what follows is {}", told(&step.after), told(next))));
        }
        faults.extend(check_step(step, desc).err().map(at));
    }
    let parents = provenance.parents.iter().map(|parent| &parent.model);
    if let (Some(first), false) = (models.first(), parents.clone().any(|parent| parent == models[0])) {
        faults.push(format!("the first model, {}, is no recorded parent", told(first)));
    }
    faults
}

fn check_step(step: &Step, result: &ModelDesc) -> Result<(), String> {
    let before = described(&step.before, result)?;
    let plan = step.plan()?;
    plan.verify(&before).map_err(|e| e.to_string())?;
    let after = before.resized(&plan.sizes(&before), &plan.layers);
    if ModelRecord::of(&after) != step.after {
        let made = told(&ModelRecord::of(&after));
        return Err(format!("the kept indices make {made}, recorded is {}", told(&step.after)));
    }
    for record in &step.axes {
        let dim = axes::find(&record.axis).map(|axis| axis.dim);
        let sizes = dim.map(|dim| (before.size(dim), after.size(dim)));
        if sizes != Some((record.from, record.to)) {
            return Err(format!("axis `{}` does not go from {} to {}", record.axis, record.from, record.to));
        }
    }
    let proof = &step.proof;
    let counts = (proof.params_before, proof.params_after);
    if counts != (before.params(), after.params()) {
        let made = (before.params(), after.params());
        return Err(format!("{counts:?} parameters were proved before and after, the models have {made:?}"));
    }
    within_tolerance(proof)?;
    if let Some(rotation) = &step.rotation {
        check_rotation(rotation, &before, &plan)?;
    }
    match &step.repair {
        Some(repair) => check_repair(repair, &before, &after),
        None => Ok(()),
    }
}

fn within_tolerance(proof: &CutProof) -> Result<(), String> {
    if proof.holds() {
        return Ok(());
    }
    let (difference, allowed) = (proof.difference, proof.allowed());
    Err(format!("its proof has a difference of {difference:e}, allowed is {allowed:e}"))
}

/// The leading directions are kept, of a model whose norms were all folded.
fn check_rotation(rotation: &RotationRecord, before: &ModelDesc, plan: &CutPlan) -> Result<(), String> {
    within_tolerance(&rotation.proof).map_err(|fault| format!("the rotation: {fault}"))?;
    let norms = before.layers.len() + 1;
    if rotation.folded != norms {
        return Err(format!("{} norms are recorded as folded, the model has {norms}", rotation.folded));
    }
    if rotation.basis.len() != DIGEST || !rotation.basis.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("`{}` is no digest of a basis", rotation.basis));
    }
    let leading = |kept: &Vec<usize>| kept.iter().copied().eq(0..kept.len());
    match plan.model.get(&Dim::HiddenSize).is_some_and(leading) {
        true => Ok(()),
        false => Err("the stream is rotated, but not its leading directions are kept".into()),
    }
}

/// Digits of a digest.
const DIGEST: usize = 64;

/// The factors are those of the power, and every solved matrix is one that writes to the stream.
fn check_repair(repair: &RepairRecord, before: &ModelDesc, after: &ModelDesc) -> Result<(), String> {
    let factors = repair.powers.map(|powers| repair::factors(before, after, powers)).unwrap_or_default();
    let same = |(a, b): ((&String, &f64), (&String, &f64))| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-12 * b.1;
    if factors.len() != repair.norms.len() || !factors.iter().zip(&repair.norms).all(same) {
        return Err("the factors of its norms do not follow from the recorded powers".into());
    }
    if repair.outputs.is_empty() != repair.weights.is_none() {
        return Err("its solved matrices and their digest do not go together".into());
    }
    let writers: Vec<String> = after.writers().into_iter().map(|w| w.name).collect();
    for one in &repair.outputs {
        if !writers.contains(&one.weight) {
            return Err(format!("`{}` is no matrix that writes to the stream", one.weight));
        }
        if one.is_worse() {
            return Err(format!(
                "`{}` is worse repaired ({:e}) than cut ({:e})",
                one.weight, one.after, one.before
            ));
        }
    }
    Ok(())
}

/// Folded norms are the recorded factor everywhere, unless they were trained afterwards.
fn check_norms(provenance: &Provenance, checkpoint: Checkpoint) -> Result<Vec<String>, ProvenanceError> {
    let Some(step) = provenance.steps.last().filter(|step| step.rotation.is_some()) else {
        return Ok(Vec::new());
    };
    if provenance.trainings.iter().any(|training| training.after >= provenance.steps.len()) {
        return Ok(Vec::new());
    }
    let mut faults = Vec::new();
    let source = WeightSource::new(Arc::new(checkpoint));
    for weight in source.desc().weights().into_iter().filter(|weight| weight.role == Role::Norm) {
        let factor = step.repair.as_ref().and_then(|repair| repair.norms.get(&weight.name)).unwrap_or(&1.0);
        let dtype = source.dtype(&weight.name).unwrap_or(DType::F32);
        let expected = convert::rounded(dtype, *factor as f32);
        match source.read_f32(&weight.name) {
            Ok(values) if values.iter().all(|v| *v == expected) => {}
            Ok(_) => faults.push(format!("`{}` was folded, but is not {expected} throughout", weight.name)),
            Err(error) => faults.push(error.to_string()),
        }
    }
    Ok(faults)
}

/// A model of the recorded shape; what no cut changes is as in the result.
fn described(record: &ModelRecord, result: &ModelDesc) -> Result<ModelDesc, String> {
    if record.family != result.family {
        return Err(format!("it begins with a model of another family, {}", record.family));
    }
    let kind = |letter| LayerKind::ALL.iter().copied().find(|kind| kind.letter() == letter);
    let layers = record.pattern.chars().map(kind).collect::<Option<Vec<_>>>();
    let layers = layers.ok_or_else(|| format!("its pattern `{}` is no pattern of layers", record.pattern))?;
    let desc = ModelDesc { dims: record.dims.clone(), layers, ..result.clone() };
    families::plausible(&desc).map_err(|e| format!("its model is none: {e}"))?;
    if ModelRecord::of(&desc) != *record {
        return Err(format!("its model, {}, has {} parameters", told(record), desc.params()));
    }
    Ok(desc)
}
