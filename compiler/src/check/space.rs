//! What is known of a space while a recipe is checked.

use super::outline::{LayerRules, Outline};
use crate::dim::Dim;
use crate::families::ConfigError;
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
}

impl Space {
    pub fn new(parent: Option<&Outline>, axes: Vec<(Dim, Vec<usize>)>, rules: &LayerRules) -> Space {
        let points = parent.map(|parent| Arc::new(space::Space::new(parent, axes.clone(), rules)));
        Space { axes, points, left: None }
    }

    /// Combinations, legal or not.
    pub fn len(&self) -> u64 {
        self.axes.iter().fold(1, |n: u64, (_, values)| n.saturating_mul(values.len() as u64))
    }

    pub fn parent(&self) -> Option<&Outline> {
        self.points.as_ref().map(|points| points.parent())
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
