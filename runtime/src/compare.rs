//! Two checkpoints, weight by weight, in bounded memory.

use crate::checkpoint::{Checkpoint, CheckpointError, pieces};
use crate::convert;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::Range;

/// A weight of one or both of the checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorDifference {
    /// In the weight table.
    pub name: String,
    pub a: Option<Stored>,
    pub b: Option<Stored>,
    /// Of the values, where the shapes are equal.
    pub values: Option<Values>,
}

/// A weight in its file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stored {
    /// In the safetensors spelling.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    /// BLAKE3 of its bytes, in lower-case hexadecimal.
    pub digest: String,
}

/// Two arrays of one shape, element by element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Values {
    /// Elements whose values in f32 differ in any bit.
    pub different: u64,
    /// The largest |a - b| over the differences that are finite.
    pub max_abs: f64,
    /// Differences that are no finite number.
    pub not_finite: u64,
}

impl TensorDifference {
    /// The same values in the same shape; the element types may differ.
    pub fn is_equal(&self) -> bool {
        self.values.is_some_and(|v| v.different == 0)
    }

    /// The same bytes in the same shape and element type.
    pub fn is_identical(&self) -> bool {
        self.a.is_some() && self.a == self.b
    }
}

/// Every weight of either checkpoint, in the order of `a`'s table, then of `b`'s. A thread holds a few pieces of a
/// few MiB.
pub fn tensors(a: &Checkpoint, b: &Checkpoint) -> Result<Vec<TensorDifference>, CheckpointError> {
    let names =
        |of: &Checkpoint| -> Vec<String> { of.desc().weights().into_iter().map(|w| w.name).collect() };
    let mut wanted = names(a);
    let known: BTreeSet<String> = wanted.iter().cloned().collect();
    wanted.extend(names(b).into_iter().filter(|name| !known.contains(name)));
    let difference = |name: String| {
        let (left, right) = (Weight::of(a, &name), Weight::of(b, &name));
        match (left, right) {
            (Some(left), Some(right)) if left.shape() == right.shape() => together(left, right),
            (left, right) => Ok(TensorDifference {
                a: left.as_ref().map(Weight::stored).transpose()?,
                b: right.as_ref().map(Weight::stored).transpose()?,
                values: None,
                name,
            }),
        }
    };
    wanted.into_par_iter().map(difference).collect()
}

#[derive(Clone, Copy)]
struct Weight<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
}

impl<'a> Weight<'a> {
    /// Absent where the checkpoint's table has no such weight.
    fn of(checkpoint: &'a Checkpoint, name: &'a str) -> Option<Weight<'a>> {
        checkpoint.tensor(name).ok().map(|_| Weight { checkpoint, name })
    }

    fn shape(&self) -> Option<&[usize]> {
        self.checkpoint.shape(self.name).ok()
    }

    fn pieces(&self) -> Result<impl Iterator<Item = Range<usize>> + use<>, CheckpointError> {
        Ok(pieces(self.checkpoint.tensor(self.name)?))
    }

    fn stored(&self) -> Result<Stored, CheckpointError> {
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), Vec::new());
        for rows in self.pieces()? {
            self.checkpoint.read_rows(self.name, rows, &mut bytes)?;
            hasher.update(&bytes);
        }
        self.described(&hasher)
    }

    fn described(&self, hasher: &blake3::Hasher) -> Result<Stored, CheckpointError> {
        let tensor = self.checkpoint.tensor(self.name)?;
        let digest = hasher.finalize().to_hex().to_string();
        Ok(Stored { dtype: tensor.element.name(), shape: tensor.shape.clone(), digest })
    }
}

/// Digests and values of two weights of one shape, each read once.
fn together(a: Weight, b: Weight) -> Result<TensorDifference, CheckpointError> {
    let dtypes = (a.checkpoint.dtype(a.name)?, b.checkpoint.dtype(b.name)?);
    let mut hashers = (blake3::Hasher::new(), blake3::Hasher::new());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut values = Values::default();
    for rows in a.pieces()? {
        a.checkpoint.read_rows(a.name, rows.clone(), &mut left)?;
        b.checkpoint.read_rows(b.name, rows, &mut right)?;
        hashers.0.update(&left);
        hashers.1.update(&right);
        if dtypes.0 == dtypes.1 && left == right {
            continue;
        }
        x.clear();
        y.clear();
        convert::decode(dtypes.0, &left, &mut x);
        convert::decode(dtypes.1, &right, &mut y);
        x.iter().zip(&y).for_each(|(x, y)| values.absorb(*x, *y));
    }
    Ok(TensorDifference {
        name: a.name.to_string(),
        a: Some(a.described(&hashers.0)?),
        b: Some(b.described(&hashers.1)?),
        values: Some(values),
    })
}

impl Values {
    fn absorb(&mut self, x: f32, y: f32) {
        if x.to_bits() == y.to_bits() {
            return;
        }
        self.different += 1;
        let difference = (f64::from(x) - f64::from(y)).abs();
        if difference.is_finite() {
            self.max_abs = self.max_abs.max(difference);
        } else {
            self.not_finite += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_their_bits() {
        let mut values = Values::default();
        for (x, y) in [(1.0, 1.0), (f32::NAN, f32::NAN), (1.0, 1.5), (0.0, -0.0), (-2.0, 1.0)] {
            values.absorb(x, y);
        }
        assert_eq!(values, Values { different: 3, max_abs: 3.0, not_finite: 0 });
        values.absorb(f32::INFINITY, 1.0);
        values.absorb(f32::NAN, 1.0);
        assert_eq!(values, Values { different: 5, max_abs: 3.0, not_finite: 2 });
    }
}
