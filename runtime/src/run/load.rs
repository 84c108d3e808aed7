//! Checkpoints and data.

use super::identity::Identity;
use super::shard::Share;
use super::{Artifact, Executor, Made, RunError};
use crate::checkpoint::Checkpoint;
use crate::data::{self, Context, FileTokens, Samples, TokenCache, TokenKey};
use crate::error::IoError;
use crate::events::Event;
use crate::hub;
use crate::provenance::{DataRecord, ModelRecord, Parent};
use crate::source::WeightSource;
use crate::store::{Key, Store, digest_of};
use crate::tokens::{self, TOKENIZER_FILE};
use minic_compiler::dim::Dim;
use minic_compiler::hir;
use minic_compiler::plan::{Source, Value};
use petgraph::graph::NodeIndex;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The most that a preview reads to learn the digest of a file.
const PREVIEW_READS: u64 = 1 << 30;

/// Samples that are known by what they are made of, and read only when somebody runs over them.
pub(super) struct SampleSet {
    data: hir::Data,
    context: OwnedContext,
    pub identity: Identity,
    pub record: DataRecord,
    loaded: OnceLock<Arc<Samples>>,
}

/// [`Context`] without its borrows.
#[derive(Clone)]
struct OwnedContext {
    base: PathBuf,
    tokenizer: Option<PathBuf>,
    vocab_size: usize,
    eos: Option<u32>,
}

impl OwnedContext {
    fn as_context<'s>(&'s self, store: &'s Store) -> Context<'s> {
        Context {
            base: &self.base,
            tokenizer: self.tokenizer.as_deref(),
            vocab_size: self.vocab_size,
            eos: self.eos,
            cache: Some(store),
        }
    }
}

/// Tokens of files are artifacts too, apart from the samples that are picked of them.
impl TokenCache for Store {
    fn get(&self, key: &TokenKey) -> Option<FileTokens> {
        FileTokens::from_bytes(&self.bytes(&tokens_key(key)).ok()??)
    }

    fn put(&self, key: &TokenKey, tokens: &FileTokens) {
        // They can be made again; that a disk is full is said by what cannot.
        let _ = self.put_bytes(&tokens_key(key), &tokens.to_bytes());
    }
}

fn tokens_key(key: &TokenKey) -> Key {
    let name = format!("tokens of a file ({})", key.form);
    let document = serde_json::to_value(key).unwrap_or_default();
    document
        .as_object()
        .into_iter()
        .flatten()
        .fold(Key::new("tokens", name), |key, (name, value)| key.field(name, value.clone()))
}

impl SampleSet {
    pub fn name(&self) -> &str {
        &self.record.name
    }

    pub fn sequence(&self) -> usize {
        self.record.sequence
    }

    /// The samples themselves: the very ones that the record tells of.
    pub fn load(&self, store: &Store) -> Result<Arc<Samples>, RunError> {
        if let Some(samples) = self.loaded.get() {
            return Ok(samples.clone());
        }
        let samples = Arc::new(data::load(&self.data, &self.context.as_context(store))?);
        if samples.digest != self.record.digest {
            return Err(RunError::Changed { name: self.record.name.clone() });
        }
        Ok(self.loaded.get_or_init(|| samples).clone())
    }

    pub fn seed(&self) -> u64 {
        self.data.seed
    }

    pub fn epochs(&self) -> f64 {
        self.data.epochs
    }

    /// The samples of the same declaration in windows of another length.
    pub fn load_windows(&self, store: &Store, sequence: usize) -> Result<Arc<Samples>, RunError> {
        if sequence == self.sequence() {
            return self.load(store);
        }
        let data = hir::Data { sequence, ..self.data.clone() };
        Ok(Arc::new(data::load(&data, &self.context.as_context(store))?))
    }
}

impl Executor<'_> {
    pub(super) fn load(&mut self, id: NodeIndex, source: &Source) -> Result<(Artifact, String), RunError> {
        match source {
            Source::Checkpoint { path, dt_floor } => self.checkpoint(id, path, *dt_floor),
            Source::Data(data) => self.data(id, data),
        }
    }

    fn checkpoint(
        &mut self,
        id: NodeIndex,
        path: &str,
        dt_floor: Option<f64>,
    ) -> Result<(Artifact, String), RunError> {
        let name = self.plan.node(id).name.clone();
        if path.starts_with("hf://") {
            return Err(RunError::Remote { name, path: path.into() });
        }
        let folder = self.settings.base.join(path);
        let checkpoint = match !self.plan.reads_weights(id) && Checkpoint::is_weightless(&folder) {
            true => Checkpoint::shape_of(&folder)?,
            false => Checkpoint::open(&folder)?,
        };
        for note in checkpoint.notes() {
            self.observer.observe(&Event::Note { stage: &name, message: note });
        }
        let digests = checkpoint.digests_by(|path| self.digest_file(path))?;
        checkpoint.unchanged()?;
        let identity = Identity::checkpoint(&digests, dt_floor);
        let mut source = WeightSource::new(Arc::new(checkpoint));
        if let Some(floor) = dt_floor {
            let desc = source.desc().clone().with_dt_floor(floor);
            source = source.with_desc(desc);
        }
        let told = format!("{} of {} parameters", source.desc().family, source.desc().params());
        self.summary.model(&name, source.desc());
        let origin = hub::origin(source.base().folder());
        let parent = Parent {
            name: name.clone(),
            checkpoint: origin.as_ref().map_or_else(|| path.to_string(), |origin| origin.repo.clone()),
            revision: origin.map(|origin| origin.commit),
            digest: digests.all,
            files: digests.files,
            model: ModelRecord::of(source.base().desc()),
        };
        self.summary.parents.push(parent.clone());
        let (dtype, layers) = (source.base().main_dtype(), (0..source.desc().layers.len()).collect());
        let (steps, trainings, searches, parents) = (Vec::new(), Vec::new(), Vec::new(), vec![parent]);
        let turned = None;
        let made =
            Made { name, source, identity, parents, dtype, layers, steps, trainings, searches, turned };
        Ok((Artifact::Model(made), told))
    }

    fn data(&mut self, id: NodeIndex, data: &hir::Data) -> Result<(Artifact, String), RunError> {
        let (name, context) = (self.plan.node(id).name.clone(), self.context(id));
        let key = self.data_key(id, data)?;
        let mut loaded = OnceLock::new();
        let record = match self.recall::<DataRecord>(id, &key)? {
            Some(record) => {
                if record.bad_rows > 0 {
                    let message = format!("{} rows cannot be read and were left out", record.bad_rows);
                    self.observer.observe(&Event::Note { stage: &name, message: &message });
                }
                DataRecord { name: name.clone(), ..record }
            }
            None if self.preview => return Err(RunError::NotStored),
            None => {
                let samples = data::load(data, &context.as_context(self.store))?;
                for message in samples.notes() {
                    self.observer.observe(&Event::Note { stage: &name, message: &message });
                }
                let record = record(&name, data.seed, &samples);
                // The digests of the key and those of what was read must be of the same content.
                if self.data_key(id, data)?.digest() != key.digest() {
                    return Err(RunError::Changed { name });
                }
                self.store.put(&key, &record)?;
                loaded = Arc::new(samples).into();
                record
            }
        };
        let identity = Identity { digest: record.digest.clone(), origin: key.origin() };
        self.summary.data.push(record.clone());
        let told = format!("{} samples of {} tokens", record.samples, record.sequence);
        let set = SampleSet { data: data.clone(), context, identity, record, loaded };
        Ok((Artifact::Samples(Arc::new(set)), told))
    }

    fn context(&self, id: NodeIndex) -> OwnedContext {
        let model = self.model(id, Value::Tokenizer).ok();
        OwnedContext {
            base: self.settings.base.clone(),
            tokenizer: model.as_ref().map(|m| m.source.base().folder().to_path_buf()),
            vocab_size: model.as_ref().map_or(u32::MAX as usize, |m| m.source.desc().size(Dim::VocabSize)),
            eos: model.as_ref().and_then(|m| tokens::eos_id(&m.source.desc().config)),
        }
    }

    /// Everything that decides which tokens a declaration gives.
    pub(super) fn data_key(&self, id: NodeIndex, data: &hir::Data) -> Result<Key, RunError> {
        let context = self.context(id);
        let (mut digests, mut paths) = (Vec::new(), Map::new());
        for source in &data.mix {
            let mut files = Vec::new();
            for pattern in &source.files {
                for path in data::matching(&self.settings.base, pattern)? {
                    let digest = self.digest_file(&path)?;
                    paths.insert(path.display().to_string(), digest.clone().into());
                    files.push((data::form(&path)?, digest));
                }
            }
            digests.push(files);
        }
        let named = data.tokenizer.as_ref().map(|t| context.base.join(t));
        let tokenizer = match named.or(context.tokenizer) {
            Some(path) => self.tokenizer_digest(&path)?,
            None => None,
        };
        let weights: Vec<f64> = data.mix.iter().map(|source| source.weight).collect();
        Ok(Key::new("samples", self.plan.node(id).name.clone())
            .input("files", &digest_of(&json!(digests)), paths.into())
            .field("tokenizer", json!(tokenizer))
            .field("field", json!(data.field))
            .field("answer", json!(data.answer))
            .field("end_of_row", json!(context.eos))
            .field("vocab_size", context.vocab_size)
            .field("bad_rows", format!("{:?}", data.bad_rows))
            .field("weights", weights)
            .field("sequence", data.sequence)
            .field("samples", json!(data.samples))
            .field("seed", data.seed)
            .field("reader", data::READER)
            .field("version", data::VERSION))
    }

    fn tokenizer_digest(&self, path: &Path) -> Result<Option<String>, RunError> {
        let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_path_buf() };
        if path.exists() { Ok(Some(self.digest_file(&path)?)) } else { Ok(None) }
    }

    /// A preview of a whole run reads no large file for its digest.
    pub(super) fn digest_file(&self, path: &Path) -> Result<String, RunError> {
        if self.preview
            && self.share == Share::Whole
            && self.store.known_digest(path).is_none()
            && path.metadata().map_err(IoError::at(path, "read the size"))?.len() > PREVIEW_READS
        {
            return Err(RunError::NotStored);
        }
        Ok(self.store.digest_file(path)?)
    }
}

fn record(name: &str, seed: u64, samples: &Samples) -> DataRecord {
    let files = samples.files.iter().map(|f| (hub::spelled(&f.path), f.digest.clone())).collect();
    DataRecord {
        name: name.into(),
        digest: samples.digest.clone(),
        sequence: samples.sequence(),
        samples: samples.len(),
        seed,
        bad_rows: samples.bad_rows(),
        files,
    }
}
