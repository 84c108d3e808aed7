//! Diagnostics as people read them, and as programs do.

use crate::diagnostic::{Diagnostic, Fix, Label, Severity};
use crate::source::{Source, Sources};
use crate::span::Span;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Every diagnostic with the lines that it is about, in the manner of rustc.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut output = String::new();
    for diagnostic in diagnostics {
        output.push_str(&renderer.render(&[group(sources, diagnostic)]));
        output.push_str("\n\n");
    }
    output
}

fn group<'a>(sources: &'a Sources, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let home = sources.at(diagnostic.span.start);
    let primary = AnnotationKind::Primary.span(inside(home, diagnostic.span));
    let label = Some(legible(&diagnostic.label)).filter(|l| !l.is_empty());
    let primary = primary.label(label);
    let title = level.primary_title(diagnostic.message.as_str());
    // What is wrong with other files than recipes has no code.
    let title = if diagnostic.code.is_empty() { title } else { title.id(diagnostic.code) };
    let mut snippets = Vec::new();
    // The file at fault comes first, whatever the order of the files.
    let others = sources.iter().filter(|file| file.base != home.base);
    for file in std::iter::once(home).chain(others) {
        let labels = diagnostic.secondary.iter().filter(|l| sources.at(l.span.start).base == file.base);
        let context = |label: &'a Label| {
            AnnotationKind::Context.span(inside(file, label.span)).label(legible(&label.text))
        };
        let mut places: Vec<_> = labels.map(context).collect();
        if file.base == home.base {
            places.insert(0, primary.clone());
        }
        if !places.is_empty() {
            snippets.push(Snippet::source(&file.text).path(&file.name).annotations(places));
        }
    }
    let group = title.elements(snippets);
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

/// A span as a range of whole characters of its file.
fn inside(file: &Source, span: Span) -> std::ops::Range<usize> {
    let (text, span) = (&file.text, file.local(span));
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
    pub fixes: Vec<JsonFix>,
}

/// An edit that mends a finding: `replacement` in the place of what stands between the two positions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JsonFix {
    pub title: String,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    pub replacement: String,
}

pub fn to_json(sources: &Sources, diagnostics: &[Diagnostic]) -> Vec<JsonDiagnostic> {
    let lines: BTreeMap<usize, LineIndex> =
        sources.iter().map(|f| (f.base, LineIndex::new(&f.text))).collect();
    let fix = |fix: &Fix| {
        let (file, span) = sources.locate(fix.span);
        let lines = &lines[&file.base];
        let (start, end) = (lines.position(span.start), lines.position(span.end));
        JsonFix {
            title: fix.title.clone(),
            file: file.name.clone(),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            replacement: fix.replacement.clone(),
        }
    };
    let json = |d: &Diagnostic| {
        let (file, span) = sources.locate(d.span);
        let lines = &lines[&file.base];
        let (start, end) = (lines.position(span.start), lines.position(span.end));
        JsonDiagnostic {
            code: d.code,
            severity: d.severity().name(),
            message: d.message.clone(),
            file: file.name.clone(),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            help: d.help.clone(),
            fixes: d.fixes.iter().map(fix).collect(),
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
            .help("names are plain")
            .fix("write `u`", Span::new(at, at + 2), "u");
        (text, vec![fault, Diagnostic::new("W1001", Span::new(text.len(), text.len()), "an end")])
    }

    #[test]
    fn a_picture_has_code_place_labels_and_help() {
        let (text, diagnostics) = example();
        let plain = render(&Sources::new("a.mrecipe", text), &diagnostics, false);
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
        let colored = render(&Sources::new("a.mrecipe", text), &diagnostics, true);
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
        let json = to_json(&Sources::new("a.mrecipe", text), &diagnostics);
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
        let fixes: Vec<(&str, usize, usize, &str)> = first
            .fixes
            .iter()
            .map(|f| (f.title.as_str(), f.column, f.end_column, f.replacement.as_str()))
            .collect();
        assert_eq!((fixes, json[1].fixes.len()), (vec![("write `u`", 8, 9, "u")], 0));
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
        let plain = render(&Sources::new("a.mrecipe", text), &wild, false);
        assert!(plain.contains("beyond") && plain.contains("backwards"));
    }

    #[test]
    fn a_fault_and_what_explains_it_may_stand_in_two_files() {
        let mut sources = Sources::new("a.mrecipe", "mrecipe 1\nuse \"b.mrecipe\"\nparam x = 1\n");
        let base = sources.add("b.mrecipe", "mrecipe 1\n\nparam x = 2\n").base;
        let first = Diagnostic::new("E0201", Span::new(32, 33), "twice")
            .also(Span::new(base + 17, base + 18), "here");
        let second = Diagnostic::new("E0201", Span::new(base + 17, base + 18), "twice")
            .also(Span::new(32, 33), "there");
        insta::assert_snapshot!(render(&sources, &[first.clone(), second], false), @"
        error[E0201]: twice
         --> a.mrecipe:3:7
          |
        3 | param x = 1
          |       ^
          |
         ::: b.mrecipe:3:7
          |
        3 | param x = 2
          |       - here

        error[E0201]: twice
         --> b.mrecipe:3:7
          |
        3 | param x = 2
          |       ^
          |
         ::: a.mrecipe:3:7
          |
        3 | param x = 1
          |       - there
        ");
        let json = to_json(&sources, &[first]);
        assert_eq!((json[0].file.as_str(), json[0].line, json[0].column), ("a.mrecipe", 3, 7));
    }
}
