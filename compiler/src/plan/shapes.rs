//! The shape of every model of a recipe, before anything runs: exact where the recipe decides it, a range
//! where the surviving layers or a search are known only at run time.
//!
//! A shape is a set of widths (sizes of all dimensions but depth) times a set of depths (how many layers of
//! each kind), less what a search's `require` lines refuse. All costs are sums over layers, so that the
//! order of the layers does not matter to them.

use crate::cost;
use crate::dim::Dim;
use crate::hir::{self, Origin, Quantity, Recipe, Require};
use crate::model::{DType, LayerKind, ModelDesc};
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A space of more widths than this is described by the corners of its axes: every cost grows with every
/// dimension, so that unfiltered ranges stay exact and filtered ones are only too wide.
const MOST_WIDTHS: usize = 100_000;

/// Least and greatest value. Operations of a whole stage do not fit 64 bits and are floating-point numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How many layers of each kind, in the order of [`LayerKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Depth([usize; LayerKind::ALL.len()]);

impl Depth {
    pub fn of(layers: &[LayerKind]) -> Depth {
        let mut counts = [0; LayerKind::ALL.len()];
        for (count, kind) in counts.iter_mut().zip(LayerKind::ALL) {
            *count = layers.iter().filter(|k| *k == kind).count();
        }
        Depth(counts)
    }

    pub fn count(&self, kind: LayerKind) -> usize {
        LayerKind::ALL.iter().zip(self.0).find(|(k, _)| **k == kind).map_or(0, |(_, n)| n)
    }

    pub fn layers(&self) -> usize {
        self.0.iter().sum()
    }

    /// The sum of a cost over the layers.
    fn total(&self, cost: &[u64; LayerKind::ALL.len()]) -> u64 {
        self.0.iter().zip(cost).fold(0, |sum, (n, c)| sum.saturating_add(c.saturating_mul(*n as u64)))
    }
}

/// The sizes of a model without its layers, and the parameters that follow from them.
#[derive(Clone, Debug, PartialEq)]
struct Width {
    /// Of no layer.
    desc: ModelDesc,
    outer: u64,
    layer: [u64; LayerKind::ALL.len()],
}

impl Width {
    fn new(desc: &ModelDesc, sizes: &BTreeMap<Dim, usize>) -> Width {
        let mut desc = desc.resized(sizes, &[]);
        // The config's text plays no part in sizes, and would be copied for every width.
        desc.config.clear();
        let outer = desc.params();
        let mut layer = [0; LayerKind::ALL.len()];
        for (params, kind) in layer.iter_mut().zip(LayerKind::ALL) {
            desc.layers = vec![*kind];
            *params = desc.params().saturating_sub(outer);
        }
        desc.layers.clear();
        Width { desc, outer, layer }
    }

    fn per_layer(&self, cost: impl Fn(&ModelDesc, LayerKind) -> u64) -> [u64; LayerKind::ALL.len()] {
        let mut out = [0; LayerKind::ALL.len()];
        for (slot, kind) in out.iter_mut().zip(LayerKind::ALL) {
            *slot = cost(&self.desc, *kind);
        }
        out
    }
}

/// What is known of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The model that it is made from.
    pub from: Option<String>,
    /// The kinds in order, where no layer is dropped.
    pub layers: Option<Vec<LayerKind>>,
    widths: Vec<Width>,
    depths: Vec<Depth>,
    require: Vec<Require>,
}

/// One architecture that a model may turn out to have.
#[derive(Clone, Copy)]
pub struct Variant<'a> {
    width: &'a Width,
    pub depth: Depth,
}

impl Variant<'_> {
    pub fn size(&self, dim: Dim) -> Option<usize> {
        if dim == Dim::NumLayers { Some(self.depth.layers()) } else { self.width.desc.dim(dim) }
    }

    pub fn params(&self) -> u64 {
        self.width.outer.saturating_add(self.depth.total(&self.width.layer))
    }

    /// Operations of a forward pass, per token of a sequence.
    pub fn flops_per_token(&self, sequence: usize) -> u64 {
        let blocks = self.width.per_layer(|desc, kind| cost::block_flops(desc, kind, sequence));
        cost::head_flops(&self.width.desc).saturating_add(self.depth.total(&blocks))
    }

    /// Bytes of a deployment, see [`cost::memory`].
    pub fn memory(&self, batch: usize, sequence: usize) -> u64 {
        let states = self.width.per_layer(|desc, kind| cost::block_state(desc, kind, sequence));
        let states = self.depth.total(&states).saturating_mul(batch as u64);
        self.params().saturating_mul(2).saturating_add(states)
    }

    /// Operations of the head, per token.
    pub fn head_flops(&self) -> u64 {
        cost::head_flops(&self.width.desc)
    }

    /// What a `require` looks at; `None` for what is measured.
    pub fn quantity(&self, quantity: &Quantity) -> Option<f64> {
        Some(cost::Parts::of(quantity, &self.width.desc)?.total(&self.depth.0) as f64)
    }

    fn meets(&self, require: &Require) -> bool {
        self.quantity(&require.quantity).is_none_or(|v| require.lo <= v && v <= require.hi)
    }
}

impl Shape {
    /// The shape of a model as it stands.
    pub fn of_model(desc: &ModelDesc) -> Shape {
        Shape {
            from: None,
            layers: Some(desc.layers.clone()),
            widths: vec![Width::new(desc, &BTreeMap::new())],
            depths: vec![Depth::of(&desc.layers)],
            require: Vec::new(),
        }
    }

    /// Everything that the model may turn out to be.
    pub fn variants(&self) -> impl Iterator<Item = Variant<'_>> {
        let depths = |width| self.depths.iter().map(move |depth| Variant { width, depth: *depth });
        let all = self.widths.iter().flat_map(depths);
        all.filter(|variant| self.require.iter().all(|require| variant.meets(require)))
    }

    /// The least and the greatest value over everything that the model may turn out to be.
    pub fn bounds(&self, value: impl Fn(&Variant) -> u64) -> Bounds {
        Bounds::of(self.variants().map(|v| value(&v))).unwrap_or(Bounds { min: 0, max: 0 })
    }

    /// Both may turn out to be the same things, whatever they are made from.
    pub fn is_same(&self, other: &Shape) -> bool {
        self.layers == other.layers
            && self.widths == other.widths
            && self.depths == other.depths
            && self.require == other.require
    }

    /// Nothing meets all requirements; the checker says so at the one that is to blame.
    pub fn is_empty(&self) -> bool {
        self.variants().next().is_none()
    }

    pub fn params(&self) -> Bounds {
        self.bounds(|v| v.params())
    }

    pub fn flops_per_token(&self, sequence: usize) -> Bounds {
        self.bounds(|v| v.flops_per_token(sequence))
    }

    pub fn memory(&self, batch: usize, sequence: usize) -> Bounds {
        self.bounds(|v| v.memory(batch, sequence))
    }

    /// The values that a dimension may have, ascending; empty where the model lacks it.
    pub fn sizes(&self, dim: Dim) -> Vec<usize> {
        self.variants().filter_map(|v| v.size(dim)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The dtype of the checkpoint that it goes back to, if its config names one.
    pub fn dtype(&self) -> Option<DType> {
        self.widths.first().and_then(|w| w.desc.dtype)
    }

    pub fn family(&self) -> &'static str {
        self.widths.first().map_or("", |w| w.desc.family)
    }

    /// How many layers of a kind.
    pub fn count(&self, kind: LayerKind) -> Bounds {
        self.bounds(|v| v.depth.count(kind) as u64)
    }

    /// The description, without the text of its config, where nothing is left to be decided at run time.
    pub fn desc(&self) -> Option<ModelDesc> {
        let layers = self.layers.as_ref()?;
        let [width] = self.widths.as_slice() else { return None };
        let mut desc = width.desc.clone();
        desc.layers = layers.clone();
        desc.dims.insert(Dim::NumLayers, layers.len());
        Some(desc)
    }

    /// After a cut.
    fn pruned(&self, prune: &hir::Prune) -> Shape {
        let mut axes: Vec<(Dim, Vec<usize>)> = Vec::new();
        let mut layers: Option<&[usize]> = None;
        for cut in &prune.axes {
            match cut.axis.dim {
                Dim::NumLayers => layers = Some(&cut.values),
                dim => axes.push((dim, cut.values.clone())),
            }
        }
        let depths =
            layers.map_or_else(|| self.depths.clone(), |sizes| self.depths_of(sizes, &prune.constraints));
        let all = layers.is_none_or(|sizes| self.depths.iter().all(|d| sizes == [d.layers()]));
        Shape {
            from: Some(prune.from.clone()),
            layers: self.layers.clone().filter(|_| all),
            widths: self.widths_of(axes),
            depths,
            require: Vec::new(),
        }
    }

    /// The widths of all combinations of the axes' values that the family can express.
    fn widths_of(&self, mut axes: Vec<(Dim, Vec<usize>)>) -> Vec<Width> {
        let combinations =
            axes.iter().try_fold(self.widths.len(), |n, (_, sizes)| n.checked_mul(sizes.len()));
        if combinations.is_none_or(|n| n > MOST_WIDTHS) {
            for (_, sizes) in &mut axes {
                *sizes = corners(sizes);
            }
        }
        let mut found: BTreeMap<BTreeMap<Dim, usize>, Width> = BTreeMap::new();
        for width in &self.widths {
            for sizes in combinations_of(&axes) {
                let width = Width::new(&width.desc, &sizes);
                found.entry(width.desc.dims.clone()).or_insert(width);
            }
        }
        let all: Vec<Width> = found.into_values().collect();
        let legal: Vec<Width> =
            all.iter().filter(|w| w.desc.family().constraint(&w.desc).is_ok()).cloned().collect();
        // Where no combination is legal, the checker has said so.
        if legal.is_empty() { all } else { legal }
    }

    /// The depths that some choice of layers leads to: protected layers stay, a kept kind keeps exactly its
    /// number, and at least one attention layer survives where nothing else is said.
    fn depths_of(&self, sizes: &[usize], constraints: &hir::Constraints) -> Vec<Depth> {
        let mut found = BTreeSet::new();
        for parent in &self.depths {
            let ranges = self.kept_ranges(parent, constraints);
            found.extend(depths_between(&ranges).into_iter().filter(|d| sizes.contains(&d.layers())));
        }
        found.into_iter().collect()
    }

    fn kept_ranges(&self, parent: &Depth, constraints: &hir::Constraints) -> Vec<(usize, usize)> {
        let protected = |kind: LayerKind| {
            let layers = self.layers.as_deref().unwrap_or_default();
            constraints.protect.iter().filter(|&&i| layers.get(i) == Some(&kind)).count()
        };
        let range = |kind: &LayerKind| {
            let there = parent.count(*kind);
            let default = usize::from(*kind == LayerKind::Attention).min(there);
            match constraints.keep.get(kind) {
                Some(&n) => (n.min(there), n.min(there)),
                None => (protected(*kind).max(default), there),
            }
        };
        LayerKind::ALL.iter().map(range).collect()
    }
}

fn corners(sizes: &[usize]) -> Vec<usize> {
    let ends = [sizes.first(), sizes.last()];
    let mut ends: Vec<usize> = ends.into_iter().flatten().copied().collect();
    ends.dedup();
    ends
}

fn combinations_of(axes: &[(Dim, Vec<usize>)]) -> Vec<BTreeMap<Dim, usize>> {
    let mut out = vec![BTreeMap::new()];
    for (dim, sizes) in axes {
        let extend = |part: &BTreeMap<Dim, usize>| {
            let with = |size: &usize| {
                let mut part = part.clone();
                part.insert(*dim, *size);
                part
            };
            sizes.iter().map(with).collect::<Vec<_>>()
        };
        out = out.iter().flat_map(extend).collect();
    }
    out
}

fn depths_between(ranges: &[(usize, usize)]) -> Vec<Depth> {
    let mut out = vec![Depth([0; LayerKind::ALL.len()])];
    for (i, &(lo, hi)) in ranges.iter().enumerate() {
        let extend = |depth: &Depth| {
            let with = |n: usize| {
                let mut depth = *depth;
                depth.0[i] = n;
                depth
            };
            (lo..=hi).map(with).collect::<Vec<_>>()
        };
        out = out.iter().flat_map(extend).collect();
    }
    out
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
        Origin::Prune(prune) => shape(recipe, &prune.from, done).map(|parent| parent.pruned(prune)),
        Origin::Search(search) => shape(recipe, &search.space, done).map(|space| Shape {
            from: Some(search.space.clone()),
            require: search.require.clone(),
            ..space
        }),
        Origin::Distill(distill) => shape(recipe, &distill.from, done)
            .map(|student| Shape { from: Some(distill.from.clone()), ..student }),
    };
    done.insert(name.to_string(), made.clone());
    made
}
