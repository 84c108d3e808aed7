//! What a cut keeps: pure data, the same for the cutter, the gate, the plan's shapes and provenance.
//!
//! All indices are in the parent's numbering and ascend.

use crate::axes::{AXES, Scope};
use crate::dim::Dim;
use crate::model::{LayerKind, ModelDesc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The members of one dimension that survive in one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    All,
    Flat(Vec<usize>),
    /// One list for each head that survives, in the order of the surviving heads. All are of one length.
    PerHead(Vec<Vec<usize>>),
}

impl Keep {
    /// Members kept (of each head, for lists per head), of a dimension of `size` members.
    pub fn count(&self, size: usize) -> usize {
        match self {
            Keep::All => size,
            Keep::Flat(kept) => kept.len(),
            Keep::PerHead(lists) => lists.first().map_or(0, Vec::len),
        }
    }
}

/// Which layers of a model survive, and which members of its dimensions. What is not named survives whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPlan {
    /// The layers that survive.
    pub layers: Vec<usize>,
    /// Members kept of dimensions with one ranking for the whole model.
    pub model: BTreeMap<Dim, Vec<usize>>,
    /// Members kept in single layers; only layers that survive have an entry.
    pub by_layer: BTreeMap<usize, BTreeMap<Dim, Keep>>,
    /// Members that lie in groups are kept wherever they lie, and fill the groups in their order: no cut, but the
    /// baseline that shows what groups are for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regrouped: bool,
}

/// What makes a [`CutPlan`] impossible for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    #[error("{place}: nothing is kept")]
    Empty { place: String },
    #[error("{place}: {index} is out of range, the model has {size}")]
    OutOfRange { place: String, index: usize, size: usize },
    #[error("{place}: kept indices do not ascend at {index}")]
    NotAscending { place: String, index: usize },
    #[error("{place}: the model has no such dimension there")]
    NoSuchDim { place: String },
    #[error("layer {layer} is cut by {dim} but does not survive")]
    LayerIsGone { layer: usize, dim: Dim },
    #[error("{place}: {size} members do not divide into {groups} {outer}")]
    UnevenParent { place: String, size: usize, groups: usize, outer: Dim },
    #[error(
        "{place}: group {group} of {outer} keeps {count} members and group 0 keeps {first}; all must keep the same number"
    )]
    UnevenGroups { place: String, outer: Dim, group: usize, count: usize, first: usize },
    #[error("{place}: keeps {count} members where others keep {other}; all must keep the same number")]
    UnevenLayers { place: String, count: usize, other: usize },
    #[error("{place}: {lists} lists of kept members for {heads} surviving heads")]
    WrongLists { place: String, lists: usize, heads: usize },
    #[error("{place}: a list of kept members per head makes no sense here")]
    NotPerHead { place: String },
}

impl CutPlan {
    /// The plan that changes nothing.
    pub fn identity(desc: &ModelDesc) -> CutPlan {
        CutPlan { layers: (0..desc.layers.len()).collect(), ..CutPlan::default() }
    }

    /// What `layer` (in the parent's numbering) keeps of a dimension that is ranked by layer.
    pub fn keep(&self, layer: usize, dim: Dim) -> &Keep {
        self.by_layer.get(&layer).and_then(|dims| dims.get(&dim)).unwrap_or(&Keep::All)
    }

    /// The new sizes of all cut dimensions; layers are left out, see [`ModelDesc::resized`].
    pub fn sizes(&self, desc: &ModelDesc) -> BTreeMap<Dim, usize> {
        let mut sizes: BTreeMap<Dim, usize> = self.model.iter().map(|(&d, kept)| (d, kept.len())).collect();
        for dims in self.by_layer.values() {
            sizes.extend(dims.iter().map(|(&d, keep)| (d, keep.count(desc.size(d)))));
        }
        sizes
    }

    /// Checked:
    /// - every list of indices ascends, stays in range and is not empty;
    /// - dimensions are cut where [`AXES`] says that they are ranked: for the model, or in layers that have
    ///   them, of those that survive;
    /// - members that lie in groups leave the same number in every group;
    /// - all surviving layers keep the same number of a dimension;
    /// - lists per head are as many as the surviving heads and equally long.
    pub fn verify(&self, desc: &ModelDesc) -> Result<(), CutError> {
        ascending("layers", &self.layers, desc.layers.len())?;
        for (&dim, kept) in &self.model {
            let place = dim.to_string();
            let ranked = AXES.iter().any(|a| a.dim == dim && a.scope == Scope::Model);
            let Some(size) = desc.dim(dim).filter(|_| ranked) else {
                return Err(CutError::NoSuchDim { place });
            };
            ascending(&place, kept, size)?;
            equal_groups(desc, &place, dim, kept)?;
        }
        for (&layer, dims) in &self.by_layer {
            for (&dim, keep) in dims {
                self.verify_layer(desc, layer, dim, keep)?;
            }
        }
        self.equal_layers(desc)
    }

    fn verify_layer(&self, desc: &ModelDesc, layer: usize, dim: Dim, keep: &Keep) -> Result<(), CutError> {
        let place = format!("layer {layer}, {dim}");
        if self.layers.binary_search(&layer).is_err() {
            return Err(CutError::LayerIsGone { layer, dim });
        }
        let Some(size) = desc.dim(dim).filter(|_| layer_kind(dim) == desc.layers.get(layer).copied()) else {
            return Err(CutError::NoSuchDim { place });
        };
        match keep {
            Keep::All => Ok(()),
            Keep::Flat(kept) => {
                ascending(&place, kept, size)?;
                if self.regrouped {
                    fills_groups(desc, &place, dim, kept)
                } else {
                    equal_groups(desc, &place, dim, kept)
                }
            }
            Keep::PerHead(lists) => {
                let Some(outer) = dim.shared_across() else {
                    return Err(CutError::NotPerHead { place });
                };
                let heads = self.keep(layer, outer).count(desc.size(outer));
                if lists.len() != heads {
                    return Err(CutError::WrongLists { place, lists: lists.len(), heads });
                }
                for (i, kept) in lists.iter().enumerate() {
                    ascending(&format!("{place}, kept head {i}"), kept, size)?;
                    let (count, other) = (kept.len(), keep.count(size));
                    if count != other {
                        return Err(CutError::UnevenLayers { place, count, other });
                    }
                }
                Ok(())
            }
        }
    }

    fn equal_layers(&self, desc: &ModelDesc) -> Result<(), CutError> {
        for axis in AXES {
            let Scope::Layer(kind) = axis.scope else { continue };
            let mut first = None;
            for &layer in self.layers.iter().filter(|&&l| desc.layers[l] == kind) {
                let count = self.keep(layer, axis.dim).count(desc.size(axis.dim));
                let other = *first.get_or_insert(count);
                if count != other {
                    let place = format!("layer {layer}, {}", axis.dim);
                    return Err(CutError::UnevenLayers { place, count, other });
                }
            }
        }
        Ok(())
    }
}

/// The kind of layers in which a dimension is ranked layer by layer.
fn layer_kind(dim: Dim) -> Option<LayerKind> {
    AXES.iter().find(|a| a.dim == dim).and_then(|a| match a.scope {
        Scope::Layer(kind) => Some(kind),
        Scope::Model | Scope::Depth => None,
    })
}

fn ascending(place: &str, kept: &[usize], size: usize) -> Result<(), CutError> {
    let place = || place.to_string();
    if kept.is_empty() {
        return Err(CutError::Empty { place: place() });
    }
    if let Some(&index) = kept.iter().find(|&&i| i >= size) {
        return Err(CutError::OutOfRange { place: place(), index, size });
    }
    match kept.windows(2).find(|w| w[0] >= w[1]) {
        Some(w) => Err(CutError::NotAscending { place: place(), index: w[1] }),
        None => Ok(()),
    }
}

/// Members lie in contiguous groups of equal size (a head's SSM group is h / (heads / groups)).
fn equal_groups(desc: &ModelDesc, place: &str, dim: Dim, kept: &[usize]) -> Result<(), CutError> {
    let Some(outer) = dim.within() else { return Ok(()) };
    let (size, groups) = (desc.size(dim), desc.size(outer));
    if groups == 0 || !size.is_multiple_of(groups) {
        return Err(CutError::UnevenParent { place: place.to_string(), size, groups, outer });
    }
    let mut counts = vec![0; groups];
    kept.iter().for_each(|&i| counts[i / (size / groups)] += 1);
    match counts.iter().enumerate().find(|(_, count)| **count != counts[0]) {
        Some((group, &count)) => {
            Err(CutError::UnevenGroups { place: place.to_string(), outer, group, count, first: counts[0] })
        }
        None => Ok(()),
    }
}

/// As many as fill all groups equally, wherever they come from.
fn fills_groups(desc: &ModelDesc, place: &str, dim: Dim, kept: &[usize]) -> Result<(), CutError> {
    let Some(outer) = dim.within() else { return Ok(()) };
    let (size, groups) = (kept.len(), desc.size(outer));
    match groups > 0 && size.is_multiple_of(groups) {
        true => Ok(()),
        false => Err(CutError::UnevenParent { place: place.to_string(), size, groups, outer }),
    }
}

#[cfg(test)]
mod tests;
