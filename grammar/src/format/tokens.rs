//! The tokens of a recipe that has no faults, comments among them.

use crate::parse::layout;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a dotted name, a keyword.
    Word,
    Number,
    Text,
    Mark,
    Comment,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Line ends between the token before and this one; in a file's first token, 0.
    pub lines_before: usize,
    /// One of these line ends separates, the others are blanks.
    pub separated: bool,
}

impl Token<'_> {
    pub fn is(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    pub fn is_comment(&self) -> bool {
        self.kind == Kind::Comment
    }

    /// Does it stand between two operands?
    pub fn is_operator(&self) -> bool {
        let marks = ["+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "..="];
        match self.kind {
            Kind::Mark => marks.contains(&self.text),
            Kind::Word => matches!(self.text, "and" | "or" | "in"),
            _ => false,
        }
    }
}

/// The tokens in order. A comma that follows a comment is put before it, so that it stands at what it separates.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let layout = layout::scan(source);
    let mut tokens: Vec<Token> = Vec::new();
    let mut end = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut at = end;
    while let Some(first) = source.get(at..).and_then(|rest| rest.chars().next()) {
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            at += 1;
            continue;
        }
        let (kind, length) = measure(source.get(at..).unwrap_or_default(), first);
        let ends = |text: &str| text.get(end..at).unwrap_or_default().matches('\n').count();
        let lines_before = if tokens.is_empty() { 0 } else { ends(source) };
        let text = source.get(at..at + length).unwrap_or_default();
        // No blank at a line's end means anything.
        let text = if kind == Kind::Comment { text.trim_end_matches([' ', '\t', '\r']) } else { text };
        tokens.push(Token { kind, text, lines_before, separated: ends(&layout.text) > 0 });
        at += length;
        end = at;
    }
    bring_commas_forward(&mut tokens);
    tokens
}

fn bring_commas_forward(tokens: &mut [Token]) {
    for comma in 1..tokens.len() {
        let comments = tokens.iter().take(comma).rev().take_while(|t| t.is_comment()).count();
        if !tokens.get(comma).is_some_and(|t| t.is(",")) {
            continue;
        }
        let lines = tokens.get(comma).map_or(0, |t| t.lines_before);
        if let Some(next) = tokens.get_mut(comma + 1) {
            next.lines_before = next.lines_before.max(lines);
        }
        if let Some(run) = tokens.get_mut(comma - comments..=comma) {
            run.rotate_right(1);
            run.iter_mut().take(1).for_each(|t| t.lines_before = 0);
        }
    }
}

/// The kind and the length of the token that a text begins with.
fn measure(text: &str, first: char) -> (Kind, usize) {
    let bytes = text.as_bytes();
    match first {
        '#' => (Kind::Comment, text.find('\n').unwrap_or(text.len())),
        '"' => (Kind::Text, string(bytes)),
        '0'..='9' => (Kind::Number, number(bytes)),
        'a'..='z' | 'A'..='Z' | '_' => (Kind::Word, path(bytes)),
        _ => {
            let marks = ["..=", "==", "!=", "<=", ">="];
            let mark = marks.iter().find(|m| text.starts_with(**m));
            (Kind::Mark, mark.map_or(first.len_utf8(), |m| m.len()))
        }
    }
}

fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            b'\n' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn path(bytes: &[u8]) -> usize {
    let mut at = run(bytes, 0, is_word);
    while bytes.get(at) == Some(&b'.')
        && bytes.get(at + 1).is_some_and(|b| is_word(*b) && !b.is_ascii_digit())
    {
        at = run(bytes, at + 1, is_word);
    }
    at
}

/// As `quantity` in the grammar.
fn number(bytes: &[u8]) -> usize {
    let is_digit = |b: u8| b.is_ascii_digit() || b == b'_';
    let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = run(bytes, 0, is_digit);
    if bytes.get(at) == Some(&b'.') && digit_at(at + 1) {
        at = run(bytes, at + 1, is_digit);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let signed = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if digit_at(signed) {
            at = run(bytes, signed, is_digit);
        }
    }
    if bytes.get(at) == Some(&b'%') { at + 1 } else { run(bytes, at, is_word) }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where a run of bytes that begins at `at` ends.
fn run(bytes: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| !belongs(*b)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|t| t.text).collect()
    }

    #[test]
    fn numbers_paths_and_marks_are_whole() {
        assert_eq!(
            texts("64..=128 1.6e-4 0.1% 2E3 4.5B a.b.c 60 steps 1_024 3-4"),
            [
                "64", "..=", "128", "1.6e-4", "0.1%", "2E3", "4.5B", "a.b.c", "60", "steps", "1_024", "3",
                "-", "4"
            ]
        );
        assert_eq!(
            texts("\u{feff}x=\"a \\\" # b\" # c \r\n<= <"),
            ["x", "=", "\"a \\\" # b\"", "# c", "<=", "<"]
        );
    }

    #[test]
    fn line_ends_are_counted_and_joined_ones_told() {
        let found = tokens("mrecipe 1\n\nparam x = [\n1]\nparam y = 2");
        let told = |text: &str| {
            found.iter().find(|t| t.text == text).map(|t| (t.lines_before, t.separated)).expect("it is there")
        };
        assert_eq!((told("param"), told("1"), told("y")), ((2, true), (0, false), (0, false)));
        assert_eq!(found.iter().filter(|t| t.separated).count(), 2);
    }

    #[test]
    fn a_comma_stands_at_what_it_separates() {
        assert_eq!(
            texts("mrecipe 1\nparam x = [1 # one\n # more\n, 2]")[5..],
            ["[", "1", ",", "# one", "# more", "2", "]"]
        );
    }
}
