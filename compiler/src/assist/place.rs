//! What may stand at a place, read off the words before it.

use minic_grammar::MAX_DEPTH;
use minic_grammar::ast::DECLARATIONS;

/// What a place wants. Names in them are as written, known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside of a comment or a string, or where a new name is given.
    Nothing,
    /// The first word of a declaration.
    Declaration,
    /// These words of the language and no others.
    Words(&'static [&'static str]),
    /// The key of a setting; those that are there already are left out.
    Key {
        owner: String,
        given: Vec<String>,
    },
    /// The first word of a line of this declaration.
    Line {
        owner: String,
        given: Vec<String>,
    },
    Model,
    Space,
    Data,
    Group,
    Schedule,
    /// Of an axis line that cuts `parent`.
    Axis {
        parent: Option<String>,
        given: Vec<String>,
    },
    AxisValue {
        axis: String,
        parent: Option<String>,
    },
    Metric {
        axis: String,
    },
    Tap {
        axis: String,
    },
    Repair,
    Method,
    Dim,
    LayerKind,
    Loss,
    Optimizer,
    Rate,
    Weights,
    DType,
    /// What follows from the sizes alone; with `measured`, what a search ranks by as well.
    Quantity {
        measured: bool,
    },
    Measure,
    Target,
    Control,
    /// A keyword argument of a call that stands where `of` is wanted.
    Argument {
        of: Box<Place>,
        callee: String,
    },
    /// An expression over values.
    Value,
    /// An expression of a metric.
    Expression,
    Over,
}

/// What holds the innermost open bracket.
#[derive(Clone, Debug, PartialEq)]
enum Inside<'a> {
    Top,
    /// A block of a declaration, of a `phase` or of a source of a mix.
    Block(&'a str),
    /// `{ loss, perplexity }`
    Figures(&'a str),
    Call(&'a str),
    /// Parentheses, lists and sets: what they hold is wanted where they stand.
    Values,
}

#[derive(Clone, Debug)]
struct Frame<'a> {
    inside: Inside<'a>,
    /// The words and marks of the statement, line or member that is being written.
    line: Vec<&'a str>,
    /// The first words of the lines before it, of an axis the second.
    given: Vec<&'a str>,
}

impl<'a> Frame<'a> {
    fn new(inside: Inside<'a>) -> Frame<'a> {
        Frame { inside, line: Vec::new(), given: Vec::new() }
    }

    fn end_line(&mut self) {
        let first = match self.line.as_slice() {
            ["axis", name, ..] | ["phase", name, ..] | [name, ..] => Some(*name),
            [] => None,
        };
        self.given.extend(first);
        self.line.clear();
    }
}

/// What may stand at `offset`.
pub fn at(text: &str, offset: usize) -> Place {
    let before = &text[..text.floor_char_boundary(offset)];
    match frames(before) {
        // Deeper than any recipe that can be read.
        Some(frames) if frames.len() > MAX_DEPTH => Place::Nothing,
        Some(frames) => {
            let line = frames.last().map_or(&[][..], |frame| &frame.line);
            wanted(&frames, line)
        }
        None => Place::Nothing,
    }
}

/// The brackets that are open at the end of the text; `None` inside of a comment or a string.
fn frames(text: &str) -> Option<Vec<Frame<'_>>> {
    let mut frames = vec![Frame::new(Inside::Top)];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '#' => rest.find('\n')?,
            '"' => string(rest)?,
            c if is_word(c) => {
                let whole = |c: char| !(is_word(c) || c == '.');
                let end = rest.find(whole).unwrap_or(rest.len());
                // A range keeps its dots.
                let end = rest[..end].find("..").unwrap_or(end).max(1);
                let word = &rest[..end];
                let fresh = text.len() == rest.len() || text[..text.len() - rest.len()].ends_with('\n');
                if fresh && DECLARATIONS.contains(&word) && begins_declaration(rest) {
                    frames.truncate(1);
                    frames[0].line.clear();
                }
                push(&mut frames, word);
                end
            }
            '\n' => {
                line_end(&mut frames);
                1
            }
            c => {
                mark(&mut frames, &rest[..c.len_utf8()]);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Some(frames)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The length of the string that a text begins with; `None` where it is not closed. One ends with its line.
fn string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return Some(at),
            '"' if !escaped => return Some(at + 1),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

/// A declaration is its word, a blank and a name, or a path.
fn begins_declaration(text: &str) -> bool {
    let word = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let after = text[word..].trim_start_matches([' ', '\t']);
    let named = after.is_empty()
        || after.starts_with('"')
        || after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    after.len() < text.len() - word && named
}

fn push<'a>(frames: &mut [Frame<'a>], word: &'a str) {
    if let Some(frame) = frames.last_mut() {
        frame.line.push(word);
    }
}

fn line_end(frames: &mut [Frame]) {
    let Some(frame) = frames.last_mut() else { return };
    let goes_on = frame.line.last().is_some_and(|last| {
        matches!(*last, "," | "+" | "-" | "*" | "/" | "=" | "<" | ">" | "and" | "or" | "in")
    });
    if matches!(frame.inside, Inside::Top | Inside::Block(_)) && !goes_on {
        frame.end_line();
    }
}

fn mark<'a>(frames: &mut Vec<Frame<'a>>, mark: &'a str) {
    match mark {
        "{" | "(" | "[" => {
            let inside = opened(frames, mark);
            frames.push(Frame::new(inside));
        }
        "}" | ")" | "]" if frames.len() > 1 => {
            frames.pop();
            push(frames, mark);
        }
        ";" => frames.last_mut().into_iter().for_each(Frame::end_line),
        "," if frames.last().is_some_and(|f| !matches!(f.inside, Inside::Top | Inside::Block(_))) => {
            frames.last_mut().into_iter().for_each(Frame::end_line);
        }
        "}" | ")" | "]" | " " | "\t" | "\r" => {}
        mark => push(frames, mark),
    }
}

fn opened<'a>(frames: &[Frame<'a>], bracket: &str) -> Inside<'a> {
    let Some(frame) = frames.last() else { return Inside::Values };
    match (bracket, &frame.inside, frame.line.as_slice()) {
        ("(", _, [.., callee]) if callee.starts_with(is_word) => Inside::Call(callee),
        ("{", Inside::Top, [word @ ("evaluate" | "sensitivity"), ..]) => Inside::Figures(word),
        ("{", Inside::Top, [word, ..]) => Inside::Block(word),
        ("{", Inside::Block(_), ["phase", ..]) => Inside::Block("phase"),
        ("{", Inside::Values, []) if frames.len() > 1 && is_mix(frames) => Inside::Block("source"),
        _ => Inside::Values,
    }
}

fn is_mix(frames: &[Frame]) -> bool {
    frames.iter().rev().nth(1).is_some_and(|f| f.line.first() == Some(&"mix"))
}

/// What is wanted after `line` in the innermost frame.
fn wanted(frames: &[Frame], line: &[&str]) -> Place {
    let Some((frame, outer)) = frames.split_last() else { return Place::Nothing };
    let head = frames.get(..1).map_or(&[][..], |top| &top[0].line);
    match &frame.inside {
        Inside::Top => top(line),
        Inside::Block(owner) => block(owner, frame, line, head),
        Inside::Figures("evaluate") => Place::Measure,
        Inside::Figures(_) => Place::Quantity { measured: true },
        Inside::Values => wanted(outer, outer.last().map_or(&[][..], |f| &f.line)),
        Inside::Call(callee) => {
            let before = outer.last().map_or(&[][..], |f| &f.line[..f.line.len().saturating_sub(1)]);
            argument(wanted(outer, before), callee, line)
        }
    }
}

/// What stands in the parentheses of a call that stands where `of` is wanted.
fn argument(of: Place, callee: &str, line: &[&str]) -> Place {
    match (&of, line) {
        (Place::Expression, [.., "over", "="]) => Place::Over,
        (Place::Expression | Place::Value | Place::AxisValue { .. }, _) => of,
        (Place::Metric { .. }, []) if matches!(callee, "reverse" | "iterative" | "contiguous") => of,
        (Place::Nothing, _) => Place::Nothing,
        (_, []) => Place::Argument { of: Box::new(of), callee: callee.to_string() },
        (_, [_, "=", ..]) => Place::Value,
        _ => Place::Nothing,
    }
}

fn top(line: &[&str]) -> Place {
    let words = Place::Words;
    match line {
        [] => Place::Declaration,
        ["param", _, "=", ..] => Place::Value,
        ["metric", _, rest @ ..] if rest.contains(&"=") => Place::Expression,
        ["evaluate" | "deploy" | "export"] => Place::Model,
        ["prune" | "distill" | "train", _] => words(&["from"]),
        ["prune" | "distill" | "train", _, "from"] => Place::Model,
        ["search", _] => words(&["in"]),
        ["search", _, "in"] | ["sensitivity", _, "of"] => Place::Space,
        ["sensitivity", _] => words(&["of"]),
        ["sensitivity", _, "of", _] => words(&["on"]),
        ["evaluate", .., "against"] => Place::Model,
        ["evaluate" | "sensitivity", .., "on"] => Place::Data,
        ["evaluate", _] => words(&["against", "on"]),
        ["evaluate", _, "against", _] => words(&["on"]),
        ["deploy", _] => words(&["for"]),
        ["deploy", _, "for", .., ","] | ["deploy", _, "for"] => Place::Target,
        ["export", _] => words(&["to"]),
        _ => Place::Nothing,
    }
}

fn block(owner: &str, frame: &Frame, line: &[&str], head: &[&str]) -> Place {
    let given = || frame.given.iter().map(|word| word.to_string()).collect();
    match (owner, line) {
        ("prune" | "group" | "search", []) => Place::Line { owner: owner.to_string(), given: given() },
        ("prune", line) => prune_line(line, frame, head),
        ("group", line) => group_line(line),
        ("search", line) => search_line(line),
        (_, []) => Place::Key { owner: owner.to_string(), given: given() },
        (_, [key, "=", ..]) => value_of(key),
        _ => Place::Nothing,
    }
}

/// The value of a setting.
fn value_of(key: &str) -> Place {
    match key {
        "teacher" => Place::Model,
        "data" | "heldout" => Place::Data,
        "schedule" => Place::Schedule,
        "loss" => Place::Loss,
        "optimizer" => Place::Optimizer,
        "rate" => Place::Rate,
        "weights" => Place::Weights,
        "dtype" => Place::DType,
        _ => Place::Value,
    }
}

fn prune_line(line: &[&str], frame: &Frame, head: &[&str]) -> Place {
    let parent = match head {
        ["prune", _, "from", parent, ..] => Some(parent.to_string()),
        _ => None,
    };
    match line {
        ["calibrate"] => Place::Words(&["on"]),
        ["calibrate", "on"] => Place::Data,
        ["under", .., ","] | ["under"] => Place::Group,
        ["repair"] => Place::Repair,
        ["repair", .., "by"] => Place::Method,
        ["repair", "norms"] => Place::Words(&["fitted"]),
        ["repair", "outputs", ..] => Place::Words(&["sequential", "by"]),
        ["axis"] => {
            let given = frame.given.iter().map(|word| word.to_string()).collect();
            Place::Axis { parent, given }
        }
        ["axis", _] => Place::Words(&["in"]),
        ["axis", axis, .., "by"] => Place::Metric { axis: axis.to_string() },
        ["axis", axis, .., "at"] => Place::Tap { axis: axis.to_string() },
        ["axis", _, rest @ ..] if rest.contains(&"by") => Place::Words(&["at"]),
        ["axis", axis, .., last] if matches!(*last, "=" | "in" | "step" | "+" | "-" | "*" | "/" | ".") => {
            Place::AxisValue { axis: axis.to_string(), parent }
        }
        ["axis", ..] => Place::Words(&["by", "at", "step"]),
        _ => Place::Nothing,
    }
}

fn group_line(line: &[&str]) -> Place {
    match line {
        ["protect"] => Place::Words(&["layers"]),
        ["keep"] => Place::LayerKind,
        ["order"] | ["order", _, "before"] => Place::Dim,
        ["order", _] => Place::Words(&["before"]),
        ["keep", _] | [.., "multiple_of"] => Place::Value,
        [_, "within" | "per"] | [_, "shared", "across"] => Place::Dim,
        [_, "shared"] => Place::Words(&["across"]),
        [_, "within", _] => Place::Words(&["equal"]),
        [_] => Place::Words(&["within", "shared", "per", "multiple_of"]),
        _ => Place::Nothing,
    }
}

fn search_line(line: &[&str]) -> Place {
    let operator = |word: &str| matches!(word, "+" | "-" | "*" | "/" | "by");
    match line {
        ["require"] | ["require", .., "and" | "or" | "not"] => Place::Quantity { measured: false },
        ["require", _] | ["require", _, ")"] => Place::Words(&["in"]),
        ["require", ..] => Place::Value,
        ["rank"] => Place::Words(&["by"]),
        ["rank", .., "on"] => Place::Data,
        ["rank", .., "after"] => Place::Schedule,
        ["rank", .., "for" | "keep"] => Place::Value,
        ["rank", .., last] if operator(last) => Place::Quantity { measured: true },
        ["rank", ..] => Place::Words(&["descending", "on", "after", "for", "keep"]),
        ["break"] => Place::Words(&["ties"]),
        ["break", "ties"] => Place::Words(&["within"]),
        ["break", "ties", "within"] => Place::Value,
        ["break", .., "by"] => Place::Quantity { measured: false },
        ["break", ..] => Place::Words(&["by"]),
        ["control", .., ","] | ["control"] => Place::Control,
        _ => Place::Nothing,
    }
}
