//! Places of the protocol, a line and a column, and places of the compiler, bytes.

use gen_lsp_types::{Position, Range};
use minic_grammar::Span;

/// In what columns are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16,
}

impl Encoding {
    fn width(self, c: char) -> usize {
        match self {
            Encoding::Utf8 => c.len_utf8(),
            Encoding::Utf16 => c.len_utf16(),
        }
    }
}

/// Where the lines of a text begin.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    encoding: Encoding,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str, encoding: Encoding) -> Lines<'a> {
        // As the protocol has it, a carriage return ends a line, too.
        let ends = |(at, b): &(usize, u8)| match b {
            b'\n' => true,
            b'\r' => text.as_bytes().get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        let after = text.bytes().enumerate().filter(ends).map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(after).collect(), encoding }
    }

    /// A line without its end; empty beyond the last.
    fn line(&self, line: usize) -> &'a str {
        let start = self.starts.get(line).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line + 1).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }

    /// The byte at a position; a column beyond its line is at the line's end, one within a character at its start.
    pub fn offset(&self, position: Position) -> usize {
        let line = position.line as usize;
        let Some(start) = self.starts.get(line) else { return self.text.len() };
        let mut left = position.character as usize;
        let mut at = 0;
        for c in self.line(line).chars() {
            let width = self.encoding.width(c);
            if left < width {
                break;
            }
            left -= width;
            at += c.len_utf8();
        }
        start + at
    }

    pub fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let before = &self.text[self.starts[line]..offset];
        let column: usize = before.chars().map(|c| self.encoding.width(c)).sum();
        Position { line: line as u32, character: column as u32 }
    }

    pub fn range(&self, span: Span) -> Range {
        Range { start: self.position(span.start), end: self.position(span.end.max(span.start)) }
    }

    pub fn span(&self, range: Range) -> Span {
        let start = self.offset(range.start);
        Span::new(start, self.offset(range.end).max(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_units_of_the_encoding() {
        let text = "a\n\u{1F600}é b\r\nlast";
        for (encoding, column) in [(Encoding::Utf16, 3), (Encoding::Utf8, 6)] {
            let lines = Lines::new(text, encoding);
            let after = text.find(" b").expect("it is there");
            let position = Position { line: 1, character: column };
            assert_eq!(lines.position(after), position, "{encoding:?}");
            assert_eq!(lines.offset(position), after, "{encoding:?}");
        }
        let lines = Lines::new(text, Encoding::Utf16);
        let at = |line, character| lines.offset(Position { line, character });
        assert_eq!(at(1, 1), 2, "within a character is at its start");
        assert_eq!(at(1, 99), text.find('\r').expect("it is there"), "beyond a line is at its end");
        assert_eq!(at(99, 0), text.len());
        assert_eq!(lines.position(9999), Position { line: 2, character: 4 });
    }

    #[test]
    fn every_offset_is_found_again() {
        let text = "\u{feff}mrecipe 1\n\n# \u{1F600} é\r\nparam x = 1";
        for encoding in [Encoding::Utf8, Encoding::Utf16] {
            let lines = Lines::new(text, encoding);
            let inside = |at: usize| text.is_char_boundary(at) && !text[at..].starts_with('\n');
            for offset in (0..=text.len()).filter(|at| inside(*at)) {
                assert_eq!(lines.offset(lines.position(offset)), offset, "{encoding:?} {offset}");
            }
        }
    }
}
