//! What each stage will cost, from the shapes alone.

mod search;

pub use search::RungEstimate;

use super::{Bounds, Calibrate, Evaluation, Needs, Plan, Shape, Shapes, Source, Stage, Training, Value};
use crate::autodiff::Recompute;
use crate::axes::{Axis, Scope};
use crate::cost::{self, Passes};
use crate::dim::Dim;
use crate::forward::{self, Comparison, Objective};
use crate::graph::{Graph, ShapeError};
use crate::hir;
use crate::model::{DType, ModelDesc, Role};
use crate::schedule;
use petgraph::graph::NodeIndex;

/// `None` where it cannot be said before the run, or there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Forward passes over each sample.
    pub passes: Option<Passes>,
    /// Windows that are passed over; `None` where that depends on how the files are tokenised.
    pub samples: Option<u64>,
    /// Of a training: optimizer updates, and the tokens that they see.
    pub updates: Option<u64>,
    pub tokens: Option<u64>,
    /// Of one sample.
    pub sample_flops: Option<Bounds<f64>>,
    /// Of the whole stage.
    pub flops: Option<Bounds<f64>>,
    /// Those among them that updates of a training take: forwards, in reverse, and a teacher's.
    pub trained: Option<Bounds<f64>>,
    /// Parameters of the model that is run, trained or moved, and the tokens of its samples, the longest where they
    /// differ.
    pub params: Option<Bounds>,
    pub sequence: Option<usize>,
    /// Bytes of the weights in f32 and of the buffers of one lane, as scheduled. Of a training: of all its
    /// lanes, with their gradients, and the optimizer's averages; the least where everything that can be is
    /// computed again in the backward pass, as a run does whose memory is short.
    pub memory: Option<Bounds>,
    /// Bytes of weights that are read, compared or written.
    pub moved: Option<Bounds>,
    /// Bytes written: exports where they are wanted, all else into the store.
    pub disk: Option<Bounds>,
    /// Of a search.
    pub rungs: Vec<RungEstimate>,
}

impl Plan {
    pub fn estimate(&self, shapes: &Shapes, id: NodeIndex) -> Estimate {
        match &self.node(id).stage {
            Stage::Calibrate(wanted) => self.calibration(shapes, id, wanted),
            Stage::Score(score) => match score.needs() {
                Needs::Iterative(metric) => self.depth_scores(shapes, id, |layers, kept| {
                    Passes::iterative(metric, layers, kept.iter().copied().min().unwrap_or(layers))
                }),
                Needs::Contiguous(metric) => {
                    self.depth_scores(shapes, id, |layers, kept| Passes::contiguous(metric, layers, kept))
                }
                Needs::Residual => self.residual(shapes, id, score.axis),
                Needs::Nothing if !score.score.is_random() => {
                    let (params, moved) = (self.params_of(shapes, id), self.bytes_of(shapes, id));
                    Estimate { params, moved, ..Estimate::default() }
                }
                Needs::Request(_) | Needs::Layer(_) | Needs::Covariance | Needs::Nothing => {
                    Estimate::default()
                }
            },
            Stage::Evaluate(_) => self.evaluation(shapes, id),
            Stage::Train(training) | Stage::Distill(training) => self.training(shapes, id, training),
            Stage::Export(export) => {
                let shape = shapes.get(&export.model);
                let disk = shape.map(|shape| stored(shape, export.dtype));
                Estimate { params: shape.map(Shape::params), moved: disk, disk, ..Estimate::default() }
            }
            Stage::Rotate => self.rotation(shapes, id),
            Stage::Repair(repairs) => self.repair(shapes, id, repairs),
            Stage::Search(search) => self.search(shapes, id, search),
            Stage::Sensitivity(sensitivity) => self.sensitivity(shapes, id, sensitivity),
            Stage::Load(Source::Checkpoint { .. }) => {
                let shape = self.shape(shapes, id);
                let moved = shape.map(|shape| stored(shape, None));
                Estimate { params: shape.map(Shape::params), moved, ..Estimate::default() }
            }
            Stage::Cut(_) => {
                let before = self.bytes_of(shapes, id);
                let after = self.shape(shapes, id).map(|shape| stored(shape, None));
                let moved = before.zip(after).map(|(a, b)| Bounds { min: a.min + b.min, max: a.max + b.max });
                Estimate { params: self.params_of(shapes, id), moved, ..Estimate::default() }
            }
            Stage::Load(Source::Data(_)) | Stage::Report => Estimate::default(),
        }
    }

    /// The shape of the model that a stage sends on.
    fn shape<'a>(&self, shapes: &'a Shapes, id: NodeIndex) -> Option<&'a Shape> {
        let node = self.node(id);
        if let Some(model) = node.makes.first() {
            return shapes.get(model);
        }
        match node.stage {
            Stage::Rotate => self.shape(shapes, self.source(id, Value::Model)?),
            // What is repaired has the shape that it was cut to.
            Stage::Cut(_) => {
                let repaired = self.outputs(id).into_iter().find(|(_, value)| *value == Value::Model)?;
                self.shape(shapes, repaired.0)
            }
            _ => None,
        }
    }

    /// Bytes of the weights that come in, as they are stored.
    fn bytes_of(&self, shapes: &Shapes, id: NodeIndex) -> Option<Bounds> {
        self.shape(shapes, self.source(id, Value::Model)?).map(|shape| stored(shape, None))
    }

    /// Parameters of the model that comes in.
    fn params_of(&self, shapes: &Shapes, id: NodeIndex) -> Option<Bounds> {
        self.shape(shapes, self.source(id, Value::Model)?).map(Shape::params)
    }

    fn data(&self, id: NodeIndex) -> Option<&hir::Data> {
        self.loaded(self.source(id, Value::Samples)?)
    }

    fn loaded(&self, id: NodeIndex) -> Option<&hir::Data> {
        match &self.node(id).stage {
            Stage::Load(Source::Data(data)) => Some(data),
            _ => None,
        }
    }

    fn calibration(&self, shapes: &Shapes, id: NodeIndex, wanted: &Calibrate) -> Estimate {
        let shape = self.source(id, Value::Model).and_then(|from| self.shape(shapes, from));
        let (Some(shape), Some(data)) = (shape, self.data(id)) else { return Estimate::default() };
        let layers = shape.sizes(Dim::NumLayers).last().copied().unwrap_or(0);
        Estimate {
            memory: self.memory(shapes, id),
            ..passing(shape, data, Passes::calibration(wanted, layers))
        }
    }

    /// Scores of layers with passes of their own: so many for the model's layers and for the depths that are wanted.
    fn depth_scores(
        &self,
        shapes: &Shapes,
        id: NodeIndex,
        passes: impl Fn(usize, &[usize]) -> Passes,
    ) -> Estimate {
        let shape = self.source(id, Value::Model).and_then(|from| self.shape(shapes, from));
        let (Some(shape), Some(data)) = (shape, self.data(id)) else { return Estimate::default() };
        let layers = shape.sizes(Dim::NumLayers).last().copied().unwrap_or(0);
        let mut kept: Vec<usize> =
            self.outputs(id).iter().flat_map(|(to, _)| self.depths_after(*to)).collect();
        kept.sort_unstable();
        kept.dedup();
        passing(shape, data, passes(layers, &kept))
    }

    /// One block at a time, once over all samples.
    fn residual(&self, shapes: &Shapes, id: NodeIndex, axis: &Axis) -> Estimate {
        let shape = self.source(id, Value::Model).and_then(|from| self.shape(shapes, from));
        let (Some(shape), Some(data)) = (shape, self.data(id)) else { return Estimate::default() };
        let passes = Passes { whole: 1, partial: 0 };
        let passed = Estimate { passes: Some(passes), ..passing(shape, data, passes) };
        let (Some(desc), Scope::Layer(kind)) = (shape.desc(), axis.scope) else { return passed };
        let tokens = tokens_of(data);
        let ranked = tokens.map(|n| cost::residual_flops(&desc, kind, n) as f64);
        let flops = passed.flops.zip(ranked).map(|(passed, ranked)| passed.map(|f| f + ranked));
        Estimate { flops, memory: Bounds::of([cost::residual_bytes(&desc, kind)]), ..passed }
    }

    /// The numbers of layers that a cut or a search may keep.
    fn depths_after(&self, id: NodeIndex) -> Vec<usize> {
        match &self.node(id).stage {
            Stage::Cut(cut) => {
                cut.axes.iter().filter(|a| a.axis.dim == Dim::NumLayers).map(|a| a.size).collect()
            }
            Stage::Search(search) => search.space.depths().to_vec(),
            Stage::Sensitivity(sensitivity) => sensitivity.space.depths().to_vec(),
            _ => Vec::new(),
        }
    }

    fn evaluation(&self, shapes: &Shapes, id: NodeIndex) -> Estimate {
        let mut models = self.sources(id, Value::Model);
        models.extend(self.sources(id, Value::Teacher));
        models.sort();
        models.dedup();
        let known: Option<Vec<&Shape>> = models.iter().map(|m| self.shape(shapes, *m)).collect();
        let (Some(known), Some(data)) = (known, self.data(id)) else { return Estimate::default() };
        let whole = Passes { whole: 1, partial: 0 };
        let each = known.iter().filter_map(|shape| passing(shape, data, whole).sample_flops);
        let sample_flops = each.reduce(Bounds::plus);
        Estimate {
            params: known.iter().map(|shape| shape.params()).reduce(Bounds::larger),
            passes: Some(Passes { whole: models.len() as u64, partial: 0 }),
            memory: self.memory(shapes, id),
            ..over_samples(data, sample_flops)
        }
    }

    /// Its matrices are rotated when they are read, by those who read them.
    fn rotation(&self, shapes: &Shapes, id: NodeIndex) -> Estimate {
        let shape = self.source(id, Value::Model).and_then(|from| self.shape(shapes, from));
        let width = shape.and_then(|shape| shape.sizes(Dim::HiddenSize).last().copied());
        let square = width.map(|width| width as u64 * width as u64);
        Estimate {
            // The covariance, its vectors, what their iteration works in, and the basis in f32.
            memory: square.and_then(|n| Bounds::of([n * (8 * 4 + 4)])),
            // The basis, and the covariance that it is made of.
            disk: square.and_then(|n| Bounds::of([n * (4 + 8)])),
            ..Estimate::default()
        }
    }

    /// A block of each model at a time.
    fn repair(&self, shapes: &Shapes, id: NodeIndex, repairs: &[hir::RepairKind]) -> Estimate {
        let Some(data) = self.data(id).filter(|_| repairs.iter().any(hir::RepairKind::reads_data)) else {
            return Estimate::default();
        };
        let ends = |value| self.shape(shapes, self.source(id, value)?)?.ends();
        let (Some(students), Some(parents)) = (ends(Value::Model), ends(Value::Teacher)) else {
            return Estimate::default();
        };
        let [least, most] = [0, 1].map(|end| repaired(&students[end], &parents[end], data, repairs));
        Estimate {
            passes: most.passes,
            samples: most.samples,
            params: Bounds::of(students.iter().map(ModelDesc::params)),
            sequence: Some(data.sequence),
            flops: least.flops.zip(most.flops).map(|(a, b)| Bounds { min: a.min, max: b.max }),
            memory: least.memory.zip(most.memory).map(|(a, b)| Bounds { min: a.min, max: b.max }),
            ..Estimate::default()
        }
    }

    /// The tensor graph that a calibration or an evaluation runs; `None` for other stages, and where a shape
    /// is known only at run time.
    pub fn tensor_graph(&self, shapes: &Shapes, id: NodeIndex) -> Option<Result<Graph, ShapeError>> {
        self.graph_of(id, &|name| shapes.get(name)?.desc(), &|id| self.shape(shapes, id)?.desc())
    }

    /// The same of models that `of` and, by the stage that sends them on, `sent` describe.
    fn graph_of<'a>(
        &'a self,
        id: NodeIndex,
        of: &dyn Fn(&str) -> Option<ModelDesc>,
        sent: &dyn Fn(NodeIndex) -> Option<ModelDesc>,
    ) -> Option<Result<Graph, ShapeError>> {
        let sequence = self.data(id)?.sequence;
        match &self.node(id).stage {
            Stage::Calibrate(wanted) => {
                let desc = sent(self.source(id, Value::Model)?)?;
                Some(forward::calibration(&desc, sequence, &wanted.gather()))
            }
            Stage::Evaluate(evaluations) => {
                let mut names: Vec<&str> = Vec::new();
                for name in evaluations.iter().flat_map(|e| std::iter::once(&e.model).chain(&e.against)) {
                    if !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
                let descs = names.iter().map(|name| of(name)).collect::<Option<Vec<_>>>()?;
                let models: Vec<_> = names.iter().copied().zip(&descs).collect();
                let compare =
                    |e: &'a Evaluation| Comparison { model: &e.model, against: e.against.as_deref() };
                let comparisons: Vec<Comparison> = evaluations.iter().map(compare).collect();
                Some(forward::evaluation(&models, &comparisons, sequence))
            }
            _ => None,
        }
    }

    /// Of the smallest and of the largest models that may come.
    fn memory(&self, shapes: &Shapes, id: NodeIndex) -> Option<Bounds> {
        let bytes = |end: usize| {
            let pick = |shape: Option<&Shape>| Some(shape?.ends()?[end].clone());
            let graph =
                self.graph_of(id, &|name| pick(shapes.get(name)), &|id| pick(self.shape(shapes, id)))?;
            let schedule = schedule::schedule(&graph.ok()?).ok()?;
            Some(schedule.weight_bytes() + schedule.lane_bytes())
        };
        Bounds::of([bytes(0)?, bytes(1)?])
    }

    /// Three times the forward pass for the student (the backward pass makes two products for each one), one
    /// for the teacher.
    fn training(&self, shapes: &Shapes, id: NodeIndex, training: &Training) -> Estimate {
        let student = self.source(id, Value::Model).and_then(|from| self.shape(shapes, from));
        let teacher = self.source(id, Value::Teacher).map(|from| self.shape(shapes, from));
        let (mut updates, mut tokens, mut flops) = (0, 0, Some(Bounds { min: 0.0, max: 0.0 }));
        let mut memory = Some(Bounds { min: 0, max: 0 });
        for phase in &training.schedule.phases {
            let name = phase.data.as_deref().unwrap_or(&training.data);
            let Some(data) = self.samples_of(id, name).and_then(|from| self.loaded(from)) else {
                return Estimate::default();
            };
            let (sequence, trained) = (phase.window(data.sequence), phase.trained(data.sequence));
            updates += phase.updates(data.sequence);
            tokens += trained;
            let (Some(student), None | Some(Some(_))) = (student, teacher) else {
                (flops, memory) = (None, None);
                continue;
            };
            let all = |shape: &Shape, times: f64| {
                shape.flops_per_token(sequence).map(|f| f as f64 * times * trained as f64)
            };
            let more = [Some(all(student, 3.0)), teacher.flatten().map(|teacher| all(teacher, 1.0))];
            flops = more.into_iter().flatten().fold(flops, |sum, more| sum.map(|sum| sum.plus(more)));
            let held = held(student, teacher.flatten(), phase, sequence);
            memory = memory.zip(held).map(|(most, held)| most.larger(held));
        }
        let data = self.samples_of(id, &training.data).and_then(|from| self.loaded(from));
        let looked_at = self.heldout(id, training, tokens, student, teacher.flatten());
        Estimate {
            updates: Some(updates),
            tokens: Some(tokens),
            trained: flops,
            flops: flops.zip(looked_at).map(|(trained, heldout)| trained.plus(heldout)),
            params: student.map(Shape::params),
            sequence: data.map(|data| data.sequence),
            memory,
            // In f32, once it is trained; unfinished, with two averages beside it.
            disk: student.map(|student| student.params().map(|params| 4 * params * 3)),
            ..Estimate::default()
        }
    }

    /// Operations of looking at held-out samples: before the first update, whenever so many tokens were seen, and after
    /// the last update.
    fn heldout(
        &self,
        id: NodeIndex,
        training: &Training,
        tokens: u64,
        student: Option<&Shape>,
        teacher: Option<&Shape>,
    ) -> Option<Bounds<f64>> {
        let Some(heldout) = &training.heldout else { return Some(Bounds { min: 0.0, max: 0.0 }) };
        let data = self.samples_of(id, &heldout.data).and_then(|from| self.loaded(from))?;
        let looks = 1 + tokens.div_ceil(heldout.every);
        let seen = looks as f64 * data.samples? as f64 * data.sequence as f64;
        let one = |shape: &Shape| shape.flops_per_token(data.sequence).map(|flops| flops as f64 * seen);
        [Some(student?), teacher].into_iter().flatten().map(one).reduce(Bounds::plus)
    }
}

/// Passes of a line search of the power of norms.
pub const FITTED: u64 = 16;

/// What a phase of a training holds. `None` where shapes are known only at run time.
fn held(student: &Shape, teacher: Option<&Shape>, phase: &hir::Phase, sequence: usize) -> Option<Bounds> {
    let (students, teachers) = (student.ends()?, teacher.map(Shape::ends));
    let teachers = match teachers {
        Some(ends) => Some(ends?),
        None => None,
    };
    let bytes = |end: usize, recompute| {
        let (student, teacher) = (&students[end], teachers.as_ref().map(|ends| &ends[end]));
        // Which layer of the teacher one is compared with changes no size.
        let origins: Vec<usize> = (0..student.layers.len()).collect();
        let objective = Objective::new(&phase.loss, &origins);
        let training = forward::training(student, teacher, &objective, sequence, phase.batch, recompute);
        let schedule = schedule::schedule(&training.ok()?.graph).ok()?;
        let lanes = forward::lanes(student.params(), phase.batch) as u64;
        Some(schedule.weight_bytes() + schedule.average_bytes() + schedule.lane_bytes() * lanes)
    };
    Bounds::of([
        bytes(0, Recompute::Blocks)?,
        bytes(0, Recompute::Cheap)?,
        bytes(1, Recompute::Blocks)?,
        bytes(1, Recompute::Cheap)?,
    ])
}

/// Bytes of a model's weights on the disk, in a dtype or in that of the checkpoint that it goes back to.
fn stored(shape: &Shape, dtype: Option<DType>) -> Bounds {
    let dtype = dtype.or(shape.dtype()).unwrap_or(DType::BF16);
    shape.params().map(|params| cost::disk(params, dtype))
}

/// What a repair takes of models as they are.
fn repaired(
    student: &ModelDesc,
    parent: &ModelDesc,
    data: &hir::Data,
    repairs: &[hir::RepairKind],
) -> Estimate {
    let tokens = tokens_of(data);
    let per_token = |desc| cost::flops_per_token(desc, data.sequence) as f64;
    let (mut passes, mut flops, mut memory) = (0, tokens.map(|_| 0.0), 0);
    for kind in repairs {
        match kind {
            hir::RepairKind::Norms { power: Some(_) } => {}
            hir::RepairKind::Norms { power: None } => {
                let width =
                    |desc: &ModelDesc, role| desc.weights().iter().find(|w| w.role == role).map(|w| w.len());
                let changed = |role: &Role| width(student, *role) != width(parent, *role);
                let searches =
                    [Role::Norm, Role::GatedNorm].iter().filter(|role| changed(role)).count() as u64;
                passes += FITTED * searches;
                let tried = |n| (FITTED * searches) as f64 * n as f64 * per_token(student);
                flops = flops.zip(tokens).map(|(f, n)| f + tried(n));
                memory = memory.max(4 * student.params());
            }
            hir::RepairKind::LeastSquares { sequential, .. } => {
                let of_student = 1 + u64::from(*sequential);
                passes += 1 + of_student;
                let each = per_token(parent) + of_student as f64 * per_token(student);
                let solved = |n| n as f64 * each + cost::least_squares_flops(student, n) as f64;
                flops = flops.zip(tokens).map(|(f, n)| f + solved(n));
                memory = memory.max(cost::least_squares_bytes(student));
            }
        }
    }
    Estimate {
        passes: Some(Passes { whole: passes, partial: 0 }),
        samples: data.samples.map(|n| n as u64),
        flops: flops.map(|f| Bounds { min: f, max: f }),
        memory: Bounds::of([memory]),
        ..Estimate::default()
    }
}

/// A recipe may name any number of samples, of any length.
fn tokens_of(data: &hir::Data) -> Option<u64> {
    data.samples.map(|n| (n as u64).saturating_mul(data.sequence as u64))
}

fn passing(shape: &Shape, data: &hir::Data, passes: Passes) -> Estimate {
    let sequence = data.sequence;
    let flops = shape.bounds_of_flops(sequence, |token, head| passes.flops(token, head, sequence));
    let params = Some(shape.params());
    Estimate { passes: Some(passes), params, ..over_samples(data, Some(flops.map(|f| f as f64))) }
}

fn over_samples(data: &hir::Data, sample_flops: Option<Bounds<f64>>) -> Estimate {
    let samples = data.samples.map(|n| n as u64);
    let flops = sample_flops.zip(samples).map(|(f, n)| f.map(|one| one * n as f64));
    Estimate { samples, sample_flops, flops, sequence: Some(data.sequence), ..Estimate::default() }
}

#[cfg(test)]
pub(super) mod tests;
