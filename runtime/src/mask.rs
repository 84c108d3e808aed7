//! Masks of a masked model: which activations survive, straight from the kept indices.
//!
//! Written without the weight table and without the gather of the cut, because it is their proof.

use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::dim::Dim;
use minic_compiler::graph::{MaskInput, Masks};
use minic_compiler::model::ModelDesc;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of surviving members, for the builder of the masked graph.
pub fn masks(desc: &ModelDesc, plan: &CutPlan) -> Masks {
    let mut layers = BTreeMap::new();
    for (&layer, dims) in &plan.by_layer {
        for (&dim, keep) in dims {
            layers.insert((layer, dim), keep.count(desc.size(dim)));
        }
    }
    Masks {
        model: plan.model.iter().map(|(&dim, kept)| (dim, kept.len())).collect(),
        layers,
        dropped: (0..desc.layers.len()).filter(|l| !plan.layers.contains(l)).collect(),
    }
}

/// The zeros and ones of each mask that a graph asks for, by name.
pub fn vectors(inputs: &[MaskInput], plan: &CutPlan) -> BTreeMap<String, Vec<f32>> {
    inputs.iter().map(|input| (input.name.clone(), vector(input, plan))).collect()
}

fn vector(input: &MaskInput, plan: &CutPlan) -> Vec<f32> {
    let size: usize = input.factors.iter().map(|s| s.size).product();
    (0..size).map(|flat| if survives(input, plan, flat) { 1.0 } else { 0.0 }).collect()
}

/// Whether every coordinate of a row-major index survives. A dropped layer's branch has none that does.
fn survives(input: &MaskInput, plan: &CutPlan, flat: usize) -> bool {
    let mut rest = flat;
    let mut coordinates: Vec<(Dim, usize)> = Vec::new();
    for factor in input.factors.iter().rev() {
        coordinates.push((factor.dim, rest % factor.size));
        rest /= factor.size;
    }
    coordinates.iter().all(|&(dim, at)| match (dim, plan.model.get(&dim), input.layer) {
        (Dim::NumLayers, _, _) => false,
        (_, Some(kept), _) => kept.contains(&at),
        (_, None, Some(layer)) => match plan.keep(layer, dim) {
            Keep::All => true,
            Keep::Flat(kept) => kept.contains(&at),
            Keep::PerHead(lists) => {
                let head = coordinates.iter().find(|(d, _)| Some(*d) == dim.shared_across());
                head.is_some_and(|&(heads, head)| of_head(plan, layer, heads, head, lists).contains(&at))
            }
        },
        (_, None, None) => true,
    })
}

/// The list of a head, by its rank among the surviving heads; nothing for a head that is gone.
fn of_head(plan: &CutPlan, layer: usize, heads: Dim, head: usize, lists: &[Vec<usize>]) -> BTreeSet<usize> {
    let rank = match plan.keep(layer, heads) {
        Keep::Flat(kept) => kept.iter().position(|&h| h == head),
        Keep::All | Keep::PerHead(_) => Some(head),
    };
    rank.and_then(|r| lists.get(r)).map(|list| list.iter().copied().collect()).unwrap_or_default()
}
