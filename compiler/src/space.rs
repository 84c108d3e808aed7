//! A space of architectures: every combination of the values of its axes, each a number.
//!
//! A point is an index in the mixed radix of the axes, the last axis fastest. Which layers survive a depth cut is
//! decided by ranking at run time, so that a point stands for every model that has its sizes and one of the possible
//! counts of layers. Points are judged one by one, without a copy of the model for each; the work is cut by numbers
//! of points alone and put together in their order, so that any number of threads gives the same answer.

use crate::check::{Counts, LayerCounts, LayerRules, Outline};
use crate::cost::Parts;
use crate::dim::Dim;
use crate::hir::{self, Require};
use crate::model::ModelDesc;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Spaces with more points are refused: every one is tried.
pub const MOST_POINTS: u64 = 4_000_000;

/// Widths that one thread judges in a row.
const CHUNK: u64 = 1024;

/// The points that are left, and what every constraint had to do with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Feasible {
    /// Points that the family can store and the rules for layers allow.
    pub legal: u64,
    /// Those that meet every constraint with some choice of layers, ascending.
    pub points: Vec<u64>,
    /// How many of them meet every constraint, whichever layers survive.
    pub certain: u64,
    /// How many legal points each constraint removes by itself.
    pub removed: Vec<u64>,
    /// How many are left by each constraint and those before it.
    pub left: Vec<u64>,
}

/// How far one limit must give way for a point to be left, the others held: its new value, and the point that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Relaxed {
    /// A lower end instead of `lo`.
    pub lo: Option<(f64, u64)>,
    /// An upper end instead of `hi`.
    pub hi: Option<(f64, u64)>,
}

/// One number of layers that points may have.
#[derive(Clone, Debug, PartialEq)]
struct Depth {
    total: usize,
    /// The range of each kind, and every choice within it; no choice where the rules allow none.
    layers: LayerCounts,
    choices: Vec<Counts>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// First, so that unlike spaces are told apart by them.
    axes: Vec<(Dim, Vec<usize>)>,
    /// The text of its config is left out.
    parent: Outline,
    /// In the order of the values of the axis of depth; one where depth is not cut.
    depths: Vec<Depth>,
    /// How many points apart the values of the axis of depth are.
    apart: u64,
}

impl Space {
    pub fn new(parent: &Outline, axes: Vec<(Dim, Vec<usize>)>, rules: &LayerRules) -> Space {
        let mut parent = parent.clone();
        parent.desc.config.clear();
        let whole = [parent.layers.total];
        let totals =
            axes.iter().find(|(dim, _)| *dim == Dim::NumLayers).map_or(&whole[..], |(_, values)| values);
        let depths = totals.iter().map(|&total| Depth::new(&parent, total, rules)).collect();
        let after = axes.iter().rev().take_while(|(dim, _)| *dim != Dim::NumLayers);
        let apart = after.fold(1, |n: u64, (_, values)| n.saturating_mul(values.len() as u64));
        Space { parent, axes, depths, apart }
    }

    /// The space of a prune, its axes in their order.
    pub fn of(parent: &Outline, prune: &hir::Prune) -> Space {
        let axes = prune.axes.iter().map(|cut| (cut.axis.dim, cut.values.clone())).collect();
        Space::new(parent, axes, &LayerRules::of(prune))
    }

    pub fn parent(&self) -> &Outline {
        &self.parent
    }

    /// Combinations, legal or not.
    pub fn len(&self) -> u64 {
        self.axes.iter().fold(1, |n: u64, (_, values)| n.saturating_mul(values.len() as u64))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sizes of a point, by dimension.
    pub fn sizes(&self, point: u64) -> BTreeMap<Dim, usize> {
        let mut rest = point;
        let mut sizes = BTreeMap::new();
        for (dim, values) in self.axes.iter().rev() {
            let n = values.len().max(1) as u64;
            sizes.extend(values.get((rest % n) as usize).map(|value| (*dim, *value)));
            rest /= n;
        }
        sizes
    }

    /// The points that meet every constraint with some choice of layers. Of a space with more than [`MOST_POINTS`]
    /// there are none.
    pub fn feasible(&self, require: &[Require]) -> Feasible {
        let choices: Vec<&[Counts]> = self.depths.iter().map(|depth| depth.choices.as_slice()).collect();
        self.judged(require, &choices)
    }

    /// The same where it is known which layers survive of every depth.
    pub fn feasible_exact(&self, require: &[Require], survivors: impl Fn(usize) -> Counts) -> Feasible {
        let known =
            |depth: &Depth| if depth.choices.is_empty() { vec![] } else { vec![survivors(depth.total)] };
        let choices: Vec<Vec<Counts>> = self.depths.iter().map(known).collect();
        self.judged(require, &choices.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn judged(&self, require: &[Require], choices: &[&[Counts]]) -> Feasible {
        let none =
            Feasible { removed: vec![0; require.len()], left: vec![0; require.len()], ..Feasible::default() };
        let found = self.each_width(&none, |found, desc, width| {
            let parts = parts_of(require, desc);
            for (depth, choices) in choices.iter().enumerate().filter(|(_, choices)| !choices.is_empty()) {
                found.take(width.point(depth), require, &parts, choices);
            }
        });
        let mut all = none;
        for part in found {
            all.legal += part.legal;
            all.certain += part.certain;
            all.points.extend(part.points);
            all.removed.iter_mut().zip(part.removed).for_each(|(sum, n)| *sum += n);
            all.left.iter_mut().zip(part.left).for_each(|(sum, n)| *sum += n);
        }
        all.points.par_sort_unstable();
        all
    }

    /// For each constraint the least change of one of its ends by which some point is left, all others held; none
    /// where others must give way, too.
    pub fn relaxed(&self, require: &[Require]) -> Vec<Relaxed> {
        let none = vec![Relaxed::default(); require.len()];
        let found = self.each_width(&none, |found, desc, width| {
            let parts = parts_of(require, desc);
            for (depth, Depth { choices, .. }) in self.depths.iter().enumerate() {
                for counts in choices {
                    let mut broken = broken(require, &parts, counts);
                    if let (Some((at, value)), None) = (broken.next(), broken.next()) {
                        found[at].take(&require[at], value, width.point(depth));
                    }
                }
            }
        });
        let mut all = none;
        for part in found {
            for (sum, one) in all.iter_mut().zip(part) {
                sum.lo = nearer(sum.lo, one.lo, |a, b| a > b);
                sum.hi = nearer(sum.hi, one.hi, |a, b| a < b);
            }
        }
        all
    }

    /// Gives a model the sizes of a point.
    pub fn enter(&self, model: &mut Outline, point: u64) {
        let mut slot = 0;
        let mut rest = point;
        for (dim, values) in self.axes.iter().rev() {
            let n = values.len().max(1) as u64;
            let digit = (rest % n) as usize;
            rest /= n;
            match dim {
                Dim::NumLayers => slot = digit,
                dim => _ = model.desc.dims.insert(*dim, values.get(digit).copied().unwrap_or(0)),
            }
        }
        if let Some(depth) = self.depths.get(slot) {
            model.layers = depth.layers.clone();
        }
    }

    /// Every choice of layers that a point may have.
    pub fn choices(&self, point: u64) -> &[Counts] {
        self.depths.get(self.slot(point)).map_or(&[], |depth| &depth.choices)
    }

    /// The first point of the same widths, and how many layers this one has.
    pub fn width_and_depth(&self, point: u64) -> (u64, usize) {
        let slot = self.slot(point);
        let total = self.depths.get(slot).map_or(0, |depth| depth.total);
        (point - slot as u64 * self.apart, total)
    }

    /// The place of its depth among [`Space::depths`].
    fn slot(&self, point: u64) -> usize {
        (point / self.apart.max(1) % self.depths.len().max(1) as u64) as usize
    }

    /// Visits every combination of widths that a cut can make and the family can store: one result for each piece of
    /// the work, in order.
    fn each_width<A: Clone + Send + Sync>(
        &self,
        none: &A,
        visit: impl Fn(&mut A, &ModelDesc, Width) + Sync,
    ) -> Vec<A> {
        if self.len() > MOST_POINTS {
            return Vec::new();
        }
        let widths = self.width_axes();
        let all = self.len() / self.depths.len().max(1) as u64;
        let starts: Vec<u64> = (0..all).step_by(CHUNK as usize).collect();
        let piece = |start: u64| {
            let (mut found, mut desc) = (none.clone(), self.parent.desc.clone());
            for number in start..(start + CHUNK).min(all) {
                if let Some(first) = self.enter_width(&mut desc, &widths, number) {
                    visit(&mut found, &desc, Width { first, apart: self.apart });
                }
            }
            found
        };
        starts.into_par_iter().map(piece).collect()
    }

    /// The axes of width, the last first.
    fn width_axes(&self) -> Vec<WidthAxis<'_>> {
        let mut step = 1;
        let mut widths = Vec::new();
        for (dim, values) in self.axes.iter().rev() {
            if *dim != Dim::NumLayers {
                widths.push((*dim, values.as_slice(), step));
            }
            step *= values.len() as u64;
        }
        widths
    }

    /// Sets the widths of this number, and gives their first point; `None` where there is no such model.
    fn enter_width(&self, desc: &mut ModelDesc, widths: &[WidthAxis], number: u64) -> Option<u64> {
        let (mut rest, mut point) = (number, 0);
        for (dim, values, step) in widths {
            let digit = rest % values.len() as u64;
            rest /= values.len() as u64;
            point += digit * step;
            let size = values[digit as usize];
            if size == 0 || self.parent.desc.dim(*dim).is_none_or(|whole| size > whole) {
                return None;
            }
            desc.dims.insert(*dim, size);
        }
        desc.family().constraint(desc).is_ok().then_some(point)
    }
}

/// An axis, its values, and how many points apart they are.
type WidthAxis<'a> = (Dim, &'a [usize], u64);

/// The points of one combination of widths.
#[derive(Clone, Copy)]
struct Width {
    first: u64,
    apart: u64,
}

impl Width {
    fn point(self, depth: usize) -> u64 {
        self.first + depth as u64 * self.apart
    }
}

impl Depth {
    fn new(parent: &Outline, total: usize, rules: &LayerRules) -> Depth {
        let none = LayerCounts { total, fewest: [0; 3], most: [0; 3] };
        let layers = parent.survivors(total, rules).unwrap_or(none);
        Depth { total, layers, choices: parent.choices(total, rules) }
    }
}

impl Feasible {
    /// Judges a legal point: `parts` are those of its widths.
    fn take(&mut self, point: u64, require: &[Require], parts: &[Option<Parts>], choices: &[Counts]) {
        self.legal += 1;
        // How many constraints some choice of layers meets, of those that stand first; and whether all choices meet all.
        let (mut met, mut all) = (0, true);
        for counts in choices {
            let first = broken(require, parts, counts).next().map_or(require.len(), |(at, _)| at);
            met = met.max(first);
            all &= first == require.len();
        }
        self.left.iter_mut().take(met).for_each(|left| *left += 1);
        if met == require.len() {
            self.points.push(point);
            self.certain += u64::from(all);
            return;
        }
        for (at, removed) in self.removed.iter_mut().enumerate() {
            let meets = |counts: &Counts| broken(&require[at..=at], &parts[at..=at], counts).next().is_none();
            *removed += u64::from(!choices.iter().any(meets));
        }
    }
}

impl Relaxed {
    /// A point that has `value` would be left.
    fn take(&mut self, require: &Require, value: f64, point: u64) {
        if value < require.lo {
            self.lo = nearer(self.lo, Some((value, point)), |a, b| a > b);
        } else {
            self.hi = nearer(self.hi, Some((value, point)), |a, b| a < b);
        }
    }
}

/// The value that comes nearer; of equals the lower point.
fn nearer(
    known: Option<(f64, u64)>,
    other: Option<(f64, u64)>,
    is_nearer: fn(f64, f64) -> bool,
) -> Option<(f64, u64)> {
    let (Some(a), Some(b)) = (known, other) else { return known.or(other) };
    let replaces = is_nearer(b.0, a.0) || (b.0 == a.0 && b.1 < a.1);
    Some(if replaces { b } else { a })
}

fn parts_of(require: &[Require], desc: &ModelDesc) -> Vec<Option<Parts>> {
    require.iter().map(|require| Parts::of(&require.quantity, desc)).collect()
}

/// The constraints that so many layers of each kind break, with what they have.
fn broken<'a>(
    require: &'a [Require],
    parts: &'a [Option<Parts>],
    counts: &'a Counts,
) -> impl Iterator<Item = (usize, f64)> + 'a {
    require.iter().zip(parts).enumerate().filter_map(move |(at, (require, parts))| {
        let value = parts.as_ref()?.total(counts) as f64;
        (value < require.lo || require.hi < value).then_some((at, value))
    })
}

#[cfg(test)]
mod tests;
