//! The canonical layout of a recipe: blanks and line ends change, nothing else does.
//!
//! - Four blanks a level; one setting or line of a block on a line, unless the whole block stands on one line. No
//!   line is ever broken or joined for its length: where an author has broken a list or a sum, it stays broken.
//! - Signs of consecutive lines stand below each other: the `=` of settings, the sizes of axes and their `by`, the
//!   rules of a group, the braces of one-line declarations of a kind, the comments at the ends of lines.
//! - A blank line stays, two become one; the header stands apart. A list over several lines ends with a comma, one on
//!   one line does not.
//!
//! The layout is made of the tokens of the text, not of the tree, so that what was written stays as it was written; and
//! what comes out is parsed again and compared before anybody sees it.

mod align;
mod print;
mod tokens;
mod tree;

use self::tokens::{Token, tokens};
use crate::diagnostic::Diagnostic;
use crate::parse;

#[derive(Debug)]
pub enum FormatError {
    /// The recipe has faults.
    Unread(Vec<Diagnostic>),
    /// The layout would have changed this: a bug of the formatter.
    Changed(&'static str),
}

/// The text in its canonical layout.
pub fn format(source: &str) -> Result<String, FormatError> {
    let (before, faults) = parse(source);
    if !faults.is_empty() {
        return Err(FormatError::Unread(faults));
    }
    let text = layout(source);
    let (after, faults) = parse(&text);
    if !faults.is_empty() || after.to_string() != before.to_string() {
        return Err(FormatError::Changed("the tree"));
    }
    let (old, new) = (tokens(source), tokens(&text));
    if !old
        .iter()
        .filter(|t| is_significant(t))
        .map(|t| t.text)
        .eq(new.iter().filter(|t| is_significant(t)).map(|t| t.text))
    {
        return Err(FormatError::Changed("a word"));
    }
    if comments(&old) != comments(&new) {
        return Err(FormatError::Changed("a comment"));
    }
    Ok(text)
}

fn layout(source: &str) -> String {
    let lines = print::body(&tree::file(&tokens(source)), 0);
    align::text(&lines)
}

/// Commas and `;` come and go with line ends.
fn is_significant(token: &Token) -> bool {
    !token.is_comment() && !token.is(",") && !token.is(";")
}

/// Each comment, and how many words stand before it.
fn comments<'a>(tokens: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let mut words = 0;
    let mut found = Vec::new();
    for token in tokens {
        if token.is_comment() {
            found.push((words, token.text));
        }
        words += usize::from(is_significant(token));
    }
    found
}

#[cfg(test)]
mod tests;
