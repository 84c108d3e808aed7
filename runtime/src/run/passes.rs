//! Forward passes over samples, each result in the store by itself: whatever a pass was fused of, only what is
//! missing is computed.

use super::load::SampleSet;
use super::{Executor, Made, RunError};
use crate::calibrate::{self, Gathered, Item};
use crate::evaluate::{self, Figures, Meter};
use crate::samples::Pass;
use crate::store::Key;
use minic_compiler::forward::{Comparison, Gather, output};
use minic_compiler::metrics::Partial;
use petgraph::graph::NodeIndex;
use std::sync::Arc;

/// A metric's partials as they are stored: the name of the metric may change.
type Partials = Vec<(Option<usize>, Partial)>;

impl Executor<'_> {
    /// Everything that `gather` asks for, each with its key.
    pub(super) fn items(
        &self,
        model: &Made,
        samples: &SampleSet,
        gather: &Gather,
    ) -> Result<Vec<(Key, Item)>, RunError> {
        let keys = self.keys();
        let key = |item: &Item| match item {
            Item::Metric(tap, program) => keys.metric(model, samples, tap, program),
            Item::Layers(metric) => keys.layers(model, samples, *metric, &gather.removed, gather.span),
            Item::Covariance => keys.covariance(model, samples),
            Item::Figures => keys.figures(model, None, samples),
        };
        Item::all(gather).into_iter().map(|item| Ok((key(&item)?, item))).collect()
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
        let (mut keys, mut items) = (Vec::new(), Vec::new());
        for (key, item) in self.items(model, samples, gather)? {
            if !self.recall_item(id, &key, &item, model, &mut gathered)? {
                keys.push(key);
                items.push(item);
            }
        }
        if items.is_empty() {
            return Ok(gathered);
        }
        self.pass(
            &keys,
            samples.record.samples,
            |which, range, saves| {
                let mut missing =
                    Gather { removed: gather.removed.clone(), span: gather.span, ..Gather::default() };
                which.iter().for_each(|&i| items[i].add_to(&mut missing));
                let loaded = samples.load(self.store)?;
                let windows: Vec<&[u32]> = loaded.windows().collect();
                let watch = self.watch(id);
                let pass = Pass { range, saves: Some(saves), ..Pass::over(&windows, &watch) };
                let sums = calibrate::sums(self.device, &model.source, &missing, &pass)?;
                model.source.base().unchanged()?;
                Ok(sums)
            },
            |i, left, right| left.join(right, &items[i]),
            |i, sum| {
                sum.finish(&items[i], &mut gathered)?;
                self.keep_item(&keys[i], &items[i], model, &gathered)
            },
        )?;
        Ok(gathered)
    }

    fn recall_item(
        &self,
        id: NodeIndex,
        key: &Key,
        item: &Item,
        model: &Made,
        into: &mut Gathered,
    ) -> Result<bool, RunError> {
        match item {
            Item::Metric(tap, program) => {
                let Some(partials) = self.recall::<Partials>(id, key)? else { return Ok(false) };
                let named = partials.into_iter().map(|(l, p)| (output::metric(tap, &program.name, l), p));
                into.metrics.extend(named);
            }
            Item::Layers(metric) => {
                let Some(scores) = self.recall::<Vec<f64>>(id, key)? else { return Ok(false) };
                let layers = model.source.desc().layers.len();
                if scores.len() > layers {
                    return Ok(false);
                }
                into.layers.push((*metric, scores));
            }
            Item::Covariance => {
                let Some(covariance) = self.recall::<Vec<f64>>(id, key)? else { return Ok(false) };
                into.covariance = Some(Arc::new(covariance));
            }
            Item::Figures => {
                let Some(figures) = self.recall::<Figures>(id, key)? else { return Ok(false) };
                into.figures = Some(figures);
            }
        }
        Ok(true)
    }

    fn keep_item(&self, key: &Key, item: &Item, model: &Made, from: &Gathered) -> Result<(), RunError> {
        match item {
            Item::Metric(tap, program) => {
                let layers = (0..model.source.desc().layers.len()).map(Some).chain([None]);
                let partial = |layer| {
                    let partial = from.metrics.get(&output::metric(tap, &program.name, layer))?;
                    Some((layer, partial.clone()))
                };
                let partials: Partials = layers.filter_map(partial).collect();
                self.store.put(key, &partials)?;
            }
            Item::Layers(metric) => {
                if let Some(scores) = from.layer_scores(*metric) {
                    self.store.put(key, &scores)?;
                }
            }
            Item::Covariance => {
                if let Some(covariance) = &from.covariance {
                    self.store.put(key, covariance.as_ref())?;
                }
            }
            Item::Figures => {
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
        let mut figures = Vec::new();
        let (mut keys, mut missing) = (Vec::new(), Vec::new());
        for (i, key) in self.figure_keys(samples, wanted)?.into_iter().enumerate() {
            figures.push(self.recall::<Figures>(id, &key)?);
            if figures[i].is_none() {
                keys.push(key);
                missing.push(i);
            }
        }
        if missing.is_empty() {
            return Ok(figures.into_iter().flatten().collect());
        }
        let comparison = |i: usize| {
            let (made, against) = wanted[missing[i]];
            Comparison { model: &made.name, against: against.map(|made| made.name.as_str()) }
        };
        self.pass(
            &keys,
            samples.record.samples,
            |which, range, saves| {
                let mut models: Vec<(&str, &Made)> = Vec::new();
                for made in
                    which.iter().map(|&i| wanted[missing[i]]).flat_map(|(m, a)| [Some(m), a]).flatten()
                {
                    if models.iter().all(|(name, _)| *name != made.name) {
                        models.push((&made.name, made));
                    }
                }
                let sources: Vec<_> = models.iter().map(|(name, made)| (*name, &made.source)).collect();
                let comparisons: Vec<Comparison> = which.iter().map(|&i| comparison(i)).collect();
                let loaded = samples.load(self.store)?;
                let windows: Vec<&[u32]> = loaded.windows().collect();
                let watch = self.watch(id);
                let (answers, saves) = (loaded.answers(), Some(saves));
                let pass = Pass { answers, range, saves, ..Pass::over(&windows, &watch) };
                let meters = evaluate::meters(self.device, &sources, &comparisons, &pass)?;
                for (_, made) in &models {
                    made.source.base().unchanged()?;
                }
                Ok(meters)
            },
            |_, left: Meter, right| left.join(right),
            |i, meter| {
                let one = evaluate::finish(&comparison(i), meter)?;
                self.store.put(&keys[i], &one)?;
                figures[missing[i]] = Some(one);
                Ok(())
            },
        )?;
        Ok(figures.into_iter().flatten().collect())
    }

    pub(super) fn figure_keys(
        &self,
        samples: &SampleSet,
        wanted: &[(&Made, Option<&Made>)],
    ) -> Result<Vec<Key>, RunError> {
        wanted.iter().map(|(model, against)| self.keys().figures(model, *against, samples)).collect()
    }
}
