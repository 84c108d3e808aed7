//! Statistics of the weight beside a tap, in f64, from blocks of rows as they are read.

use minic_compiler::axes::{Tap, TapWeight};
use minic_compiler::dim::Dim;
use minic_compiler::metrics::{Block, Expr, LANES, Leaf, Program, State};
use minic_compiler::model::{ModelDesc, Role, Weight};

/// Where a weight's elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Each of these rows is one element; the columns are the other side.
    Rows { first: usize, count: usize },
    /// Each column is one element; the rows are the other side.
    Columns,
}

/// A matrix that `w` stands for at a tap, or a part of it. Several are read as one, below each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub weight: Weight,
    pub side: Side,
}

/// The matrices that `w` stands for at `tap` in a layer (`None`: after the last norm); empty where the layer
/// has no such tap.
pub fn sources(desc: &ModelDesc, tap: &Tap, layer: Option<usize>) -> Vec<Source> {
    let matrices = desc.weights().into_iter().filter(|w| w.shape.len() == 2);
    let find = |weight: Weight| {
        let side = side(desc, tap.weight, layer, &weight)?;
        Some(Source { weight, side })
    };
    matrices.filter_map(find).collect()
}

fn side(desc: &ModelDesc, wanted: TapWeight, layer: Option<usize>, weight: &Weight) -> Option<Side> {
    let here = weight.layer == layer;
    match wanted {
        TapWeight::Rows(role, None) if here && weight.role == role => {
            Some(Side::Rows { first: 0, count: weight.shape[0].size() })
        }
        TapWeight::Rows(role, Some(part)) if here && weight.role == role => {
            let (first, part) = weight.shape[0].part(part)?;
            Some(Side::Rows { first, count: part.size() })
        }
        TapWeight::Columns(role) if here && weight.role == role => Some(Side::Columns),
        TapWeight::Readers => {
            let head = if desc.tied { Role::Embedding } else { Role::Head };
            let reads = match layer {
                Some(_) => weight.shape[1].parts.iter().any(|p| p.has(Dim::HiddenSize)),
                None => weight.role == head,
            };
            (here && reads).then_some(Side::Columns)
        }
        TapWeight::Rows(..) | TapWeight::Columns(_) => None,
    }
}

/// The statistics that a program asks of its weight, taken in row by row. However the rows are cut into
/// blocks, every element sees its values in the same order, so the result has the same bits.
pub struct Statistics<'p> {
    program: &'p Program,
    /// Values seen of each element.
    seen: Vec<u64>,
    /// One list for each of [`Program::weight`], one state per element.
    states: Vec<Vec<State>>,
}

impl<'p> Statistics<'p> {
    pub fn new(program: &'p Program, elements: usize) -> Statistics<'p> {
        let states = program.weight.iter().map(|r| vec![r.reducer.empty(); elements]).collect();
        Statistics { program, seen: vec![0; elements], states }
    }

    /// Values of one element: a row of the part whose rows are elements. Elements out of range are ignored.
    pub fn push_element(&mut self, element: usize, values: &[f32]) {
        let Some(seen) = self.seen.get_mut(element) else { return };
        for chunk in values.chunks(LANES) {
            for (reduction, states) in self.program.weight.iter().zip(&mut self.states) {
                let lanes = evaluate(&reduction.of, chunk);
                for (i, &v) in lanes.iter().take(chunk.len()).enumerate() {
                    let n = (*seen + i as u64 + 1) as f64;
                    states[element] = reduction.reducer.absorb(states[element], v, n);
                }
            }
            *seen += chunk.len() as u64;
        }
    }

    /// One value of every element: a row of a matrix whose columns are elements.
    pub fn push_row(&mut self, row: &[f32]) {
        for (i, chunk) in row.chunks(LANES).enumerate() {
            let first = i * LANES;
            let seen = self.seen.iter_mut().skip(first).take(chunk.len());
            seen.for_each(|seen| *seen += 1);
            for (reduction, states) in self.program.weight.iter().zip(&mut self.states) {
                let lanes = evaluate(&reduction.of, chunk);
                let states = states.iter_mut().skip(first).zip(&self.seen[first.min(self.seen.len())..]);
                for ((state, &n), &v) in states.zip(&lanes[..chunk.len()]) {
                    *state = reduction.reducer.absorb(*state, v, n as f64);
                }
            }
        }
    }

    /// For each of [`Program::weight`] one value per element, as [`Program::finish`] wants them. An element
    /// that saw no value has the statistic NaN.
    pub fn finish(&self) -> Vec<Vec<f64>> {
        let value = |reducer: minic_compiler::metrics::Reducer, state: State, seen: u64| match seen {
            0 => f64::NAN,
            n => reducer.value(state, n as f64),
        };
        let reductions = self.program.weight.iter().zip(&self.states);
        reductions
            .map(|(r, states)| states.iter().zip(&self.seen).map(|(s, &n)| value(r.reducer, *s, n)).collect())
            .collect()
    }
}

fn evaluate(of: &Expr, values: &[f32]) -> Block {
    let read = |leaf: Leaf, out: &mut Block| match leaf {
        Leaf::W => out.iter_mut().zip(values).for_each(|(out, &v)| *out = f64::from(v)),
        _ => out.fill(f64::NAN),
    };
    let mut lanes = [0.0; LANES];
    of.evaluate(&read, &mut lanes);
    lanes
}

#[cfg(test)]
mod tests;
