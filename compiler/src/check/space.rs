//! What is known of a space while a recipe is checked.

use super::Checker;
use super::outline::{LayerRules, Outline};
use crate::dim::Dim;
use crate::families::ConfigError;
use crate::hir::Require;
use crate::space;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sizes of one point of a space, by dimension.
pub(super) type Point = BTreeMap<Dim, usize>;

#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub axes: Vec<(Dim, Vec<usize>)>,
    /// Its points; `None` where the sizes of the model that is cut are not known.
    pub points: Option<Arc<space::Space>>,
    /// The points that a search's `require` lines leave; `None`: all.
    pub left: Option<Arc<Vec<u64>>>,
    /// Those lines.
    pub require: Vec<Require>,
}

impl Space {
    pub fn new(parent: Option<&Outline>, axes: Vec<(Dim, Vec<usize>)>, rules: &LayerRules) -> Space {
        let points = parent.map(|parent| Arc::new(space::Space::new(parent, axes.clone(), rules)));
        Space { axes, points, left: None, require: Vec::new() }
    }

    /// Combinations, legal or not.
    pub fn len(&self) -> u64 {
        self.axes.iter().fold(1, |n: u64, (_, values)| n.saturating_mul(values.len() as u64))
    }

    pub fn parent(&self) -> Option<&Outline> {
        self.points.as_ref().map(|points| points.parent())
    }
}

/// The points of a space that meet requirements: counting them takes longer than all the rest of a check, and most
/// changes of a recipe leave them as they were.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    space: Arc<space::Space>,
    require: Vec<Require>,
    found: Arc<space::Feasible>,
}

impl Counted {
    fn is_of(&self, space: &space::Space, require: &[Require]) -> bool {
        let same = |(a, b): (&Require, &Require)| a.quantity == b.quantity && a.lo == b.lo && a.hi == b.hi;
        self.require.len() == require.len()
            && self.require.iter().zip(require).all(same)
            && *self.space == *space
    }
}

impl Checker<'_> {
    /// [`space::Space::feasible`], or what it was found to be in this check or the one before.
    pub(super) fn counted(&mut self, space: &Arc<space::Space>, require: &[Require]) -> Arc<space::Feasible> {
        let own = self.counted.iter().find(|counted| counted.is_of(space, require));
        if let Some(own) = own {
            return Arc::clone(&own.found);
        }
        let before = self.before.iter().find(|counted| counted.is_of(space, require));
        let found =
            before.map_or_else(|| Arc::new(space.feasible(require)), |known| Arc::clone(&known.found));
        let (space, require) = (Arc::clone(space), require.to_vec());
        self.counted.push(Counted { space, require, found: Arc::clone(&found) });
        found
    }
}

/// Whether the family can express the sizes of a model.
pub(super) fn expressible(model: &Outline) -> Result<(), ConfigError> {
    model.desc.family().constraint(&model.desc)
}

/// `1 point`, `12 points`
pub(super) fn points(n: u64) -> String {
    format!("{n} point{}", if n == 1 { "" } else { "s" })
}

/// `mamba_num_heads 112, hidden_size 3072`
pub(super) fn describe(point: &Point) -> String {
    point.iter().map(|(dim, size)| format!("{dim} {size}")).collect::<Vec<_>>().join(", ")
}
