//! From what a calibration gathered, or from weights alone, to the scores that one axis is ranked by.

use crate::calibrate::Gathered;
use crate::events::Watch;
use crate::importance::{self, DepthRule, Scores, Side, Statistics, Table};
use crate::run::RunError;
use crate::source::WeightSource;
use minic_compiler::axes::{Axis, Scope, Tap};
use minic_compiler::forward::{Gather, output};
use minic_compiler::hir::{self, LayerMetric};
use minic_compiler::metrics::Program;
use minic_compiler::model::ModelDesc;
use minic_compiler::plan;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one axis is ranked by; `reverse` turns the ranking upside down once it is joined.
#[derive(Clone, Debug)]
pub struct Ranked {
    pub axis: &'static Axis,
    /// As the recipe writes it.
    pub metric: String,
    pub tap: Option<&'static Tap>,
    pub reverse: bool,
    pub by: By,
}

impl Ranked {
    /// By scores that stand for themselves.
    pub fn by(axis: &'static Axis, by: By) -> Ranked {
        Ranked { axis, metric: String::new(), tap: None, reverse: false, by }
    }

    pub fn new(stage: &plan::Score, by: By) -> Ranked {
        let mut reverse = false;
        let mut score = &stage.score;
        while let hir::Score::Reverse(inner) = score {
            (reverse, score) = (!reverse, inner);
        }
        Ranked { axis: stage.axis, metric: stage.score.to_string(), tap: stage.tap, reverse, by }
    }

    /// BLAKE3 of the scores' bits, hexadecimal. The same scores turned upside down lead to another cut.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut take = |values: &[f64]| {
            values.iter().for_each(|v| _ = hasher.update(&v.to_bits().to_le_bytes()));
        };
        match &self.by {
            By::Layers(scores) => take(scores),
            By::Blocks(depths) => depths.iter().for_each(|(kept, scores)| {
                take(&[*kept as f64]);
                take(scores);
            }),
            By::Members(Table::Layers(layers)) => layers.values().for_each(|s| take(&s.values)),
            By::Members(Table::Model(all)) => all.iter().for_each(|s| take(&s.values)),
        }
        if self.reverse {
            hasher.update(b"reversed");
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The layers that survive a rule, ascending, where it is layers that are ranked.
    pub fn survivors(&self, rule: &DepthRule) -> Result<Vec<usize>, RunError> {
        let sign = if self.reverse { -1.0 } else { 1.0 };
        let signed = |scores: &[f64]| scores.iter().map(|score| score * sign).collect::<Vec<f64>>();
        let unplanned = |what: String| RunError::Unplanned { what };
        match &self.by {
            By::Layers(scores) => Ok(rule.choose(&signed(scores))?),
            By::Blocks(_) if rule.keeps_all() => Ok((0..rule.target()).collect()),
            By::Blocks(depths) => {
                let scores = depths.get(&rule.target());
                let scores = scores.ok_or_else(|| unplanned(format!("a depth of {}", rule.target())))?;
                Ok(rule.without_block(&signed(scores))?)
            }
            By::Members(_) => Err(unplanned(format!("a ranking of layers by {}", self.metric))),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum By {
    Members(Table),
    /// One score a layer of the parent.
    Layers(Vec<f64>),
    /// For each number of layers that may be kept, one score for every place of the block that goes: the greater,
    /// the more is lost.
    Blocks(BTreeMap<usize, Vec<f64>>),
}

/// Elements of a weight that are held at once, by each thread.
const PIECE: usize = 1 << 18;

/// Where scores come from.
pub struct Scorer<'a> {
    pub model: &'a WeightSource,
    pub gathered: Option<&'a Gathered>,
    /// One more pass, for iterative removal and for blocks of layers.
    pub gather: &'a (dyn Fn(&Gather) -> Result<Gathered, RunError> + Sync),
    /// A pass of its own, for what a repair makes up for, by its damping.
    pub residual: &'a (dyn Fn(f64) -> Result<Table, RunError> + Sync),
    /// How many layers survive, and which must, for every depth that is asked for, the fewest first: there iterative
    /// removal stops.
    pub depths: &'a [DepthRule],
    pub watch: &'a Watch<'a>,
}

impl Scorer<'_> {
    pub fn score(&self, stage: &plan::Score) -> Result<By, RunError> {
        self.by(stage, &stage.score)
    }

    fn by(&self, stage: &plan::Score, score: &hir::Score) -> Result<By, RunError> {
        Ok(match score {
            hir::Score::Reverse(inner) => return self.by(stage, inner),
            hir::Score::Metric(name) => {
                let (Some(program), Some(tap)) = (&stage.program, stage.tap) else {
                    return Err(RunError::Unplanned { what: format!("the metric `{name}`") });
                };
                By::Members(self.at_taps(stage.axis, tap, program)?)
            }
            hir::Score::Random { seed } => random(self.model.desc(), stage.axis, *seed),
            hir::Score::Layer(metric) => By::Layers(self.layers(*metric)?),
            hir::Score::Iterative(metric) => By::Layers(self.iterative(*metric)?),
            hir::Score::Contiguous(metric) => By::Blocks(self.blocks(*metric)?),
            hir::Score::Residual { damping } => By::Members((self.residual)(*damping)?),
            hir::Score::Pca => return Err(RunError::Unplanned { what: "a rotation".into() }),
        })
    }

    /// A metric at every block that has the tap, and for the whole model after the last norm too.
    fn at_taps(&self, axis: &Axis, tap: &Tap, program: &Program) -> Result<Table, RunError> {
        let kinds = &self.model.desc().layers;
        let has_tap = |l: &usize| tap.kind.is_none_or(|kind| kinds[*l] == kind);
        let layers: Vec<usize> = (0..kinds.len()).filter(has_tap).collect();
        let mut places: Vec<Option<usize>> = layers.iter().copied().map(Some).collect();
        places.extend((axis.scope == Scope::Model).then_some(None));
        let score = |layer| self.at_tap(tap, program, layer);
        let scores: Vec<Result<Scores, RunError>> = match program.uses_w() && self.model.is_rotated() {
            // One layer after the other: a weight that is computed whole is held alone.
            true => places.into_iter().map(score).collect(),
            // Weights are read by all threads, each with a layer of its own.
            false => places.into_par_iter().map(score).collect(),
        };
        let scores: Vec<Scores> = scores.into_iter().collect::<Result<_, _>>()?;
        Ok(match axis.scope {
            Scope::Model => Table::Model(scores),
            Scope::Layer(_) | Scope::Depth => Table::Layers(layers.into_iter().zip(scores).collect()),
        })
    }

    fn at_tap(&self, tap: &Tap, program: &Program, layer: Option<usize>) -> Result<Scores, RunError> {
        let desc = self.model.desc();
        let elements = tap.dims.iter().map(|&dim| desc.size(dim)).product();
        let name = output::metric(tap.name, &program.name, layer);
        let total = self.gathered.and_then(|g| g.metrics.get(&name));
        if program.uses_x() && total.is_none() {
            return Err(RunError::Unplanned { what: name });
        }
        let weights = self.weights(tap, program, layer, elements)?;
        Ok(Scores::at(tap, desc, program.finish(elements, total, &weights)))
    }

    /// Statistics of the weights beside a tap.
    fn weights(
        &self,
        tap: &Tap,
        program: &Program,
        layer: Option<usize>,
        elements: usize,
    ) -> Result<Vec<Vec<f64>>, RunError> {
        let mut statistics = Statistics::new(program, elements);
        if !program.uses_w() {
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        for source in importance::sources(self.model.desc(), tap, layer) {
            let slice = self.model.slice(&source.weight.name)?;
            let columns = slice.row_len().max(1);
            let (first, count) = match source.side {
                Side::Columns => (0, slice.rows()),
                Side::Rows { first, count } => (first, count),
            };
            for rows in slice.pieces(first..first + count, PIECE) {
                values.resize(rows.len() * columns, 0.0);
                slice.read_f32(rows.clone(), &mut values)?;
                for (row, values) in rows.zip(values.chunks_exact(columns)) {
                    match source.side {
                        Side::Columns => statistics.push_row(values),
                        Side::Rows { .. } => statistics.push_element(row - first, values),
                    }
                }
            }
        }
        Ok(statistics.finish())
    }

    fn layers(&self, metric: LayerMetric) -> Result<Vec<f64>, RunError> {
        let scores = self.gathered.and_then(|g| g.layer_scores(metric));
        scores.map(<[f64]>::to_vec).ok_or_else(|| RunError::Unplanned { what: "a layer metric".into() })
    }

    /// The least important layer goes, the others are scored again against the whole model, and so on. A
    /// layer's score is when it went; those that stay come last.
    fn iterative(&self, metric: LayerMetric) -> Result<Vec<f64>, RunError> {
        let layers = self.model.desc().layers.len();
        let mut scores = vec![layers as f64; layers];
        let mut gather = Gather { layers: vec![metric], ..Gather::default() };
        loop {
            let left: Vec<usize> = (0..layers).filter(|l| !gather.removed.contains(l)).collect();
            let may_go = self.depths.first().map(|rule| rule.droppable(&left)).unwrap_or_default();
            if may_go.is_empty() {
                return Ok(scores);
            }
            let gathered = (self.gather)(&gather)?;
            let now = gathered.layer_scores(metric).unwrap_or_default();
            let candidates = left.iter().copied().zip(now.iter().copied());
            let candidates = candidates.filter(|(l, _)| may_go.contains(l)).collect();
            let Some(layer) = DepthRule::least(&candidates)? else { return Ok(scores) };
            scores[layer] = gather.removed.len() as f64;
            gather.removed.push(layer);
            self.watch.note(&format!("layer {layer} goes, score {:.6}", candidates[&layer]));
        }
    }

    /// Every block of neighbours that would leave as many layers as are asked for, against the whole model.
    fn blocks(&self, metric: LayerMetric) -> Result<BTreeMap<usize, Vec<f64>>, RunError> {
        let layers = self.model.desc().layers.len();
        let mut blocks = BTreeMap::new();
        for kept in self.depths.iter().map(DepthRule::target) {
            let span = layers.saturating_sub(kept);
            if span == 0 || blocks.contains_key(&kept) {
                continue;
            }
            let gathered = (self.gather)(&Gather { layers: vec![metric], span, ..Gather::default() })?;
            blocks.insert(kept, gathered.layer_scores(metric).unwrap_or_default().to_vec());
        }
        Ok(blocks)
    }
}

/// Scores drawn by a seed.
pub fn random(desc: &ModelDesc, axis: &Axis, seed: u64) -> By {
    let size = desc.size(axis.dim);
    let scores = |layer| Scores::of(axis.dim, importance::random(seed, axis.name, layer, size));
    match axis.scope {
        Scope::Depth => By::Layers(importance::random(seed, axis.name, None, desc.layers.len())),
        Scope::Model => By::Members(Table::Model(vec![scores(None)])),
        Scope::Layer(kind) => {
            let layers = (0..desc.layers.len()).filter(|&l| desc.layers[l] == kind);
            By::Members(Table::Layers(layers.map(|l| (l, scores(Some(l)))).collect()))
        }
    }
}

#[cfg(test)]
mod tests;
