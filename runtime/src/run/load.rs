//! Checkpoints and data.

use super::{Artifact, Executor, Made, RunError};
use crate::checkpoint::Checkpoint;
use crate::data::{self, Context};
use crate::events::Event;
use crate::provenance::{DataRecord, ModelRecord};
use crate::source::WeightSource;
use crate::tokens;
use minic_compiler::dim::Dim;
use minic_compiler::hir;
use minic_compiler::plan::{Source, Value};
use petgraph::graph::NodeIndex;
use std::sync::Arc;

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
        let checkpoint = Checkpoint::open(&self.settings.base.join(path))?;
        for note in checkpoint.notes() {
            self.observer.observe(&Event::Note { stage: &name, message: note });
        }
        let mut source = WeightSource::new(Arc::new(checkpoint));
        if let Some(floor) = dt_floor {
            let desc = source.desc().clone().with_dt_floor(floor);
            source = source.with_desc(desc);
        }
        let told = format!("{} of {} parameters", source.desc().family, source.desc().params());
        self.summary.models.insert(name.clone(), ModelRecord::of(source.desc()));
        Ok((Artifact::Model(Made { source, root: name, steps: Vec::new() }), told))
    }

    fn data(&mut self, id: NodeIndex, data: &hir::Data) -> Result<(Artifact, String), RunError> {
        let model = self.model(id, Value::Tokenizer).ok();
        let context = Context {
            base: &self.settings.base,
            tokenizer: model.as_ref().map(|m| m.source.base().folder()),
            vocab_size: model.as_ref().map_or(u32::MAX as usize, |m| m.source.desc().size(Dim::VocabSize)),
            eos: model.as_ref().and_then(|m| tokens::eos_id(&m.source.desc().config)),
            cache: None,
        };
        let samples = data::load(data, &context)?;
        let name = self.plan.node(id).name.clone();
        samples
            .notes()
            .iter()
            .for_each(|message| self.observer.observe(&Event::Note { stage: &name, message }));
        let files = samples.files.iter().map(|f| (f.path.display().to_string(), f.digest.clone())).collect();
        self.data.push(DataRecord {
            name,
            digest: samples.digest.clone(),
            sequence: samples.sequence(),
            samples: samples.len(),
            seed: data.seed,
            bad_rows: samples.bad_rows(),
            files,
        });
        let told = format!("{} samples of {} tokens", samples.len(), samples.sequence());
        Ok((Artifact::Samples(Arc::new(samples)), told))
    }
}
