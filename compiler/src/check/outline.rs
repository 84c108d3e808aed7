//! What is known of a model before anything runs: its sizes, and how many layers of each kind it may have.

use crate::dim::Dim;
use crate::hir;
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

/// How many layers of each kind of [`LayerKind::ALL`].
pub type Counts = [usize; LayerKind::ALL.len()];

/// Number of layers in all, and the fewest and the most of each kind of [`LayerKind::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCounts {
    pub total: usize,
    pub fewest: Counts,
    pub most: Counts,
}

/// What a prune says about layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerRules {
    /// In the parent's numbering.
    pub protect: BTreeSet<usize>,
    pub keep: BTreeMap<LayerKind, usize>,
    /// One block of neighbouring layers goes.
    pub block: bool,
}

impl LayerRules {
    pub fn of(prune: &hir::Prune) -> LayerRules {
        let hir::Constraints { protect, keep, .. } = &prune.constraints;
        let block = prune.depth().is_some_and(|axis| axis.score.takes_a_block());
        LayerRules { protect: protect.clone(), keep: keep.clone(), block }
    }
}

/// Layers by their kind.
pub fn counts_of<'a>(layers: impl IntoIterator<Item = &'a LayerKind>) -> Counts {
    let mut counts = [0; LayerKind::ALL.len()];
    layers.into_iter().for_each(|kind| counts[position(*kind)] += 1);
    counts
}

impl LayerCounts {
    pub fn of(layers: &[LayerKind]) -> LayerCounts {
        LayerCounts::exactly(counts_of(layers))
    }

    pub(crate) fn exactly(counts: Counts) -> LayerCounts {
        LayerCounts { total: counts.iter().sum(), fewest: counts, most: counts }
    }

    /// The number of layers of each kind is the same whatever is ranked how.
    pub fn is_exact(&self) -> bool {
        self.fewest == self.most
    }

    pub fn range(&self, kind: LayerKind) -> (usize, usize) {
        let i = position(kind);
        (self.fewest[i], self.most[i])
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
        let Some(left) = self.blocks(total, rules) else { return self.ranges(total, rules) };
        let range = |least, (a, b): (usize, usize)| if least { a.min(b) } else { a.max(b) };
        let end = |least: bool| {
            let both = |a: Counts, b: Counts| std::array::from_fn(|i| range(least, (a[i], b[i])));
            left.iter().copied().reduce(both)
        };
        Some(LayerCounts { total, fewest: end(true)?, most: end(false)? })
    }

    /// Every number of layers of each kind that `total` layers may be, without repeats; none where the rules allow no
    /// choice. Of models of many thousand layers every so many, and the ends.
    pub(crate) fn choices(&self, total: usize, rules: &LayerRules) -> Vec<Counts> {
        if let Some(left) = self.blocks(total, rules) {
            return left.into_iter().collect();
        }
        let Some(LayerCounts { fewest, most, .. }) = self.ranges(total, rules) else { return Vec::new() };
        let wide = |kind: usize| most[kind] - fewest[kind] + 1;
        let step = (wide(0).saturating_mul(wide(1)) / MOST_CHOICES).isqrt() + 1;
        let each = |kind: usize| {
            let (from, to) = (fewest[kind], most[kind]);
            (from..to).step_by(step).chain([to])
        };
        let mut choices = Vec::new();
        for first in each(0) {
            for second in each(1) {
                let third = total.checked_sub(first + second).filter(|n| (fewest[2]..=most[2]).contains(n));
                choices.extend(third.map(|third| [first, second, third]));
            }
        }
        choices
    }

    /// The same where one block of neighbours goes and it is certain which layer is of which kind; `None` elsewhere.
    fn blocks(&self, total: usize, rules: &LayerRules) -> Option<BTreeSet<Counts>> {
        let span = self.layers.total.checked_sub(total)?;
        if !rules.block || self.desc.layers.len() != self.layers.total {
            return None;
        }
        let exact = |counts: &Counts| {
            let wanted =
                LayerKind::ALL.iter().map(|kind| (rules.keep.get(kind), wanted(rules, &self.layers, *kind)));
            let allowed = |(n, (exactly, least)): (&usize, (Option<&usize>, Option<usize>))| {
                exactly.is_none_or(|exactly| n == exactly) && least.is_none_or(|least| *n >= least)
            };
            counts.iter().zip(wanted).all(allowed)
        };
        let free = |place: &usize| !rules.protect.iter().any(|layer| (*place..place + span).contains(layer));
        let (all, places) = (&self.desc.layers, (0..=total).filter(free));
        let left = places.map(|place| counts_of(all[..place].iter().chain(&all[place + span..])));
        Some(left.filter(exact).collect())
    }

    /// Bounds where any layers may go.
    fn ranges(&self, total: usize, rules: &LayerRules) -> Option<LayerCounts> {
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

/// Choices of layers that are tried one by one, about.
const MOST_CHOICES: usize = 100_000;

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

    #[test]
    fn of_very_many_choices_of_layers_every_so_many_are_tried() {
        let kinds = LayerKind::ALL.iter().flat_map(|kind| vec![*kind; 2000]);
        let mut desc = crate::plan::fixture::desc("tiny");
        desc.layers = kinds.collect();
        let choices = Outline::of(desc).choices(3000, &LayerRules::default());
        assert!((10_000..200_000).contains(&choices.len()), "{}", choices.len());
        assert!(choices.iter().all(|counts| counts.iter().sum::<usize>() == 3000 && counts[2] > 0));
        assert!(choices.contains(&[0, 2000, 1000]) && choices.contains(&[2000, 0, 1000]));
    }

    #[test]
    fn bounds_shrink_until_they_agree() {
        let (mut fewest, mut most) = ([0, 0, 4], [24, 24, 4]);
        assert_eq!(tighten(&mut fewest, &mut most, 10), Some(()));
        assert_eq!((fewest, most), ([0, 0, 4], [6, 6, 4]));
        assert_eq!(tighten(&mut [0, 0, 4], &mut [24, 24, 4], 3), None);
    }
}
