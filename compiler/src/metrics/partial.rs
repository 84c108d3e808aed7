//! Partials of a program: merged in pairs, finished to scores.

use super::{Block, Expr, LANES, Leaf, Program, Reduction, State};
use serde::{Deserialize, Serialize};

/// What one or several samples contribute to a metric at one tap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Samples behind it.
    pub samples: u64,
    /// Positions behind it, of all its samples.
    pub tokens: u64,
    /// [slots, elements], row-major. Written as bits, so that infinities and NaN survive.
    #[serde(with = "bits")]
    pub values: Vec<f64>,
}

impl Partial {
    /// The partial of one sample of `tokens` positions.
    pub fn of_sample(tokens: usize, values: Vec<f64>) -> Partial {
        Partial { samples: 1, tokens: tokens as u64, values }
    }
}

mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], s: S) -> Result<S::Ok, S::Error> {
        values.iter().map(|v| v.to_bits()).collect::<Vec<u64>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<u64>::deserialize(d)?.into_iter().map(f64::from_bits).collect())
    }
}

impl Program {
    /// Puts `right`, later samples, into `left`. Both are partials of this program over the same elements.
    pub fn merge(&self, left: &mut Partial, right: &Partial) {
        debug_assert_eq!(left.values.len(), right.values.len());
        let elements = left.values.len().checked_div(self.slots()).unwrap_or(0);
        let samples = (left.samples as f64, right.samples as f64);
        let tokens = (left.tokens as f64, right.tokens as f64);
        let mut slot = 0;
        let counted = self.batch.iter().map(|r| (r, samples)).chain(self.tokens.iter().map(|r| (r, tokens)));
        for (Reduction { reducer, .. }, (n, m)) in counted {
            for element in 0..elements {
                let merged = reducer.merge(
                    self.state(&left.values, elements, slot, reducer.width(), element),
                    n,
                    self.state(&right.values, elements, slot, reducer.width(), element),
                    m,
                );
                left.values[slot * elements + element] = merged.a;
                if reducer.width() == 2 {
                    left.values[(slot + 1) * elements + element] = merged.b;
                }
            }
            slot += reducer.width();
        }
        left.samples += right.samples;
        left.tokens += right.tokens;
    }

    fn state(&self, values: &[f64], elements: usize, slot: usize, width: usize, element: usize) -> State {
        let at = |slot: usize| values[slot * elements + element];
        State { a: at(slot), b: if width == 2 { at(slot + 1) } else { 0.0 } }
    }

    /// The score of every element. `total` is all samples' partial, absent for a metric that does not use
    /// x; `weights` holds, for each of [`Program::weight`], one value per element. A score may be NaN.
    pub fn finish(&self, elements: usize, total: Option<&Partial>, weights: &[Vec<f64>]) -> Vec<f64> {
        let (mut batch, mut tokens) = (Vec::new(), Vec::new());
        if let Some(total) = total {
            let (samples, positions) = (total.samples as f64, total.tokens as f64);
            let mut slot = 0;
            for (reductions, n, results) in
                [(&self.batch, samples, &mut batch), (&self.tokens, positions, &mut tokens)]
            {
                for Reduction { reducer, .. } in reductions {
                    let width = reducer.width();
                    let state = |element| self.state(&total.values, elements, slot, width, element);
                    results.push((0..elements).map(|e| reducer.value(state(e), n)).collect::<Vec<f64>>());
                    slot += width;
                }
            }
        }
        let read = |leaf: Leaf| -> Option<&[f64]> {
            match leaf {
                Leaf::Batch(i) => batch.get(i).map(Vec::as_slice),
                Leaf::Tokens(i) => tokens.get(i).map(Vec::as_slice),
                Leaf::Weight(i) => weights.get(i).map(Vec::as_slice),
                Leaf::X | Leaf::W | Leaf::Sequence(_) => None,
            }
        };
        evaluate_columns(&self.score, elements, &read)
    }
}

/// An expression over whole columns, block by block. What is not there reads as NaN.
fn evaluate_columns<'a>(expr: &Expr, elements: usize, read: &dyn Fn(Leaf) -> Option<&'a [f64]>) -> Vec<f64> {
    let mut scores = Vec::with_capacity(elements);
    let mut block: Block = [0.0; LANES];
    for first in (0..elements).step_by(LANES) {
        let width = LANES.min(elements - first);
        let read_block = |leaf: Leaf, out: &mut Block| {
            out.fill(f64::NAN);
            if let Some(values) = read(leaf).and_then(|column| column.get(first..first + width)) {
                out[..width].copy_from_slice(values);
            }
        };
        expr.evaluate(&read_block, &mut block);
        scores.extend_from_slice(&block[..width]);
    }
    scores
}
