//! What is known of every model before the run, exact or as a range.
//!
//! Widths are known from the recipe alone. Which layers survive a depth cut is decided by ranking at run time, so
//! that only the possible numbers of layers of each kind are known; every cost is a sum over layers ([`Parts`]), and
//! grows with every size. What a search may find are the points of its space that can meet its requirements.

use crate::check::{Counts, LayerCounts, Outline, counts_of};
use crate::cost::{self, Parts};
use crate::dim::Dim;
use crate::hir::{self, Origin, Quantity, Recipe, Require};
use crate::model::{DType, LayerKind, ModelDesc};
use crate::space::Space;
use indexmap::IndexMap;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Least and greatest value. Operations of a whole stage do not fit 64 bits and are floating-point numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds<T = u64> {
    pub min: T,
    pub max: T,
}

impl Bounds<u64> {
    pub fn of(values: impl IntoIterator<Item = u64>) -> Option<Bounds> {
        values.into_iter().fold(None, |bounds: Option<Bounds>, v| match bounds {
            None => Some(Bounds { min: v, max: v }),
            Some(b) => Some(Bounds { min: b.min.min(v), max: b.max.max(v) }),
        })
    }

    /// The larger one at each end.
    pub fn larger(self, other: Bounds) -> Bounds {
        Bounds { min: self.min.max(other.min), max: self.max.max(other.max) }
    }
}

impl<T: Copy + PartialEq> Bounds<T> {
    pub fn exact(self) -> Option<T> {
        (self.min == self.max).then_some(self.min)
    }

    /// `f` of both ends, for a function that does not fall.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Bounds<U> {
        Bounds { min: f(self.min), max: f(self.max) }
    }
}

impl Bounds<f64> {
    pub fn plus(self, other: Bounds<f64>) -> Bounds<f64> {
        Bounds { min: self.min + other.min, max: self.max + other.max }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.exact() {
            Some(n) => write!(f, "{n}"),
            None => write!(f, "{}..={}", self.min, self.max),
        }
    }
}

/// The points of a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Combinations of the values of the axes.
    pub all: u64,
    /// Those that meet every requirement: whichever layers survive, and with some choice of them.
    pub feasible: Bounds,
}

/// Rows that one thread goes through at a time.
const CHUNK: usize = 1024;

/// What is known of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The model that it is made from.
    pub from: Option<String>,
    /// The kinds in order, where no layer is dropped.
    pub layers: Option<Vec<LayerKind>>,
    /// Of a space, and of what a search finds in it, where it is known what is cut.
    pub points: Option<Points>,
    /// Of no layer, without the text of its config; sizes that vary are overwritten.
    desc: ModelDesc,
    /// The values that each dimension may have, ascending.
    sizes: BTreeMap<Dim, Vec<usize>>,
    /// Dimensions that vary, and their sizes, one row after the other: every combination that is possible. Of a space
    /// of which all are, the smallest and the largest: nothing is made of a space but what is found in it.
    varying: Vec<Dim>,
    rows: Arc<Vec<u32>>,
    depths: Vec<Counts>,
    /// Of a search: of every row those of the depths that meet all requirements.
    met: Option<Arc<Met>>,
    /// See [`Shape::ends`].
    ends: Option<Arc<[ModelDesc; 2]>>,
}

/// Places in a list of depths, those of one row after those of the other.
#[derive(Debug, Default, PartialEq)]
struct Met {
    places: Vec<u32>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Met {
    fn of(&self, row: usize) -> &[u32] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[from..self.ends[row]]
    }
}

impl Shape {
    /// The shape of a model as it stands.
    pub fn of_model(desc: &ModelDesc) -> Shape {
        let mut bare = desc.resized(&BTreeMap::new(), &[]);
        bare.config.clear();
        let sizes = desc.dims.iter().map(|(dim, size)| (*dim, vec![*size])).collect();
        Shape {
            from: None,
            layers: Some(desc.layers.clone()),
            points: None,
            desc: bare,
            sizes,
            varying: Vec::new(),
            rows: Arc::default(),
            depths: vec![counts_of(&desc.layers)],
            met: None,
            ends: None,
        }
        .with_ends()
    }

    fn with_ends(mut self) -> Shape {
        self.ends = self.found_ends().map(Arc::new);
        self
    }

    /// Combinations of widths in the rows.
    fn widths(&self) -> usize {
        if self.varying.is_empty() { 1 } else { self.rows.len() / self.varying.len() }
    }

    /// Gives a description the widths of a row.
    fn enter(&self, desc: &mut ModelDesc, row: usize) {
        let sizes = self.rows.iter().skip(row * self.varying.len());
        for (dim, size) in self.varying.iter().zip(sizes) {
            desc.dims.insert(*dim, *size as usize);
        }
    }

    /// The least and the greatest value over everything that the model may turn out to be: `of` is given the widths,
    /// and its result the numbers of layers. Nothing is left where no model meets the requirements.
    fn over<F: Fn(&Counts) -> u64>(&self, of: impl Fn(&ModelDesc) -> F + Sync) -> Option<Bounds> {
        let rows = self.each_row(|row, desc| {
            let value = of(desc);
            match &self.met {
                Some(met) => Bounds::of(met.of(row).iter().map(|at| value(&self.depths[*at as usize]))),
                None => Bounds::of(self.depths.iter().map(value)),
            }
        });
        rows.into_iter().fold(None, both)
    }

    /// One result for every row, in their order.
    fn each_row<A: Send>(&self, visit: impl Fn(usize, &ModelDesc) -> A + Sync) -> Vec<A> {
        let piece = |first: usize| {
            let mut desc = self.desc.clone();
            let rows = first..(first + CHUNK).min(self.widths());
            let one = |row| {
                self.enter(&mut desc, row);
                visit(row, &desc)
            };
            rows.map(one).collect::<Vec<A>>()
        };
        let pieces: Vec<usize> = (0..self.widths()).step_by(CHUNK).collect();
        pieces.into_par_iter().flat_map_iter(piece).collect()
    }

    /// Of every row the depths that meet the requirements.
    fn meeting(&self, require: &[Require]) -> Met {
        let rows = self.each_row(|_, desc| {
            let parts: Vec<Option<Parts>> =
                require.iter().map(|require| Parts::of(&require.quantity, desc)).collect();
            let places = self.depths.iter().zip(0u32..);
            places
                .filter(|(counts, _)| meets(require, &parts, counts))
                .map(|(_, at)| at)
                .collect::<Vec<u32>>()
        });
        let mut met = Met::default();
        for places in rows {
            met.places.extend(places);
            met.ends.push(met.places.len());
        }
        met
    }

    /// The same of a function of the operations of a token, and of those of the head among them.
    pub fn bounds_of_flops(&self, sequence: usize, of: impl Fn(u64, u64) -> u64 + Sync) -> Bounds {
        let of = &of;
        let value = |desc: &ModelDesc| {
            let (whole, head) = (Parts::per_token(desc, sequence), cost::head_flops(desc));
            move |counts: &Counts| of(whole.total(counts), head)
        };
        self.over(value).unwrap_or_default()
    }

    /// Of a quantity that follows from the sizes; `None` for what is measured, and where nothing is left.
    pub fn quantity(&self, quantity: &Quantity) -> Option<Bounds> {
        Parts::of(quantity, &self.desc)?;
        self.over(|desc| {
            let parts = Parts::of(quantity, desc);
            move |counts: &Counts| parts.as_ref().map_or(0, |parts| parts.total(counts))
        })
    }

    /// Both may turn out to be the same things, whatever they are made from.
    pub fn is_same(&self, other: &Shape) -> bool {
        let whole = |points: &Points| points.feasible.exact() == Some(points.all);
        let all = self.points == other.points && self.points.as_ref().is_some_and(whole);
        self.layers == other.layers
            && self.sizes == other.sizes
            && self.varying == other.varying
            && (all || Arc::ptr_eq(&self.rows, &other.rows) || self.rows == other.rows)
            && self.depths == other.depths
            && (all || self.met == other.met)
    }

    /// Nothing meets all requirements; the checker says so at the one that is to blame.
    pub fn is_empty(&self) -> bool {
        self.widths() == 0 || self.depths.is_empty()
    }

    pub fn params(&self) -> Bounds {
        self.ends()
            .map(|[least, most]| Bounds { min: least.params(), max: most.params() })
            .unwrap_or_default()
    }

    pub fn flops_per_token(&self, sequence: usize) -> Bounds {
        self.bounds_of_flops(sequence, |whole, _| whole)
    }

    /// Bytes of a deployment, see [`cost::memory`].
    pub fn memory(&self, batch: usize, sequence: usize) -> Bounds {
        self.quantity(&Quantity::Memory { batch, sequence }).unwrap_or_default()
    }

    /// The values that a dimension may have, ascending; empty where the model lacks it.
    pub fn sizes(&self, dim: Dim) -> Vec<usize> {
        self.sizes.get(&dim).cloned().unwrap_or_default()
    }

    /// The dtype of the checkpoint that it goes back to, if its config names one.
    pub fn dtype(&self) -> Option<DType> {
        self.desc.dtype
    }

    pub fn family(&self) -> &'static str {
        self.desc.family
    }

    /// How many layers of a kind.
    pub fn count(&self, kind: LayerKind) -> Bounds {
        let at = LayerKind::ALL.iter().position(|k| *k == kind).unwrap_or(0);
        self.over(|_| move |counts: &Counts| counts[at] as u64).unwrap_or_default()
    }

    /// The description, without the text of its config, where nothing is left to be decided at run time.
    pub fn desc(&self) -> Option<ModelDesc> {
        let layers = self.layers.as_ref()?;
        if self.widths() != 1 {
            return None;
        }
        let mut desc = self.desc.clone();
        self.enter(&mut desc, 0);
        desc.layers = layers.clone();
        desc.dims.insert(Dim::NumLayers, layers.len());
        Some(desc)
    }

    /// What it may turn out to be with the fewest and with the most parameters, its layers in the order of their kinds:
    /// none of what a model costs depends on that. Both are the model where nothing is left to be decided at run time;
    /// `None` where no model meets the requirements.
    pub fn ends(&self) -> Option<&[ModelDesc; 2]> {
        self.ends.as_deref()
    }

    fn found_ends(&self) -> Option<[ModelDesc; 2]> {
        if let Some(desc) = self.desc() {
            return Some([desc.clone(), desc]);
        }
        let all: Vec<usize> = (0..self.depths.len()).collect();
        let rows = self.each_row(|row, desc| {
            let parts = Parts::of(&Quantity::Params, desc)?;
            let places: Vec<usize> = match &self.met {
                Some(met) => met.of(row).iter().map(|at| *at as usize).collect(),
                None => all.clone(),
            };
            let params = |at: usize| (parts.total(&self.depths[at]), row, at);
            Some([places.iter().map(|at| params(*at)).min()?, places.iter().map(|at| params(*at)).max()?])
        });
        let found = rows.into_iter().flatten().reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])])?;
        Some(found.map(|(_, row, at)| self.candidate(row, at)))
    }

    fn candidate(&self, row: usize, depth: usize) -> ModelDesc {
        let mut desc = self.desc.clone();
        self.enter(&mut desc, row);
        let kinds = LayerKind::ALL.iter().zip(self.depths[depth]);
        desc.layers = kinds.flat_map(|(kind, count)| std::iter::repeat_n(*kind, count)).collect();
        desc.dims.insert(Dim::NumLayers, desc.layers.len());
        desc
    }

    /// What a cut makes of it, as far as it can meet `require`: of every width and number of layers a space of its own.
    pub(super) fn pruned(&self, prune: &hir::Prune, search: Option<&hir::Search>) -> Shape {
        let require = search.map_or(&[][..], |search| &search.require);
        let widths = prune.axes.iter().map(|cut| cut.axis.dim).filter(|dim| *dim != Dim::NumLayers);
        let varying: BTreeSet<Dim> = self.varying.iter().copied().chain(widths).collect();
        let mut found = Found { varying: varying.into_iter().collect(), ..Found::default() };
        let depths = self.ranges();
        let single = self.widths() == 1 && depths.len() == 1;
        let mut parent = Outline { desc: self.desc.clone(), layers: LayerCounts::exactly([0; 3]) };
        parent.desc.layers = self.layers.clone().unwrap_or_default();
        for row in 0..self.widths() {
            self.enter(&mut parent.desc, row);
            for layers in &depths {
                parent.layers = layers.clone();
                found.take(&Space::of(&parent, prune), require, single && search.is_none());
            }
        }
        let kept = prune.depths();
        let all = kept.is_empty() || self.depths.iter().all(|counts| kept == [counts.iter().sum::<usize>()]);
        let mut sizes = self.sizes.clone();
        sizes.extend(found.sizes.into_iter().map(|(dim, values)| (dim, values.into_iter().collect())));
        let mut shape = Shape {
            from: Some(search.map_or(&prune.from, |search| &search.space).clone()),
            layers: self.layers.clone().filter(|_| all),
            points: Some(found.points).filter(|_| single && (search.is_some() || !prune.is_model())),
            desc: self.desc.clone(),
            sizes,
            varying: found.varying,
            rows: Arc::new(found.rows),
            depths: found.depths.into_iter().collect(),
            met: None,
            ends: None,
        };
        shape.met = search.map(|search| Arc::new(shape.meeting(&search.require)));
        shape.with_ends()
    }

    /// Its layers, a range of each kind for every number of them that it may have.
    fn ranges(&self) -> Vec<LayerCounts> {
        let mut ranges: BTreeMap<usize, LayerCounts> = BTreeMap::new();
        for counts in &self.depths {
            let one = LayerCounts::exactly(*counts);
            let range = ranges.entry(one.total).or_insert(one);
            range.fewest = std::array::from_fn(|i| range.fewest[i].min(counts[i]));
            range.most = std::array::from_fn(|i| range.most[i].max(counts[i]));
        }
        ranges.into_values().collect()
    }
}

/// What is gathered of the spaces that a cut makes.
#[derive(Default)]
struct Found {
    points: Points,
    varying: Vec<Dim>,
    rows: Vec<u32>,
    sizes: BTreeMap<Dim, BTreeSet<usize>>,
    depths: BTreeSet<Counts>,
}

impl Found {
    /// The points of a space that are left; only the ends where `ends` are enough and the space has all its points.
    fn take(&mut self, space: &Space, require: &[Require], ends: bool) {
        let feasible = space.feasible(require);
        self.points.all += space.len();
        self.points.feasible.min += feasible.certain;
        self.points.feasible.max += feasible.points.len() as u64;
        let (mut widths, mut totals): (Vec<u64>, BTreeSet<usize>) = Default::default();
        for point in &feasible.points {
            let (first, total) = space.width_and_depth(*point);
            if totals.insert(total) {
                self.depths.extend(space.choices(*point));
            }
            widths.push(first);
        }
        widths.sort_unstable();
        widths.dedup();
        self.sizes.entry(Dim::NumLayers).or_default().extend(totals);
        let ends = ends && feasible.points.len() as u64 == space.len();
        let mut model = space.parent().clone();
        for (at, point) in widths.iter().enumerate() {
            space.enter(&mut model, *point);
            let end = at == 0 || at + 1 == widths.len();
            for dim in &self.varying {
                let size = model.desc.size(*dim);
                self.sizes.entry(*dim).or_default().insert(size);
                if end || !ends {
                    self.rows.push(size as u32);
                }
            }
        }
    }
}

/// Whether so many layers of each kind meet every requirement.
fn meets(require: &[Require], parts: &[Option<Parts>], counts: &Counts) -> bool {
    require.iter().zip(parts).all(|(require, parts)| {
        let value = parts.as_ref().map(|parts| parts.total(counts) as f64);
        value.is_none_or(|value| require.lo <= value && value <= require.hi)
    })
}

fn both(a: Option<Bounds>, b: Option<Bounds>) -> Option<Bounds> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Bounds { min: a.min.min(b.min), max: a.max.max(b.max) }),
        (a, b) => a.or(b),
    }
}

/// The shapes of a recipe's models, prunes (spaces too), searches and distillations, in that order. `None`
/// where a config.json is not at hand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shapes {
    pub models: IndexMap<String, Option<Shape>>,
}

impl Shapes {
    pub fn of(recipe: &Recipe) -> Shapes {
        let mut done = BTreeMap::new();
        let names = recipe.models.keys().chain(recipe.prunes.keys());
        let names: Vec<&String> = names.chain(recipe.searches.keys()).chain(recipe.distills.keys()).collect();
        for name in &names {
            shape(recipe, name, &mut done);
        }
        let take = |name: &String| (name.clone(), done.get(name).cloned().flatten());
        Shapes { models: names.into_iter().map(take).collect() }
    }

    pub fn get(&self, model: &str) -> Option<&Shape> {
        self.models.get(model)?.as_ref()
    }
}

/// The shape of `name`, its ancestors first.
fn shape(recipe: &Recipe, name: &str, done: &mut BTreeMap<String, Option<Shape>>) -> Option<Shape> {
    if let Some(known) = done.get(name) {
        return known.clone();
    }
    // Stands for a model that depends on itself until there is better.
    done.insert(name.to_string(), None);
    let made = match recipe.origin(name)? {
        Origin::Model(model) => model.desc.as_ref().map(Shape::of_model),
        Origin::Prune(prune) => shape(recipe, &prune.from, done).map(|parent| parent.pruned(prune, None)),
        Origin::Search(search) => recipe.prunes.get(&search.space).and_then(|prune| {
            let parent = shape(recipe, &prune.from, done)?;
            Some(parent.pruned(prune, Some(search)))
        }),
        Origin::Distill(distill) => shape(recipe, &distill.from, done)
            .map(|student| Shape { from: Some(distill.from.clone()), ..student }),
    };
    done.insert(name.to_string(), made.clone());
    made
}
