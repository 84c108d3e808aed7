//! Scores of the elements of a tap, and joining them to scores of the members of one dimension.

use crate::random::SplitMix64;
use minic_compiler::axes::Tap;
use minic_compiler::dim::{Dim, Sized};
use minic_compiler::model::ModelDesc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One score for each element of a product of dimensions, row-major. The greatest is the most important.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub factors: Vec<Sized>,
    pub values: Vec<f64>,
}

/// Which members of a dimension survive.
#[derive(Clone, Debug, PartialEq)]
pub enum Survivors {
    Flat(Vec<bool>),
    /// For each member of the outer dimension its own.
    Per(Dim, Vec<Vec<bool>>),
}

impl Scores {
    /// Scores of all elements of a tap.
    pub fn at(tap: &Tap, desc: &ModelDesc, values: Vec<f64>) -> Scores {
        let factors = tap.dims.iter().map(|&dim| Sized { dim, size: desc.size(dim) }).collect();
        Scores { factors, values }
    }

    /// Scores of the members of one dimension.
    pub fn of(dim: Dim, values: Vec<f64>) -> Scores {
        Scores { factors: vec![Sized { dim, size: values.len() }], values }
    }

    pub fn elements(&self) -> usize {
        self.factors.iter().map(|s| s.size).product()
    }

    pub fn size(&self, dim: Dim) -> Option<usize> {
        self.factors.iter().find(|s| s.dim == dim).map(|s| s.size)
    }

    /// The score of each member of `dim`: the L2 norm over the elements of all other factors that survive
    /// (paper eqs. 20 and 22). Where `dim` is the only factor, the scores as they are.
    pub fn join(&self, dim: Dim, survivors: &BTreeMap<Dim, Survivors>) -> Vec<f64> {
        if let [only] = self.factors.as_slice()
            && only.dim == dim
        {
            return self.values.clone();
        }
        let mut joined = vec![0.0; self.size(dim).unwrap_or(0)];
        let mut place: BTreeMap<Dim, usize> = BTreeMap::new();
        for (element, value) in self.values.iter().enumerate() {
            self.locate(element, &mut place);
            let survives = |(other, list): (&Dim, &Survivors)| *other == dim || list.contains(*other, &place);
            if let Some(sum) = place.get(&dim).and_then(|&i| joined.get_mut(i))
                && survivors.iter().all(survives)
            {
                *sum += value * value;
            }
        }
        joined.into_iter().map(f64::sqrt).collect()
    }

    /// The scores of one member of `dim` alone; all scores where `dim` is no factor.
    pub fn slice(&self, dim: Dim, member: usize) -> Scores {
        if self.size(dim).is_none() {
            return self.clone();
        }
        let mut place = BTreeMap::new();
        let mut here = |element: usize| {
            self.locate(element, &mut place);
            place.get(&dim) == Some(&member)
        };
        let values = self.values.iter().enumerate().filter(|(e, _)| here(*e)).map(|(_, &v)| v).collect();
        Scores { factors: self.factors.iter().copied().filter(|s| s.dim != dim).collect(), values }
    }

    /// The index along each factor of an element.
    fn locate(&self, element: usize, place: &mut BTreeMap<Dim, usize>) {
        let mut rest = element;
        for factor in self.factors.iter().rev() {
            place.insert(factor.dim, rest % factor.size.max(1));
            rest /= factor.size.max(1);
        }
    }
}

impl Survivors {
    fn contains(&self, dim: Dim, place: &BTreeMap<Dim, usize>) -> bool {
        // A dimension that the scores do not have says nothing about them.
        let Some(&index) = place.get(&dim) else { return true };
        let list = match self {
            Survivors::Flat(list) => Some(list),
            Survivors::Per(outer, lists) => place.get(outer).and_then(|&o| lists.get(o)),
        };
        list.and_then(|list| list.get(index)).copied().unwrap_or(true)
    }
}

/// `random(seed)`: scores in [0, 1) for `n` members of an axis, another sequence for every layer (`None`: the
/// whole model) and axis. Score i is the top 53 bits of the i-th number of the SplitMix64 stream whose seed
/// is `seed` and whose index is the FNV-1a hash (64 bits) of the axis's name followed by the layer plus one
/// (zero for the whole model) in 8 bytes, little-endian.
pub fn random(seed: u64, axis: &str, layer: Option<usize>, n: usize) -> Vec<f64> {
    let place = layer.map_or(0, |l| l as u64 + 1).to_le_bytes();
    let hash = axis.bytes().chain(place).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut rng = SplitMix64::stream(seed, hash);
    (0..n).map(|_| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64).collect()
}

/// `reverse(METRIC)`: the least important becomes the most important.
pub fn reversed(scores: &[f64]) -> Vec<f64> {
    scores.iter().map(|s| -s).collect()
}
