//! Elementwise functions of metric expressions. NaN goes in, NaN comes out: a broken score stays visible.

use super::expr::Expr;
use std::fmt;

/// An operation on one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Negate,
    Abs,
    Square,
    Sqrt,
    Exp,
    Log,
    Relu,
    Sigmoid,
    Silu,
    Sign,
}

impl Unary {
    #[inline]
    pub fn apply(self, v: f64) -> f64 {
        match self {
            Unary::Negate => -v,
            Unary::Abs => v.abs(),
            Unary::Square => v * v,
            Unary::Sqrt => v.sqrt(),
            Unary::Exp => v.exp(),
            Unary::Log => v.ln(),
            Unary::Relu => larger(v, 0.0),
            Unary::Sigmoid => 1.0 / (1.0 + (-v).exp()),
            Unary::Silu => v / (1.0 + (-v).exp()),
            Unary::Sign if v == 0.0 || v.is_nan() => v,
            Unary::Sign => v.signum(),
        }
    }
}

impl fmt::Display for Unary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Unary::Negate => "-",
            Unary::Abs => "abs",
            Unary::Square => "square",
            Unary::Sqrt => "sqrt",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Relu => "relu",
            Unary::Sigmoid => "sigmoid",
            Unary::Silu => "silu",
            Unary::Sign => "sign",
        })
    }
}

/// An operation on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Min,
    Max,
    Pow,
}

impl Binary {
    #[inline]
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            Binary::Min => -larger(-a, -b),
            Binary::Max => larger(a, b),
            Binary::Pow => a.powf(b),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::Min => "min",
            Binary::Max => "max",
            Binary::Pow => "pow",
        })
    }
}

/// The larger of two; unlike [`f64::max`] it does not swallow NaN.
#[inline]
pub fn larger(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

/// What a function of the language becomes.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    Unary(Unary),
    Binary(Binary),
    /// (value, lowest, highest)
    Clamp,
}

/// An elementwise function, as metric expressions call it.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub name: &'static str,
    /// How it is called.
    pub form: &'static str,
    pub meaning: Meaning,
    pub doc: &'static str,
}

const fn unary(name: &'static str, form: &'static str, op: Unary, doc: &'static str) -> Function {
    Function { name, form, meaning: Meaning::Unary(op), doc }
}

const fn binary(name: &'static str, form: &'static str, op: Binary, doc: &'static str) -> Function {
    Function { name, form, meaning: Meaning::Binary(op), doc }
}

/// To add an elementwise function: its variant above and its line here.
pub const FUNCTIONS: &[Function] = &[
    unary("abs", "abs(x)", Unary::Abs, "absolute value"),
    unary("square", "square(x)", Unary::Square, "x * x"),
    unary("sqrt", "sqrt(x)", Unary::Sqrt, "square root, NaN below zero"),
    unary("exp", "exp(x)", Unary::Exp, "e to the power of x"),
    unary("log", "log(x)", Unary::Log, "natural logarithm, NaN below zero"),
    unary("relu", "relu(x)", Unary::Relu, "the larger of x and 0"),
    unary("sigmoid", "sigmoid(x)", Unary::Sigmoid, "1 / (1 + exp(-x))"),
    unary("silu", "silu(x)", Unary::Silu, "x * sigmoid(x)"),
    unary("sign", "sign(x)", Unary::Sign, "-1, 0 or 1"),
    binary("min", "min(a, b)", Binary::Min, "the smaller of two values"),
    binary("max", "max(a, b)", Binary::Max, "the larger of two values; with one value and `over` it reduces"),
    binary("pow", "pow(x, p)", Binary::Pow, "x to the power of p"),
    Function {
        name: "clamp",
        form: "clamp(x, lo, hi)",
        meaning: Meaning::Clamp,
        doc: "x, but not below lo and not above hi",
    },
];

pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

impl Function {
    pub fn arity(&self) -> usize {
        match self.meaning {
            Meaning::Unary(_) => 1,
            Meaning::Binary(_) => 2,
            Meaning::Clamp => 3,
        }
    }

    /// The call on these arguments; none where their number is not [`Function::arity`].
    pub fn build(&self, arguments: Vec<Expr>) -> Option<Expr> {
        let mut arguments = arguments.into_iter();
        let mut next = || arguments.next();
        match self.meaning {
            Meaning::Unary(op) => Some(Expr::unary(op, next()?)),
            Meaning::Binary(op) => Some(Expr::binary(op, next()?, next()?)),
            Meaning::Clamp => {
                let low = Expr::binary(Binary::Max, next()?, next()?);
                Some(Expr::binary(Binary::Min, low, next()?))
            }
        }
    }
}
