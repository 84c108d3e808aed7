//! What stands under each other in consecutive lines.

use super::print::{Line, Printed};
use super::tokens::Kind;
use super::tree::Part;

/// The form of comments: they stand between aligned lines without parting them.
pub(super) const COMMENT: &str = "#";

/// The form of a statement, and the parts of it that are aligned with those of its neighbors.
pub(super) fn form(parts: &[Part]) -> (&'static str, Vec<usize>) {
    let word = |at: usize| {
        parts.get(at).and_then(Part::token).filter(|t| t.kind == Kind::Word).map_or("", |t| t.text)
    };
    let find = |from: usize, wanted: &dyn Fn(&Part) -> bool| {
        parts.iter().enumerate().skip(from).find(|(_, p)| wanted(p)).map(|(at, _)| at)
    };
    let block = || find(1, &|p| matches!(p, Part::Body(..)));
    if parts.get(1).is_some_and(|p| p.is("=")) {
        return ("setting", vec![1]);
    }
    if matches!(word(1), "within" | "shared" | "per" | "multiple_of") {
        return ("rule", vec![1]);
    }
    let named = |form, stops: [Option<usize>; 2]| (form, stops.into_iter().flatten().collect());
    match word(0) {
        "param" => ("param", vec![2]),
        "metric" => named("metric", [find(2, &|p| p.is("=")), None]),
        "axis" => named("axis", [Some(2), find(3, &|p| p.is_word("by") || p.is_word("at"))]),
        "phase" => named("phase", [block(), None]),
        "model" => named("model", [block(), None]),
        "data" => named("data", [block(), None]),
        "group" => named("group", [block(), None]),
        "schedule" => named("schedule", [block(), None]),
        "prune" => named("prune", [Some(2), block()]),
        "search" => named("search", [Some(2), block()]),
        "distill" => named("distill", [Some(2), block()]),
        "train" => named("train", [Some(2), block()]),
        "evaluate" => ("evaluate", vec![2]),
        "sensitivity" => named("sensitivity", [Some(2), find(4, &|p| p.is_word("on"))]),
        "deploy" => ("deploy", vec![2]),
        "export" => ("export", vec![2]),
        _ => ("", Vec::new()),
    }
}

/// Stretches the statements of one line that stand below each other and are of one form.
pub(super) fn stops(printed: &mut [Printed]) {
    let mut from = 0;
    while from < printed.len() {
        let form = printed.get(from).map_or("", |p| p.form);
        let joins = |p: &Printed| p.form == COMMENT || (p.form == form && p.lines.len() == 1);
        let rest = printed.get(from + 1..).unwrap_or_default();
        let count = rest.iter().take_while(|p| !p.spaced && joins(p)).count();
        let single = printed.get(from).is_some_and(|p| p.lines.len() == 1);
        let end = if single && form != COMMENT { from + 1 + count } else { from + 1 };
        if let Some(run) = printed.get_mut(from..end) {
            stretch(run);
        }
        from = end;
    }
}

fn stretch(run: &mut [Printed]) {
    let most = run.iter().map(|p| p.stops.len()).max().unwrap_or(0);
    for number in 0..most {
        let width = |p: &Printed| {
            let stop = p.stops.get(number)?;
            p.lines.first()?.text.get(..*stop).map(|text| text.chars().count())
        };
        let widest = run.iter().filter_map(width).max().unwrap_or(0);
        for printed in run.iter_mut() {
            let missing = width(printed).map_or(0, |w| widest - w);
            let Some(at) = printed.stops.get(number).copied() else { continue };
            if let Some(line) = printed.lines.first_mut() {
                line.text.insert_str(at, &" ".repeat(missing));
            }
            printed.stops.iter_mut().skip(number).for_each(|stop| *stop += missing);
        }
    }
}

/// The lines as text; comments at the ends of consecutive lines stand below each other, but not those at brackets
/// that open or close what stands on lines of its own.
pub(super) fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut from = 0;
    while from < lines.len() {
        let run = lines.get(from..).unwrap_or_default();
        let indent = run.first().map_or(0, |l| l.indent);
        let beside = |l: &&Line| {
            let whole = !l.text.ends_with(['{', '[', '(']) && !l.text.starts_with(['}', ']', ')']);
            l.comment.is_some() && !l.text.is_empty() && l.indent == indent && whole
        };
        let count = run.iter().take_while(beside).count().max(1);
        let run = run.get(..count).unwrap_or_default();
        let widest = run.iter().map(|l| l.text.chars().count()).max().unwrap_or(0);
        run.iter().for_each(|line| put(&mut out, line, widest));
        from += count;
    }
    out
}

fn put(out: &mut String, line: &Line, width: usize) {
    if !line.text.is_empty() || line.comment.is_some() {
        out.push_str(&"    ".repeat(line.indent));
    }
    out.push_str(&line.text);
    if let Some(comment) = &line.comment {
        if !line.text.is_empty() {
            out.push_str(&" ".repeat(width.saturating_sub(line.text.chars().count()) + 2));
        }
        out.push_str(comment);
    }
    out.push('\n');
}
