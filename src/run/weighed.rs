//! What searches and sensitivities weighed, as tables.

use crate::table::{Table, grouped};
use minic_runtime::run::search::{FitRecord, RungRecord, SearchSummary, TieRecord};
use minic_runtime::run::sensitivity::SensitivitySummary;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// The candidates that some rung kept, the furthest first, and the controls beside them.
pub fn search(name: &str, search: &SearchSummary) -> String {
    let mut out = format!("{name}: {}\n", points(search));
    for (i, rung) in search.rungs.iter().enumerate() {
        out += &format!("{}\n", line(search, i, rung));
    }
    out += &candidates(search, &shown(search)).render(|_, line| line);
    out + &notes(search).iter().map(|note| format!("\n{note}")).collect::<String>() + "\n"
}

/// `1,080 points of space, 1,080 are models, 151 meet every requirement`
pub fn points(search: &SearchSummary) -> String {
    format!(
        "{} points of {}, {} are models, {} meet every requirement",
        grouped(search.points),
        search.space,
        grouped(search.models),
        grouped(search.feasible)
    )
}

/// What a rung did, in one line.
pub fn line(search: &SearchSummary, i: usize, rung: &RungRecord) -> String {
    let (scored, kept) = (rung.scores.len() - search.controls.len().min(rung.scores.len()), rung.kept.len());
    let mut out =
        format!("rung {}: {}; {} scored, {kept} kept", i + 1, heading(rung), grouped(scored as u64));
    if let Some(parent) = rung.parent {
        out += &format!("; the parent has {}", number(parent));
    }
    if let Some(rho) = rung.correlation {
        out += &format!("; rank correlation with rung {i}: {rho:.2}");
    }
    out
}

/// Their sizes, and the score of each in each rung.
pub fn candidates(search: &SearchSummary, names: &[&String]) -> Table {
    let axes: Vec<&String> = search.axes.keys().collect();
    let mut columns = vec![String::new(), "candidate".to_string()];
    columns.extend(axes.iter().map(|axis| format!(">{axis}")));
    columns.push(">parameters".into());
    columns.extend((1..=search.rungs.len()).map(|i| format!(">rung {i}")));
    let mut table = Table::new(&columns);
    for name in names {
        let Some(candidate) = search.candidates.get(*name) else { continue };
        let mark = if **name == search.chosen { "*" } else { "" };
        let called = search.controls.get(*name).unwrap_or(name);
        let mut row = vec![mark.to_string(), called.clone()];
        row.extend(
            axes.iter().map(|axis| candidate.axes.get(*axis).map_or(String::new(), ToString::to_string)),
        );
        row.push(grouped(candidate.model.params));
        row.extend(search.rungs.iter().map(|rung| score(rung, name)));
        table.row(row);
    }
    table
}

/// How well speeds are predicted, and what broke ties.
pub fn notes(search: &SearchSummary) -> Vec<String> {
    let fit = |fit: &FitRecord| {
        format!(
            "{} is predicted from {} measurements: off by {:.1} % in the mean, {:.1} % at most",
            fit.quantity,
            fit.measured,
            100.0 * fit.mean_error,
            100.0 * fit.worst_error
        )
    };
    let tie = |tie: &TieRecord| {
        let values: Vec<String> =
            tie.values.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        format!("within {} of the best: by {}, {}", tie.within, tie.by, values.join(", "))
    };
    let fits = search.rungs.iter().flat_map(|rung| &rung.fits).map(fit);
    fits.chain(search.ties.iter().map(tie)).collect()
}

/// Most names that a table has.
const ROWS: usize = 24;

pub fn shown(search: &SearchSummary) -> Vec<&String> {
    let kept: BTreeSet<&String> = search.rungs.iter().flat_map(|rung| &rung.kept).collect();
    let mut names: Vec<&String> = kept.into_iter().collect();
    let last = |name: &String| search.rungs.iter().rposition(|rung| rung.scores.contains_key(name));
    let place = |name: &String| {
        let rung = &search.rungs[last(name).unwrap_or(0)];
        let score = rung.scores.get(name).and_then(|record| record.score).unwrap_or(f64::INFINITY);
        if rung.descending { -score } else { score }
    };
    let further = |a: &&String, b: &&String| {
        let chosen = (**b == search.chosen).cmp(&(**a == search.chosen));
        let order = place(a).partial_cmp(&place(b)).unwrap_or(Ordering::Equal);
        chosen.then(last(b).cmp(&last(a))).then(order)
    };
    names.sort_by(further);
    names.truncate(ROWS);
    names.extend(search.controls.keys());
    names
}

/// `loss on heldout after quick, 65.5K tokens`
fn heading(rung: &RungRecord) -> String {
    let on = rung.on.as_ref().map(|data| format!(" on {data}")).unwrap_or_default();
    let after = rung.after.as_ref().map(|schedule| format!(" after {schedule}")).unwrap_or_default();
    let tokens = rung.tokens.map(|tokens| format!(", {} tokens", grouped(tokens))).unwrap_or_default();
    format!("{}{on}{after}{tokens}", rung.by)
}

fn score(rung: &RungRecord, name: &str) -> String {
    match rung.scores.get(name) {
        None => String::new(),
        Some(record) => record.score.map_or("failed".to_string(), number),
    }
}

/// Losses with four decimals, large numbers with few.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(size.round() as u64))
        }
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// What each axis does by itself.
pub fn sensitivity(name: &str, summary: &SensitivitySummary) -> String {
    let head = format!("{name}: every axis of {} by itself, on {}\n", summary.space, summary.on);
    head + &sizes(summary).render(|_, line| line)
}

/// A row for every size of every axis.
pub fn sizes(summary: &SensitivitySummary) -> Table {
    let quantities: Vec<&String> = summary.parent.keys().collect();
    let mut columns = vec!["axis".to_string(), ">size".into(), ">removed".into(), ">parameters".into()];
    columns.extend(quantities.iter().map(|quantity| format!(">{quantity}")));
    let mut table = Table::new(&columns);
    let cells = |values: &std::collections::BTreeMap<String, f64>| -> Vec<String> {
        quantities.iter().map(|q| values.get(*q).map_or("-".to_string(), |value| number(*value))).collect()
    };
    let mut whole = vec!["none".to_string(), String::new(), "0.0 %".into(), String::new()];
    whole.extend(cells(&summary.parent));
    table.row(whole);
    for (axis, sizes) in &summary.axes {
        for size in sizes {
            let removed = format!("{:.1} %", 100.0 * size.removed);
            let mut row = vec![axis.clone(), size.size.to_string(), removed, grouped(size.params)];
            row.extend(cells(&size.values));
            table.row(row);
        }
    }
    table
}
