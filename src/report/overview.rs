//! What came out: every model of a run beside the one that it began with.

use super::curves;
use super::html::Html;
use crate::recipe::count;
use crate::run::weighed;
use crate::table::{bytes, date, duration, grouped, operations};
use minic_compiler::dim::Dim;
use minic_runtime::chart::counted;
use minic_runtime::evaluate::Figures;
use minic_runtime::run::Summary;
use std::collections::{BTreeMap, BTreeSet};

/// With what, where and when.
pub fn lead(summary: &Summary) -> Html {
    let run = &summary.run;
    let cached = summary.stages.values().filter(|stage| stage.cached).count();
    let mut html = Html::new();
    html.element("p", &[], |html| {
        html.text(&format!(
            "minic {} ran {} on {} ({}), {}. It took {}: {}, {cached} of them out of the store.",
            run.minic,
            run.recipe,
            run.device,
            count(run.threads, "thread"),
            utc(run.started),
            duration(summary.seconds),
            count(summary.stages.len(), "stage")
        ));
    });
    if !summary.waits.is_empty() {
        let waits = summary.waits.iter().map(|w| format!("{}: {}", w.stage, w.waits));
        html.leaf("p", "", &format!("Not done yet: {}.", waits.collect::<Vec<_>>().join("; ")));
    }
    html
}

/// `2026-11-26 01:10 UTC` of milliseconds since 1970.
pub fn utc(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000 % 1440;
    format!("{} {:02}:{:02} UTC", date(milliseconds / 86_400_000), minutes / 60, minutes % 60)
}

/// Checkpoints first, then what was made of them, in the order of the plan.
pub fn names(summary: &Summary) -> Vec<&String> {
    let mut names: Vec<&String> = Vec::new();
    let parents = summary.parents.iter().map(|parent| &parent.name);
    let made = summary.plan.iter().flat_map(|node| &node.makes);
    for name in parents.chain(made).chain(summary.models.keys()) {
        if summary.models.contains_key(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The model that others are compared with: the first checkpoint.
fn reference(summary: &Summary) -> Option<&String> {
    summary.parents.first().map(|parent| &parent.name).filter(|name| summary.models.contains_key(*name))
}

pub fn models(summary: &Summary) -> Html {
    let mut html = Html::new();
    let names = names(summary);
    if names.is_empty() {
        return html;
    }
    let rows = rows(summary);
    cards(&mut html, summary, &names);
    let whole = reference(summary);
    let caption = match whole {
        Some(name) => format!("Every model; small figures compare with {name}"),
        None => "Every model".to_string(),
    };
    html.scroll("div", &caption, |html| {
        html.element("table", &[("class", "models")], |html| {
            html.caption(&caption);
            html.element("thead", &[], |html| {
                html.element("tr", &[], |html| {
                    html.element("td", &[], |_| {});
                    for name in &names {
                        html.element("th", &[("scope", "col"), ("class", "number")], |html| html.text(name));
                    }
                });
            });
            html.element("tbody", &[], |html| rows.iter().for_each(|row| row.draw(html, &names, whole)));
        });
    });
    html.leaf("p", "caption", &self::caption(summary, &rows));
    html
}

/// What the rows are, of those that are there.
fn caption(summary: &Summary, rows: &[Row]) -> String {
    let mut out = String::new();
    if !summary.evaluations.is_empty() {
        out += "Loss is in nats per token; KL is the divergence from the model that was compared with; both are means \
                over the samples. ";
    }
    out += "Memory and operations are computed from the shapes: weights in bf16, and what the model remembers of one \
            sequence.";
    if rows.iter().any(|row| row.label.ends_with("/s") || row.label.ends_with(", seconds")) {
        out += " Speeds were measured on the device of the run.";
    }
    out
}

/// One quantity of the models.
struct Row {
    label: String,
    values: BTreeMap<String, f64>,
    show: Show,
    compare: Compare,
}

#[derive(Clone, Copy, PartialEq)]
enum Compare {
    Ratio,
    Difference,
    Nothing,
}

impl Row {
    fn new(label: impl Into<String>, show: Show, compare: Compare) -> Row {
        Row { label: label.into(), values: BTreeMap::new(), show, compare }
    }

    fn draw(&self, html: &mut Html, names: &[&String], whole: Option<&String>) {
        let base = whole.and_then(|name| self.values.get(name)).copied();
        html.element("tr", &[], |html| {
            html.element("th", &[("scope", "row")], |html| html.text(&self.label));
            for name in names {
                html.element("td", &[("class", "number")], |html| {
                    let Some(value) = self.values.get(*name) else { return };
                    html.text(&(self.show)(*value));
                    // Without words where there is nothing to say, so that figures stand below each other.
                    if Some(*name) != whole {
                        let compared = base.and_then(|base| self.compared(*value, base));
                        html.leaf("small", "", &compared.unwrap_or_default());
                    }
                });
            }
        });
    }

    fn compared(&self, value: f64, base: f64) -> Option<String> {
        match self.compare {
            Compare::Ratio => (base != 0.0).then(|| percent(value / base)),
            Compare::Difference => {
                let sign = if value >= base { "+" } else { "\u{2212}" };
                Some(format!("{sign}{}", (self.show)((value - base).abs())))
            }
            Compare::Nothing => None,
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn whole_number(n: f64) -> String {
    grouped(n as u64)
}

fn rows(summary: &Summary) -> Vec<Row> {
    let mut rows = shapes(summary);
    rows.extend(figures(summary));
    rows.extend(costs(summary));
    rows.extend(speeds(summary));
    rows
}

fn shapes(summary: &Summary) -> Vec<Row> {
    let mut params = Row::new("Parameters", whole_number, Compare::Ratio);
    let mut layers = Row::new("Layers", whole_number, Compare::Ratio);
    let mut sizes: BTreeMap<Dim, Row> = BTreeMap::new();
    for (name, model) in &summary.models {
        params.values.insert(name.clone(), model.params as f64);
        layers.values.insert(name.clone(), model.pattern.len() as f64);
        for (dim, size) in model.dims.iter().filter(|(dim, _)| **dim != Dim::NumLayers) {
            let row = sizes.entry(*dim).or_insert_with(|| Row::new(dim.name(), whole_number, Compare::Ratio));
            row.values.insert(name.clone(), *size as f64);
        }
    }
    // What all models have in common is in the plan.
    let differs = |row: &Row| {
        let values: BTreeSet<u64> = row.values.values().map(|v| v.to_bits()).collect();
        values.len() > 1
    };
    let sizes = std::iter::once(layers).chain(sizes.into_values()).filter(differs);
    std::iter::once(params).chain(sizes).collect()
}

type Read = fn(&Figures) -> Option<f64>;
type Show = fn(f64) -> String;

const FIGURES: &[(&str, Read, Show, Compare)] = &[
    ("Loss", |f| Some(f.loss), |v| format!("{v:.4}"), Compare::Difference),
    ("Perplexity", |f| Some(f.perplexity), |v| format!("{v:.3}"), Compare::Difference),
    ("Top-1", |f| Some(f.top1), percent, Compare::Difference),
    ("Accuracy", |f| f.accuracy, percent, Compare::Difference),
    ("KL", |f| f.kl, |v| format!("{v:.4}"), Compare::Nothing),
];

fn figures(summary: &Summary) -> Vec<Row> {
    let mut measured: BTreeMap<&String, BTreeMap<String, &Figures>> = BTreeMap::new();
    let evaluations = summary.evaluations.values();
    for e in evaluations.clone() {
        if let (Some(model), Some(figures)) = (&e.against, &e.against_figures) {
            measured.entry(&e.data).or_default().insert(model.clone(), figures);
        }
    }
    // Their own figures last: they also have the divergence.
    for e in evaluations {
        measured.entry(&e.data).or_default().insert(e.model.clone(), &e.figures);
    }
    let mut rows = Vec::new();
    for (data, models) in measured {
        for (label, read, show, compare) in FIGURES {
            let mut row = Row::new(format!("{label} on {data}"), *show, *compare);
            let values = models.iter().filter_map(|(name, figures)| Some((name.clone(), read(figures)?)));
            row.values = values.collect();
            rows.extend((!row.values.is_empty()).then_some(row));
        }
    }
    rows
}

fn costs(summary: &Summary) -> Vec<Row> {
    let Some(tokens) = summary.costs.values().next().map(|cost| grouped(cost.sequence as u64)) else {
        return Vec::new();
    };
    let show: Show = |v| bytes(v as u64);
    let mut weights = Row::new("Weights in bf16", show, Compare::Ratio);
    let mut state = Row::new(format!("State of {tokens} tokens"), show, Compare::Ratio);
    let mut flops = Row::new("Operations per token", operations, Compare::Ratio);
    for (name, cost) in &summary.costs {
        weights.values.insert(name.clone(), cost.weights as f64);
        state.values.insert(name.clone(), cost.state as f64);
        flops.values.insert(name.clone(), cost.flops as f64);
    }
    vec![weights, state, flops]
}

/// What was measured of decoding and of training.
fn speeds(summary: &Summary) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut enter = |quantity: &str, model: &str, value: f64| {
        if !["throughput(", "latency("].iter().any(|kind| quantity.starts_with(kind)) {
            return;
        }
        let unit = if quantity.starts_with("latency") { "seconds" } else { "tokens/s" };
        let label = format!("{quantity}, {unit}");
        let row =
            rows.entry(label.clone()).or_insert_with(|| Row::new(label, weighed::number, Compare::Nothing));
        row.values.insert(model.to_string(), value);
    };
    for (name, sensitivity) in &summary.sensitivities {
        if let Some(parent) = parent_of(summary, name) {
            sensitivity.parent.iter().for_each(|(quantity, value)| enter(quantity, parent, *value));
        }
    }
    for (name, search) in &summary.searches {
        for rung in &search.rungs {
            let scores = rung.scores.get(&search.chosen).and_then(|record| record.score);
            scores.into_iter().for_each(|value| enter(&rung.by, name, value));
            let parent = parent_of(summary, name).zip(rung.parent);
            parent.into_iter().for_each(|(parent, value)| enter(&rung.by, parent, value));
        }
        for tie in &search.ties {
            tie.values.get(&search.chosen).into_iter().for_each(|value| enter(&tie.by, name, *value));
        }
    }
    let mut training = Row::new("Training, tokens/s", whole_number, Compare::Nothing);
    for stage in summary.trainings.keys() {
        training.values.extend(model_of(summary, stage).cloned().zip(curves::speed(summary, stage)));
    }
    let training = (!training.values.is_empty()).then_some(training);
    rows.into_values().chain(training).collect()
}

/// The declared model that a stage begins with.
fn parent_of<'a>(summary: &'a Summary, stage: &str) -> Option<&'a str> {
    let mut stage = stage.to_string();
    // As many steps as there are stages: a broken result may go in circles.
    for _ in &summary.plan {
        let node = summary.plan.iter().find(|node| node.name == stage)?;
        let from = &node.inputs.iter().find(|input| input.value == "model")?.from;
        let before = summary.plan.iter().find(|node| node.name == *from)?;
        if let Some(name) =
            before.makes.iter().chain([&before.name]).find(|n| summary.models.contains_key(*n))
        {
            return Some(name);
        }
        stage.clone_from(from);
    }
    None
}

/// The declared model that a stage leads to: one that it makes, or the winner of the search that it is part of.
pub fn model_of<'a>(summary: &'a Summary, stage: &str) -> Option<&'a String> {
    let node = summary.plan.iter().find(|node| node.name == stage);
    let winner = || {
        let of = |search: &minic_runtime::run::search::SearchSummary| {
            stage.strip_prefix(&search.chosen).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        summary.searches.iter().find(|(_, search)| of(search)).map(|(name, _)| name)
    };
    node.and_then(|node| node.makes.first()).or_else(winner)
}

/// What of each made model is told at a glance.
fn cards(html: &mut Html, summary: &Summary, names: &[&String]) {
    let Some(whole) = reference(summary) else { return };
    let made = names.iter().filter(|name| **name != whole && !is_parent(summary, name));
    let cards: Vec<(String, String)> = made.flat_map(|name| glance(summary, whole, name)).collect();
    if cards.is_empty() {
        return;
    }
    html.element("ul", &[("class", "cards")], |html| {
        for (figure, words) in &cards {
            html.element("li", &[], |html| {
                html.leaf("b", "", figure);
                html.leaf("span", "", words);
            });
        }
    });
}

fn is_parent(summary: &Summary, name: &str) -> bool {
    summary.parents.iter().any(|parent| parent.name == name)
}

/// Figures with what they are of.
fn glance(summary: &Summary, whole: &str, name: &str) -> Vec<(String, String)> {
    let mut cards = Vec::new();
    if let (Some(a), Some(b)) = (summary.models.get(whole), summary.models.get(name)) {
        let share = percent(b.params as f64 / a.params.max(1) as f64);
        cards.push((share, format!("{name}: {} parameters of {}", grouped(b.params), grouped(a.params))));
    }
    for e in summary.evaluations.values().filter(|e| e.model == name) {
        let (what, read): (_, fn(&Figures) -> String) = match e.figures.accuracy {
            Some(_) => ("accuracy", |f| f.accuracy.map(percent).unwrap_or_default()),
            None => ("loss", |f| format!("{:.4}", f.loss)),
        };
        let beside = e.against_figures.as_ref().zip(e.against.as_ref());
        let beside = beside.map(|(f, other)| format!("; {other} has {}", read(f))).unwrap_or_default();
        cards.push((read(&e.figures), format!("{name}: {what} on {}{beside}", e.data)));
    }
    let trainings =
        summary.trainings.iter().filter(|(stage, _)| model_of(summary, stage).is_some_and(|m| m == name));
    for (_, trained) in trainings {
        let tokens = if trained.tokens < 10_000_000 { grouped } else { |n| counted(n as f64) };
        cards.push((tokens(trained.tokens), format!("{name}: tokens of training")));
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_with_leap_years() {
        let day = 86_400_000;
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(19_782 * day + 3_723_000), "2024-02-29 01:02 UTC");
        assert_eq!(utc(20_783 * day - 1), "2026-11-25 23:59 UTC");
        assert!(utc(u64::MAX).ends_with(" UTC"), "nonsense has a date, too");
    }

    #[test]
    fn models_are_compared_by_ratio_or_by_difference() {
        let values = BTreeMap::from([("a".to_string(), 2.0), ("b".to_string(), 1.5)]);
        let names = ["a".to_string(), "b".to_string()];
        let drawn = |compare| {
            let row = Row { values: values.clone(), ..Row::new("Loss", |v| format!("{v:.2}"), compare) };
            let mut html = Html::new();
            row.draw(&mut html, &[&names[0], &names[1]], Some(&names[0]));
            html.into_string()
        };
        assert!(drawn(Compare::Ratio).contains("1.50<small>75.0 %</small>"));
        assert!(drawn(Compare::Difference).contains("1.50<small>\u{2212}0.50</small>"));
        assert!(drawn(Compare::Nothing).contains("1.50<small></small>"));
        assert_eq!(drawn(Compare::Ratio).matches("<small>").count(), 1, "not of the reference itself");
    }
}
