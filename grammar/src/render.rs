//! Diagnostics as people read them, and as programs do.

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

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
    let label = Some(diagnostic.label.as_str()).filter(|l| !l.is_empty());
    let mut snippet = Snippet::source(text).path(file).annotation(primary.label(label));
    for other in &diagnostic.secondary {
        let place = AnnotationKind::Context.span(inside(text, other.span));
        snippet = snippet.annotation(place.label(other.text.as_str()));
    }
    let group = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code).element(snippet);
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
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
