//! What is known of a model before anything runs: its sizes, and how many layers of each kind it may have.

use crate::dim::Dim;
use crate::model::{LayerKind, ModelDesc};
use std::collections::{BTreeMap, BTreeSet};

/// A model whose widths are known and whose layers may not be: which layers survive a depth cut is decided
/// by ranking, at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The sizes in force. `layers` are those before the earliest depth cut that is not yet decided.
    pub desc: ModelDesc,
    pub layers: LayerCounts,
}

/// Number of layers in all, and the fewest and the most of each kind of [`LayerKind::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCounts {
    pub total: usize,
    pub fewest: [usize; 3],
    pub most: [usize; 3],
}

/// What a prune says about layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LayerRules {
    /// In the parent's numbering.
    pub protect: BTreeSet<usize>,
    pub keep: BTreeMap<LayerKind, usize>,
}

impl LayerCounts {
    pub fn of(layers: &[LayerKind]) -> LayerCounts {
        let counts = LayerKind::ALL.iter().map(|kind| layers.iter().filter(|l| *l == kind).count());
        let mut exact = [0; 3];
        for (slot, count) in exact.iter_mut().zip(counts) {
            *slot = count;
        }
        LayerCounts { total: layers.len(), fewest: exact, most: exact }
    }

    /// The number of layers of each kind is the same whatever is ranked how.
    pub fn is_exact(&self) -> bool {
        self.fewest == self.most
    }

    pub fn range(&self, kind: LayerKind) -> (usize, usize) {
        let i = position(kind);
        (self.fewest[i], self.most[i])
    }

    /// The counts with which `sum(count * cost)` is least or greatest; costs may not be negative.
    pub fn extreme(&self, costs: [u64; 3], greatest: bool) -> [usize; 3] {
        let mut order = [0, 1, 2];
        order.sort_by_key(|&i| if greatest { u64::MAX - costs[i] } else { costs[i] });
        let mut counts = self.fewest;
        let mut left = self.total.saturating_sub(counts.iter().sum());
        for i in order {
            let more = left.min(self.most[i] - self.fewest[i]);
            counts[i] += more;
            left -= more;
        }
        counts
    }
}

fn position(kind: LayerKind) -> usize {
    LayerKind::ALL.iter().position(|k| *k == kind).unwrap_or(0)
}

/// Names the kind of layer that `keep` or the default rule speaks of.
fn wanted(rules: &LayerRules, counts: &LayerCounts, kind: LayerKind) -> Option<usize> {
    let default = (kind == LayerKind::Attention && counts.range(kind).0 > 0).then_some(1);
    rules.keep.get(&kind).copied().or(default)
}

impl Outline {
    pub fn of(desc: ModelDesc) -> Outline {
        let layers = LayerCounts::of(&desc.layers);
        Outline { desc, layers }
    }

    pub fn dim(&self, dim: Dim) -> Option<usize> {
        if dim == Dim::NumLayers { Some(self.layers.total) } else { self.desc.dim(dim) }
    }

    pub fn has(&self, kind: LayerKind) -> bool {
        self.layers.range(kind).1 > 0
    }

    /// The kind of a layer, where it is certain.
    fn kind(&self, layer: usize) -> Option<LayerKind> {
        if self.desc.layers.len() == self.layers.total { self.desc.layers.get(layer).copied() } else { None }
    }

    /// The model after a cut. `None` where no choice of layers satisfies the rules.
    pub(crate) fn cut(&self, sizes: &BTreeMap<Dim, usize>, rules: &LayerRules) -> Option<Outline> {
        let total = sizes.get(&Dim::NumLayers).copied().unwrap_or(self.layers.total);
        let layers = self.survivors(total, rules)?;
        let mut desc = self.desc.clone();
        for (&dim, &size) in sizes.iter().filter(|(dim, _)| **dim != Dim::NumLayers) {
            desc.dims.insert(dim, size);
        }
        Some(Outline { desc, layers })
    }

    /// Bounds of the layers of each kind when `total` are kept.
    pub(crate) fn survivors(&self, total: usize, rules: &LayerRules) -> Option<LayerCounts> {
        let removed = self.layers.total.checked_sub(total)?;
        let mut fewest = [0; 3];
        let mut most = [0; 3];
        for (i, &kind) in LayerKind::ALL.iter().enumerate() {
            let protected = rules.protect.iter().filter(|&&l| self.kind(l) == Some(kind)).count();
            let least = self.layers.fewest[i].saturating_sub(removed).max(protected);
            fewest[i] = least.max(wanted(rules, &self.layers, kind).unwrap_or(0));
            most[i] = self.layers.most[i];
            if let Some(&exactly) = rules.keep.get(&kind) {
                most[i] = most[i].min(exactly);
                fewest[i] = fewest[i].max(exactly);
            }
        }
        if rules.protect.len() > total {
            return None;
        }
        for _ in 0..2 {
            tighten(&mut fewest, &mut most, total)?;
        }
        Some(LayerCounts { total, fewest, most })
    }
}

/// What the other kinds leave is a bound for each kind.
fn tighten(fewest: &mut [usize; 3], most: &mut [usize; 3], total: usize) -> Option<()> {
    for i in 0..3 {
        let others = |bounds: &[usize; 3]| bounds.iter().sum::<usize>() - bounds[i];
        most[i] = most[i].min(total.checked_sub(others(fewest))?);
        fewest[i] = fewest[i].max(total.saturating_sub(others(most)));
        if fewest[i] > most[i] {
            return None;
        }
    }
    let (least, greatest) = (fewest.iter().sum::<usize>(), most.iter().sum::<usize>());
    (least <= total && total <= greatest).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: usize, fewest: [usize; 3], most: [usize; 3]) -> LayerCounts {
        LayerCounts { total, fewest, most }
    }

    #[test]
    fn the_dearest_layers_are_taken_first_for_the_greatest_cost() {
        let layers = counts(44, [16, 16, 1], [24, 24, 4]);
        assert_eq!(layers.extreme([100, 176, 42], true), [19, 24, 1]);
        assert_eq!(layers.extreme([100, 176, 42], false), [24, 16, 4]);
    }

    #[test]
    fn bounds_shrink_until_they_agree() {
        let (mut fewest, mut most) = ([0, 0, 4], [24, 24, 4]);
        assert_eq!(tighten(&mut fewest, &mut most, 10), Some(()));
        assert_eq!((fewest, most), ([0, 0, 4], [6, 6, 4]));
        assert_eq!(tighten(&mut [0, 0, 4], &mut [24, 24, 4], 3), None);
    }
}
