//! Every diagnostic code: stable, one line each. Severity is the first letter.

/// A code and what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub id: &'static str,
    pub title: &'static str,
}

/// Sorted by id. To add a diagnostic, add its line here and raise it where the fault is seen.
pub const CODES: &[Code] = &[
    Code { id: "E0101", title: "the header `mrecipe 1` is missing or of another version" },
    Code { id: "E0102", title: "a statement cannot be read" },
    Code { id: "E0103", title: "a bracket is not closed, or closes nothing" },
];
