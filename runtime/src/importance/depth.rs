//! Which layers survive: the most important ones that the constraints allow.

use super::rank::best_first;
use minic_compiler::hir::Constraints;
use minic_compiler::model::LayerKind;
use std::collections::{BTreeMap, BTreeSet};

/// What the surviving layers of one parent must be.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthRule {
    kinds: Vec<LayerKind>,
    target: usize,
    protect: BTreeSet<usize>,
    /// Kinds of which exactly so many survive.
    exact: BTreeMap<LayerKind, usize>,
    /// At least one attention layer survives: the default where no exact number is asked for.
    attention: bool,
}

/// Why no choice of layers will do, or none can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DepthError {
    #[error("{target} of {layers} layers cannot be kept")]
    OutOfRange { target: usize, layers: usize },
    #[error("layer {layer} is protected, but the model has {layers} layers")]
    NoSuchLayer { layer: usize, layers: usize },
    #[error("{protected} layers are protected, but only {target} are kept")]
    TooManyProtected { protected: usize, target: usize },
    #[error("{wanted} {kind} layers must survive, but the model has {there}", kind = kind.name())]
    TooFewOfKind { kind: LayerKind, wanted: usize, there: usize },
    #[error(
        "exactly {wanted} {kind} layers must survive, but {protected} are protected",
        kind = kind.name()
    )]
    ProtectedOverKeep { kind: LayerKind, wanted: usize, protected: usize },
    #[error("{wanted} layers must survive by their kind, but only {target} are kept")]
    KeepOverTarget { wanted: usize, target: usize },
    #[error(
        "{target} layers are to be kept, but only {there} may survive; the kinds with an exact number end at it"
    )]
    TooFewLeft { target: usize, there: usize },
    #[error(
        "one attention layer must survive beside {others} others that must, but only {target} layers are kept; \
         `keep attention 0` in a group lifts this"
    )]
    NoRoomForAttention { others: usize, target: usize },
    #[error(
        "no {span} neighbouring layers can go: each such block holds a layer that must survive by its number or kind"
    )]
    NoBlock { span: usize },
    #[error("the score of layer {layer} is not a number")]
    NotANumber { layer: usize },
    #[error("{scores} scores for {layers} layers or places of a block")]
    WrongLength { scores: usize, layers: usize },
}

impl DepthRule {
    /// `target` layers of a model with these `kinds` survive; refused where no choice of layers would do.
    pub fn new(
        kinds: &[LayerKind],
        target: usize,
        constraints: &Constraints,
    ) -> Result<DepthRule, DepthError> {
        let attention =
            kinds.contains(&LayerKind::Attention) && !constraints.keep.contains_key(&LayerKind::Attention);
        let (protect, exact) = (constraints.protect.clone(), constraints.keep.clone());
        let rule = DepthRule { kinds: kinds.to_vec(), target, protect, exact, attention };
        let layers = kinds.len();
        if target == 0 || target > layers {
            return Err(DepthError::OutOfRange { target, layers });
        }
        if let Some(&layer) = rule.protect.iter().find(|&&l| l >= layers) {
            return Err(DepthError::NoSuchLayer { layer, layers });
        }
        rule.feasible(&(0..layers).collect::<Vec<_>>())?;
        Ok(rule)
    }

    /// How many layers survive.
    pub fn target(&self) -> usize {
        self.target
    }

    /// Layers of the parent.
    pub fn layers(&self) -> usize {
        self.kinds.len()
    }

    /// No layer goes.
    pub fn keeps_all(&self) -> bool {
        self.target == self.kinds.len()
    }

    /// Whether `target` of these layers can be kept.
    fn feasible(&self, remaining: &[usize]) -> Result<(), DepthError> {
        let target = self.target;
        let is = |l: usize, kind: LayerKind| self.kinds.get(l) == Some(&kind);
        let there = |kind| remaining.iter().filter(|&&l| is(l, kind)).count();
        let protected = |kind| self.protect.iter().filter(|&&l| is(l, kind)).count();
        if self.protect.len() > target {
            return Err(DepthError::TooManyProtected { protected: self.protect.len(), target });
        }
        for (&kind, &wanted) in &self.exact {
            if there(kind) < wanted {
                return Err(DepthError::TooFewOfKind { kind, wanted, there: there(kind) });
            }
            if protected(kind) > wanted {
                return Err(DepthError::ProtectedOverKeep { kind, wanted, protected: protected(kind) });
            }
        }
        let exact: usize = self.exact.values().sum();
        let free = || LayerKind::ALL.iter().copied().filter(|k| !self.exact.contains_key(k));
        let wanted = exact + free().map(protected).sum::<usize>();
        if wanted > target {
            return Err(DepthError::KeepOverTarget { wanted, target });
        }
        if self.attention && there(LayerKind::Attention) == 0 {
            return Err(DepthError::TooFewOfKind { kind: LayerKind::Attention, wanted: 1, there: 0 });
        }
        if self.attention && protected(LayerKind::Attention) == 0 && wanted == target {
            return Err(DepthError::NoRoomForAttention { others: wanted, target });
        }
        let most = exact + free().map(there).sum::<usize>();
        if most < target { Err(DepthError::TooFewLeft { target, there: most }) } else { Ok(()) }
    }

    /// The layers that survive, ascending: those that must, then those with the greatest scores. One score
    /// per layer of the parent; of equals the lower index survives.
    pub fn choose(&self, scores: &[f64]) -> Result<Vec<usize>, DepthError> {
        let layers = self.kinds.len();
        if scores.len() != layers {
            return Err(DepthError::WrongLength { scores: scores.len(), layers });
        }
        if let Some(layer) = scores.iter().position(|s| s.is_nan()) {
            return Err(DepthError::NotANumber { layer });
        }
        let order = best_first(scores);
        let mut kept = self.protect.clone();
        let attention = |l: &&usize| self.kinds[**l] == LayerKind::Attention;
        if self.attention && !kept.iter().any(|l| attention(&l)) {
            kept.extend(order.iter().find(attention));
        }
        for (&kind, &count) in &self.exact {
            self.fill(&mut kept, &order, count, |k| k == kind);
        }
        let free = self.target - self.exact.values().sum::<usize>();
        self.fill(&mut kept, &order, free, |k| !self.exact.contains_key(&k));
        Ok(kept.into_iter().collect())
    }

    /// The layers that survive, ascending, where a block of neighbours goes: of those that may, the one with the
    /// least score; of equals the later one. One score for every place of the block.
    pub fn without_block(&self, scores: &[f64]) -> Result<Vec<usize>, DepthError> {
        let layers = self.kinds.len();
        let span = layers - self.target;
        if scores.len() != self.target + 1 {
            return Err(DepthError::WrongLength { scores: scores.len(), layers: self.target + 1 });
        }
        let left = |place: usize| (0..layers).filter(|l| !(place..place + span).contains(l)).collect();
        let may_go = |place: usize| {
            let left: Vec<usize> = left(place);
            self.protect.iter().all(|layer| left.contains(layer)) && self.feasible(&left).is_ok()
        };
        let places = scores.iter().copied().enumerate().filter(|(place, _)| may_go(*place)).collect();
        Self::least(&places)?.map(left).ok_or(DepthError::NoBlock { span })
    }

    /// Adds layers of some kinds in order until `count` of those kinds are kept.
    fn fill(
        &self,
        kept: &mut BTreeSet<usize>,
        order: &[usize],
        count: usize,
        of_kind: impl Fn(LayerKind) -> bool,
    ) {
        let there = kept.iter().filter(|&&l| of_kind(self.kinds[l])).count();
        let more: Vec<usize> =
            order.iter().copied().filter(|l| of_kind(self.kinds[*l]) && !kept.contains(l)).collect();
        kept.extend(more.into_iter().take(count.saturating_sub(there)));
    }

    /// The layers of `remaining` that may be removed next so that the target can still be met; empty once it
    /// is met. For rankings that score again after every removal.
    pub fn droppable(&self, remaining: &[usize]) -> Vec<usize> {
        if remaining.len() <= self.target {
            return Vec::new();
        }
        let without = |layer: usize| remaining.iter().copied().filter(|&l| l != layer).collect::<Vec<_>>();
        let may_go = |layer: usize| !self.protect.contains(&layer) && self.feasible(&without(layer)).is_ok();
        remaining.iter().copied().filter(|&l| may_go(l)).collect()
    }

    /// The layer to remove among scored candidates: the least important; of equals the one of higher index.
    pub fn least(scores: &BTreeMap<usize, f64>) -> Result<Option<usize>, DepthError> {
        if let Some((&layer, _)) = scores.iter().find(|(_, s)| s.is_nan()) {
            return Err(DepthError::NotANumber { layer });
        }
        let (layers, values): (Vec<usize>, Vec<f64>) = scores.iter().map(|(&l, &s)| (l, s)).unzip();
        Ok(best_first(&values).last().map(|&i| layers[i]))
    }
}

#[cfg(test)]
mod tests;
