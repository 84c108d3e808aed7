//! Distillations and trainings: from a model to the same shape with other weights.
//!
//! A trained model is a folder of the store, an ordinary checkpoint in f32 under the digest of its key; beside
//! it an object tells how the training went, and the digests of the files that belong to it.

use super::identity::Identity;
use super::load::SampleSet;
use super::{Artifact, Executor, Made, RunError};
use crate::checkpoint::{CONFIG_FILE, Checkpoint, WEIGHTS_FILE, digest_file};
use crate::device::Weights;
use crate::events::Watch;
use crate::provenance::TrainingRecord;
use crate::publish::{self, StagedFolder};
use crate::record::{self, Record};
use crate::safetensors::Entry;
use crate::samples::Saves;
use crate::source::{SourceError, WeightSource};
use crate::store::Key;
use crate::synth;
use crate::train::targets::{BLOCK, Shelf};
use crate::train::{Feed, Heldout, Job, Phase, Teacher, TrainError, Trained};
use minic_compiler::config;
use minic_compiler::dim::Dim;
use minic_compiler::forward::{Objective, Written};
use minic_compiler::hir;
use minic_compiler::model::{DType, ModelDesc};
use minic_compiler::plan::{Plan, Training, Value};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the store keeps of a training beside the folder of its model.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub trained: Trained,
    /// BLAKE3 of every file of the folder.
    files: BTreeMap<String, String>,
}

impl Kept {
    fn weights(&self) -> Result<&String, RunError> {
        let unplanned = || RunError::Unplanned { what: format!("the digest of {WEIGHTS_FILE}") };
        self.files.get(WEIGHTS_FILE).ok_or_else(unplanned)
    }
}

/// What a training works on.
pub(super) struct Inputs {
    student: Made,
    teacher: Option<Made>,
    /// The data of the phases, each once for a length of windows.
    sets: Vec<Arc<SampleSet>>,
    /// Of each phase, its data among `sets`, and the length of its windows.
    phases: Vec<(usize, usize)>,
    heldout: Option<(Arc<SampleSet>, u64)>,
}

/// How far a training goes for now.
#[derive(Clone, Copy, Default)]
pub(super) struct Course {
    /// Updates; all of the schedule's where it is not said. It is saved there.
    pub until: Option<u64>,
    /// What was saved further on serves another course.
    pub most: Option<u64>,
    /// What is read of the teacher is written down, for other students on the same windows.
    pub shows: bool,
}

impl Inputs {
    /// Updates of a training that see so many tokens at most; all of them where no number is given.
    pub fn updates(&self, training: &Training, tokens: Option<u64>) -> u64 {
        let (mut left, mut updates) = (tokens.unwrap_or(u64::MAX), 0);
        for (phase, (_, sequence)) in training.schedule.phases.iter().zip(&self.phases) {
            let (each, all) = ((phase.batch * sequence) as u64, phase.updates(*sequence));
            let made = all.min(left / each.max(1));
            updates += made;
            if made < all {
                break;
            }
            left -= made * each;
        }
        updates
    }

    /// Tokens that the first updates see.
    pub fn tokens(&self, training: &Training, updates: u64) -> u64 {
        let (mut left, mut tokens) = (updates, 0);
        for (phase, (_, sequence)) in training.schedule.phases.iter().zip(&self.phases) {
            let made = phase.updates(*sequence).min(left);
            tokens += made * (phase.batch * sequence) as u64;
            left -= made;
        }
        tokens
    }

    /// The most bytes of an update that are written down of the teacher.
    pub fn written(&self, training: &Training) -> u64 {
        let Some(teacher) = &self.teacher else { return 0 };
        let of = |(phase, (_, sequence)): (&hir::Phase, &(usize, usize))| {
            let objective = Objective::new(&phase.loss, &origins(&self.student, Some(teacher)));
            let written = objective.written(teacher.source.desc().size(Dim::VocabSize), true);
            let columns = written.iter().map(|written| written.columns(teacher.source.desc()).size());
            (phase.batch * sequence * columns.sum::<usize>() * size_of::<f32>()) as u64
        };
        training.schedule.phases.iter().zip(&self.phases).map(of).max().unwrap_or(0)
    }
}

impl Executor<'_> {
    pub(super) fn train(
        &mut self,
        id: NodeIndex,
        training: &Training,
    ) -> Result<(Artifact, String), RunError> {
        let inputs = self.training_inputs(id, training)?;
        let key = self.training_key(training, &inputs)?;
        let kept = match self.recall_folder::<Kept>(id, &key)? {
            Some(kept) => kept,
            None if self.preview => return Err(RunError::NotStored),
            None => self.trained(id, training, &inputs, &key)?,
        };
        self.became(id, inputs, &key, kept)
    }

    /// The model whose training the store keeps under `key`.
    pub(super) fn became(
        &mut self,
        id: NodeIndex,
        inputs: Inputs,
        key: &Key,
        kept: Kept,
    ) -> Result<(Artifact, String), RunError> {
        let Inputs { student, teacher, .. } = inputs;
        let checkpoint = Arc::new(Checkpoint::open(&self.store.folder(key))?);
        let source = WeightSource::new(checkpoint).with_desc(student.source.desc().clone());
        let (weights, trained) = (kept.weights()?.clone(), kept.trained);
        let told = told(&trained);
        let node = self.plan.node(id);
        let name = node.makes.first().unwrap_or(&node.name).clone();
        for name in &node.makes {
            self.summary.model(name, source.desc());
        }
        let record = TrainingRecord {
            name: name.clone(),
            from: student.name.clone(),
            teacher: teacher.as_ref().map(|teacher| teacher.name.clone()),
            after: student.steps.len(),
            weights: weights.clone(),
            updates: trained.updates,
            tokens: trained.tokens,
            loss: trained.loss,
            heldout: trained.heldout.last().map(|last| last.heldout_loss),
            device: self.device.kind(),
        };
        if let Some(folder) = self.settings.records.as_ref().filter(|_| !self.preview) {
            let seconds = record::seconds(folder, &node.name)?;
            self.summary.update_seconds.extend(seconds.map(|seconds| (node.name.clone(), seconds)));
        }
        self.summary.trainings.insert(node.name.clone(), trained);
        let mut made =
            Made { name, source, identity: Identity { digest: weights, origin: key.origin() }, ..student };
        made.trainings.push(record);
        for parent in teacher.into_iter().flat_map(|teacher| teacher.parents) {
            if !made.parents.contains(&parent) {
                made.parents.push(parent);
            }
        }
        Ok((Artifact::Model(made), told))
    }

    pub(super) fn training_inputs(&self, id: NodeIndex, training: &Training) -> Result<Inputs, RunError> {
        let student = self.model(id, Value::Model)?;
        let teacher = self.plan.source(id, Value::Teacher).map(|_| self.model(id, Value::Teacher));
        let (mut sets, mut phases): (Vec<Arc<SampleSet>>, Vec<_>) = (Vec::new(), Vec::new());
        for phase in &training.schedule.phases {
            let data = self.samples_named(id, phase.data.as_ref().unwrap_or(&training.data))?;
            let sequence = phase.window(data.sequence());
            let same = |set: &Arc<SampleSet>| set.name() == data.name();
            let set = sets.iter().position(same).unwrap_or_else(|| {
                sets.push(data);
                sets.len() - 1
            });
            phases.push((set, sequence));
        }
        let heldout = training.heldout.as_ref();
        let heldout = heldout.map(|h| Ok::<_, RunError>((self.samples_named(id, &h.data)?, h.every)));
        let (teacher, heldout) = (teacher.transpose()?, heldout.transpose()?);
        Ok(Inputs { student, teacher, sets, phases, heldout })
    }

    pub(super) fn samples_named(&self, id: NodeIndex, data: &str) -> Result<Arc<SampleSet>, RunError> {
        match self.plan.samples_of(id, data).and_then(|from| self.done.get(&from)) {
            Some(Artifact::Samples(samples)) => Ok(samples.clone()),
            _ => Err(RunError::Unplanned { what: format!("the samples `{data}`") }),
        }
    }

    pub(super) fn training_key(&self, training: &Training, inputs: &Inputs) -> Result<Key, RunError> {
        let Inputs { student, teacher, sets, phases, heldout } = inputs;
        let origins = origins(student, teacher.as_ref());
        let phases: Vec<_> = training.schedule.phases.iter().zip(phases.iter().copied()).collect();
        let heldout = heldout.as_ref().map(|(set, every)| (set.as_ref(), *every));
        let sets: Vec<&SampleSet> = sets.iter().map(Arc::as_ref).collect();
        self.keys().training(training, student, teacher.as_ref(), &origins, &phases, &sets, heldout)
    }

    fn trained(
        &self,
        id: NodeIndex,
        training: &Training,
        inputs: &Inputs,
        key: &Key,
    ) -> Result<Kept, RunError> {
        let (weights, trained) = self.advanced(id, training, inputs, key, Course::default())?;
        self.keep_trained(id, inputs, key, &weights, trained)
    }

    /// Puts a trained model into the store.
    pub(super) fn keep_trained(
        &self,
        id: NodeIndex,
        inputs: &Inputs,
        key: &Key,
        weights: &Weights,
        trained: Trained,
    ) -> Result<Kept, RunError> {
        let kept = Kept { trained, files: self.keep_model(key, &inputs.student, weights, &self.watch(id))? };
        self.store.put(key, &kept)?;
        self.store.drop_partial(&unfinished(id, self.plan, key));
        Ok(kept)
    }

    /// Trains as far as the course goes, from the last save.
    pub(super) fn advanced(
        &self,
        id: NodeIndex,
        training: &Training,
        inputs: &Inputs,
        key: &Key,
        course: Course,
    ) -> Result<(Weights, Trained), RunError> {
        let stage = &self.plan.node(id).name;
        let begin = || match training.weights {
            hir::Weights::Own => weights(&inputs.student.source, &|_| true),
            hir::Weights::Random { seed } => Ok(synth::weights(inputs.student.source.desc(), seed)
                .map_err(|e| TrainError::Init { stage: stage.clone(), what: e.to_string() })?),
        };
        let record = |updates: u64| {
            let folder = self.settings.records.as_ref();
            Ok(folder.map(|folder| Record::open(folder, stage, updates)).transpose()?)
        };
        let unfinished = unfinished(id, self.plan, key);
        if self.redo.contains(&id) {
            self.store.drop_partial(&unfinished);
        }
        let saves = Saves { store: self.store, key: &unfinished, every: self.settings.save_every };
        let done = self.with_job(id, training, inputs, course, |job, feeds| {
            job.train(feeds, begin, &self.watch(id), Some(saves), record)
        })?;
        for made in [Some(&inputs.student), inputs.teacher.as_ref()].into_iter().flatten() {
            made.source.base().unchanged()?;
        }
        Ok(done)
    }

    /// Takes what was written down of the teacher for some updates out of the store.
    pub(super) fn forget_written(
        &self,
        id: NodeIndex,
        training: &Training,
        inputs: &Inputs,
        begin: u64,
        end: u64,
    ) -> Result<(), RunError> {
        let course = Course { until: Some(end), most: None, shows: true };
        self.with_job(id, training, inputs, course, |job, feeds| job.forget(feeds, begin, &self.watch(id)))
    }

    /// Takes what was saved of a training out of the store.
    pub(super) fn forget_save(&self, id: NodeIndex, key: &Key) {
        self.store.drop_partial(&unfinished(id, self.plan, key));
    }

    fn with_job<T>(
        &self,
        id: NodeIndex,
        training: &Training,
        inputs: &Inputs,
        course: Course,
        act: impl FnOnce(&Job, &mut [Feed]) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let Inputs { student, teacher, .. } = inputs;
        let mut feeds = Vec::new();
        let phases = self.phases(training, inputs, &mut feeds, &self.plan.node(id).name)?;
        let held =
            inputs.heldout.as_ref().map(|(set, every)| Ok::<_, RunError>((set.load(self.store)?, *every)));
        let held = held.transpose()?;
        let heldout = held.as_ref().map(|(samples, every)| Heldout {
            windows: samples.windows().collect(),
            answers: samples.answers(),
            every: *every,
        });
        let beside = |wanted: &dyn Fn(&str) -> bool| -> Result<Weights, RunError> {
            let Some(teacher) = teacher else { return Ok(Weights::default()) };
            let weights = weights(&teacher.source, wanted)?;
            // What is made of them outlives a training that fails.
            teacher.source.base().unchanged()?;
            Ok(weights)
        };
        let fed = feeds.iter().map(|feed| (feed.samples().digest.clone(), feed.seed())).collect::<Vec<_>>();
        let of_feed = phases.iter().zip(&inputs.phases).map(|(phase, (set, _))| (phase.feed, *set));
        let of_feed: BTreeMap<usize, usize> = of_feed.collect();
        let shelved = |phase: &Phase, written: &Written| {
            let (Some(teacher), Some(set)) = (teacher, of_feed.get(&phase.feed)) else {
                return Err(RunError::Unplanned { what: "a teacher".into() });
            };
            let (digest, seed) = &fed[phase.feed];
            let key =
                self.keys().written(teacher, &inputs.sets[*set], (digest, *seed), phase.sequence, written)?;
            // A shard takes what it has written down for several students out of the store again.
            Ok(match self.settings.shard.filter(|_| course.shows) {
                Some(shard) => key.field("shard", shard.to_string()),
                None => key,
            })
        };
        let job = Job {
            device: self.device,
            student: student.source.desc(),
            teacher: teacher.as_ref().map(|t| Teacher { desc: t.source.desc(), weights: &beside }),
            origins: origins(student, teacher.as_ref()),
            phases,
            heldout,
            shelf: Shelf { store: self.store, key: &shelved, block: BLOCK },
            until: course.until,
            most: course.most,
            shows: course.shows,
        };
        act(&job, &mut feeds)
    }

    /// The phases with their windows. Phases on the same data go on in it where the one before ended.
    fn phases<'p>(
        &self,
        training: &'p Training,
        inputs: &Inputs,
        feeds: &mut Vec<Feed>,
        stage: &str,
    ) -> Result<Vec<Phase<'p>>, RunError> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        let mut used = vec![0u64; inputs.sets.len()];
        let mut phases = Vec::new();
        for (phase, &(set, sequence)) in training.schedule.phases.iter().zip(&inputs.phases) {
            let data = &inputs.sets[set];
            let feed = match places.iter().position(|place| *place == (set, sequence)) {
                Some(feed) => feed,
                None => {
                    feeds.push(Feed::new(data.load_windows(self.store, sequence)?, data.seed()));
                    places.push((set, sequence));
                    feeds.len() - 1
                }
            };
            let updates = phase.updates(sequence);
            let first = used[set].div_ceil(sequence as u64);
            let wanted = first + updates * phase.batch as u64;
            let (found, epochs) = (feeds[feed].windows_in(data.epochs()), data.epochs());
            if wanted > found {
                let (stage, data) = (stage.to_string(), data.name().to_string());
                Err(TrainError::TooFewWindows { stage, data, wanted, found, sequence, epochs })?;
            }
            used[set] = wanted * sequence as u64;
            phases.push(Phase { phase, feed, first, sequence, updates });
        }
        match phases.iter().all(|phase| phase.updates == 0) {
            true => Err(TrainError::NoUpdates { stage: stage.to_string() })?,
            false => Ok(phases),
        }
    }

    /// Writes the trained model as a checkpoint in the store; the digests of its files.
    fn keep_model(
        &self,
        key: &Key,
        student: &Made,
        weights: &Weights,
        watch: &Watch,
    ) -> Result<BTreeMap<String, String>, RunError> {
        let staged = StagedFolder::new(&self.store.folder(key), true)?;
        let desc = ModelDesc { dtype: Some(DType::F32), ..student.source.desc().clone() };
        let text = config::to_text(&desc.family().write_config(&desc));
        staged.write(CONFIG_FILE, text.as_bytes())?;
        let mut small = publish::copy_companions(student.source.base().folder(), &staged)?;
        small.push(CONFIG_FILE.into());
        let entry =
            |w: minic_compiler::model::Weight| Entry { shape: w.sizes(), dtype: DType::F32, name: w.name };
        let entries: Vec<Entry> = desc.weights().into_iter().map(entry).collect();
        let open = |entry: &Entry| {
            weights.get(&entry.name).ok_or_else(|| SourceError::Unknown(entry.name.clone()).into())
        };
        let written = publish::write_weights(staged.path(), &entries, None, open, |values, _, piece| {
            Ok::<(), RunError>(piece.write_f32(&values[piece.elements()])?)
        })?;
        let mut files: BTreeMap<String, String> =
            written.files.into_iter().map(|file| (file.name, file.digest)).collect();
        for name in small {
            let digest = digest_file(&staged.path().join(&name))?;
            files.insert(name, digest);
        }
        staged.publish()?;
        watch.note("the trained model is in the store");
        Ok(files)
    }
}

/// Under which a training is saved that is not finished.
fn unfinished(id: NodeIndex, plan: &Plan, key: &Key) -> Key {
    Key::new("training", plan.node(id).name.as_str()).field("result", key.digest())
}

/// The weights of a model whose names are wanted, in f32.
fn weights(source: &WeightSource, wanted: &dyn Fn(&str) -> bool) -> Result<Weights, RunError> {
    let names = source.desc().weights().into_iter().map(|w| w.name).filter(|name| wanted(name));
    Ok(Weights::load(names, |name| source.read_f32(name))?)
}

/// The teacher's layers that the student's were cut from; the same numbers where they have no common origin.
fn origins(student: &Made, teacher: Option<&Made>) -> Vec<usize> {
    let related = teacher.filter(|teacher| teacher.parents.first() == student.parents.first());
    let origin = |(i, layer): (usize, &usize)| {
        let beside = related.and_then(|teacher| teacher.layers.iter().position(|l| l == layer));
        beside.unwrap_or(i)
    };
    student.layers.iter().enumerate().map(origin).collect()
}

fn told(trained: &Trained) -> String {
    let Trained { updates, tokens, loss, heldout, .. } = trained;
    let mut told = format!("{updates} updates on {tokens} tokens, last loss {loss:.4}");
    if let [first, .., last] = heldout.as_slice() {
        told += &format!("; held out {:.4} -> {:.4}", first.heldout_loss, last.heldout_loss);
    }
    told
}
