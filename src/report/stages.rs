//! The stages of a run: the drawing of the plan, and what each of them took.

use super::html::Html;
use crate::table::{Table, bytes, duration};
use minic_compiler::plan::{self, Group, NodeRecord};
use minic_runtime::run::Summary;

pub fn section(summary: &Summary) -> Html {
    let mut html = Html::new();
    // The report is this page.
    let stages: Vec<NodeRecord> = summary.plan.iter().filter(|n| n.stage != "report").cloned().collect();
    if stages.is_empty() {
        return html;
    }
    let drawing = plan::draw(&stages, |node| state(summary, node));
    let drawing = drawing.replacen("<svg ", "<svg role=\"img\" aria-label=\"The stages of the run\" ", 1);
    html.element("figure", &[("class", "wide")], |html| {
        html.scroll("div", "The plan", |html| html.markup(&drawing));
        html.element("p", &[("class", "legend")], |html| legend(html, summary));
        html.leaf(
            "figcaption",
            "",
            "Each stage stands after those that feed it. The last line of a box says what the stage took in this \
             run, or that the store held its result; models flow along the coloured lines.",
        );
    });
    html.details("Every stage, with time and memory", |html| html.table("Stages", &table(summary, &stages)));
    html
}

/// The groups that the plan has.
fn legend(html: &mut Html, summary: &Summary) {
    for group in Group::ALL.iter().filter(|group| summary.plan.iter().any(|node| node.group == **group)) {
        html.element("span", &[("class", &format!("key stage-{}", group.name()))], |html| {
            html.text(group.name());
        });
    }
}

/// `cached`, `1.3 s`, or that it waits for other shards.
fn state(summary: &Summary, node: &NodeRecord) -> Option<String> {
    if let Some(waiting) = summary.waits.iter().find(|waiting| waiting.stage == node.name) {
        return Some(waiting.waits.to_string());
    }
    let stage = summary.stages.get(&node.name)?;
    Some(if stage.cached { "cached".into() } else { duration(stage.seconds) })
}

fn table(summary: &Summary, stages: &[NodeRecord]) -> Table {
    let mut table = Table::new(&["stage", "does", "state", ">seconds", ">planned memory", ">peak memory"]);
    for node in stages {
        let stage = summary.stages.get(&node.name);
        let state = match stage {
            Some(stage) if stage.cached => "cached".to_string(),
            Some(_) => "run".to_string(),
            None => state(summary, node).unwrap_or_default(),
        };
        table.row(vec![
            node.name.clone(),
            node.line(),
            state,
            stage.map(|s| format!("{:.3}", s.seconds)).unwrap_or_default(),
            stage.and_then(|s| s.planned).map(bytes).unwrap_or_default(),
            stage.and_then(|s| s.peak).map(bytes).unwrap_or_default(),
        ]);
    }
    table
}
