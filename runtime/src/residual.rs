//! `by residual(..)`: members ranked by what the others, refitted, make up for least; the repair of outputs refits
//! them so ([`crate::repair`]).

use crate::importance::{Elimination, Scores, Table};
use crate::linalg;
use crate::repair::RepairError;
use crate::run::RunError;
use crate::source::WeightSource;
use crate::walk::{self, Walk};
use minic_compiler::axes::{Axis, Scope};
use minic_compiler::forward;
use minic_compiler::graph::Masks;
use std::collections::BTreeMap;

/// A member's score is the step at which it goes where the cheapest goes first, in each layer by itself.
pub fn rank(walk: &Walk, model: &WeightSource, axis: &Axis, damping: f64) -> Result<Table, RunError> {
    let (Scope::Layer(kind), Some(tap)) = (axis.scope, axis.read_at()) else {
        return Err(RunError::Unplanned { what: format!("`residual` of {}", axis.name) });
    };
    let desc = model.desc();
    let (members, groups) = (desc.size(axis.dim), axis.dim.within().map_or(1, |outer| desc.size(outer)));
    // Inputs lie in the order of the tap's dimensions.
    let inner = tap.dims.iter().skip_while(|dim| **dim != axis.dim).skip(1);
    let stride: usize = inner.map(|&dim| desc.size(dim)).product();
    let sequence = walk.sequence()?;
    let mut streams = walk.streams(model)?;
    let mut tables = BTreeMap::new();
    let layers = desc.layers.iter().rposition(|k| *k == kind).map_or(0, |last| last + 1);
    for layer in 0..layers {
        if desc.layers[layer] != kind {
            let graph = forward::block(desc, layer, sequence, Masks::default())?;
            walk.pass(walk.block(&graph, model)?, &mut streams, |_| ())?;
            walk.watch.progress(layer + 1, layers);
            continue;
        }
        let weight = walk::writer(desc, layer)?;
        let width = weight.shape[1].size();
        let mut gram = vec![0.0; width * width];
        let graph = forward::observed(desc, layer, sequence)?;
        walk.pass(walk.block(&graph, model)?, &mut streams, |values| {
            walk::pieces(walk::read(values), width).for_each(|z| linalg::add_gram(&z, width, &mut gram));
        })?;
        let values = model.read_f32(&weight.name)?;
        if gram.iter().any(|v| !v.is_finite()) || values.iter().any(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { what: format!("`{}` or what it reads", weight.name) });
        }
        let singular = || RepairError::Singular { weight: weight.name.clone(), damping };
        let member = |input: usize| input / stride % members;
        let mut elimination =
            Elimination::new(gram, &values, damping, members, groups, member).ok_or_else(singular)?;
        let (mut scores, mut step) = (vec![0.0; members], 0);
        while elimination.left() > 0 {
            for member in elimination.step().ok_or_else(singular)? {
                scores[member] = f64::from(step);
                step += 1;
            }
            walk.go_on()?;
        }
        tables.insert(layer, Scores::of(axis.dim, scores));
        walk.watch.progress(layer + 1, layers);
    }
    Ok(Table::Layers(tables))
}
