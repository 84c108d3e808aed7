//! Tokens in their blocks and brackets, comments at what they belong to.

use super::tokens::{Kind, Token};

/// The entries of a file, of a block or of a record.
#[derive(Default)]
pub(super) struct Body<'a> {
    pub entries: Vec<Entry<'a>>,
    /// Written over several lines.
    pub broken: bool,
    /// The comment beside the brace that opens it.
    pub opening: Option<&'a str>,
}

pub(super) enum Entry<'a> {
    /// On a line of its own.
    Comment {
        text: &'a str,
        spaced: bool,
    },
    Statement(Statement<'a>),
}

/// A declaration, a setting, a line of a block.
pub(super) struct Statement<'a> {
    pub parts: Vec<Part<'a>>,
    /// The comment beside its end.
    pub comment: Option<&'a str>,
    pub spaced: bool,
}

pub(super) enum Part<'a> {
    Token(Token<'a>),
    /// `{ .. }` with statements; the lines before it.
    Body(Body<'a>, usize),
    Values(Values<'a>),
}

impl<'a> Part<'a> {
    pub fn token(&self) -> Option<&Token<'a>> {
        match self {
            Part::Token(token) => Some(token),
            _ => None,
        }
    }

    pub fn lines_before(&self) -> usize {
        match self {
            Part::Token(token) => token.lines_before,
            Part::Body(_, lines) => *lines,
            Part::Values(values) => values.lines_before,
        }
    }

    pub fn is(&self, mark: &str) -> bool {
        self.token().is_some_and(|t| t.is(mark))
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.token().is_some_and(|t| t.is_word(word))
    }

    pub fn is_comment(&self) -> bool {
        self.token().is_some_and(Token::is_comment)
    }
}

/// `( )`, `[ ]`, and the `{ }` of a set or of quantities.
pub(super) struct Values<'a> {
    pub open: &'a str,
    pub close: &'a str,
    pub parts: Vec<Part<'a>>,
    pub lines_before: usize,
    /// A line end or a comment stands directly in it.
    pub broken: bool,
    /// Blanks stand inside of its brackets.
    pub airy: bool,
}

/// Declarations with a block.
const BLOCKS: &[&str] =
    &["use", "model", "data", "group", "prune", "search", "schedule", "distill", "train", "export"];

/// What the statements of a body are.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Declarations,
    /// The lines of a schedule: settings and phases.
    Schedule,
    Lines,
}

/// A whole file.
pub(super) fn file<'a>(tokens: &[Token<'a>]) -> Body<'a> {
    let mut body = Cursor { tokens, at: 0 }.body(Level::Declarations);
    body.broken = true;
    // The header stands apart.
    let header = body.entries.iter().position(|e| matches!(e, Entry::Statement(_)));
    match header.and_then(|at| body.entries.get_mut(at + 1)) {
        Some(Entry::Comment { spaced, .. }) => *spaced = true,
        Some(Entry::Statement(statement)) => statement.spaced = true,
        None => {}
    }
    body
}

struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'a> Cursor<'_, 'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    /// Up to the brace that closes it, or to the end of the file.
    fn body(&mut self, level: Level) -> Body<'a> {
        let mut body = Body::default();
        while let Some(token) = self.peek().filter(|t| !t.is("}")) {
            body.broken |= token.lines_before > 0;
            if token.is(";") {
                self.at += 1;
            } else if token.is_comment() {
                self.at += 1;
                place_comment(&mut body, token);
            } else {
                let from = self.at;
                let statement = self.statement(level);
                body.broken |= self.is_broken(from + 1);
                body.entries.push(Entry::Statement(statement));
            }
        }
        body.broken |= self.peek().is_some_and(|t| t.lines_before > 0);
        body
    }

    /// Does a line end among the tokens from here to the cursor?
    fn is_broken(&self, from: usize) -> bool {
        self.tokens.get(from..self.at).unwrap_or_default().iter().any(|t| t.lines_before > 0)
    }

    fn statement(&mut self, level: Level) -> Statement<'a> {
        let spaced = self.peek().is_some_and(|t| t.lines_before > 1);
        let mut parts: Vec<Part> = Vec::new();
        while let Some(token) = self.peek() {
            let ends = token.is(";") || token.is("}") || (!parts.is_empty() && self.separated_here());
            if ends {
                break;
            }
            parts.push(self.part(token, Some(level), &parts));
        }
        Statement { parts, comment: None, spaced }
    }

    /// Does the statement end before this token? A comment belongs to it if it goes on after the comment.
    fn separated_here(&self) -> bool {
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        let comments = rest.iter().take_while(|t| t.is_comment()).count();
        let next = rest.get(comments);
        rest.iter().take(comments + 1).any(|t| t.separated)
            || next.is_none_or(|t| comments > 0 && (t.is("}") || t.is(";")))
    }

    /// The token at the cursor, or all that it opens.
    fn part(&mut self, token: Token<'a>, level: Option<Level>, before: &[Part<'a>]) -> Part<'a> {
        self.at += 1;
        if token.kind != Kind::Mark || !matches!(token.text, "(" | "[" | "{") {
            return Part::Token(token);
        }
        let inner = if token.is("{") { self.block(level, before) } else { None };
        match inner {
            Some(level) => {
                let opening = self.peek().filter(|t| t.is_comment() && t.lines_before == 0).map(|t| t.text);
                self.at += usize::from(opening.is_some());
                let mut body = self.body(level);
                self.at += 1;
                body.broken = opening.is_some() || (body.broken && !body.entries.is_empty());
                body.opening = opening;
                Part::Body(body, token.lines_before)
            }
            None => {
                let first = |word: &str| before.first().is_some_and(|p| p.is_word(word));
                let top = level == Some(Level::Declarations);
                let measures = first("evaluate") || first("sensitivity");
                let quantities = top && measures && token.is("{");
                Part::Values(self.values(token, quantities, top && first("metric") && before.len() == 2))
            }
        }
    }

    /// What stands behind a `{`: the block of a declaration or of a phase, a record, or (none) values.
    fn block(&self, level: Option<Level>, before: &[Part]) -> Option<Level> {
        let fresh = !before.iter().any(|p| matches!(p, Part::Body(..)));
        let word = before.first().and_then(Part::token).map_or("", |t| t.text);
        let named = before.get(1).and_then(Part::token).is_some_and(|t| t.kind == Kind::Text);
        match level {
            Some(Level::Declarations) if fresh && word == "schedule" => return Some(Level::Schedule),
            Some(Level::Declarations) if fresh && BLOCKS.contains(&word) => return Some(Level::Lines),
            Some(Level::Schedule) if fresh && word == "phase" && named => return Some(Level::Lines),
            _ => {}
        }
        let mut next = self.tokens.iter().skip(self.at).filter(|t| !t.is_comment() && !t.is(";"));
        let key = next.next().is_some_and(|t| t.kind == Kind::Word);
        (key && next.next().is_some_and(|t| t.is("="))).then_some(Level::Lines)
    }

    fn values(&mut self, open: Token<'a>, airy: bool, parameters: bool) -> Values<'a> {
        let mut parts: Vec<Part> = Vec::new();
        let mut broken = false;
        let mut close = "";
        while let Some(token) = self.peek() {
            broken |= token.lines_before > 0 || token.is_comment();
            if token.kind == Kind::Mark && matches!(token.text, ")" | "]" | "}") {
                self.at += 1;
                close = token.text;
                break;
            }
            parts.push(self.part(token, None, &parts));
        }
        let commas = parts.iter().any(|p| p.is(","));
        if !parameters && (commas || !open.is("(")) {
            end_with_comma(&mut parts, broken);
        }
        Values { open: open.text, close, parts, lines_before: open.lines_before, broken, airy }
    }
}

/// Beside the statement before it, or on a line of its own.
fn place_comment<'a>(body: &mut Body<'a>, comment: Token<'a>) {
    match body.entries.last_mut() {
        Some(Entry::Statement(statement)) if comment.lines_before == 0 && statement.comment.is_none() => {
            statement.comment = Some(comment.text);
        }
        _ => body.entries.push(Entry::Comment { text: comment.text, spaced: comment.lines_before > 1 }),
    }
}

/// Over several lines the last member has its comma, too; on one line it has none.
fn end_with_comma(parts: &mut Vec<Part>, broken: bool) {
    let Some(last) = parts.iter().rposition(|p| !p.is_comment()) else { return };
    let there = parts.get(last).is_some_and(|p| p.is(","));
    if broken && !there {
        let comma = Token { kind: Kind::Mark, text: ",", lines_before: 0, separated: false };
        parts.insert(last + 1, Part::Token(comma));
    } else if !broken && there {
        parts.remove(last);
    }
}
