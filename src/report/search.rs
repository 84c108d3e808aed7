//! What searches weighed, and what each axis does by itself.

use super::html::Html;
use crate::run::weighed;
use minic_runtime::chart::{Chart, Panel};
use minic_runtime::run::Summary;
use minic_runtime::run::search::SearchSummary;

pub fn searches(summary: &Summary) -> Html {
    let mut html = Html::new();
    for (name, search) in &summary.searches {
        html.leaf("h3", "", name);
        html.leaf("p", "", &format!("{}.", weighed::points(search)));
        let rungs = search.rungs.iter().enumerate();
        let lines = rungs.map(|(i, rung)| weighed::line(search, i, rung));
        html.element("ul", &[], |html| {
            lines.chain(weighed::notes(search)).for_each(|line| html.leaf("li", "", &line));
        });
        panels(&mut html, search.chart(name), CAPTION);
        tables(&mut html, search);
    }
    html
}

const CAPTION: &str = "Parameters against the score of a rung. Discs were kept for the next rung, the ring is the \
                       choice; no candidate lies below the stepped line at fewer parameters. Losses far apart are on a logarithmic scale. Crosses are controls: the \
                       same sizes, cut otherwise. The dashed line is the parent as it is.";

/// The panels of a chart below each other, so that each is legible on a small screen.
fn panels(html: &mut Html, chart: Chart, caption: &str) {
    html.element("div", &[("class", "panels")], |html| {
        for panel in chart.panels {
            let label = format!("{}, {}", chart.title, panel.title);
            let drawing =
                Chart { title: panel.title.clone(), panels: vec![Panel { title: String::new(), ..panel }] };
            let drawing = drawing.svg();
            html.element("figure", &[], |html| html.scroll("div", &label, |html| html.markup(&drawing)));
        }
    });
    html.leaf("p", "caption", caption);
}

/// Candidates shown in the long table at most.
const ROWS: usize = 1000;

fn tables(html: &mut Html, search: &SearchSummary) {
    let shown = weighed::shown(search);
    html.table(
        "Candidates that some rung kept, the best first, and controls",
        &weighed::candidates(search, &shown),
    );
    let mut all: Vec<&String> = search.candidates.keys().collect();
    if all.len() > shown.len() {
        // By their place in the space, which is a number at the end of the name.
        all.sort_by_key(|name| (name.len(), *name));
        all.truncate(ROWS);
        let title = match search.candidates.len() {
            n if n > ROWS => format!("The first {ROWS} of {n} candidates that were scored"),
            n => format!("All {n} candidates that were scored"),
        };
        html.details(&title, |html| html.table(&title, &weighed::candidates(search, &all)));
    }
}

pub fn sensitivities(summary: &Summary) -> Html {
    let mut html = Html::new();
    for (name, sensitivity) in &summary.sensitivities {
        html.leaf("h3", "", name);
        let caption = format!(
            "Each axis of {} cut by itself and not trained, measured on {}: how much of the axis is removed, and \
             what that does.",
            sensitivity.space, sensitivity.on
        );
        panels(&mut html, sensitivity.chart(name), &caption);
        html.details("Every size of every axis", |html| html.table("Sizes", &weighed::sizes(sensitivity)));
    }
    html
}
