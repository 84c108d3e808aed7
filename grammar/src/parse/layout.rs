//! The one scan before the grammar: brackets matched, comments blanked, continued lines joined, statements found.
//!
//! The result has the length of the source, so every offset into it is an offset into the source. What a
//! bracket fault would have spoiled is kept small: the lines that an unclosed bracket swallowed are given back, and
//! a new declaration ends whatever is still open.

mod lookahead;

use self::lookahead::{
    begins_declaration, begins_phrase, begins_setting, block_goes_on, closer, opener, skip_blanks, word_at,
};
use crate::diagnostic::{Diagnostic, Help};
use crate::span::Span;

/// Brackets may stand in each other so deep; what lies deeper is overwritten by marks that no rule takes, so that no
/// later recursion overflows.
pub const MAX_DEPTH: usize = 64;

pub struct Layout {
    pub text: String,
    /// Top-level statements, in order, without the blanks around them.
    pub statements: Vec<Span>,
    pub diagnostics: Vec<Diagnostic>,
}

pub fn scan(source: &str) -> Layout {
    let mut scanner = Scanner {
        source: source.as_bytes(),
        text: source.as_bytes().to_vec(),
        open: Vec::new(),
        buried: 0,
        statements: Vec::new(),
        start: None,
        line: 0,
        fresh_line: true,
        joined: None,
        previous: Previous::Nothing,
        end: 0,
        diagnostics: Vec::new(),
    };
    scanner.run();
    // Only whole characters are overwritten, by ASCII.
    let text = String::from_utf8(scanner.text).unwrap_or_else(|_| source.to_owned());
    Layout { text, statements: scanner.statements, diagnostics: scanner.diagnostics }
}

/// What stands between two brackets.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    /// The lines of a declaration or a phase.
    Block,
    /// Settings, as a value.
    Record,
    /// Values: `( )`, `[ ]`, a set. A line end is a blank.
    Values,
}

struct Open {
    at: usize,
    byte: u8,
    inside: Inside,
    /// Line ends blanked while this bracket was the innermost.
    joined: Vec<usize>,
}

/// The last token before the cursor, as far as the layout cares.
#[derive(Clone, Copy, PartialEq)]
enum Previous {
    Nothing,
    Operand,
    /// A comma or a binary operator: the line goes on.
    Continues,
    Other,
}

struct Scanner<'a> {
    source: &'a [u8],
    text: Vec<u8>,
    open: Vec<Open>,
    /// How many brackets beyond [`MAX_DEPTH`] are open.
    buried: usize,
    statements: Vec<Span>,
    /// Where the current top-level statement began.
    start: Option<usize>,
    /// Where the current line's first token began.
    line: usize,
    /// No token of this line has been seen.
    fresh_line: bool,
    /// The line end that was blanked because its line goes on, if it is the last one.
    joined: Option<usize>,
    previous: Previous,
    /// Where the last token ended.
    end: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        let mut at = 0;
        if self.source.starts_with("\u{feff}".as_bytes()) {
            self.blank(0, 3);
            at = 3;
        }
        while let Some(byte) = self.byte(at) {
            at = match byte {
                b'\n' => self.line_end(at),
                b' ' | b'\t' => at + 1,
                b'\r' => {
                    self.blank(at, at + 1);
                    at + 1
                }
                b'#' => self.comment(at),
                _ => self.token(at, byte),
            };
        }
        self.unclosed_at(0, self.source.len(), "still open at the end of the file");
        self.finish_statement();
    }

    fn token(&mut self, at: usize, byte: u8) -> usize {
        if self.fresh_line {
            self.begin_line(at, byte);
        }
        let buried = self.buried > 0;
        let end = match byte {
            b'"' => self.string(at),
            b'(' | b'[' | b'{' => self.open(at, byte),
            b')' | b']' | b'}' => self.close(at, byte),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => self.word(at),
            b';' if self.innermost() == Some(Inside::Values) => self.stray_separator(at),
            _ => self.mark(at, byte),
        };
        if buried || self.buried > 0 {
            self.fill(at, end, b'!');
        }
        self.end = end;
        end
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.source.get(at).copied()
    }

    fn blank(&mut self, start: usize, end: usize) {
        self.fill(start, end, b' ');
    }

    fn fill(&mut self, start: usize, end: usize, byte: u8) {
        if let Some(bytes) = self.text.get_mut(start..end) {
            bytes.fill(byte);
        }
    }

    fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.text.get_mut(at) {
            *place = byte;
        }
    }

    fn innermost(&self) -> Option<Inside> {
        self.open.last().map(|o| o.inside)
    }

    /// How many brackets are open up to and with the innermost whose lines separate.
    fn block_depth(&self) -> usize {
        self.open.iter().rposition(|o| o.inside != Inside::Values).map_or(0, |i| i + 1)
    }

    fn comment(&mut self, at: usize) -> usize {
        let end = (at..self.source.len()).find(|&i| self.byte(i) == Some(b'\n')).unwrap_or(self.source.len());
        self.blank(at, end);
        end
    }

    fn word(&mut self, at: usize) -> usize {
        let word = word_at(self.source, at);
        let continues = matches!(word, b"and" | b"or" | b"in");
        self.previous = if continues { Previous::Continues } else { Previous::Operand };
        at + word.len()
    }

    fn mark(&mut self, at: usize, byte: u8) -> usize {
        let before = at.checked_sub(1).and_then(|i| self.byte(i));
        self.previous = match byte {
            b',' | b'+' | b'-' | b'*' | b'/' | b'<' | b'>' => Previous::Continues,
            b'=' if matches!(before, Some(b'=' | b'<' | b'>' | b'!' | b'.')) => Previous::Continues,
            b'=' | b'!' | b'.' | b';' | b':' => Previous::Other,
            _ => Previous::Operand,
        };
        at + 1
    }

    /// A `;` inside `( )`, `[ ]` or a set with a setting after it: the bracket before it was not closed.
    fn stray_separator(&mut self, at: usize) -> usize {
        let next = skip_blanks(self.source, at + 1, true);
        let keep = self.block_depth();
        if keep > 0 && begins_setting(self.source, next) {
            self.unclosed_at(keep, at, "still open where the setting ends");
        }
        self.previous = Previous::Other;
        at + 1
    }

    fn line_end(&mut self, at: usize) -> usize {
        self.fresh_line = true;
        if let Some(open) = self.open.last_mut().filter(|o| o.inside == Inside::Values) {
            open.joined.push(at);
            self.blank(at, at + 1);
        } else if self.previous == Previous::Continues {
            self.joined = Some(at);
            self.blank(at, at + 1);
        } else if self.open.is_empty() {
            self.finish_statement();
        }
        if self.buried > 0 {
            self.blank(at, at + 1);
        }
        at + 1
    }

    /// Called at the first token of a line: what can be said there about the lines before?
    fn begin_line(&mut self, at: usize, byte: u8) {
        self.fresh_line = false;
        self.line = at;
        if begins_declaration(self.source, at) {
            self.unclosed_at(0, at, "still open where a new declaration begins");
            self.finish_statement();
        } else if self.open.last().is_some_and(|o| o.byte == b'{' && o.inside == Inside::Values)
            && self.previous == Previous::Operand
            && (begins_setting(self.source, at) || begins_phrase(self.source, at))
        {
            self.unclosed_at(self.block_depth(), at, "still open where the next line begins");
        } else if self.innermost() != Some(Inside::Values) && begins_setting(self.source, at) {
            // The comma before was no continuation.
            if let Some(joined) = self.joined {
                self.put(joined, b'\n');
            }
        }
        self.joined = None;
        if self.start.is_none() {
            self.start = Some(at);
            if byte == b'{' {
                self.join_brace(at);
            }
        }
    }

    /// A `{` on a line of its own is reported, then read as if it stood where it belongs.
    fn join_brace(&mut self, at: usize) {
        let begun = self.statements.last().is_some_and(|s| {
            begins_declaration(self.source, s.start) && self.source.get(s.end - 1) != Some(&b'}')
        });
        if begun && let Some(statement) = self.statements.pop() {
            let message = "`{` must stand on the line that it belongs to";
            self.diagnostics.push(
                Diagnostic::new("E0102", Span::new(at, at + 1), message)
                    .also(Span::new(statement.start, statement.end), "this line ended its statement")
                    .help("write `{` at the end of the line before"),
            );
            self.blank(statement.end, at);
            self.start = Some(statement.start);
        }
    }

    fn finish_statement(&mut self) {
        if let Some(start) = self.start.take() {
            self.statements.push(Span::new(start, self.end.max(start)));
        }
        self.previous = Previous::Nothing;
    }

    /// Reads a string. One that is not closed on its line is reported, and ends before the brackets and
    /// separators that its line ends with, so that they count. The grammar takes it: at a line end as it is, elsewhere
    /// closed here.
    fn string(&mut self, at: usize) -> usize {
        self.previous = Previous::Operand;
        let mut end = at + 1;
        loop {
            match self.byte(end) {
                Some(b'"') => return end + 1,
                Some(b'\\') if !matches!(self.byte(end + 1), None | Some(b'\r' | b'\n')) => end += 2,
                None | Some(b'\n') => break,
                Some(_) => end += 1,
            }
        }
        let written = self.source.get(at..end).unwrap_or_default().trim_ascii_end();
        self.diagnostics.push(
            Diagnostic::new("E0105", Span::new(at, at + written.len()), "a string is not closed on its line")
                .label("opened here")
                .help("end it with `\"`")
                .fix("end the string", Span::at(at + written.len()), "\""),
        );
        let may_follow = |b: &u8| match b {
            b' ' | b'\t' | b',' | b';' | b'{' => true,
            _ => self.open.iter().any(|o| closer(o.byte) == *b),
        };
        let kept = written.iter().rposition(|b| !may_follow(b)).unwrap_or(0);
        match written.get(kept + 1) {
            None => return at + written.len(),
            Some(b' ' | b'\t') => self.put(at + kept + 1, b'"'),
            Some(_) if kept == 0 => {}
            Some(_) => {
                // No room: the last character goes.
                let first = (1..=kept).rev().find(|&i| written.get(i).is_some_and(|b| b & 0xC0 != 0x80));
                let first = at + first.unwrap_or(kept);
                self.blank(first, at + kept + 1);
                self.put(first, b'"');
            }
        }
        at + kept + 1
    }

    fn open(&mut self, at: usize, byte: u8) -> usize {
        if self.buried > 0 || self.open.len() >= MAX_DEPTH {
            if self.buried == 0 {
                let message = format!("brackets are nested more than {MAX_DEPTH} deep");
                self.diagnostics.push(
                    Diagnostic::new("E0109", Span::new(at, at + 1), message)
                        .label("too deep")
                        .help("write it in parts"),
                );
            }
            self.buried += 1;
        } else {
            let inside = if byte == b'{' { self.inside_brace(at) } else { Inside::Values };
            self.open.push(Open { at, byte, inside, joined: Vec::new() });
        }
        self.previous = Previous::Other;
        at + 1
    }

    /// A brace opens a block, unless a value stands in its place; of the values, a record has a key first.
    fn inside_brace(&self, at: usize) -> Inside {
        let line_word = word_at(self.source, self.line);
        let names = matches!(line_word, b"evaluate" | b"sensitivity");
        if self.previous == Previous::Operand && !names && line_word != b"protect" {
            return Inside::Block;
        }
        let first = skip_blanks(self.source, at + 1, true);
        if begins_setting(self.source, first) && !names { Inside::Record } else { Inside::Values }
    }

    fn close(&mut self, at: usize, byte: u8) -> usize {
        self.previous = Previous::Operand;
        if self.buried > 0 {
            self.buried -= 1;
            return at + 1;
        }
        let matching = self.open.iter().rposition(|o| closer(o.byte) == byte);
        // A block that is closed too early would spill its lines.
        let matching =
            matching.filter(|&index| index > 0 || byte != b'}' || !block_goes_on(self.source, at + 1));
        match matching {
            Some(index) => {
                self.unclosed_at(index + 1, at, &format!("still open at this `{}`", byte as char));
                self.open.truncate(index);
            }
            None => self.stray_closer(at, byte),
        }
        at + 1
    }

    /// A closer without its opener: it stands for the one that is wanted where a value is open, and for nothing in a block.
    fn stray_closer(&mut self, at: usize, byte: u8) {
        let place = Span::new(at, at + 1);
        let wrong = byte as char;
        if self.innermost() == Some(Inside::Values)
            && let Some(open) = self.open.pop()
        {
            let right = closer(open.byte);
            self.diagnostics.push(
                Diagnostic::new("E0103", place, format!("`{wrong}` cannot close `{}`", open.byte as char))
                    .also(Span::new(open.at, open.at + 1), "opened here")
                    .help(Help::instead(format!("write `{}`", right as char), [(right as char).to_string()])),
            );
            self.put(at, right);
            return;
        }
        let label = match byte {
            b'}' if !self.open.is_empty() => "the block goes on below".to_owned(),
            _ => format!("no `{}` is open here", opener(byte) as char),
        };
        let message = format!("`{wrong}` closes nothing");
        let help = format!("remove `{wrong}`");
        let report = Diagnostic::new("E0103", place, message).label(label);
        self.diagnostics.push(report.help(help.as_str()).fix(help, place, ""));
        self.blank(at, at + 1);
    }

    /// Brackets from number `keep` on are not closed: reports them together and gives back the line ends that
    /// they had joined.
    fn unclosed_at(&mut self, keep: usize, at: usize, why: &str) {
        let lost = self.open.split_off(keep.min(self.open.len()));
        self.buried = 0;
        let Some((inner, outer)) = lost.split_last() else { return };
        let (left, right) = (inner.byte as char, closer(inner.byte) as char);
        let mut diagnostic =
            Diagnostic::new("E0103", Span::new(inner.at, inner.at + 1), format!("`{left}` is never closed"))
                .label("opened here")
                .help(format!("add `{right}`"));
        for open in outer.iter().rev().take(3) {
            diagnostic = diagnostic.also(Span::new(open.at, open.at + 1), "nor is this one");
        }
        let end = (at + 1).min(self.source.len()).max(at);
        self.diagnostics.push(diagnostic.also(Span::new(at, end), why));
        for open in lost {
            // A block ends with its statement; the brace of a value would swallow the next lines again.
            if open.byte == b'{' && open.inside != Inside::Block {
                self.blank(open.at, open.at + 1);
            }
            for line_end in open.joined {
                self.put(line_end, b'\n');
            }
        }
    }
}
