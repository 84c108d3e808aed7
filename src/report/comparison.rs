//! Two runs as one page: what `minic diff` tells, and their pictures side by side.

use super::html::Html;
use super::page::Page;
use super::{curves, heat, importance, overview, search};
use crate::diff::{Part, Section};
use minic_runtime::run::Summary;

/// A run, as it was named on the command line.
pub struct Named<'a> {
    pub name: String,
    pub summary: &'a Summary,
}

/// The same bytes for the same results.
pub fn comparison(a: &Named, b: &Named, sections: &[Section]) -> String {
    let mut lead = Html::new();
    for (letter, run) in [("a", a), ("b", b)] {
        lead.leaf("h2", "", &format!("{letter}: {}", run.name));
        lead.add(overview::lead(run.summary));
    }
    let mut page = Page::new("Two runs of minic", "Two runs", &lead);
    for section in sections {
        let (id, title) = match section.name {
            "models" => ("models", "Models"),
            "recipe" => ("recipe", "Recipes"),
            "evaluations" => ("evaluations", "Evaluations"),
            _ => ("kept", "Kept"),
        };
        page.section(id, title, parts(&section.parts));
    }
    let both = |of: fn(&Summary) -> Html| sides(a, b, of);
    page.section("summary", "Summaries", both(overview::models));
    page.section("search", "Searches", both(search::searches));
    page.section("layers", "Layers", both(importance::section));
    page.section("importance", "Importance", both(heat::section));
    page.section("training", "Trainings", both(curves::section));
    page.html()
}

fn parts(parts: &[Part]) -> Html {
    let mut html = Html::new();
    for part in parts {
        match part {
            Part::Text(text) => html.leaf("p", "", text.trim()),
            Part::Table { title, table } => html.table(title, table),
            Part::Lines(title, lines) => {
                html.scroll("pre", title, |html| {
                    for line in lines {
                        html.leaf(if line.starts_with('-') { "del" } else { "ins" }, "", line);
                    }
                });
            }
        }
    }
    html
}

/// The same of both; nothing where neither has it.
fn sides(a: &Named, b: &Named, of: fn(&Summary) -> Html) -> Html {
    let (one, other) = (of(a.summary), of(b.summary));
    let mut html = Html::new();
    if one.is_empty() && other.is_empty() {
        return html;
    }
    html.element("div", &[("class", "sides")], |html| {
        for (letter, content) in [("a", one), ("b", other)] {
            html.element("div", &[], |html| {
                html.leaf("p", "side", letter);
                html.add(content);
            });
        }
    });
    html
}
