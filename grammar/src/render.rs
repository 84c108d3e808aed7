//! Diagnostics as people read them, and as programs do.

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::borrow::Cow;

/// Every diagnostic with the lines that it is about, in the manner of rustc; `file` is the name to show.
pub fn render(file: &str, text: &str, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut output = String::new();
    for diagnostic in diagnostics {
        output.push_str(&renderer.render(&[group(file, text, diagnostic)]));
        output.push_str("\n\n");
    }
    output
}

fn group<'a>(file: &'a str, text: &'a str, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let primary = AnnotationKind::Primary.span(inside(text, diagnostic.span));
    let label = Some(legible(&diagnostic.label)).filter(|l| !l.is_empty());
    let mut snippet = Snippet::source(text).path(file).annotation(primary.label(label));
    for other in &diagnostic.secondary {
        let place = AnnotationKind::Context.span(inside(text, other.span));
        snippet = snippet.annotation(place.label(legible(&other.text)));
    }
    let title = level.primary_title(diagnostic.message.as_str());
    // What is wrong with other files than recipes has no code.
    let title = if diagnostic.code.is_empty() { title } else { title.id(diagnostic.code) };
    let group = title.element(snippet);
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// Labels quote what stands in files. The renderer spells out the control characters of all other texts.
fn legible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let spelled = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spelled).collect())
}

/// A span as a range of whole characters of the text.
fn inside(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}

/// Where the lines of a text begin.
pub struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// Counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl<'a> LineIndex<'a> {
    pub fn new(text: &'a str) -> Self {
        let after_ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        LineIndex { text, starts: std::iter::once(0).chain(after_ends).collect() }
    }

    /// The position of a byte offset; one beyond the text is at its end. A byte order mark has no width.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|i| self.starts.get(i)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        Position { line, column: before.trim_start_matches('\u{feff}').chars().count() + 1 }
    }
}

/// A diagnostic for programs: one element of what `minic check --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JsonDiagnostic {
    pub code: &'static str,
    pub severity: &'static str,
    pub message: String,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    pub help: Option<String>,
}

pub fn to_json(file: &str, text: &str, diagnostics: &[Diagnostic]) -> Vec<JsonDiagnostic> {
    let lines = LineIndex::new(text);
    let json = |d: &Diagnostic| {
        let (start, end) = (lines.position(d.span.start), lines.position(d.span.end));
        JsonDiagnostic {
            code: d.code,
            severity: d.severity().name(),
            message: d.message.clone(),
            file: file.to_owned(),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            help: d.help.clone(),
        }
    };
    diagnostics.iter().map(json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (&'static str, Vec<Diagnostic>) {
        let text = "mrecipe 1\r\n# é\r\n\tparam ü = 1\n";
        let at = text.find('ü').expect("it is there");
        let fault = Diagnostic::new("E0102", Span::new(at, at + 2), "expected a name, found `ü`")
            .label("here")
            .also(Span::new(0, 7), "in this version")
            .help("names are plain");
        (text, vec![fault, Diagnostic::new("W1001", Span::new(text.len(), text.len()), "an end")])
    }

    #[test]
    fn a_picture_has_code_place_labels_and_help() {
        let (text, diagnostics) = example();
        let plain = render("a.mrecipe", text, &diagnostics, false);
        for part in [
            "error[E0102]: expected a name",
            "a.mrecipe:3:8",
            "here",
            "in this version",
            "help: names are plain",
        ] {
            assert!(plain.contains(part), "{part:?} is not in\n{plain}");
        }
        assert!(plain.contains("warning[W1001]: an end"));
        assert!(!plain.contains('\u{1b}'));
        let colored = render("a.mrecipe", text, &diagnostics, true);
        assert!(colored.contains('\u{1b}'), "{colored}");
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "\u{feff}ab\r\nüx\n\nend";
        let lines = LineIndex::new(text);
        let position = |offset| {
            let p = lines.position(offset);
            (p.line, p.column)
        };
        assert_eq!(position(0), (1, 1));
        assert_eq!(position(3), (1, 1), "a byte order mark has no width");
        assert_eq!(position(5), (1, 3));
        assert_eq!(position(7), (2, 1));
        assert_eq!(position(8), (2, 1), "inside of a character");
        assert_eq!(position(9), (2, 2));
        assert_eq!(position(11), (3, 1));
        assert_eq!(position(12), (4, 1));
        assert_eq!(position(15), (4, 4));
        assert_eq!(position(999), (4, 4));
        assert_eq!(LineIndex::new("").position(3), Position { line: 1, column: 1 });
    }

    #[test]
    fn programs_get_line_and_column_of_both_ends() {
        let (text, diagnostics) = example();
        let json = to_json("a.mrecipe", text, &diagnostics);
        let first = &json[0];
        assert_eq!((first.line, first.column, first.end_line, first.end_column), (3, 8, 3, 9));
        assert_eq!(
            (first.code, first.severity, first.help.as_deref()),
            ("E0102", "error", Some("names are plain"))
        );
        assert_eq!(
            (json[1].severity, json[1].line, json[1].column, json[1].help.as_deref()),
            ("warning", 4, 1, None)
        );
    }

    #[test]
    fn a_span_outside_of_the_text_is_drawn_at_its_end() {
        let (text, _) = example();
        let wild = [
            Diagnostic::new("E0102", Span::new(900, 1000), "beyond"),
            Diagnostic::new("E0102", Span::new(5, 2), "backwards"),
            Diagnostic::new(
                "E0102",
                Span::new(text.find('ü').map_or(0, |at| at + 1), 20),
                "inside of a character",
            ),
        ];
        let plain = render("a.mrecipe", text, &wild, false);
        assert!(plain.contains("beyond") && plain.contains("backwards"));
    }
}
