//! The frame of a page: its head, the way to its sections, its style.

use super::html::Html;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
/// Nothing is fetched, whatever a page says.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

pub struct Page {
    title: String,
    heading: String,
    lead: Html,
    sections: Vec<(&'static str, &'static str, Html)>,
}

impl Page {
    pub fn new(title: &str, heading: &str, lead: &Html) -> Page {
        Page { title: title.into(), heading: heading.into(), lead: lead.clone(), sections: Vec::new() }
    }

    /// One without content is left out.
    pub fn section(&mut self, id: &'static str, title: &'static str, content: Html) {
        if !content.is_empty() {
            self.sections.push((id, title, content));
        }
    }

    pub fn html(self) -> String {
        let mut html = Html::new();
        html.markup("<!doctype html>\n");
        html.element("html", &[("lang", "en")], |html| {
            html.element("head", &[], |html| self.head(html));
            html.element("body", &[], |html| self.body(html));
        });
        html.into_string()
    }

    fn head(&self, html: &mut Html) {
        html.markup("<meta charset=\"utf-8\">\n");
        html.markup(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n"));
        html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        html.markup(
            "<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n",
        );
        html.leaf("title", "", &self.title);
        html.element("style", &[], |html| html.markup(STYLE));
    }

    fn body(self, html: &mut Html) {
        html.markup("<a class=\"skip\" href=\"#content\">To the content</a>\n");
        html.element("nav", &[("aria-label", "Sections")], |html| {
            html.element("ul", &[], |html| {
                for (id, title, _) in &self.sections {
                    html.element("li", &[], |html| {
                        html.element("a", &[("href", &format!("#{id}"))], |html| html.text(title));
                    });
                }
            });
        });
        html.element("main", &[("id", "content")], |html| {
            html.element("header", &[], |html| {
                html.leaf("h1", "", &self.heading);
                html.add(self.lead);
            });
            for (id, title, content) in self.sections {
                html.element("section", &[("id", id), ("aria-labelledby", &format!("{id}-title"))], |html| {
                    html.element("h2", &[("id", &format!("{id}-title"))], |html| html.text(title));
                    html.add(content);
                });
            }
        });
        html.element("script", &[], |html| html.markup(SCRIPT));
    }
}
