//! From scores to a cut plan: nested, group-aware ranking (paper eqs. 20 to 27).
//!
//! Written against the dimensions of a tap: which members lie in groups ([`Dim::within`]), which share one
//! ranking across another dimension ([`Dim::shared_across`]), and which axis is ranked where ([`Scope`]).

use super::scores::{Scores, Survivors, reversed};
use minic_compiler::axes::{Axis, Scope};
use minic_compiler::cut::{CutError, CutPlan, Keep};
use minic_compiler::dim::Dim;
use minic_compiler::hir::Constraints;
use minic_compiler::model::ModelDesc;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What one axis is ranked by.
#[derive(Clone, Debug)]
pub struct AxisScores {
    pub axis: &'static Axis,
    /// Members to keep.
    pub keep: usize,
    /// Whether the ranking, once joined, is turned upside down.
    pub reverse: bool,
    pub table: Table,
}

/// Scores where an axis is ranked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Table {
    /// By layer, in the parent's numbering.
    Layers(BTreeMap<usize, Scores>),
    /// For the whole model: the members' scores are summed over all entries, in order.
    Model(Vec<Scores>),
}

/// The scores by which an axis was ranked in one place, joined over what survives of the axes before it.
#[derive(Clone, Debug)]
pub struct Ranking {
    pub axis: &'static Axis,
    /// `None`: the whole model.
    pub layer: Option<usize>,
    /// Each member of this dimension has a ranking of its own; those of all stand one after the other.
    pub each: Option<Dim>,
    pub scores: Vec<f64>,
}

/// Why scores cannot be ranked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RankError {
    #[error("{place}: the score of element {element} is not a number")]
    NotANumber { place: String, element: usize },
    #[error("{place}: there are no scores")]
    Missing { place: String },
    #[error("{place}: {scores} scores for {expected} elements")]
    WrongLength { place: String, scores: usize, expected: usize },
    #[error("{place}: {keep} of {size} cannot be kept")]
    OutOfRange { place: String, keep: usize, size: usize },
    #[error("{place}: {keep} of {size} cannot be kept in equal numbers in {groups} {outer}")]
    Uneven { place: String, keep: usize, size: usize, groups: usize, outer: Dim },
    #[error("bug: the ranking gave an impossible cut: {0}")]
    Cut(#[from] CutError),
}

/// The cut that keeps the most important members along every axis in the layers that survive. An axis that
/// keeps everything is left out of the plan. `layers` ascends; depth is ranked by [`super::DepthRule`]. With
/// `regrouped` members are ranked without regard to their groups ([`CutPlan::regrouped`]).
pub fn choose(
    desc: &ModelDesc,
    layers: &[usize],
    axes: &[AxisScores],
    constraints: &Constraints,
    regrouped: bool,
) -> Result<CutPlan, RankError> {
    Ok(choose_by(desc, layers, axes, constraints, regrouped)?.0)
}

/// The same cut, and what was ranked for it.
pub fn choose_by(
    desc: &ModelDesc,
    layers: &[usize],
    axes: &[AxisScores],
    constraints: &Constraints,
    regrouped: bool,
) -> Result<(CutPlan, Vec<Ranking>), RankError> {
    let mut rankings = Vec::new();
    let mut plan = CutPlan { layers: layers.to_vec(), regrouped, ..CutPlan::default() };
    for axis in axes.iter().filter(|a| a.axis.scope == Scope::Model && cuts(desc, a)) {
        let place = axis.axis.dim.to_string();
        let scores = rank_model(desc, axis, &place)?;
        plan.model.insert(axis.axis.dim, top(desc, axis, &scores, regrouped, &place)?);
        rankings.push(Ranking { axis: axis.axis, layer: None, each: None, scores });
    }
    for &layer in layers {
        let kept = rank_layer(desc, layer, axes, constraints, regrouped, &mut rankings)?;
        if !kept.is_empty() {
            plan.by_layer.insert(layer, kept);
        }
    }
    plan.verify(desc)?;
    Ok((plan, rankings))
}

fn cuts(desc: &ModelDesc, axis: &AxisScores) -> bool {
    axis.keep != desc.size(axis.axis.dim)
}

/// Scores of the members of a model-wide axis, summed over the places where they were taken (eq. 27).
fn rank_model(desc: &ModelDesc, axis: &AxisScores, place: &str) -> Result<Vec<f64>, RankError> {
    let Table::Model(tables) = &axis.table else {
        return Err(RankError::Missing { place: place.into() });
    };
    let mut sums = vec![0.0; desc.size(axis.axis.dim)];
    for scores in tables {
        check(scores, place)?;
        let joined = scores.join(axis.axis.dim, &BTreeMap::new());
        expect_length(joined.len(), sums.len(), place)?;
        sums.iter_mut().zip(joined).for_each(|(sum, score)| *sum += score);
    }
    match tables.is_empty() {
        true => Err(RankError::Missing { place: place.into() }),
        false => Ok(sums),
    }
}

/// What a layer keeps along each axis that is cut in it. Axes that others are joined over come first.
fn rank_layer(
    desc: &ModelDesc,
    layer: usize,
    axes: &[AxisScores],
    constraints: &Constraints,
    regrouped: bool,
    rankings: &mut Vec<Ranking>,
) -> Result<BTreeMap<Dim, Keep>, RankError> {
    let kind = desc.layers.get(layer).copied();
    let here = |a: &&AxisScores| matches!(a.axis.scope, Scope::Layer(k) if Some(k) == kind) && cuts(desc, a);
    let mut axes: Vec<&AxisScores> = axes.iter().filter(here).collect();
    axes.sort_by_key(|a| a.axis.dim.shared_across().is_some() == constraints.heads_before_channels);
    let mut survivors = BTreeMap::new();
    for axis in axes {
        let dim = axis.axis.dim;
        let place = format!("layer {layer}, {dim}");
        let Table::Layers(tables) = &axis.table else {
            return Err(RankError::Missing { place });
        };
        let Some(scores) = tables.get(&layer) else {
            return Err(RankError::Missing { place });
        };
        check(scores, &place)?;
        let outer = dim.shared_across().filter(|_| constraints.channels_per_head);
        let (chosen, joined) = match outer {
            Some(outer) => per_member(desc, axis, scores, outer, &survivors, &place)?,
            None => {
                let joined = scores.join(dim, &survivors);
                let kept = top(desc, axis, &joined, regrouped, &place)?;
                (Survivors::Flat(mask(&kept, desc.size(dim))), joined)
            }
        };
        rankings.push(Ranking { axis: axis.axis, layer: Some(layer), each: outer, scores: joined });
        survivors.insert(dim, chosen);
    }
    Ok(survivors.iter().map(|(&dim, chosen)| (dim, keep(chosen, &survivors))).collect())
}

/// Each member of `outer` keeps its own: every head its own channels. With the scores of all, one after the other.
fn per_member(
    desc: &ModelDesc,
    axis: &AxisScores,
    scores: &Scores,
    outer: Dim,
    survivors: &BTreeMap<Dim, Survivors>,
    place: &str,
) -> Result<(Survivors, Vec<f64>), RankError> {
    let dim = axis.axis.dim;
    let (mut lists, mut all) = (Vec::new(), Vec::new());
    for member in 0..desc.size(outer) {
        let own = scores.slice(outer, member).join(dim, survivors);
        let kept = top(desc, axis, &own, false, &format!("{place}, {outer} {member}"))?;
        lists.push(mask(&kept, desc.size(dim)));
        all.extend(own);
    }
    Ok((Survivors::Per(outer, lists), all))
}

/// The plan's spelling of the survivors; lists per head are given for surviving heads alone.
fn keep(chosen: &Survivors, survivors: &BTreeMap<Dim, Survivors>) -> Keep {
    match chosen {
        Survivors::Flat(list) => Keep::Flat(indices(list)),
        Survivors::Per(outer, lists) => {
            let outer = survivors.get(outer);
            let survives = |member: usize| match outer {
                Some(Survivors::Flat(list)) => list.get(member).copied().unwrap_or(false),
                _ => true,
            };
            let lists = lists.iter().enumerate().filter(|(member, _)| survives(*member));
            Keep::PerHead(lists.map(|(_, list)| indices(list)).collect())
        }
    }
}

/// The members with the greatest scores, the same number in each group that the dimension lies in; ascending.
/// Of equal scores the lower index is kept. `regrouped`: wherever they lie, though as many as fill all groups.
fn top(
    desc: &ModelDesc,
    axis: &AxisScores,
    scores: &[f64],
    regrouped: bool,
    place: &str,
) -> Result<Vec<usize>, RankError> {
    let (dim, keep) = (axis.axis.dim, axis.keep);
    let size = desc.size(dim);
    expect_length(scores.len(), size, place)?;
    if keep == 0 || keep > size {
        return Err(RankError::OutOfRange { place: place.into(), keep, size });
    }
    let groups = dim.within().map_or(1, |outer| desc.size(outer));
    if groups == 0 || !size.is_multiple_of(groups) || !keep.is_multiple_of(groups) {
        let outer = dim.within().unwrap_or(dim);
        return Err(RankError::Uneven { place: place.into(), keep, size, groups, outer });
    }
    let scores = if axis.reverse { reversed(scores) } else { scores.to_vec() };
    let groups = if regrouped { 1 } else { groups };
    let per_group = size / groups;
    let mut kept = Vec::with_capacity(keep);
    for (group, scores) in scores.chunks(per_group).enumerate() {
        let best = best_first(scores);
        kept.extend(best.into_iter().take(keep / groups).map(|i| group * per_group + i));
    }
    kept.sort_unstable();
    Ok(kept)
}

/// Indices of scores from the greatest to the least; of equals, the lower index first.
pub(super) fn best_first(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // The sort is stable. Zeros of either sign are equal; NaN was refused before.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
    order
}

fn mask(kept: &[usize], size: usize) -> Vec<bool> {
    let mut mask = vec![false; size];
    kept.iter().filter(|&&i| i < size).for_each(|&i| mask[i] = true);
    mask
}

fn indices(mask: &[bool]) -> Vec<usize> {
    mask.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| i).collect()
}

fn check(scores: &Scores, place: &str) -> Result<(), RankError> {
    expect_length(scores.values.len(), scores.elements(), place)?;
    match scores.values.iter().position(|s| s.is_nan()) {
        Some(element) => Err(RankError::NotANumber { place: place.into(), element }),
        None => Ok(()),
    }
}

fn expect_length(scores: usize, expected: usize, place: &str) -> Result<(), RankError> {
    match scores == expected {
        true => Ok(()),
        false => Err(RankError::WrongLength { place: place.into(), scores, expected }),
    }
}

#[cfg(test)]
mod tests;
