//! The residual stream in the basis of its principal directions.

use super::identity::Identity;
use super::{Artifact, Executor, Made, RunError};
use crate::gate::{self, CutProof};
use crate::linalg;
use crate::provenance::RotationRecord;
use crate::source::Rotation;
use crate::store::Key;
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::plan::Value;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// A rotated model, on its way to the cut that keeps the leading directions.
#[derive(Clone)]
pub(super) struct Turned {
    /// Digest of the basis.
    basis: String,
    /// Norms that were folded.
    folded: usize,
    proof: CutProof,
    /// Along the directions, the largest first; their scores.
    pub variances: Vec<f64>,
}

impl Turned {
    /// The record of a cut that keeps these directions.
    pub fn cut(&self, plan: &CutPlan) -> RotationRecord {
        let total: f64 = self.variances.iter().sum();
        let kept = plan.model.get(&Dim::HiddenSize);
        let kept = kept.map_or(total, |kept| kept.iter().filter_map(|i| self.variances.get(*i)).sum());
        RotationRecord {
            basis: self.basis.clone(),
            folded: self.folded,
            variance: kept / total.max(f64::MIN_POSITIVE),
            proof: self.proof.clone(),
        }
    }
}

/// What the store keeps of a rotation.
#[derive(Serialize, Deserialize)]
struct Kept {
    basis: Vec<f32>,
    variances: Vec<f64>,
    proof: CutProof,
    /// How long the proof took.
    seconds: f64,
}

impl Executor<'_> {
    pub(super) fn rotate(&mut self, id: NodeIndex) -> Result<(Artifact, String), RunError> {
        let made = self.model(id, Value::Model)?;
        let key = self.rotation_key(id, &made)?;
        let kept = match self.recall::<Kept>(id, &key)? {
            Some(kept) => kept,
            None if self.preview => return Err(RunError::NotStored),
            None => self.turned(id, &key, &made)?,
        };
        let Kept { basis, variances, proof, seconds } = kept;
        let rotation = Arc::new(rotation(variances.len(), basis)?);
        let folded = made.source.desc().layers.len() + 1;
        let told = format!(
            "{folded} norms folded; the uncut rotated model differs by {:.1e} of the largest of its {}, {:.0e} is allowed; the proof took {seconds:.1} s",
            proof.share(),
            proof.compared,
            proof.tolerance,
        );
        self.summary.proof_seconds.insert(self.plan.node(id).name.clone(), seconds);
        let turned = Turned { basis: rotation.digest(), folded, proof, variances };
        let identity = Identity::rotated(&made.identity, &rotation, &key);
        let source = made.source.rotate(rotation)?;
        Ok((Artifact::Model(Made { source, identity, turned: Some(turned), ..made }), told))
    }

    pub(super) fn rotation_key(&self, id: NodeIndex, made: &Made) -> Result<Key, RunError> {
        let samples = self.score_samples(id);
        let samples = samples.ok_or_else(|| RunError::Unplanned { what: "samples of a rotation".into() })?;
        self.keys().rotation(made, &samples)
    }

    fn turned(&self, id: NodeIndex, key: &Key, made: &Made) -> Result<Kept, RunError> {
        let missing = || RunError::Unplanned { what: "the covariance of the stream".into() };
        let gathered = self.partials(id).ok_or_else(missing)?;
        let covariance = gathered.covariance.as_deref().ok_or_else(missing)?;
        let width = covariance.len().isqrt();
        let not_finite = || RunError::NotFinite { what: "the covariance of the stream".into() };
        let (variances, basis) = linalg::eigen(covariance, width).ok_or_else(not_finite)?;
        let basis: Vec<f32> = basis.into_iter().map(|v| v as f32).collect();
        let rotation = Arc::new(rotation(width, basis.clone())?);
        let rotated = made.source.rotate(rotation.clone())?;
        let began = Instant::now();
        let proof = gate::prove_rotation(
            self.device.exact(),
            &made.source,
            &rotated,
            &rotation,
            self.settings.proof_memory,
        )?;
        made.source.base().unchanged()?;
        let kept = Kept { basis, variances, proof, seconds: began.elapsed().as_secs_f64() };
        self.store.put(key, &kept)?;
        Ok(kept)
    }
}

fn rotation(width: usize, basis: Vec<f32>) -> Result<Rotation, RunError> {
    Rotation::new(width, basis).ok_or_else(|| RunError::Unplanned { what: "a square basis".into() })
}
