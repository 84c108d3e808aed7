//! The files of a recipe: its own text, and the files that it uses.
//!
//! All of them are laid end to end, so that one [`Span`] names a place in any of them: what stands first has the
//! lowest offsets, and an offset of the recipe's own file is one into its text.

use crate::span::Span;

/// One file, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As it is shown.
    pub name: String,
    pub text: String,
    /// The offset of its first byte.
    pub base: usize,
}

impl Source {
    /// Beyond its last byte: the offset of what is missing at its end.
    pub fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// A span of this file as offsets into its own text.
    pub fn local(&self, span: Span) -> Span {
        Span::new(span.start.saturating_sub(self.base), span.end.saturating_sub(self.base))
    }
}

/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    own: Source,
    used: Vec<Source>,
}

impl Sources {
    /// A recipe that uses no file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Sources {
        Sources { own: Source { name: name.into(), text: text.into(), base: 0 }, used: Vec::new() }
    }

    /// Lays a used file after those that are there.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> &Source {
        // A gap of one byte keeps the end of a file apart from the beginning of the next.
        let base = self.used.last().unwrap_or(&self.own).end() + 1;
        self.used.push(Source { name: name.into(), text: text.into(), base });
        &self.used[self.used.len() - 1]
    }

    /// The recipe's own file.
    pub fn own(&self) -> &Source {
        &self.own
    }

    pub fn used(&self) -> &[Source] {
        &self.used
    }

    /// All of them, the recipe's own first.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.own).chain(&self.used)
    }

    /// The file that holds an offset; the last one for an offset beyond all.
    pub fn at(&self, offset: usize) -> &Source {
        let next = self.used.partition_point(|file| file.base <= offset);
        next.checked_sub(1).map_or(&self.own, |index| &self.used[index])
    }

    /// The file that a span lies in, and its place there.
    pub fn locate(&self, span: Span) -> (&Source, Span) {
        let file = self.at(span.start);
        (file, file.local(span))
    }

    /// What stands at a span; nothing where there is no such text.
    pub fn text(&self, span: Span) -> &str {
        let (file, Span { start, end }) = self.locate(span);
        file.text.get(start..end).unwrap_or_default()
    }

    /// Does a place lie in a used file?
    pub fn is_used(&self, span: Span) -> bool {
        span.start > self.own.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_belongs_to_one_file() {
        let mut sources = Sources::new("a", "one");
        assert_eq!(sources.add("b", "").base, 4);
        assert_eq!(sources.add("c", "three").base, 5);
        let name = |start| sources.at(start).name.as_str();
        assert_eq!([0, 3, 4, 5, 10, 99].map(name), ["a", "a", "b", "c", "c", "c"]);
        assert_eq!(sources.text(Span::new(0, 3)), "one");
        assert_eq!(sources.text(Span::new(5, 8)), "thr");
        assert_eq!(sources.text(Span::new(9, 40)), "");
        assert_eq!(sources.locate(Span::new(6, 8)).1, Span::new(1, 3));
        assert_eq!([3, 4, 5].map(|at| sources.is_used(Span::new(at, at))), [false, true, true]);
    }
}
