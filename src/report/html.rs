//! HTML, piece by piece. Text is escaped as it goes in, so that nothing that a recipe or a file says is markup.

use crate::table::Table;
use minic_runtime::chart::escaped;

/// Elements that end a line of the file, where that does not show.
const LINES: &[&str] = &["figure", "head", "header", "li", "nav", "p", "section", "style", "title", "tr"];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Html(String);

impl Html {
    pub fn new() -> Html {
        Html::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_string(self) -> String {
        self.0
    }

    pub fn text(&mut self, text: &str) {
        self.0 += &escaped(text);
    }

    /// A name that may break after each of its parts.
    fn name(&mut self, name: &str) {
        self.0 += &escaped(name).replace('_', "_<wbr>");
    }

    /// Markup of minic's own: its drawings, its style sheet.
    pub fn markup(&mut self, markup: &str) {
        self.0 += markup;
    }

    pub fn add(&mut self, other: Html) {
        self.0 += &other.0;
    }

    /// `<name attributes>inner</name>`; attributes without a value are left out.
    pub fn element(&mut self, name: &str, attributes: &[(&str, &str)], inner: impl FnOnce(&mut Html)) {
        self.0 += &format!("<{name}");
        for (attribute, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
            self.0 += &format!(" {attribute}=\"{}\"", escaped(value));
        }
        self.0.push('>');
        inner(self);
        self.0 += &format!("</{name}>");
        if LINES.contains(&name) {
            self.0.push('\n');
        }
    }

    /// An element that holds text.
    pub fn leaf(&mut self, name: &str, class: &str, text: &str) {
        self.element(name, &[("class", class)], |html| html.text(text));
    }

    /// What may be wider than the page, in an element that scrolls by itself and which the keyboard reaches.
    pub fn scroll(&mut self, element: &str, label: &str, inner: impl FnOnce(&mut Html)) {
        let attributes = [("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", label)];
        self.element(element, &attributes, inner);
    }

    /// A drawing with what one sees on it. Drawings are made of escaped text.
    pub fn figure(&mut self, label: &str, drawing: &str, caption: &str) {
        self.element("figure", &[], |html| {
            html.scroll("div", label, |html| html.markup(drawing));
            html.leaf("figcaption", "", caption);
        });
    }

    /// A table whose first row is its head. Rows whose first cell is `*` are marked.
    pub fn table(&mut self, caption: &str, table: &Table) {
        self.scroll("div", caption, |html| {
            html.element("table", &[("class", "sortable")], |html| {
                html.caption(caption);
                html.element("thead", &[], |html| html.element("tr", &[], |html| head(html, table)));
                html.element("tbody", &[], |html| {
                    table.rows.iter().for_each(|cells| row(html, table, cells))
                });
            });
        });
    }

    /// What a table is of, which stays in sight where the table scrolls.
    pub fn caption(&mut self, text: &str) {
        self.element("caption", &[], |html| html.leaf("span", "", text));
    }

    /// More of a thing, which opens on demand, and on paper.
    pub fn details(&mut self, summary: &str, inner: impl FnOnce(&mut Html)) {
        self.element("details", &[], |html| {
            html.leaf("summary", "", summary);
            inner(html);
        });
    }
}

fn class_of(table: &Table, column: usize) -> &'static str {
    if table.numeric.get(column) == Some(&true) { "number" } else { "" }
}

fn head(html: &mut Html, table: &Table) {
    for (column, title) in table.head.iter().enumerate() {
        match title.as_str() {
            // A heading without words is none.
            "" => html.element("td", &[], |_| {}),
            title => {
                let attributes = [("scope", "col"), ("class", class_of(table, column))];
                html.element("th", &attributes, |html| html.name(title));
            }
        }
    }
}

fn row(html: &mut Html, table: &Table, cells: &[String]) {
    let class = if cells.first().is_some_and(|cell| cell == "*") { "chosen" } else { "" };
    html.element("tr", &[("class", class)], |html| {
        for (column, cell) in cells.iter().enumerate() {
            html.element("td", &[("class", class_of(table, column))], |html| html.text(cell));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html::new();
        html.element("a", &[("title", "\"><script>")], |html| html.text("</a><script>1 && 2</script>"));
        let page = html.into_string();
        assert_eq!(page.matches('<').count(), 2, "{page}");
        assert!(page.starts_with("<a title=\"&quot;&gt;&lt;script&gt;\">&lt;/a&gt;"), "{page}");
    }

    #[test]
    fn tables_have_a_caption_and_heads_with_a_scope() {
        let mut table = Table::new(&["", "name", ">size"]);
        table.row(vec!["*".into(), "<a>".into(), "1,000".into()]);
        let mut html = Html::new();
        html.table("sizes & names", &table);
        let page = html.into_string();
        for part in [
            "aria-label=\"sizes &amp; names\"",
            "<th scope=\"col\" class=\"number\">size</th>",
            "<tr class=\"chosen\">",
            "<td class=\"number\">1,000</td>",
            "&lt;a&gt;",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
}
