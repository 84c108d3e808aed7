//! Typed constants, and the arithmetic of units.

use crate::hir;
use minic_grammar::ast::{BinaryOp, Unit};
use minic_grammar::{Span, Spanned};
use std::fmt;

/// A constant as the checker computes with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(Number),
    Bool(bool),
    String(String),
    List(Vec<Spanned<Value>>),
    /// A set, or a range with its steps written out.
    Set(Vec<Spanned<Value>>),
}

/// A number and its unit; the value counts single things, bytes, seconds, updates or a fraction of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    pub value: f64,
    pub unit: Unit,
}

/// What numbers must have in common to be added or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Plain,
    Bytes,
    Time,
    Updates,
}

/// Largest whole number that a computation in f64 carries exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    pub fn new(value: f64, unit: Unit) -> Number {
        Number { value, unit }
    }

    fn class(self) -> Class {
        match self.unit {
            Unit::Integer | Unit::Float | Unit::Count | Unit::Percent => Class::Plain,
            Unit::Bytes => Class::Bytes,
            Unit::Duration => Class::Time,
            Unit::Updates => Class::Updates,
        }
    }

    /// `a count`, `a number of bytes`, ..
    pub fn kind(self) -> &'static str {
        match self.unit {
            Unit::Integer => "a whole number",
            Unit::Float => "a number",
            Unit::Count => "a count",
            Unit::Percent => "a percentage",
            Unit::Bytes => "a number of bytes",
            Unit::Duration => "a duration",
            Unit::Updates => "a number of updates",
        }
    }

    pub fn is_plain(self) -> bool {
        self.class() == Class::Plain
    }

    /// Rounded to what is printed, away from what lies below it or above.
    pub fn outward(self, up: bool) -> Number {
        let units = match self.unit {
            Unit::Count => COUNTS,
            Unit::Bytes => BYTES,
            _ => return self,
        };
        let Some((size, _)) = units.iter().find(|(size, _)| self.value.abs() >= *size) else { return self };
        let shown = self.value / size * 1000.0;
        let shown = if up { shown.ceil() } else { shown.floor() };
        Number { value: shown / 1000.0 * size, ..self }
    }

    /// The whole number meant, rounding of the arithmetic forgiven; `None` for fractions, negative numbers,
    /// and what f64 does not hold exactly.
    pub fn whole(self) -> Option<u64> {
        let near = self.value.round();
        let slack = 1e-12 * near.abs().max(1.0);
        ((self.value - near).abs() <= slack && (0.0..=EXACT).contains(&near)).then_some(near as u64)
    }

    /// Fractional bytes round down.
    pub fn bytes(self) -> Option<u64> {
        let value = self.whole().map_or(self.value, |w| w as f64);
        (self.unit == Unit::Bytes && (0.0..=EXACT).contains(&value)).then_some(value as u64)
    }

    /// Why `self op other` means nothing, else its value.
    pub fn combine(self, op: BinaryOp, other: Number) -> Result<Value, Mismatch> {
        let number = |value: f64, unit: Unit| -> Result<Value, Mismatch> {
            if !value.is_finite() {
                return Err(Mismatch::NotFinite);
            }
            Ok(Value::Number(Number { value, unit }))
        };
        let (a, b) = (self.value, other.value);
        match op {
            BinaryOp::Add => number(a + b, self.same(other)?),
            BinaryOp::Subtract => number(a - b, self.same(other)?),
            BinaryOp::Multiply => number(a * b, self.product(other)?),
            BinaryOp::Divide if b == 0.0 => Err(Mismatch::ByZero),
            BinaryOp::Divide => number(a / b, self.quotient(other, a / b)?),
            BinaryOp::Equal => self.same(other).map(|_| Value::Bool(a == b)),
            BinaryOp::NotEqual => self.same(other).map(|_| Value::Bool(a != b)),
            BinaryOp::Less => self.same(other).map(|_| Value::Bool(a < b)),
            BinaryOp::LessEqual => self.same(other).map(|_| Value::Bool(a <= b)),
            BinaryOp::Greater => self.same(other).map(|_| Value::Bool(a > b)),
            BinaryOp::GreaterEqual => self.same(other).map(|_| Value::Bool(a >= b)),
            BinaryOp::And | BinaryOp::Or => Err(Mismatch::Units),
        }
    }

    /// The unit of a sum, difference, minimum or remainder.
    pub fn same(self, other: Number) -> Result<Unit, Mismatch> {
        if self.class() != other.class() {
            return Err(Mismatch::Units);
        }
        Ok(match (self.unit, other.unit) {
            (a, b) if a == b => a,
            (Unit::Count, _) | (_, Unit::Count) => Unit::Count,
            _ => Unit::Float,
        })
    }

    fn product(self, other: Number) -> Result<Unit, Mismatch> {
        match (self.class(), other.class()) {
            (Class::Plain, Class::Plain) if self.unit == Unit::Percent && other.unit == Unit::Percent => {
                Ok(Unit::Float)
            }
            (Class::Plain, Class::Plain) => self.same(other),
            (Class::Plain, _) => Ok(other.unit),
            (_, Class::Plain) => Ok(self.unit),
            _ => Err(Mismatch::Units),
        }
    }

    fn quotient(self, other: Number, value: f64) -> Result<Unit, Mismatch> {
        match (self.class(), other.class()) {
            (a, Class::Plain) if a != Class::Plain => Ok(self.unit),
            (a, b) if a != b => Err(Mismatch::Units),
            (Class::Plain, _) if self.unit == Unit::Integer && other.unit == Unit::Integer => {
                Ok(if value.fract() == 0.0 { Unit::Integer } else { Unit::Float })
            }
            (Class::Plain, _) if self.unit == Unit::Count && other.unit != Unit::Count => Ok(Unit::Count),
            _ => Ok(Unit::Float),
        }
    }
}

/// Why an operation has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Units,
    ByZero,
    NotFinite,
}

impl Value {
    /// `a count`, `a string`, ..: what the user wrote, in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Number(n) => n.kind(),
            Value::Bool(_) => "a truth value",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Set(_) => "a set",
        }
    }

    /// Whether `other` may stand where this is the default: `--set` keeps the type.
    pub fn accepts(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => match a.unit {
                Unit::Integer | Unit::Count => b.is_plain() && b.whole().is_some(),
                Unit::Float | Unit::Percent => b.is_plain(),
                _ => a.class() == b.class(),
            },
            (Value::Bool(_), Value::Bool(_)) | (Value::String(_), Value::String(_)) => true,
            (Value::List(_), Value::List(_)) | (Value::Set(_), Value::Set(_)) => true,
            _ => false,
        }
    }

    pub fn to_hir(&self) -> hir::Value {
        match self {
            Value::Bool(b) => hir::Value::Bool(*b),
            Value::String(s) => hir::Value::String(s.clone()),
            Value::List(items) | Value::Set(items) => {
                hir::Value::List(items.iter().map(|i| i.node.to_hir()).collect())
            }
            Value::Number(n) => match n.unit {
                Unit::Bytes => n.bytes().map_or(hir::Value::Float(n.value), hir::Value::Bytes),
                Unit::Percent => hir::Value::Fraction(n.value),
                Unit::Duration => hir::Value::Seconds(n.value),
                Unit::Updates => n.whole().map_or(hir::Value::Float(n.value), hir::Value::Updates),
                Unit::Float => hir::Value::Float(n.value),
                Unit::Integer | Unit::Count => {
                    n.whole().map_or(hir::Value::Float(n.value), hir::Value::Count)
                }
            },
        }
    }
}

/// As a recipe would write it: `4.5B`, `40GiB`, `64Ki`, `0.1%`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.unit {
            Unit::Integer | Unit::Float => write!(f, "{}", self.value),
            Unit::Count => f.write_str(&count(self.value)),
            Unit::Percent => write!(f, "{}%", self.value * 100.0),
            Unit::Bytes => f.write_str(&bytes(self.value)),
            Unit::Duration => write!(f, "{}s", self.value),
            Unit::Updates => write!(f, "{} steps", self.value),
        }
    }
}

const COUNTS: &[(f64, &str)] = &[(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
const KI: f64 = 1024.0;
const BYTES: &[(f64, &str)] =
    &[(KI * KI * KI * KI, "TiB"), (KI * KI * KI, "GiB"), (KI * KI, "MiB"), (KI, "KiB")];

/// A count in the largest decimal unit that leaves at most four digits after the point, `4.489B`.
pub(crate) fn count(value: f64) -> String {
    scaled(value, COUNTS, "")
}

/// Bytes in the largest binary unit, `40GiB`, `19.66GiB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, BYTES, "B")
}

fn scaled(value: f64, units: &[(f64, &str)], none: &str) -> String {
    for &(size, name) in units {
        if value.abs() >= size {
            return format!("{}{name}", (value / size * 1000.0).round() / 1000.0);
        }
    }
    format!("{value}{none}")
}

/// The first two places of a list at which the same value stands.
pub(crate) fn repeated<T: PartialEq>(items: &[Spanned<T>]) -> Option<(Span, Span)> {
    items.iter().enumerate().find_map(|(i, item)| {
        items[..i].iter().find(|earlier| earlier.node == item.node).map(|earlier| (earlier.span, item.span))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(value: f64, unit: Unit) -> Number {
        Number { value, unit }
    }

    fn unit_of(value: Result<Value, Mismatch>) -> Result<Unit, Mismatch> {
        value.map(|v| match v {
            Value::Number(n) => n.unit,
            other => panic!("{other:?} is no number"),
        })
    }

    #[test]
    fn sums_need_the_same_unit() {
        let sum = |a, b| unit_of(n(2.0, a).combine(BinaryOp::Add, n(1.0, b)));
        assert_eq!(sum(Unit::Bytes, Unit::Bytes), Ok(Unit::Bytes));
        assert_eq!(sum(Unit::Count, Unit::Integer), Ok(Unit::Count));
        assert_eq!(sum(Unit::Integer, Unit::Float), Ok(Unit::Float));
        assert_eq!(sum(Unit::Bytes, Unit::Count), Err(Mismatch::Units));
        assert_eq!(sum(Unit::Updates, Unit::Integer), Err(Mismatch::Units));
        assert_eq!(sum(Unit::Duration, Unit::Bytes), Err(Mismatch::Units));
    }

    #[test]
    fn products_and_quotients_carry_one_unit() {
        let by = |op, a, b| unit_of(n(6.0, a).combine(op, n(2.0, b)));
        assert_eq!(by(BinaryOp::Multiply, Unit::Bytes, Unit::Integer), Ok(Unit::Bytes));
        assert_eq!(by(BinaryOp::Multiply, Unit::Percent, Unit::Count), Ok(Unit::Count));
        assert_eq!(by(BinaryOp::Multiply, Unit::Percent, Unit::Percent), Ok(Unit::Float));
        assert_eq!(by(BinaryOp::Multiply, Unit::Bytes, Unit::Bytes), Err(Mismatch::Units));
        assert_eq!(by(BinaryOp::Divide, Unit::Bytes, Unit::Bytes), Ok(Unit::Float));
        assert_eq!(by(BinaryOp::Divide, Unit::Bytes, Unit::Integer), Ok(Unit::Bytes));
        assert_eq!(by(BinaryOp::Divide, Unit::Integer, Unit::Integer), Ok(Unit::Integer));
        assert_eq!(by(BinaryOp::Divide, Unit::Integer, Unit::Bytes), Err(Mismatch::Units));
        assert_eq!(
            n(1.0, Unit::Integer).combine(BinaryOp::Divide, n(0.0, Unit::Integer)),
            Err(Mismatch::ByZero)
        );
    }

    #[test]
    fn comparisons_need_the_same_unit() {
        let less = n(1.0, Unit::Bytes).combine(BinaryOp::Less, n(2.0, Unit::Bytes));
        assert_eq!(less, Ok(Value::Bool(true)));
        assert_eq!(n(1.0, Unit::Bytes).combine(BinaryOp::Less, n(2.0, Unit::Count)), Err(Mismatch::Units));
    }

    #[test]
    fn counts_are_whole_and_bytes_round_down() {
        assert_eq!(n(0.55 * 4.5e9, Unit::Count).whole(), Some(2_475_000_000));
        assert_eq!(n(1.5, Unit::Count).whole(), None);
        assert_eq!(n(-1.0, Unit::Integer).whole(), None);
        assert_eq!(n(1e30, Unit::Count).whole(), None);
        assert_eq!(n(19.66 * 1073741824.0, Unit::Bytes).bytes(), Some(21_109_764_259));
        assert_eq!(n(8.0, Unit::Count).bytes(), None);
    }

    #[test]
    fn numbers_print_in_their_largest_unit() {
        assert_eq!(n(4_488_900_000.0, Unit::Count).to_string(), "4.489B");
        assert_eq!(n(42_949_672_960.0, Unit::Bytes).to_string(), "40GiB");
        assert_eq!(n(999.0, Unit::Count).to_string(), "999");
        assert_eq!(n(512.0, Unit::Bytes).to_string(), "512B");
    }

    #[test]
    fn limits_are_rounded_so_that_they_hold() {
        let limit = |value, unit, up| n(value, unit).outward(up).to_string();
        assert_eq!(limit(1_159_480.0, Unit::Count, true), "1.16M");
        assert_eq!(limit(1_159_480.0, Unit::Count, false), "1.159M");
        assert_eq!(limit(1_160_000.0, Unit::Count, false), "1.16M");
        assert_eq!(limit(3_070_000.0, Unit::Bytes, true), "2.928MiB");
        assert_eq!(limit(999.0, Unit::Count, true), "999");
    }

    #[test]
    fn an_override_keeps_the_type_of_its_default() {
        let number = |value, unit| Value::Number(n(value, unit));
        assert!(number(4.5e9, Unit::Count).accepts(&number(4e9, Unit::Integer)));
        assert!(!number(4.5e9, Unit::Count).accepts(&number(0.5, Unit::Float)));
        assert!(!number(4.5e9, Unit::Count).accepts(&number(4e9, Unit::Bytes)));
        assert!(number(0.1, Unit::Percent).accepts(&number(0.2, Unit::Float)));
        assert!(!Value::Bool(true).accepts(&Value::String("true".into())));
    }
}
