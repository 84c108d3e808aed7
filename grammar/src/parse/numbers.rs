//! Numbers and their units, exactly: `4.3B` is 4_300_000_000, whatever binary fractions make of 4.3.

use super::{Reader, Rule, messages};
use crate::ast::{Number, Unit};
use crate::diagnostic::{Diagnostic, Help};
use crate::span::Span;
use crate::suggest::nearest;
use pest::iterators::Pair;

/// A suffix, its kind, and how many of the kind's unit it stands for. A percent is a hundredth, see [`shift`].
const UNITS: &[(&str, Unit, u64)] = &[
    ("K", Unit::Count, 1_000),
    ("M", Unit::Count, 1_000_000),
    ("B", Unit::Count, 1_000_000_000),
    ("T", Unit::Count, 1_000_000_000_000),
    ("Ki", Unit::Count, 1 << 10),
    ("Mi", Unit::Count, 1 << 20),
    ("Gi", Unit::Count, 1 << 30),
    ("Ti", Unit::Count, 1 << 40),
    ("KB", Unit::Bytes, 1_000),
    ("MB", Unit::Bytes, 1_000_000),
    ("GB", Unit::Bytes, 1_000_000_000),
    ("TB", Unit::Bytes, 1_000_000_000_000),
    ("KiB", Unit::Bytes, 1 << 10),
    ("MiB", Unit::Bytes, 1 << 20),
    ("GiB", Unit::Bytes, 1 << 30),
    ("TiB", Unit::Bytes, 1 << 40),
    ("%", Unit::Percent, 1),
    ("s", Unit::Duration, 1),
    ("min", Unit::Duration, 60),
    ("h", Unit::Duration, 3600),
];

/// Integers beyond this have no exact f64.
const MAX_WHOLE: u128 = 1 << 53;

/// Is this word a unit that touches its number?
pub(super) fn is_unit(word: &str) -> bool {
    UNITS.iter().any(|(suffix, ..)| *suffix == word)
}

/// The suffixes of numbers.
pub fn units() -> impl Iterator<Item = &'static str> {
    UNITS.iter().map(|u| u.0)
}

/// The value and the unit of a quantity by itself, as `5GB` on a command line.
pub fn quantity(text: &str) -> Option<(f64, Unit)> {
    let written = text.starts_with(|c: char| c.is_ascii_digit());
    written.then(|| read(text, false).ok()).flatten()
}

impl Reader {
    pub(super) fn number(&mut self, pair: Pair<Rule>) -> Option<Number> {
        let span = self.span(&pair);
        let text = pair.as_str().trim_end().to_owned();
        let mut parts = pair.into_inner();
        let quantity = parts.next()?;
        let updates = parts.next().is_some();
        match read(quantity.as_str(), updates) {
            Ok((value, unit)) => Some(Number { value, unit, text }),
            Err(fault) => {
                let diagnostic = fault.diagnostic(&text, span, self.span(&quantity));
                self.report(diagnostic);
                None
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Fault {
    UnknownUnit {
        suffix: String,
    },
    /// `60 steps` of something that has a unit already.
    TwoUnits,
    NotWhole {
        unit: Unit,
    },
    TooLarge,
}

impl Fault {
    fn diagnostic(&self, text: &str, span: Span, quantity: Span) -> Diagnostic {
        match self {
            Fault::UnknownUnit { suffix } => {
                let place = Span::new(quantity.end - suffix.len(), quantity.end);
                let help = match suffix.as_str() {
                    "steps" => {
                        let help = format!("write `{} steps`", text.trim_end_matches("steps"));
                        Help::instead(help, [" steps".to_owned()])
                    }
                    _ => match nearest(suffix, UNITS.iter().map(|u| u.0)) {
                        Some(near) => Help::meant(near),
                        None => format!("the units are {}", messages::alternatives(unit_names())).into(),
                    },
                };
                Diagnostic::new("E0106", place, format!("`{suffix}` is not a unit")).help(help)
            }
            Fault::TwoUnits => Diagnostic::new("E0106", span, format!("`{text}` has two units"))
                .help("updates are counted as `60 steps`"),
            Fault::NotWhole { unit: Unit::Updates } => {
                Diagnostic::new("E0106", span, format!("`{text}` is not a whole number of updates"))
                    .help("write a whole number before `steps`")
            }
            Fault::NotWhole { .. } => {
                Diagnostic::new("E0106", span, format!("`{text}` is not a whole number of things"))
                    .help("a count must be whole; write fewer decimals or a smaller unit")
            }
            Fault::TooLarge => Diagnostic::new("E0106", span, format!("`{text}` is too large"))
                .help("whole numbers go up to 2^53, about 9e15, others to about 1.8e308"),
        }
    }
}

fn unit_names() -> impl Iterator<Item = String> {
    UNITS.iter().map(|u| u.0).chain(["steps"]).map(|u| format!("`{u}`"))
}

/// A literal as a decimal: `mantissa` times ten to the `exponent`, before its suffix.
struct Decimal<'a> {
    mantissa: u128,
    exponent: i64,
    /// It has a point or an exponent.
    float: bool,
    suffix: &'a str,
}

fn read(quantity: &str, updates: bool) -> Result<(f64, Unit), Fault> {
    let decimal = split(quantity)?;
    let (unit, factor) = match decimal.suffix {
        "" if updates => (Unit::Updates, 1),
        "" if decimal.float => (Unit::Float, 1),
        "" => (Unit::Integer, 1),
        suffix => match UNITS.iter().find(|u| u.0 == suffix) {
            Some(&(_, unit, factor)) => (unit, factor),
            None => return Err(Fault::UnknownUnit { suffix: suffix.to_owned() }),
        },
    };
    if updates && !decimal.suffix.is_empty() {
        return Err(Fault::TwoUnits);
    }
    let mantissa = decimal.mantissa.checked_mul(u128::from(factor)).ok_or(Fault::TooLarge)?;
    let value = match unit {
        Unit::Integer | Unit::Count | Unit::Updates => whole(mantissa, decimal.exponent, unit)?,
        Unit::Bytes => floor(mantissa, decimal.exponent)?,
        Unit::Float | Unit::Duration => nearest_float(mantissa, decimal.exponent)?,
        Unit::Percent => nearest_float(mantissa, decimal.exponent - 2)?,
    };
    Ok((value, unit))
}

fn split(quantity: &str) -> Result<Decimal<'_>, Fault> {
    let number_end =
        quantity.find(|c: char| !(c.is_ascii_digit() || matches!(c, '_' | '.'))).unwrap_or(quantity.len());
    let (number, rest) = quantity.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.chars().chain(fraction.chars()).filter(char::is_ascii_digit);
    let mantissa = digits()
        .try_fold(0u128, |sum, digit| sum.checked_mul(10)?.checked_add(u128::from(digit.to_digit(10)?)));
    let places = fraction.chars().filter(char::is_ascii_digit).count();
    let (power, suffix) = split_exponent(rest);
    Ok(Decimal {
        mantissa: mantissa.ok_or(Fault::TooLarge)?,
        exponent: power.unwrap_or(0).saturating_sub(places as i64),
        float: number.contains('.') || power.is_some(),
        suffix,
    })
}

/// `e-4` and what follows it. An `e` without digits belongs to the suffix.
fn split_exponent(rest: &str) -> (Option<i64>, &str) {
    let Some(after) = rest.strip_prefix(['e', 'E']) else { return (None, rest) };
    let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(unsigned.len());
    let (digits, suffix) = unsigned.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return (None, rest);
    }
    let power = digits.replace('_', "").parse::<i64>().unwrap_or(i64::from(i32::MAX));
    (Some(if after.starts_with('-') { -power } else { power }), suffix)
}

fn whole(mantissa: u128, exponent: i64, unit: Unit) -> Result<f64, Fault> {
    let exact = match power_of_ten(exponent) {
        _ if mantissa == 0 => 0,
        Some(power) if exponent >= 0 => mantissa.checked_mul(power).ok_or(Fault::TooLarge)?,
        Some(power) if mantissa.is_multiple_of(power) => mantissa / power,
        None if exponent >= 0 => return Err(Fault::TooLarge),
        _ => return Err(Fault::NotWhole { unit }),
    };
    bounded(exact)
}

fn floor(mantissa: u128, exponent: i64) -> Result<f64, Fault> {
    match power_of_ten(exponent) {
        _ if mantissa == 0 => Ok(0.0),
        Some(power) if exponent >= 0 => bounded(mantissa.checked_mul(power).ok_or(Fault::TooLarge)?),
        Some(power) => bounded(mantissa / power),
        None if exponent >= 0 => Err(Fault::TooLarge),
        None => Ok(0.0),
    }
}

fn bounded(exact: u128) -> Result<f64, Fault> {
    if exact <= MAX_WHOLE { Ok(exact as f64) } else { Err(Fault::TooLarge) }
}

/// Ten to the |exponent|, where u128 holds it.
fn power_of_ten(exponent: i64) -> Option<u128> {
    u32::try_from(exponent.unsigned_abs()).ok().and_then(|e| 10u128.checked_pow(e))
}

/// The f64 nearest to the decimal.
fn nearest_float(mantissa: u128, exponent: i64) -> Result<f64, Fault> {
    match format!("{mantissa}e{exponent}").parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(Fault::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_by_itself_is_read_as_in_a_recipe() {
        assert_eq!(quantity("5GB"), Some((5e9, Unit::Bytes)));
        assert_eq!(quantity("1_000"), Some((1000.0, Unit::Integer)));
        for wrong in ["", "GB", "-5GB", "5 GB", "5XB", ".5", "1e999", "5GB "] {
            assert_eq!(quantity(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn units_are_applied_exactly() {
        let cases = [
            ("4.3B", 4_300_000_000.0, Unit::Count),
            ("4.5B", 4_500_000_000.0, Unit::Count),
            ("0.3K", 300.0, Unit::Count),
            ("22K", 22_000.0, Unit::Count),
            ("3.8M", 3_800_000.0, Unit::Count),
            ("15T", 15e12, Unit::Count),
            ("1_024", 1024.0, Unit::Integer),
            ("64Ki", 65_536.0, Unit::Count),
            ("2Mi", 2_097_152.0, Unit::Count),
            ("1.5Ki", 1536.0, Unit::Count),
            ("512MiB", 536_870_912.0, Unit::Bytes),
            ("5GB", 5e9, Unit::Bytes),
            // 19.66 x 2^30 = 21109764259.84
            ("19.66GiB", 21_109_764_259.0, Unit::Bytes),
            ("0.0001KB", 0.0, Unit::Bytes),
            ("0.1%", 0.001, Unit::Percent),
            ("70%", 0.7, Unit::Percent),
            ("90s", 90.0, Unit::Duration),
            ("10min", 600.0, Unit::Duration),
            ("1.5h", 5400.0, Unit::Duration),
            ("1.6e-4", 1.6e-4, Unit::Float),
            ("2E3", 2000.0, Unit::Float),
            ("0.1", 0.1, Unit::Float),
            ("1e-400", 0.0, Unit::Float),
            ("9007199254740992", 9_007_199_254_740_992.0, Unit::Integer),
        ];
        for (text, value, unit) in cases {
            assert_eq!(read(text, false), Ok((value, unit)), "{text}");
        }
        assert_eq!(read("60", true), Ok((60.0, Unit::Updates)));
    }

    #[test]
    fn what_has_no_exact_value_is_refused() {
        let not_whole = Err(Fault::NotWhole { unit: Unit::Count });
        assert_eq!(read("1.0005K", false), not_whole);
        assert_eq!(read("1e-999999K", false), not_whole);
        assert_eq!(read("9007199254740993", false), Err(Fault::TooLarge));
        assert_eq!(read(&"9".repeat(400), false), Err(Fault::TooLarge));
        assert_eq!(read("1e99999999999999999999", false), Err(Fault::TooLarge));
        assert_eq!(read("20000T", false), Err(Fault::TooLarge));
        assert_eq!(read("0.5", true), Err(Fault::NotWhole { unit: Unit::Updates }));
        assert_eq!(read("60s", true), Err(Fault::TwoUnits));
        for (text, suffix) in [("4k", "k"), ("1e", "e"), ("0x10", "x10"), ("3m", "m"), ("4.5Bx", "Bx")] {
            assert_eq!(read(text, false), Err(Fault::UnknownUnit { suffix: suffix.to_owned() }), "{text}");
        }
    }
}
