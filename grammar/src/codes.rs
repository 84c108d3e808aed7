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
    Code { id: "E0104", title: "a statement begins with an unknown word" },
    Code { id: "E0105", title: "a string is not closed, or holds an unknown escape" },
    Code { id: "E0106", title: "a number cannot be read" },
    Code { id: "E0107", title: "comparisons are chained" },
    Code { id: "E0108", title: "a clause is given twice, out of order, or is missing" },
    Code { id: "E0109", title: "a value is nested too deep or too long" },
    Code { id: "E1001", title: "a metric reads or calls something that there is not" },
    Code { id: "E1002", title: "a metric's parameters are x, x and w, or w" },
    Code { id: "E1003", title: "a reducer's `over` is missing or wrong" },
    Code { id: "E1004", title: "an axis is reduced before its turn, or twice" },
    Code { id: "E1005", title: "a metric does not give one score per element" },
    Code { id: "E1006", title: "a metric needs a second pass over the data" },
    Code { id: "E1007", title: "values of a metric that cannot be combined" },
    Code { id: "E1008", title: "a function of a metric has the wrong number of values" },
    Code { id: "E1009", title: "something that cannot stand in a metric" },
    Code { id: "W1001", title: "a metric does not read one of its parameters" },
];
