//! Forward passes over samples, each result in the store by itself: whatever a pass was fused of, only what is
//! missing is computed.

use super::load::SampleSet;
use super::{Executor, Made, RunError};
use crate::calibrate::{self, Gathered};
use crate::evaluate::{self, Figures};
use crate::samples::Saves;
use crate::store::Key;
use minic_compiler::forward::{Comparison, Gather, output};
use minic_compiler::hir::LayerMetric;
use minic_compiler::metrics::{Partial, Program};
use petgraph::graph::NodeIndex;
use serde_json::json;
use std::sync::Arc;

/// One thing that a calibration gathers.
pub(super) enum Part {
    Metric(&'static str, Arc<Program>),
    Layers(LayerMetric),
    Covariance,
    Figures,
}

/// A metric's partials as they are stored: the name of the metric may change.
type Partials = Vec<(Option<usize>, Partial)>;

impl Executor<'_> {
    pub(super) fn parts(
        &self,
        model: &Made,
        samples: &SampleSet,
        gather: &Gather,
    ) -> Result<Vec<(Key, Part)>, RunError> {
        let keys = self.keys();
        let mut parts = Vec::new();
        for (tap, program) in &gather.metrics {
            parts.push((keys.metric(model, samples, tap, program)?, Part::Metric(tap, program.clone())));
        }
        for &metric in &gather.layers {
            let key = keys.layers(model, samples, metric, &gather.removed, gather.span)?;
            parts.push((key, Part::Layers(metric)));
        }
        if gather.covariance {
            parts.push((keys.covariance(model, samples)?, Part::Covariance));
        }
        if gather.loss {
            parts.push((keys.figures(model, None, samples)?, Part::Figures));
        }
        Ok(parts)
    }

    /// What `gather` asks for: from the store, and the rest in one pass.
    pub(super) fn gathered(
        &self,
        id: NodeIndex,
        model: &Made,
        samples: &SampleSet,
        gather: &Gather,
    ) -> Result<Gathered, RunError> {
        let mut gathered = Gathered::default();
        let mut missing = Gather { removed: gather.removed.clone(), span: gather.span, ..Gather::default() };
        let mut fresh = Vec::new();
        for (key, part) in self.parts(model, samples, gather)? {
            if self.recall_part(id, &key, &part, model, &mut gathered)? {
                continue;
            }
            match &part {
                Part::Metric(tap, program) => missing.metrics.push((*tap, program.clone())),
                Part::Layers(metric) => missing.layers.push(*metric),
                Part::Covariance => missing.covariance = true,
                Part::Figures => missing.loss = true,
            }
            fresh.push((key, part));
        }
        if fresh.is_empty() {
            return Ok(gathered);
        }
        let pass = self.pass_key(fresh.iter().map(|(key, _)| key))?;
        let loaded = samples.load(self.store)?;
        let windows: Vec<&[u32]> = loaded.windows().collect();
        let saves = Saves { store: self.store, key: &pass, every: self.settings.save_every };
        let watch = self.watch(id);
        let computed =
            calibrate::calibrate(self.device, &model.source, &missing, &windows, &watch, Some(saves))?;
        model.source.base().unchanged()?;
        for (key, part) in &fresh {
            self.keep_part(key, part, model, &computed)?;
        }
        self.store.drop_partial(&pass);
        gathered.metrics.extend(computed.metrics);
        gathered.layers.extend(computed.layers);
        gathered.covariance = gathered.covariance.or(computed.covariance);
        gathered.figures = gathered.figures.or(computed.figures);
        Ok(gathered)
    }

    fn recall_part(
        &self,
        id: NodeIndex,
        key: &Key,
        part: &Part,
        model: &Made,
        into: &mut Gathered,
    ) -> Result<bool, RunError> {
        match part {
            Part::Metric(tap, program) => {
                let Some(partials) = self.recall::<Partials>(id, key)? else { return Ok(false) };
                let named = partials.into_iter().map(|(l, p)| (output::metric(tap, &program.name, l), p));
                into.metrics.extend(named);
            }
            Part::Layers(metric) => {
                let Some(scores) = self.recall::<Vec<f64>>(id, key)? else { return Ok(false) };
                let layers = model.source.desc().layers.len();
                if scores.len() > layers {
                    return Ok(false);
                }
                into.layers.push((*metric, scores));
            }
            Part::Covariance => {
                let Some(covariance) = self.recall::<Vec<f64>>(id, key)? else { return Ok(false) };
                into.covariance = Some(Arc::new(covariance));
            }
            Part::Figures => {
                let Some(figures) = self.recall::<Figures>(id, key)? else { return Ok(false) };
                into.figures = Some(figures);
            }
        }
        Ok(true)
    }

    fn keep_part(&self, key: &Key, part: &Part, model: &Made, from: &Gathered) -> Result<(), RunError> {
        match part {
            Part::Metric(tap, program) => {
                let layers = (0..model.source.desc().layers.len()).map(Some).chain([None]);
                let partial = |layer| {
                    let partial = from.metrics.get(&output::metric(tap, &program.name, layer))?;
                    Some((layer, partial.clone()))
                };
                let partials: Partials = layers.filter_map(partial).collect();
                self.store.put(key, &partials)?;
            }
            Part::Layers(metric) => {
                if let Some(scores) = from.layer_scores(*metric) {
                    self.store.put(key, &scores)?;
                }
            }
            Part::Covariance => {
                if let Some(covariance) = &from.covariance {
                    self.store.put(key, covariance.as_ref())?;
                }
            }
            Part::Figures => {
                if let Some(figures) = &from.figures {
                    self.store.put(key, figures)?;
                }
            }
        }
        Ok(())
    }

    /// The figures of each comparison: from the store, and the rest in one pass. Models are looked up by name.
    pub(super) fn figures(
        &self,
        id: NodeIndex,
        samples: &SampleSet,
        wanted: &[(&Made, Option<&Made>)],
    ) -> Result<Vec<Figures>, RunError> {
        let keys: Vec<Key> = self.figure_keys(samples, wanted)?;
        let mut figures = Vec::new();
        for key in &keys {
            figures.push(self.recall::<Figures>(id, key)?);
        }
        let missing: Vec<usize> = (0..wanted.len()).filter(|&i| figures[i].is_none()).collect();
        if !missing.is_empty() {
            let pass = self.pass_key(missing.iter().map(|&i| &keys[i]))?;
            let loaded = samples.load(self.store)?;
            let windows: Vec<&[u32]> = loaded.windows().collect();
            let saves = Saves { store: self.store, key: &pass, every: self.settings.save_every };
            let mut models: Vec<(&str, &Made)> = Vec::new();
            for made in missing.iter().flat_map(|&i| [Some(wanted[i].0), wanted[i].1]).flatten() {
                if models.iter().all(|(name, _)| *name != made.name) {
                    models.push((&made.name, made));
                }
            }
            let sources: Vec<_> = models.iter().map(|(name, made)| (*name, &made.source)).collect();
            let comparison = |&i: &usize| Comparison {
                model: &wanted[i].0.name,
                against: wanted[i].1.map(|made| made.name.as_str()),
            };
            let comparisons: Vec<Comparison> = missing.iter().map(comparison).collect();
            let watch = self.watch(id);
            let computed = evaluate::evaluate(
                self.device,
                &sources,
                &comparisons,
                &windows,
                loaded.answers(),
                &watch,
                Some(saves),
            )?;
            for (_, made) in &models {
                made.source.base().unchanged()?;
            }
            for (&i, one) in missing.iter().zip(computed) {
                self.store.put(&keys[i], &one)?;
                figures[i] = Some(one);
            }
            self.store.drop_partial(&pass);
        }
        Ok(figures.into_iter().flatten().collect())
    }

    pub(super) fn figure_keys(
        &self,
        samples: &SampleSet,
        wanted: &[(&Made, Option<&Made>)],
    ) -> Result<Vec<Key>, RunError> {
        wanted.iter().map(|(model, against)| self.keys().figures(model, *against, samples)).collect()
    }

    /// The key under which an unfinished pass for these results is kept. Nothing is computed for a preview.
    fn pass_key<'k>(&self, missing: impl Iterator<Item = &'k Key>) -> Result<Key, RunError> {
        if self.preview {
            return Err(RunError::NotStored);
        }
        let (digests, subjects): (Vec<String>, Vec<&str>) =
            missing.map(|key| (key.digest(), key.subject.as_str())).unzip();
        Ok(Key::new("pass", subjects.join("; ")).field("results", json!(digests)))
    }
}
