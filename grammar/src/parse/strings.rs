//! Strings and their escapes.

use super::{Reader, Rule};
use crate::diagnostic::Diagnostic;
use crate::span::{Span, Spanned};
use pest::iterators::Pair;

impl Reader {
    /// A string's text, with its escapes put in.
    pub(super) fn string(&mut self, pair: &Pair<Rule>) -> Option<Spanned<String>> {
        let span = self.span(pair);
        // The end of its line may close it; that has been reported.
        let inner = pair.as_str().strip_prefix('"')?;
        let inner = inner.strip_suffix('"').unwrap_or(inner.trim_end());
        let mut text = String::with_capacity(inner.len());
        let mut chars = inner.char_indices();
        while let Some((_, c)) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c @ ('"' | '\\'))) => text.push(c),
                Some((at, c)) => {
                    // `at` counts from after the opening quote, whose place the backslash before `c` makes up for.
                    let place = Span::new(span.start + at, span.start + at + 1 + c.len_utf8());
                    let message = format!("`\\{c}` is no escape of a string");
                    let help = "the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; write a backslash as `\\\\`";
                    self.report(Diagnostic::new("E0105", place, message).help(help));
                    return None;
                }
                None => text.push('\\'),
            }
        }
        Some(Spanned::new(text, span))
    }
}
