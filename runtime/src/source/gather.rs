//! The one way in which anything is cut: a gather along every extent that names a cut dimension.

use super::Tensor;
use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::dim::{Dim, Extent, Part};
use minic_compiler::model::Weight;

/// `whole` with what `plan` keeps, in order. `weight` is the line of the table before the cut.
pub fn gather(whole: &Tensor, weight: &Weight, plan: &CutPlan) -> Tensor {
    let kept: Vec<Vec<usize>> = weight.shape.iter().map(|e| indices(e, plan, weight.layer)).collect();
    let mut shape = whole.shape.clone();
    let mut bytes = whole.bytes.clone();
    for (axis, kept) in kept.iter().enumerate() {
        if kept.len() != shape[axis] {
            bytes = along(&bytes, &shape, axis, kept, whole.dtype.bytes());
            shape[axis] = kept.len();
        }
    }
    Tensor { dtype: whole.dtype, shape, bytes }
}

/// Copies the slices `kept` of one axis of a row-major tensor.
fn along(bytes: &[u8], shape: &[usize], axis: usize, kept: &[usize], element: usize) -> Vec<u8> {
    let run = shape[axis + 1..].iter().product::<usize>() * element;
    let block = shape[axis] * run;
    let mut out = Vec::with_capacity(bytes.len() / shape[axis].max(1) * kept.len());
    for outer in bytes.chunks_exact(block.max(1)) {
        for &i in kept {
            out.extend_from_slice(&outer[i * run..(i + 1) * run]);
        }
    }
    out
}

/// The surviving indices of an extent, ascending within each part.
pub fn indices(extent: &Extent, plan: &CutPlan, layer: Option<usize>) -> Vec<usize> {
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
