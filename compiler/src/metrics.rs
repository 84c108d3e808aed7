//! Importance metrics as expressions, compiled to streaming reductions.

use std::fmt;

/// A compiled `metric NAME(x, w) = EXPR`.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub name: String,
    slots: usize,
}

impl Program {
    /// f64 numbers per element in one sample's partial.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}
