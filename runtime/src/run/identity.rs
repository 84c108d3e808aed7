//! What flows between stages, by content, and the keys of what stages make of it.
//!
//! Names of stages, fusion, threads and the order of a run enter no key. A renamed metric or a moved
//! declaration finds what was computed before.

use super::load::SampleSet;
use super::{Made, RunError};
use crate::checkpoint::Digests;
use crate::device::Device;
use crate::gate;
use crate::importance::DepthRule;
use crate::provenance::RepairRecord;
use crate::score::Ranked;
use crate::source::Rotation;
use crate::store::{Key, digest_of};
use crate::train;
use minic_compiler::autodiff::Recompute;
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{self, Comparison, Gather, Written};
use minic_compiler::graph::{Graph, Masks};
use minic_compiler::hir::{self, LayerMetric, RepairKind};
use minic_compiler::metrics::Program;
use minic_compiler::plan;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Versions of what is computed outside of kernels: raised when its results change.
const SCORE: u32 = 1;
const CUT: u32 = 1;
const COVARIANCE: u32 = 2;
const ROTATION: u32 = 2;
const REPAIR: u32 = 1;

/// The kind of keys of trained models.
pub(super) const TRAINED: &str = "trained";
/// That of repairs.
pub(super) const REPAIRED: &str = "repair";

/// An input of a stage: the digest of its content, and how it came about.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub digest: String,
    pub origin: Value,
}

impl Identity {
    pub fn checkpoint(digests: &Digests, dt_floor: Option<f64>) -> Identity {
        let digest = match dt_floor {
            None => digests.all.clone(),
            Some(floor) => digest_of(&json!([digests.all, floor])),
        };
        Identity { digest, origin: json!({ "files": digests.files, "dt_floor": dt_floor }) }
    }

    /// A model cut out of another: the same for every key that leads to the same choice.
    pub fn cut(from: &Identity, plan: &CutPlan, key: &Key) -> Identity {
        Identity { digest: digest_of(&json!([from.digest, plan])), origin: key.origin() }
    }

    /// The same function in another basis of the stream.
    pub fn rotated(from: &Identity, rotation: &Rotation, key: &Key) -> Identity {
        let digest = digest_of(&json!([from.digest, "rotated", rotation.digest()]));
        Identity { digest, origin: key.origin() }
    }

    /// A cut model with scaled norms and solved matrices.
    pub fn repaired(from: &Identity, repair: &RepairRecord, key: &Key) -> Identity {
        let digest = digest_of(&json!([from.digest, repair.norms, repair.weights]));
        Identity { digest, origin: key.origin() }
    }

    pub fn scores(ranked: &Ranked, key: &Key) -> Identity {
        Identity { digest: ranked.digest(), origin: key.origin() }
    }
}

/// Makes keys for one device.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub device: &'a dyn Device,
}

impl Keys<'_> {
    /// A metric at a tap, of all layers that have it.
    pub fn metric(
        &self,
        model: &Made,
        samples: &SampleSet,
        tap: &'static str,
        program: &Program,
    ) -> Result<Key, RunError> {
        let nameless = Arc::new(Program { name: String::new(), ..program.clone() });
        let gather = Gather { metrics: vec![(tap, nameless)], ..Gather::default() };
        let graph = forward::calibration(model.source.desc(), samples.sequence(), &gather)?;
        let place = format!("{tap} of {} on {}", model.name, samples.name());
        let key = Key::new("metric", &place).called(format!("{} at {place}", program.name));
        let key = key.field("metric", program.formula()).field("tap", tap);
        Ok(self.computed(pass(key, model, samples), &graph))
    }

    /// A layer metric, of every layer that is not `removed`, or block of `span` of them.
    pub fn layers(
        &self,
        model: &Made,
        samples: &SampleSet,
        metric: LayerMetric,
        removed: &[usize],
        span: usize,
    ) -> Result<Key, RunError> {
        let gather = Gather { layers: vec![metric], removed: removed.to_vec(), span, ..Gather::default() };
        let graph = forward::calibration(model.source.desc(), samples.sequence(), &gather)?;
        let name = metric.name();
        let key = Key::new("layers", format!("{name} of the layers of {} on {}", model.name, samples.name()));
        let key = key.field("metric", name).field("removed", removed.to_vec()).field("span", span);
        Ok(self.computed(pass(key, model, samples), &graph))
    }

    /// The covariance of a model's stream.
    pub fn covariance(&self, model: &Made, samples: &SampleSet) -> Result<Key, RunError> {
        let gather = Gather { covariance: true, ..Gather::default() };
        let graph = forward::calibration(model.source.desc(), samples.sequence(), &gather)?;
        let place = format!("the stream of {} on {}", model.name, samples.name());
        let key = Key::new("covariance", place).field("version", COVARIANCE);
        Ok(self.computed(pass(key, model, samples), &graph))
    }

    /// The directions of a model's stream.
    pub fn rotation(&self, model: &Made, samples: &SampleSet) -> Result<Key, RunError> {
        let computed = self.covariance(model, samples)?;
        let key = Key::new("rotation", format!("the stream of {}", model.name)).field("version", ROTATION);
        Ok(as_computed(pass(key, model, samples), &computed))
    }

    /// What is mended in `student`, cut from `parent`.
    pub fn repair(
        &self,
        parent: &Made,
        student: &Made,
        samples: Option<&SampleSet>,
        repairs: &[RepairKind],
    ) -> Result<Key, RunError> {
        let key = Key::new(REPAIRED, format!("the repair of {}", student.name)).field("version", REPAIR);
        let key = key.field("repairs", repairs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let Some(samples) = samples else {
            return Ok(key.input("model", &student.identity.digest, student.identity.origin.clone()));
        };
        let key = pass(key, student, samples).input(
            "parent",
            &parent.identity.digest,
            parent.identity.origin.clone(),
        );
        let models = [("model", student.source.desc()), ("parent", parent.source.desc())];
        let graph = forward::evaluation(&models, &[], samples.sequence())?;
        Ok(self.computed(key, &graph))
    }

    /// Loss and accuracy of a model, and its divergence from another.
    pub fn figures(
        &self,
        model: &Made,
        against: Option<&Made>,
        samples: &SampleSet,
    ) -> Result<Key, RunError> {
        let mut descs = vec![("model", model.source.desc())];
        descs.extend(against.map(|a| ("against", a.source.desc())));
        let comparison = Comparison { model: "model", against: against.map(|_| "against") };
        let graph = forward::evaluation(&descs, &[comparison], samples.sequence())?;
        let beside = against.map(|a| format!(" against {}", a.name)).unwrap_or_default();
        let key = Key::new("figures", format!("{}{beside} on {}", model.name, samples.name()));
        let mut key = pass(key, model, samples);
        if let Some(against) = against {
            key = key.input("against", &against.identity.digest, against.identity.origin.clone());
        }
        Ok(self.computed(key, &graph))
    }

    /// The scores of one axis.
    pub fn score(
        &self,
        model: &Made,
        samples: Option<&SampleSet>,
        stage: &plan::Score,
        depths: &[DepthRule],
    ) -> Result<Key, RunError> {
        let axis = stage.axis.name;
        let place = format!("{axis} of {}", model.name);
        let key = Key::new("score", &place).called(format!("{place} by {}", stage.score));
        let tap = stage.tap.map_or(Value::Null, |tap| tap.name.into());
        let key =
            key.field("axis", axis).field("metric", meaning(stage)).field("tap", tap).field("version", SCORE);
        let key = match stage.needs() {
            plan::Needs::Iterative(_) => key.field("rule", format!("{:?}", depths.first())),
            plan::Needs::Contiguous(_) => {
                key.field("kept", depths.iter().map(DepthRule::target).collect::<Vec<_>>())
            }
            _ => key,
        };
        let of_pass = match (samples, stage.needs()) {
            (None, _) | (_, plan::Needs::Nothing | plan::Needs::Covariance) => None,
            (Some(samples), plan::Needs::Request(request)) => {
                Some((samples, self.metric(model, samples, request.tap.name, &request.program)?))
            }
            (
                Some(samples),
                plan::Needs::Layer(metric) | plan::Needs::Iterative(metric) | plan::Needs::Contiguous(metric),
            ) => Some((samples, self.layers(model, samples, metric, &[], 1)?)),
            (Some(samples), plan::Needs::Residual) => {
                let models = [("model", model.source.desc())];
                let graph = forward::evaluation(&models, &[], samples.sequence())?;
                return Ok(self.computed(pass(key, model, samples), &graph));
            }
        };
        let Some((samples, computed)) = of_pass else {
            return Ok(key.input("model", &model.identity.digest, model.identity.origin.clone()));
        };
        Ok(as_computed(pass(key, model, samples), &computed))
    }

    /// A choice of what is kept, and its proof.
    pub fn cut(
        &self,
        model: &Made,
        stage: &plan::Cut,
        scores: &BTreeMap<String, Identity>,
    ) -> Result<Key, RunError> {
        let graph = forward::logits(model.source.desc(), gate::SEQUENCE, Masks::default())?;
        let axes = stage.axes.iter().map(|a| (a.axis.name.to_string(), Value::from(a.size)));
        let constraints = hir::Constraints { groups: Vec::new(), ..stage.constraints.clone() };
        let digests = scores.iter().map(|(axis, s)| (axis.clone(), Value::from(s.digest.clone())));
        let origins = scores.iter().map(|(axis, s)| (axis.clone(), s.origin.clone()));
        let mut key = Key::new("cut", format!("cut of {}", model.name))
            .field("axes", axes.collect::<Map<_, _>>())
            .field("constraints", format!("{constraints:?}"))
            .field("version", CUT)
            .input("model", &model.identity.digest, model.identity.origin.clone())
            .field("scores", digests.collect::<Map<_, _>>());
        if let Some(control) = &stage.control {
            key = key.field("control", control.to_string());
        }
        key.origins.insert("scores".into(), origins.collect::<Map<_, _>>().into());
        Ok(self.computed(key, &graph))
    }

    /// A training or a distillation. Names of phases and of terms, and what memory makes of the graph, are no
    /// part of it.
    #[expect(clippy::too_many_arguments, reason = "each is something else that decides the weights")]
    pub fn training(
        &self,
        stage: &plan::Training,
        student: &Made,
        teacher: Option<&Made>,
        origins: &[usize],
        phases: &[(&hir::Phase, (usize, usize))],
        sets: &[&SampleSet],
        heldout: Option<(&SampleSet, u64)>,
    ) -> Result<Key, RunError> {
        let mut key = Key::new(TRAINED, stage.name.clone())
            .input("student", &student.identity.digest, student.identity.origin.clone())
            .field("weights", format!("{:?}", stage.weights));
        if let Some(teacher) = teacher {
            key = key.input("teacher", &teacher.identity.digest, teacher.identity.origin.clone());
        }
        for (i, set) in sets.iter().enumerate() {
            let name = if i == 0 { "data".to_string() } else { format!("data {}", i + 1) };
            key = key.input(&name, &set.identity.digest, set.identity.origin.clone());
            key = key.field(&format!("{name} order"), json!([set.seed(), set.epochs()]));
        }
        if let Some((set, every)) = heldout {
            key = key.input("heldout", &set.identity.digest, set.identity.origin.clone());
            key = key.field("every", every);
        }
        let mut versions = BTreeMap::new();
        for (i, (phase, (set, sequence))) in phases.iter().enumerate() {
            let objective = forward::Objective::new(&phase.loss, origins);
            let beside = teacher.map(|teacher| teacher.source.desc());
            let (desc, recompute) = (student.source.desc(), Recompute::Cheap);
            let graph = forward::training(desc, beside, &objective, *sequence, phase.batch, recompute)?.graph;
            self.versions(&graph, &mut versions);
            let mut text = graph.to_string();
            for written in objective.written(desc.size(Dim::VocabSize), false) {
                let Some(teacher) = beside else { continue };
                let made = forward::written(teacher, *sequence, &written)?;
                self.versions(&made, &mut versions);
                text += &made.to_string();
            }
            let text = blake3::hash(text.as_bytes()).to_hex().to_string();
            let name = if i == 0 { "phase".to_string() } else { format!("phase {}", i + 1) };
            // The graph says all of the loss; here it is again for whoever asks what differs.
            let whole = json!({
                "data": set,
                "sequence": sequence,
                "batch": phase.batch,
                "updates": phase.updates(*sequence),
                "loss": format!("{objective:?}"),
                "optimizer": format!("{:?}", phase.optimizer),
                "rate": format!("{:?}", phase.rate),
                "graph": text,
            });
            key = key.field(&name, whole);
        }
        let key = key.field("device", self.device.kind()).field("operations", json!(versions));
        Ok(key.field("version", train::VERSION))
    }

    /// What is written down of a teacher on windows that are known by their digest and by what their order follows
    /// from.
    pub fn written(
        &self,
        teacher: &Made,
        samples: &SampleSet,
        (digest, seed): (&str, u64),
        sequence: usize,
        written: &Written,
    ) -> Result<Key, RunError> {
        let graph = forward::written(teacher.source.desc(), sequence, written)?;
        let place = format!("{written} of {} on {}", teacher.name, samples.name());
        let key = Key::new("targets", place)
            .input("teacher", &teacher.identity.digest, teacher.identity.origin.clone())
            .input("samples", digest, samples.identity.origin.clone())
            .field("order", seed)
            .field("version", train::targets::VERSION);
        Ok(self.computed(key, &graph))
    }

    fn versions(&self, graph: &Graph, versions: &mut BTreeMap<String, u32>) {
        for id in graph.order() {
            let op = &graph.node(id).op;
            let version = self.device.version(op);
            if version > 0 {
                versions.insert(op.name().to_string(), version);
            }
        }
    }

    /// What decides the bits of a graph's results beside its inputs.
    fn computed(&self, key: Key, graph: &Graph) -> Key {
        let mut versions = BTreeMap::new();
        self.versions(graph, &mut versions);
        let text = blake3::hash(graph.to_string().as_bytes()).to_hex().to_string();
        key.field("device", self.device.kind()).field("operations", json!(versions)).field("graph", text)
    }
}

/// The fields that [`Keys::computed`] enters.
const COMPUTED: &[&str] = &["device", "operations", "graph"];

/// The same fields as another key has.
fn as_computed(mut key: Key, other: &Key) -> Key {
    for field in COMPUTED {
        key.fields.extend(other.fields.get(*field).map(|v| (field.to_string(), v.clone())));
    }
    key
}

fn pass(key: Key, model: &Made, samples: &SampleSet) -> Key {
    key.input("model", &model.identity.digest, model.identity.origin.clone()).input(
        "samples",
        &samples.identity.digest,
        samples.identity.origin.clone(),
    )
}

/// The formula of a metric in place of its name. A reversed ranking reads the same scores.
fn meaning(stage: &plan::Score) -> String {
    fn inner(score: &hir::Score) -> &hir::Score {
        match score {
            hir::Score::Reverse(score) => inner(score),
            score => score,
        }
    }
    match (inner(&stage.score), &stage.program) {
        (hir::Score::Metric(_), Some(program)) => program.formula(),
        (score, _) => score.to_string(),
    }
}
