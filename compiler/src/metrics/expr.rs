//! Elementwise expressions, evaluated for a block of elements at a time.

use super::functions::{Binary, Unary};
use super::reducers::Reduction;
use std::fmt;

/// Elements that are evaluated together; temporaries of this width live on the stack.
pub const LANES: usize = 64;

/// One value per lane.
pub type Block = [f64; LANES];

/// A value that an expression reads, one per element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The activation at one position of one sample.
    X,
    /// One entry of the weight beside the tap.
    W,
    /// Result of [`super::Program::sequence`], by index.
    Sequence(usize),
    /// Result of [`super::Program::batch`].
    Batch(usize),
    /// Result of [`super::Program::tokens`].
    Tokens(usize),
    /// Result of [`super::Program::weight`].
    Weight(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(f64),
    Leaf(Leaf),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
}

impl Expr {
    /// Literals are folded.
    pub fn unary(op: Unary, a: Expr) -> Expr {
        match a {
            Expr::Number(v) => Expr::Number(op.apply(v)),
            a => Expr::Unary(op, Box::new(a)),
        }
    }

    /// Literals are folded.
    pub fn binary(op: Binary, a: Expr, b: Expr) -> Expr {
        match (a, b) {
            (Expr::Number(a), Expr::Number(b)) => Expr::Number(op.apply(a, b)),
            (a, b) => Expr::Binary(op, Box::new(a), Box::new(b)),
        }
    }

    /// Evaluates every lane. `read` fills a block with a leaf's values.
    #[inline]
    pub fn evaluate(&self, read: &dyn Fn(Leaf, &mut Block), out: &mut Block) {
        match self {
            Expr::Number(v) => out.fill(*v),
            Expr::Leaf(leaf) => read(*leaf, out),
            Expr::Unary(op, a) => {
                a.evaluate(read, out);
                unary_lanes(*op, out);
            }
            Expr::Binary(op, a, b) => {
                a.evaluate(read, out);
                let mut right = [0.0; LANES];
                b.evaluate(read, &mut right);
                binary_lanes(*op, out, &right);
            }
        }
    }
}

/// The operation is chosen once per block, so that the cheap ones become vector code.
#[inline]
fn unary_lanes(op: Unary, lanes: &mut Block) {
    match op {
        Unary::Negate => lanes.iter_mut().for_each(|v| *v = -*v),
        Unary::Abs => lanes.iter_mut().for_each(|v| *v = v.abs()),
        Unary::Square => lanes.iter_mut().for_each(|v| *v *= *v),
        other => lanes.iter_mut().for_each(|v| *v = other.apply(*v)),
    }
}

#[inline]
fn binary_lanes(op: Binary, left: &mut Block, right: &Block) {
    let lanes = left.iter_mut().zip(right);
    match op {
        Binary::Add => lanes.for_each(|(a, b)| *a += b),
        Binary::Subtract => lanes.for_each(|(a, b)| *a -= b),
        Binary::Multiply => lanes.for_each(|(a, b)| *a *= b),
        Binary::Divide => lanes.for_each(|(a, b)| *a /= b),
        other => lanes.for_each(|(a, b)| *a = other.apply(*a, *b)),
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Leaf::X => f.write_str("x"),
            Leaf::W => f.write_str("w"),
            Leaf::Sequence(i) => write!(f, "s{i}"),
            Leaf::Batch(i) => write!(f, "b{i}"),
            Leaf::Tokens(i) => write!(f, "t{i}"),
            Leaf::Weight(i) => write!(f, "w{i}"),
        }
    }
}

/// Fully bracketed, so that the text has one meaning: `(b0 * square(w0))`.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Expr::Number(v) => write!(f, "{v}"),
            Expr::Leaf(leaf) => leaf.fmt(f),
            Expr::Unary(Unary::Negate, a) => write!(f, "-{a}"),
            Expr::Unary(op, a) => write!(f, "{op}({a})"),
            Expr::Binary(op @ (Binary::Min | Binary::Max | Binary::Pow), a, b) => write!(f, "{op}({a}, {b})"),
            Expr::Binary(op, a, b) => write!(f, "({a} {op} {b})"),
        }
    }
}

/// `mean(abs(x))`
impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}({})", self.reducer.name(), self.of)
    }
}
