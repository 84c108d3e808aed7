//! A space of architectures: every combination of the values of its axes that the family can express.

use super::outline::{LayerRules, Outline};
use crate::dim::Dim;
use crate::families::ConfigError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Spaces with more points are refused: a search enumerates every one.
pub(super) const MOST_POINTS: u128 = 1_000_000;

/// Sizes of one point of a space, by dimension.
pub(super) type Point = BTreeMap<Dim, usize>;

#[derive(Clone, Debug)]
pub(super) struct Space {
    /// `None` where the sizes of the model that is cut are not known.
    pub parent: Option<Outline>,
    pub axes: Vec<(Dim, Vec<usize>)>,
    pub rules: LayerRules,
    /// The points that a search's `require` lines leave; `None`: all.
    pub left: Option<Arc<Vec<Point>>>,
}

impl Space {
    pub fn new(parent: Option<Outline>, axes: Vec<(Dim, Vec<usize>)>, rules: LayerRules) -> Space {
        // The config's text plays no part in sizes, and would be copied for every point.
        let parent = parent.map(|mut outline| {
            outline.desc.config.clear();
            outline
        });
        Space { parent, axes, rules, left: None }
    }

    /// Combinations, legal or not.
    pub fn len(&self) -> u128 {
        self.axes.iter().fold(1, |n: u128, (_, values)| n.saturating_mul(values.len() as u128))
    }

    /// Every combination, the last axis fastest; none of a space that is too large.
    fn all(&self) -> impl Iterator<Item = Point> + '_ {
        let len = self.len();
        let count = if len > MOST_POINTS { 0 } else { len as usize };
        (0..count).map(|index| {
            let mut rest = index;
            let mut point = Point::new();
            for (dim, values) in self.axes.iter().rev() {
                point.insert(*dim, values[rest % values.len()]);
                rest /= values.len();
            }
            point
        })
    }

    /// The points left, each with its model, that the rules for layers and the family allow.
    pub fn models(&self) -> Box<dyn Iterator<Item = (Point, Outline)> + '_> {
        let Some(parent) = &self.parent else { return Box::new(std::iter::empty()) };
        let legal = move |point: Point| {
            let model = parent.cut(&point, &self.rules)?;
            expressible(&model).ok()?;
            Some((point, model))
        };
        match &self.left {
            Some(points) => Box::new(points.iter().cloned().filter_map(legal)),
            None => Box::new(self.all().filter_map(legal)),
        }
    }
}

/// Whether the family can express the sizes of a model.
pub(super) fn expressible(model: &Outline) -> Result<(), ConfigError> {
    model.desc.family().constraint(&model.desc)
}

/// `mamba_num_heads 112, hidden_size 3072`
pub(super) fn describe(point: &Point) -> String {
    point.iter().map(|(dim, size)| format!("{dim} {size}")).collect::<Vec<_>>().join(", ")
}
