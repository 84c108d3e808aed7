//! The one way in which anything is cut: a gather along every extent that names a cut dimension.

use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::dim::{Dim, Extent, Part};
use minic_compiler::model::Weight;

/// For every axis of a tensor the indices that are kept, ascending; `None` stands for all, and so does an axis
/// that is not there.
pub type Kept = Vec<Option<Vec<usize>>>;

/// What survives of a weight of the table before the cut.
pub fn kept(weight: &Weight, plan: &CutPlan) -> Kept {
    let kept = |extent: &Extent| {
        let indices = indices(extent, plan, weight.layer);
        (indices.len() != extent.size()).then_some(indices)
    };
    weight.shape.iter().map(kept).collect()
}

/// Two cuts as one: `then` is in the numbering that `first` leaves.
pub fn compose(first: Kept, then: &Kept) -> Kept {
    let axis = |(axis, first): (usize, Option<Vec<usize>>)| match (first, then.get(axis)) {
        (first, None | Some(None)) => first,
        (None, Some(Some(then))) => Some(then.clone()),
        (Some(first), Some(Some(then))) => Some(then.iter().map(|&i| first[i]).collect()),
    };
    first.into_iter().enumerate().map(axis).collect()
}

/// Appends the elements `columns` of a row of elements of N bytes.
pub fn pick<const N: usize>(row: &[u8], columns: &[usize], out: &mut Vec<u8>) {
    let row = row.as_chunks::<N>().0;
    let begin = out.len();
    out.resize(begin + columns.len() * N, 0);
    let picked = out[begin..].as_chunks_mut::<N>().0;
    picked.iter_mut().zip(columns).for_each(|(out, &c)| *out = row[c]);
}

/// The surviving indices of an extent, ascending within each part.
fn indices(extent: &Extent, plan: &CutPlan, layer: Option<usize>) -> Vec<usize> {
    let mut offset = 0;
    let mut out = Vec::with_capacity(extent.size());
    for part in &extent.parts {
        out.extend(part_indices(part, plan, layer).into_iter().map(|i| offset + i));
        offset += part.size();
    }
    out
}

/// Row-major product of what each factor keeps. A list per head is chosen by the position of the head among
/// the survivors.
fn part_indices(part: &Part, plan: &CutPlan, layer: Option<usize>) -> Vec<usize> {
    let mut entries: Vec<(usize, usize)> = vec![(0, 0)];
    for factor in &part.factors {
        let mut next = Vec::new();
        for &(index, outer) in &entries {
            let members = members(plan, layer, factor.dim, factor.size, outer);
            next.extend(members.into_iter().enumerate().map(|(pos, m)| (index * factor.size + m, pos)));
        }
        entries = next;
    }
    entries.into_iter().map(|(index, _)| index).collect()
}

/// Kept members of one dimension; `outer` is the position of the enclosing head.
fn members(plan: &CutPlan, layer: Option<usize>, dim: Dim, size: usize, outer: usize) -> Vec<usize> {
    if let Some(kept) = plan.model.get(&dim) {
        return kept.clone();
    }
    match layer.map(|l| plan.keep(l, dim)) {
        None | Some(Keep::All) => (0..size).collect(),
        Some(Keep::Flat(kept)) => kept.clone(),
        Some(Keep::PerHead(lists)) => lists.get(outer).cloned().unwrap_or_default(),
    }
}
