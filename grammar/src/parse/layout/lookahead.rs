//! What a place of the source begins with, before there is a grammar.

use crate::ast::DECLARATIONS;

pub(super) fn closer(opener: u8) -> u8 {
    match opener {
        b'(' => b')',
        b'[' => b']',
        _ => b'}',
    }
}

pub(super) fn opener(closer: u8) -> u8 {
    match closer {
        b')' => b'(',
        b']' => b'[',
        _ => b'{',
    }
}

/// The word that begins at `at`; empty where none does.
pub(super) fn word_at(source: &[u8], at: usize) -> &[u8] {
    let rest = source.get(at..).unwrap_or_default();
    let end = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

pub(super) fn skip_blanks(source: &[u8], mut at: usize, over_lines: bool) -> usize {
    loop {
        match source.get(at) {
            Some(b' ' | b'\t' | b'\r') => at += 1,
            Some(b'\n') if over_lines => at += 1,
            Some(b'#') if over_lines => {
                let rest = source.get(at..).unwrap_or_default();
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            }
            _ => return at,
        }
    }
}

/// A name and what follows it on its line; empty where no name begins.
pub(super) fn name_and_rest(source: &[u8], at: usize) -> (&[u8], &[u8]) {
    let word = word_at(source, at);
    if word.first().is_none_or(u8::is_ascii_digit) {
        return (&[], &[]);
    }
    let next = skip_blanks(source, at + word.len(), false);
    (word, source.get(next..).unwrap_or_default())
}

/// `key =`
pub(super) fn begins_setting(source: &[u8], at: usize) -> bool {
    let (_, rest) = name_and_rest(source, at);
    rest.starts_with(b"=") && !rest.starts_with(b"==")
}

/// `axis mamba_num_heads`: two words on a line, as every line of a block has that is no setting.
pub(super) fn begins_phrase(source: &[u8], at: usize) -> bool {
    let (word, rest) = name_and_rest(source, at);
    !matches!(word, b"and" | b"or" | b"in" | b"step" | b"steps")
        && rest.first().is_some_and(|b| b.is_ascii_alphabetic())
}

/// `model parent`: the keyword of a declaration and a name.
pub(super) fn begins_declaration(source: &[u8], at: usize) -> bool {
    let (word, rest) = name_and_rest(source, at);
    let follows = rest.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    follows && DECLARATIONS.iter().any(|d| d.as_bytes() == word)
}

/// Does the block go on after a `}` that ends at `at`: settings follow, and another `}` before the next declaration?
pub(super) fn block_goes_on(source: &[u8], at: usize) -> bool {
    let mut line = skip_blanks(source, at, true);
    if !begins_setting(source, line) {
        return false;
    }
    while line < source.len() && !begins_declaration(source, line) {
        if source.get(line) == Some(&b'}') {
            return true;
        }
        let rest = source.get(line..).unwrap_or_default();
        let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        line = skip_blanks(source, line + length, true);
    }
    false
}
