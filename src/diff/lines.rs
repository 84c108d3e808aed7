//! Two texts, line by line.

use super::{Part, Section};
use serde_json::{Value, json};

/// Longer texts are only compared, because the table of the comparison grows with the product of their lengths.
const MOST_LINES: usize = 2000;

#[derive(Debug, PartialEq)]
enum Line<'a> {
    Both(&'a str),
    A(&'a str),
    B(&'a str),
}

/// How two recipes differ; nothing where one of them is not known.
pub fn section(a: Option<&str>, b: Option<&str>) -> Section {
    let name = "recipe";
    let (Some(a), Some(b)) = (a, b) else {
        return Section { name, parts: Vec::new(), json: Value::Null };
    };
    if a == b {
        let parts = vec![Part::Text("recipe: equal".into())];
        return Section { name, parts, json: json!({ "equal": true, "lines": [] }) };
    }
    let Some(lines) = lines(a, b) else {
        let parts = vec![Part::Text("recipe: the two differ, and are too long to show how".into())];
        return Section { name, parts, json: json!({ "equal": false, "lines": null }) };
    };
    let mut changed = Vec::new();
    let mut json = Vec::new();
    for line in &lines {
        let (sign, line, key) = match line {
            Line::Both(_) => continue,
            Line::A(line) => ('-', line, "a"),
            Line::B(line) => ('+', line, "b"),
        };
        changed.push(format!("{sign} {line}"));
        json.push(json!({ "in": key, "text": line }));
    }
    let parts = vec![Part::Lines("recipe".into(), changed)];
    Section { name, parts, json: json!({ "equal": false, "lines": json }) }
}

/// A longest common subsequence, and what is beside it.
fn lines<'a>(a: &'a str, b: &'a str) -> Option<Vec<Line<'a>>> {
    let (x, y): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    if x.len().max(y.len()) > MOST_LINES {
        return None;
    }
    // longest[i][j]: of x[i..] and y[j..].
    let mut longest = vec![vec![0u16; y.len() + 1]; x.len() + 1];
    for i in (0..x.len()).rev() {
        for j in (0..y.len()).rev() {
            longest[i][j] = match x[i] == y[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < x.len() || j < y.len() {
        if i < x.len() && j < y.len() && x[i] == y[j] {
            out.push(Line::Both(x[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == y.len() || (i < x.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out.push(Line::A(x[i]));
            i += 1;
        } else {
            out.push(Line::B(y[j]));
            j += 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_stands_in_order() {
        let found = lines("one\ntwo\nthree\n", "one\n2\nthree\nfour\n").expect("short texts");
        assert_eq!(
            found,
            [Line::Both("one"), Line::A("two"), Line::B("2"), Line::Both("three"), Line::B("four")]
        );
        assert_eq!(lines("", "a"), Some(vec![Line::B("a")]));
        assert_eq!(lines(&"a\n".repeat(3000), "a"), None);
    }
}
