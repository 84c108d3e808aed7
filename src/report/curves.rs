//! Loss curves of trainings and distillations.

use super::html::Html;
use super::overview;
use crate::table::{duration, grouped};
use minic_runtime::record;
use minic_runtime::run::Summary;
use minic_runtime::train::Trained;

pub fn section(summary: &Summary) -> Html {
    let mut html = Html::new();
    for (name, trained) in &summary.trainings {
        let model = overview::model_of(summary, name).unwrap_or(name);
        html.leaf("h3", "", &if model == name { name.clone() } else { format!("{model}, by {name}") });
        if trained.curve.points.is_empty() && trained.heldout.is_empty() {
            html.leaf("p", "", &facts(summary, name, trained));
            continue;
        }
        let title = format!("Loss of {model}");
        html.figure(
            &title,
            &record::draw(&title, &trained.curve, &trained.heldout),
            &caption(summary, name, trained),
        );
    }
    html
}

fn caption(summary: &Summary, stage: &str, trained: &Trained) -> String {
    let mut out = facts(summary, stage, trained);
    if !trained.curve.points.is_empty() {
        let each = match trained.curve.each {
            0 | 1 => "every update".to_string(),
            n => format!("the mean of {n} updates, between the least and the greatest of them"),
        };
        out += &format!(" The line is the training loss, {each}; dotted below it is the learning rate.");
    }
    if let [first, .., last] = trained.heldout.as_slice() {
        let (from, to) = (first.heldout_loss, last.heldout_loss);
        out += &format!(
            " Discs are the loss on held-out data, {from:.4} at the beginning and {to:.4} at the end."
        );
    }
    out
}

fn facts(summary: &Summary, stage: &str, trained: &Trained) -> String {
    let Trained { updates, tokens, loss, .. } = trained;
    let took = summary.update_seconds.get(stage).map(|took| format!(" in {}", duration(*took)));
    let speed = speed(summary, stage).map(|speed| format!(", {} a second", grouped(speed.round() as u64)));
    format!(
        "{} updates on {} tokens{}{}; the last loss is {loss:.4}.",
        grouped(*updates),
        grouped(*tokens),
        took.unwrap_or_default(),
        speed.unwrap_or_default()
    )
}

/// Tokens a second over all updates of a training, where they were timed.
pub fn speed(summary: &Summary, stage: &str) -> Option<f64> {
    let (trained, seconds) = (summary.trainings.get(stage)?, *summary.update_seconds.get(stage)?);
    (seconds > 0.0).then(|| trained.tokens as f64 / seconds)
}
