//! Reducers: what they keep of the values seen so far, and how two such states become one.

use super::expr::Expr;
use super::functions::larger;

/// A reduction of many values of an element to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reducer {
    Sum,
    Mean,
    L1,
    L2,
    Max,
    Variance,
}

/// A reducer's name in metric expressions.
#[derive(Clone, Copy, Debug)]
pub struct ReducerName {
    pub name: &'static str,
    pub reducer: Reducer,
    pub doc: &'static str,
}

const fn entry(name: &'static str, reducer: Reducer, doc: &'static str) -> ReducerName {
    ReducerName { name, reducer, doc }
}

/// To add a reducer: its variant above, its state below, and its line here.
pub const REDUCERS: &[ReducerName] = &[
    entry("sum", Reducer::Sum, "sum of v"),
    entry("mean", Reducer::Mean, "sum of v / n"),
    entry("l1", Reducer::L1, "sum of |v|"),
    entry("l2", Reducer::L2, "square root of the sum of v^2"),
    entry("max", Reducer::Max, "the largest v"),
    entry("variance", Reducer::Variance, "mean of (v - mean)^2, of the population: divided by n"),
];

pub fn find(name: &str) -> Option<Reducer> {
    REDUCERS.iter().find(|r| r.name == name).map(|r| r.reducer)
}

/// A reducer and the elementwise expression that it reduces.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduction {
    pub reducer: Reducer,
    pub of: Expr,
}

/// The state of one reduction of one element. Reducers of width 1 use `a` alone: a sum, a sum of squares,
/// a maximum. Variance keeps the mean in `a` and the sum of squared distances from it in `b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub a: f64,
    pub b: f64,
}

impl Reducer {
    pub fn name(self) -> &'static str {
        match self {
            Reducer::Sum => "sum",
            Reducer::Mean => "mean",
            Reducer::L1 => "l1",
            Reducer::L2 => "l2",
            Reducer::Max => "max",
            Reducer::Variance => "variance",
        }
    }

    /// Numbers in the state.
    pub fn width(self) -> usize {
        if self == Reducer::Variance { 2 } else { 1 }
    }

    /// The state of no values.
    pub fn empty(self) -> State {
        State { a: if self == Reducer::Max { f64::NEG_INFINITY } else { 0.0 }, b: 0.0 }
    }

    /// The state of the values before and of `v`, which is the `n`-th value (1-based).
    /// Variance follows Welford.
    #[inline]
    pub fn absorb(self, state: State, v: f64, n: f64) -> State {
        let State { a, b } = state;
        match self {
            Reducer::Sum | Reducer::Mean => State { a: a + v, b },
            Reducer::L1 => State { a: a + v.abs(), b },
            Reducer::L2 => State { a: a + v * v, b },
            Reducer::Max => State { a: larger(a, v), b },
            Reducer::Variance => {
                let mean = a + (v - a) / n;
                State { a: mean, b: b + (v - a) * (v - mean) }
            }
        }
    }

    /// The state of the values of both sides, of which there are `n` and `m`, both positive.
    /// Variance follows Chan, Golub and LeVeque (1979).
    #[inline]
    pub fn merge(self, left: State, n: f64, right: State, m: f64) -> State {
        match self {
            Reducer::Sum | Reducer::Mean | Reducer::L1 | Reducer::L2 => State { a: left.a + right.a, b: 0.0 },
            Reducer::Max => State { a: larger(left.a, right.a), b: 0.0 },
            Reducer::Variance => {
                let (distance, all) = (right.a - left.a, n + m);
                State {
                    a: left.a + distance * (m / all),
                    b: left.b + right.b + distance * distance * (n * (m / all)),
                }
            }
        }
    }

    /// The result for `n` values, n > 0.
    #[inline]
    pub fn value(self, state: State, n: f64) -> f64 {
        match self {
            Reducer::Sum | Reducer::L1 | Reducer::Max => state.a,
            Reducer::Mean => state.a / n,
            Reducer::L2 => state.a.sqrt(),
            Reducer::Variance => state.b / n,
        }
    }
}
