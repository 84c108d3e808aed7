//! What the axes of a cut were ranked by, in numbers that a report can show: few, and rounded.
//!
//! A ranking of an 8B model's neurons has half a million scores. Kept is at most [`SCORES`] of each place, each the
//! mean of so many neighbours, with four digits: 300 kB for such a model.

use crate::importance::{DepthRule, Ranking};
use crate::score::By;
use minic_compiler::dim::Dim;
use serde::{Deserialize, Serialize};

/// Scores of one place at most.
const SCORES: usize = 512;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AxisRanking {
    pub axis: String,
    /// As the recipe writes it.
    pub metric: String,
    /// The least scores were kept.
    pub reverse: bool,
    pub by: RankedBy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankedBy {
    /// One score a layer: what is lost without it, or the round in which it went.
    Layers { scores: Vec<f32> },
    /// Of so many neighbouring layers, by the first of them: what is lost without them.
    Blocks { span: usize, scores: Vec<f32> },
    /// Members of a dimension, in one place or in several.
    Members { places: Vec<Place> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Absent: the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Each member of this dimension ranks its own; all of them stand one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Dim>,
    pub members: usize,
    /// Neighbours that a score is the mean of; the last one may be of fewer.
    pub span: usize,
    pub scores: Vec<f32>,
}

impl AxisRanking {
    pub(super) fn members(metric: &str, reverse: bool, rankings: &[&Ranking]) -> Option<AxisRanking> {
        let axis = rankings.first()?.axis.name.to_string();
        let places = rankings.iter().map(|ranking| Place::of(ranking)).collect();
        Some(AxisRanking { axis, metric: metric.into(), reverse, by: RankedBy::Members { places } })
    }

    /// Of layers; nothing where it is members that are ranked.
    pub(super) fn depth(metric: &str, reverse: bool, by: &By, rule: &DepthRule) -> Option<AxisRanking> {
        let by = match by {
            By::Layers(scores) => RankedBy::Layers { scores: rounded(scores) },
            By::Blocks(depths) => {
                let scores = depths.get(&rule.target())?;
                RankedBy::Blocks { span: rule.layers() - rule.target(), scores: rounded(scores) }
            }
            By::Members(_) => return None,
        };
        Some(AxisRanking { axis: Dim::NumLayers.name().into(), metric: metric.into(), reverse, by })
    }
}

impl Place {
    fn of(Ranking { layer, each, scores, .. }: &Ranking) -> Place {
        let span = scores.len().div_ceil(SCORES).max(1);
        let means: Vec<f64> =
            scores.chunks(span).map(|some| some.iter().sum::<f64>() / some.len() as f64).collect();
        Place { layer: *layer, each: *each, members: scores.len(), span, scores: rounded(&means) }
    }
}

/// Four digits, and no infinity, which JSON does not know.
fn rounded(scores: &[f64]) -> Vec<f32> {
    let round = |score: &f64| format!("{score:.3e}").parse().unwrap_or(*score as f32);
    scores.iter().map(round).map(|score: f32| score.clamp(f32::MIN, f32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minic_compiler::axes;

    #[test]
    fn scores_are_few_and_short() {
        let axis = axes::find("ffn_hidden_size").unwrap();
        let scores: Vec<f64> = (0..21_504).map(|i| 1.0 / (1.0 + f64::from(i))).collect();
        let ranking = Ranking { axis, layer: Some(3), each: None, scores };
        let all = AxisRanking::members("energy", false, &[&ranking]).unwrap();
        let RankedBy::Members { places } = &all.by else { panic!("{all:?}") };
        let Place { layer, members, span, ref scores, .. } = places[0];
        assert_eq!((layer, members, span, scores.len()), (Some(3), 21_504, 42, 512));
        assert_eq!(scores[0], 0.103);
        assert!(serde_json::to_string(&all).unwrap().len() < 6000);
        let few = Ranking { axis, layer: None, each: None, scores: vec![0.123456, f64::INFINITY, -0.0] };
        let few = Place::of(&few);
        assert_eq!((few.span, few.scores), (1, vec![0.1235, f32::MAX, -0.0]));
    }
}
