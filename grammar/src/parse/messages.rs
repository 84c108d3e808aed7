//! What pest says, in the user's words: "expected `by`, found `activation`".

use super::{Reader, Rule, numbers};
use crate::ast::DECLARATIONS;
use crate::diagnostic::{Diagnostic, Help};
use crate::forms::is_reserved;
use crate::span::Span;
use crate::suggest::nearest;
use pest::error::{Error, ErrorVariant, InputLocation};

impl Reader {
    /// Reports a statement that the grammar refused. `written` is its text, as laid out, and `form` how such a
    /// statement is written.
    pub(super) fn unreadable(&mut self, error: &Error<Rule>, written: &str, form: Option<&str>) {
        let whole = Span::new(self.base, self.base + written.len());
        if self.layout_reported(whole) {
            return;
        }
        let at = match error.location {
            InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
        };
        let found = found(written, at);
        let expected = match &error.variant {
            ErrorVariant::ParsingError { positives, .. } => expected(positives),
            ErrorVariant::CustomError { .. } => Vec::new(),
        };
        let message = if expected.is_empty() {
            format!("{} cannot stand here", found.description)
        } else {
            format!("expected {}, found {}", alternatives(expected.iter().cloned()), found.description)
        };
        let span = Span::new(self.base + at, self.base + found.end);
        let before = written.get(..at).unwrap_or_default();
        let help = slip(&found, before, &expected).unwrap_or_else(|| match form {
            Some(form) => format!("the form is `{form}`").into(),
            None => "remove it".into(),
        });
        let diagnostic = Diagnostic::new("E0102", span, message).help(help);
        self.report(match number_before(&found, before) {
            Some(number) => {
                let blanks = Span::new(self.base + before.trim_end().len(), span.start);
                diagnostic.fix(format!("write `{number}{}`", found.token), blanks, "")
            }
            None => diagnostic,
        });
    }
}

/// A token as a message shows it.
pub(super) struct Found<'a> {
    pub token: &'a str,
    /// It and what comes after it.
    pub rest: &'a str,
    pub description: String,
    /// Where it ends in the text that was looked at.
    pub end: usize,
}

/// The token that begins at `at`.
pub(super) fn found(text: &str, at: usize) -> Found<'_> {
    let rest = text.get(at..).unwrap_or_default();
    let Some(first) = rest.chars().next().filter(|c| *c != '\n') else {
        return Found { token: "", rest, description: "the end of the line".to_owned(), end: at };
    };
    let length = match first {
        '"' => rest.get(1..).and_then(|r| r.find(['"', '\n'])).map_or(rest.len(), |i| i + 2),
        c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        _ => {
            let marks = ["..=", "..", "==", "<=", ">=", "!=", "&&", "||"];
            marks.iter().find(|m| rest.starts_with(**m)).map_or(first.len_utf8(), |m| m.len())
        }
    };
    let token = rest.get(..length).unwrap_or(rest);
    let description = match first {
        '"' => format!("the string {token}"),
        c if c.is_whitespace() || c.is_control() => format!("the character U+{:04X}", c as u32),
        _ => format!("`{token}`"),
    };
    Found { token, rest, description, end: at + token.len() }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `a`, `b` or `c`
pub(super) fn alternatives(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
    }
}

/// The user's words for what pest expected. That an expression could go on is said only where nothing else could be, and
/// the ways to begin a value are one.
fn expected(rules: &[Rule]) -> Vec<String> {
    let mut rules = rules.to_vec();
    rules.sort_unstable_by_key(|r| (*r == Rule::EOI, *r));
    rules.dedup();
    if rules.contains(&Rule::quantity) || rules.contains(&Rule::number) {
        rules.retain(|r| !begins_value(*r));
        rules.insert(0, Rule::expr);
    }
    if rules.contains(&Rule::close_brace) {
        rules.retain(|r| *r != Rule::EOI);
    }
    let clear: Vec<Rule> = rules.iter().copied().filter(|r| !goes_on(*r)).collect();
    let mut words = Vec::new();
    for rule in if clear.is_empty() { rules } else { clear } {
        let word = name(rule);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

fn begins_value(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::quantity
            | Rule::number
            | Rule::string
            | Rule::boolean
            | Rule::ident
            | Rule::path
            | Rule::reference
            | Rule::kw_not
            | Rule::minus
            | Rule::list
            | Rule::set
            | Rule::record
            | Rule::paren
            | Rule::open_brace
            | Rule::open_bracket
            | Rule::open_paren
    )
}

/// May an expression go on with it?
fn goes_on(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::range_op
            | Rule::less_equal
            | Rule::greater_equal
            | Rule::equal
            | Rule::not_equal
            | Rule::less
            | Rule::greater
            | Rule::plus
            | Rule::minus
            | Rule::times
            | Rule::divide
            | Rule::kw_and
            | Rule::kw_or
            | Rule::kw_step
            | Rule::kw_steps
            | Rule::arguments
            | Rule::open_paren
    )
}

pub(super) fn name(rule: Rule) -> String {
    let text = match rule {
        Rule::ident | Rule::path | Rule::reference => "a name",
        Rule::string => "a string",
        Rule::expr | Rule::condition | Rule::argument | Rule::number | Rule::boolean => "a value",
        Rule::setting => "`key = value`",
        Rule::EOI => "the end of the line",
        Rule::separator => "a new line",
        Rule::open_brace => "`{`",
        Rule::close_brace => "`}`",
        Rule::open_paren | Rule::arguments => "`(`",
        Rule::close_paren => "`)`",
        Rule::open_bracket => "`[`",
        Rule::close_bracket => "`]`",
        Rule::comma => "`,`",
        Rule::assign => "`=`",
        _ => return keyword(rule),
    };
    text.to_owned()
}

/// `kw_multiple_of` is the rule of `multiple_of`; a clause is known by its first word.
fn keyword(rule: Rule) -> String {
    let name = format!("{rule:?}");
    let word =
        ["kw_", "axis_", "rank_", "repair_"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(&name);
    format!("`{word}`")
}

/// A way to mend the usual slips.
fn slip(found: &Found, before: &str, expected: &[String]) -> Option<Help> {
    let wants = |word: &str| expected.iter().any(|e| e == word);
    let ended = wants("the end of the line") || wants("a new line");
    let last = last_word(before);
    let after_number = last.starts_with(|c: char| c.is_ascii_digit());
    let separated =
        |what: &str| format!("{what} are separated by {}", if ended { "line ends or `;`" } else { "`,`" });
    let after = found.rest.get(found.token.len()..).unwrap_or_default();
    let next = word_at(after.trim_start());
    if let Some(help) = foreign(found, before, last, after, &wants) {
        return Some(help);
    }
    let text = match found.token {
        "%" if after_number => {
            return Some(
                format!("a unit touches its number: `{last}%`; the remainder is `mod(a, b)`").into(),
            );
        }
        unit if number_before(found, before).is_some() => {
            return Some(format!("a unit touches its number: `{last}{unit}`").into());
        }
        "." if after_number => return instead(&format!("write `{last}.0`"), ".0"),
        "." if wants("a value") => return instead("a number begins with a digit: `0.5`", "0."),
        ".." | "to" if after_number => {
            return instead(&format!("a range is written `{last}..={next}`"), "..=");
        }
        ".." => return instead("a range is written `A ..= B`", "..="),
        ":" if wants("`=`") => return instead(&format!("settings are written `{last} = ..`"), "="),
        "," if after_number && (ended || wants("`)`")) && next.starts_with(|c: char| c.is_ascii_digit()) => {
            let text = format!(
                "several values are a set, `in {{{last}, {next}}}`; a large number is written `{last}_{next}`"
            );
            return Some(text.into());
        }
        "," if ended => return instead(&separated("settings"), ";"),
        ";" if wants("`,`") => return instead(&separated("values"), ","),
        ";" if ended => "leave out `;`: statements stand on lines of their own",
        "=" if ended => "`==` compares; a line gives one value to one name",
        "&" | "&&" => return instead("write `and`", "and"),
        "||" | "|" => return instead("write `or`", "or"),
        "!" => return instead("write `not`", "not "),
        "'" | "`" | "“" | "”" | "‘" | "’" | "„" => {
            let ends = |c: char| "'`“”‘’".contains(c) || c.is_control();
            let text = after.split(ends).next().unwrap_or_default();
            return Some(format!("strings stand in plain double quotes: `\"{text}\"`").into());
        }
        word if wants("a name") && is_reserved(word) => {
            return Some(format!("`{word}` is a word of the language and cannot be a name").into());
        }
        token if wants("a name") && token.chars().any(|c| !c.is_ascii() && c.is_alphanumeric()) => {
            "names are made of ASCII letters, digits and `_`"
        }
        token if token.chars().any(|c| !c.is_ascii() || c.is_control()) => "remove this character",
        word if ended
            && !wants("`{`")
            && word.starts_with(is_word)
            && after.trim_start().starts_with('=') =>
        {
            return Some(separated("settings").into());
        }
        word if wants("`,`") && (found.rest.starts_with('"') || word.starts_with(is_word)) => {
            return Some(separated("values").into());
        }
        word => {
            return nearest(word, expected.iter().map(|e| e.trim_matches('`'))).map(Help::meant);
        }
    };
    Some(text.into())
}

/// Words, and what takes the place of the token at fault.
fn instead(help: &str, word: &str) -> Option<Help> {
    Some(Help::instead(help, [word.to_owned()]))
}

/// What other languages write, and this one does not.
fn foreign(
    found: &Found,
    before: &str,
    last: &str,
    after: &str,
    wants: &dyn Fn(&str) -> bool,
) -> Option<Help> {
    let line = before.trim();
    let text: String = match found.token {
        "" if line.ends_with('=') => {
            "a value stands on the line of its `=`; a list is written `[a, b]`".into()
        }
        "-" if line.is_empty() => "a list is written `[a, b]`".into(),
        "-" if before.ends_with(is_word) && after.starts_with(is_word) && !wants("the end of the line") => {
            let help = format!("names are made of letters, digits and `_`: `{last}_{}`", word_at(after));
            return instead(&help, "_");
        }
        ":" | "=" if wants("`{`") => format!("leave out `{}`: `{{` follows the name", found.token),
        "$" => format!("a param is named without `$`: `{}`", word_at(after.trim_start_matches('{'))),
        "{" if line.ends_with('{') => "one brace opens a block: `{`".into(),
        token
            if wants("a name")
                && token.trim_matches('"').chars().all(is_word)
                && token.len() > 2
                && token.starts_with('"') =>
        {
            let name = token.trim_matches('"');
            return instead(&format!("names stand without quotes: `{name}`"), name);
        }
        token
            if wants("a name")
                && token.starts_with(|c: char| c.is_ascii_digit())
                && token.ends_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            return instead(&format!("names do not begin with a digit: `_{token}`"), &format!("_{token}"));
        }
        token
            if token.starts_with(is_word)
                && DECLARATIONS.contains(&line)
                && !wants("a name")
                && !wants("a string") =>
        {
            format!("`{line}` begins a declaration, and none stands within another")
        }
        _ => return None,
    };
    Some(text.into())
}

/// The word at the beginning of a text.
fn word_at(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn last_word(before: &str) -> &str {
    before.trim_end().rsplit([' ', '\t', '(', '[', '{', '=', ',', ':']).next().unwrap_or_default()
}

/// The number that a unit is kept from by blanks.
fn number_before<'a>(found: &Found, before: &'a str) -> Option<&'a str> {
    let last = last_word(before);
    let unit = found.token == "%" || numbers::is_unit(found.token);
    (unit && last.starts_with(|c: char| c.is_ascii_digit())).then_some(last)
}
