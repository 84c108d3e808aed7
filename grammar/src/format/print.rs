//! The tree of a file as lines.

use super::align;
use super::tokens::{Kind, Token};
use super::tree::{Body, Entry, Part, Statement, Values};

/// A line without its indentation.
#[derive(Default)]
pub(super) struct Line {
    /// In steps of four blanks.
    pub indent: usize,
    pub text: String,
    /// The comment at its end; a line may have nothing else.
    pub comment: Option<String>,
}

/// A statement's lines, and where the first of them may be stretched.
pub(super) struct Printed {
    pub lines: Vec<Line>,
    pub stops: Vec<usize>,
    /// Only statements of a form are aligned with each other.
    pub form: &'static str,
    pub spaced: bool,
}

/// The lines of a body that is broken.
pub(super) fn body(body: &Body, indent: usize) -> Vec<Line> {
    let mut printed: Vec<Printed> = body.entries.iter().map(|entry| print_entry(entry, indent)).collect();
    align::stops(&mut printed);
    let mut lines = Vec::new();
    for entry in printed {
        if entry.spaced && !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(entry.lines);
    }
    lines
}

fn print_entry(entry: &Entry, indent: usize) -> Printed {
    match entry {
        Entry::Comment { text, spaced } => {
            let line = Line { indent, text: String::new(), comment: Some(text.to_string()) };
            Printed { lines: vec![line], stops: Vec::new(), form: align::COMMENT, spaced: *spaced }
        }
        Entry::Statement(statement) => print_statement(statement, indent),
    }
}

fn print_statement(statement: &Statement, indent: usize) -> Printed {
    let (form, wanted) = align::form(&statement.parts);
    let mut writer = Writer::new(indent);
    let mut stops = Vec::new();
    for (at, part) in statement.parts.iter().enumerate() {
        if wanted.contains(&at) {
            stops.push(writer.line().text.len());
        }
        if at > 0 && (writer.must_break() || part.lines_before() > 0) {
            writer.part_on_new_line(&statement.parts, at, indent + 1);
        } else {
            writer.part(&statement.parts, at);
        }
    }
    if let Some(comment) = statement.comment {
        writer.line().comment = Some(comment.to_string());
    }
    // Over several lines nothing stands below anything of its neighbors.
    if writer.lines.len() > 1 {
        stops.clear();
    }
    Printed { lines: writer.lines, stops, form, spaced: statement.spaced }
}

/// What stands before the cursor, as far as blanks depend on it.
#[derive(Clone, Copy, PartialEq)]
enum Previous {
    /// The beginning of a line, an opening bracket, a sign: nothing stands between.
    Tight,
    /// A name, which may be called.
    Name,
    Operand,
    Comma,
    Other,
}

struct Writer {
    lines: Vec<Line>,
    previous: Previous,
}

impl Writer {
    fn new(indent: usize) -> Writer {
        Writer { lines: vec![Line { indent, ..Line::default() }], previous: Previous::Tight }
    }

    fn line(&mut self) -> &mut Line {
        if self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let last = self.lines.len() - 1;
        &mut self.lines[last]
    }

    fn new_line(&mut self, indent: usize) {
        self.lines.push(Line { indent, ..Line::default() });
        self.previous = Previous::Tight;
    }

    /// Nothing can stand on a line after its comment.
    fn must_break(&mut self) -> bool {
        self.line().comment.is_some()
    }

    fn part_on_new_line(&mut self, parts: &[Part], at: usize, indent: usize) {
        self.new_line(indent);
        self.part(parts, at);
    }

    fn part(&mut self, parts: &[Part], at: usize) {
        match parts.get(at) {
            Some(Part::Token(token)) if token.is_comment() => {
                self.line().comment = Some(token.text.to_string());
            }
            Some(Part::Token(token)) => self.token(token, is_close_range(parts, at)),
            Some(Part::Body(body, _)) => self.body(body),
            Some(Part::Values(values)) => self.values(values),
            None => {}
        }
    }

    fn put(&mut self, text: &str, blank: bool, previous: Previous) {
        let blank = if blank && self.previous != Previous::Tight { " " } else { "" };
        let line = self.line();
        line.text.push_str(blank);
        line.text.push_str(text);
        self.previous = previous;
    }

    fn token(&mut self, token: &Token, close_range: bool) {
        let operand = matches!(self.previous, Previous::Name | Previous::Operand);
        match token.kind {
            Kind::Word if is_clause_word(token.text) => self.put(token.text, true, Previous::Other),
            Kind::Word => self.put(token.text, true, Previous::Name),
            Kind::Number | Kind::Text => self.put(token.text, true, Previous::Operand),
            _ if token.is(",") => self.put(",", false, Previous::Comma),
            _ if token.is("-") && !operand => self.put("-", true, Previous::Tight),
            _ if close_range => self.put(token.text, false, Previous::Tight),
            _ => self.put(token.text, true, Previous::Other),
        }
    }

    fn body(&mut self, body: &Body) {
        self.put("{", true, Previous::Other);
        if !body.broken {
            self.inline(&body.entries);
            return;
        }
        let indent = self.line().indent;
        self.line().comment = body.opening.map(str::to_string);
        self.lines.extend(self::body(body, indent + 1));
        self.new_line(indent);
        self.put("}", false, Previous::Operand);
    }

    /// The statements of a body on one line.
    fn inline(&mut self, entries: &[Entry]) {
        let statements = entries.iter().filter_map(|entry| match entry {
            Entry::Statement(statement) => Some(statement),
            Entry::Comment { .. } => None,
        });
        for (number, statement) in statements.enumerate() {
            if number > 0 {
                self.put(";", false, Previous::Other);
            }
            (0..statement.parts.len()).for_each(|at| self.part(&statement.parts, at));
        }
        self.put("}", true, Previous::Operand);
    }

    fn values(&mut self, values: &Values) {
        let called = values.open == "(" && self.previous == Previous::Name;
        let inside = if values.airy { Previous::Other } else { Previous::Tight };
        self.put(values.open, !called, inside);
        let outer = self.line().indent;
        // Between members, what goes on is indented once more.
        let members = usize::from(values.parts.iter().any(|p| p.is(",")));
        let mut item_begins = true;
        for (at, part) in values.parts.iter().enumerate() {
            let first = at == 0;
            let beside = part.is_comment() && part.lines_before() == 0;
            let wanted =
                part.lines_before() > 0 && self.may_break(part, values.parts.get(at.wrapping_sub(1)));
            if !beside && ((first && values.broken) || self.must_break() || wanted) {
                if part.lines_before() > 1 && !first && item_begins {
                    self.new_line(0);
                }
                self.part_on_new_line(&values.parts, at, outer + 1 + if item_begins { 0 } else { members });
            } else {
                self.part(&values.parts, at);
            }
            item_begins = part.is(",") || (item_begins && part.is_comment());
        }
        if values.broken {
            self.new_line(outer);
        }
        self.put(values.close, values.airy && !values.parts.is_empty(), Previous::Operand);
    }

    /// Line ends are kept after a comma, beside an operator, and before a comment.
    fn may_break(&self, part: &Part, before: Option<&Part>) -> bool {
        let operator = |p: &Part| p.token().is_some_and(Token::is_operator);
        let after = self.previous != Previous::Tight && before.is_some_and(operator);
        self.previous == Previous::Comma || part.is_comment() || after || operator(part)
    }
}

/// Words that no `(` after them calls, and that no `-` after them is taken from.
fn is_clause_word(word: &str) -> bool {
    matches!(
        word,
        "and"
            | "or"
            | "not"
            | "in"
            | "step"
            | "by"
            | "at"
            | "on"
            | "for"
            | "from"
            | "to"
            | "keep"
            | "within"
            | "multiple_of"
            | "require"
    )
}

/// `64..=128`: an operator between two whole numbers that are no part of a sum or a product.
fn is_close_range(parts: &[Part], at: usize) -> bool {
    let whole = |at: Option<usize>| {
        at.and_then(|at| parts.get(at)).is_some_and(|p| {
            p.token().is_some_and(|t| {
                t.kind == Kind::Number && t.text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
            }) && p.lines_before() == 0
        })
    };
    let computed = |at: Option<usize>| {
        at.and_then(|at| parts.get(at)).is_some_and(|p| ["+", "-", "*", "/"].iter().any(|sign| p.is(sign)))
    };
    let here = parts.get(at).is_some_and(|p| p.is("..=") && p.lines_before() == 0);
    let near = [at.checked_sub(1), at.checked_add(1)];
    let far = [at.checked_sub(2), at.checked_add(2)];
    here && near.into_iter().all(whole) && !far.into_iter().any(computed)
}
