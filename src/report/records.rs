//! What the checker warned of, what went in and what was proved, and the recipe.

use super::html::Html;
use super::overview::utc;
use crate::table::{Table, bytes, duration, grouped};
use minic_runtime::run::Summary;

pub fn lints(summary: &Summary) -> Html {
    let mut html = Html::new();
    for lint in &summary.run.lints {
        html.element("div", &[("class", &format!("lint {}", lint.severity))], |html| {
            html.element("p", &[], |html| {
                html.leaf("code", "", &lint.code);
                html.text(&format!(" {}:{}:{}: {}", lint.file, lint.line, lint.column, lint.message));
            });
            if let Some(help) = &lint.help {
                html.leaf("p", "caption", &format!("Help: {help}"));
            }
        });
    }
    html
}

pub fn provenance(summary: &Summary) -> Html {
    let mut html = Html::new();
    let run = &summary.run;
    let overrides = if run.overrides.is_empty() { "none".to_string() } else { run.overrides.join(", ") };
    let facts = [
        ("minic", run.minic.clone()),
        ("Recipe", run.recipe.clone()),
        ("Overrides (--set)", overrides),
        ("Device", run.device.clone()),
        ("Threads", run.threads.to_string()),
        ("Started", utc(run.started)),
        ("Took", duration(summary.seconds)),
    ];
    html.element("dl", &[], |html| {
        for (name, value) in &facts {
            html.leaf("dt", "", name);
            html.leaf("dd", "", value);
        }
    });
    let tables = [
        ("Checkpoints that went in", parents(summary)),
        ("Data that went in", data(summary)),
        ("Cuts, and how they were proved", proofs(summary)),
        ("Folders that were written", exports(summary)),
    ];
    for (title, table) in tables.iter().filter(|(_, table)| !table.rows.is_empty()) {
        html.table(title, table);
    }
    let files = files(summary);
    if !files.rows.is_empty() {
        html.details("Every file, by digest", |html| html.table("Files", &files));
    }
    html
}

fn parents(summary: &Summary) -> Table {
    let mut table = Table::new(&["model", "checkpoint", "revision", ">parameters", "BLAKE3"]);
    for parent in &summary.parents {
        table.row(vec![
            parent.name.clone(),
            parent.checkpoint.clone(),
            parent.revision.clone().unwrap_or_default(),
            grouped(parent.model.params),
            parent.digest.clone(),
        ]);
    }
    table
}

fn data(summary: &Summary) -> Table {
    let mut table = Table::new(&["data", ">samples", ">tokens each", ">seed", "BLAKE3 of its tokens"]);
    for data in &summary.data {
        table.row(vec![
            data.name.clone(),
            grouped(data.samples as u64),
            grouped(data.sequence as u64),
            data.seed.to_string(),
            data.digest.clone(),
        ]);
    }
    table
}

fn proofs(summary: &Summary) -> Table {
    let mut table = Table::new(&["cut", "compared", ">difference", ">allowed", ">before", ">after"]);
    for (name, step) in &summary.cuts {
        let proof = &step.proof;
        table.row(vec![
            name.clone(),
            format!("{} of {} positions", proof.compared, grouped(proof.positions as u64)),
            format!("{:.1e}", proof.difference),
            format!("{:.1e}", proof.allowed()),
            grouped(proof.params_before),
            grouped(proof.params_after),
        ]);
    }
    table
}

fn exports(summary: &Summary) -> Table {
    let mut table = Table::new(&["model", "folder", ">parameters", ">tensors", ">size"]);
    for export in summary.exports.values() {
        table.row(vec![
            export.model.clone(),
            export.folder.display().to_string(),
            grouped(export.proof.params),
            export.proof.tensors.to_string(),
            bytes(export.bytes),
        ]);
    }
    table
}

fn files(summary: &Summary) -> Table {
    let mut table = Table::new(&["of", "file", "BLAKE3"]);
    let parents = summary.parents.iter().map(|parent| (&parent.name, &parent.files));
    let data = summary.data.iter().map(|data| (&data.name, &data.files));
    for (name, files) in parents.chain(data) {
        for (file, digest) in files {
            table.row(vec![name.clone(), file.clone(), digest.clone()]);
        }
    }
    table
}

pub fn recipe(summary: &Summary) -> Html {
    let mut html = Html::new();
    if summary.run.text.is_empty() {
        return html;
    }
    html.scroll("pre", "The recipe", |html| summary.run.text.lines().for_each(|line| colored(html, line)));
    html
}

/// A line of a recipe: its comment, strings, numbers, and the word that it begins with.
fn colored(html: &mut Html, line: &str) {
    let mut rest = line;
    let mut first = true;
    while let Some(next) = rest.chars().next() {
        let (class, length) = match next {
            '#' => ("comment", rest.len()),
            '"' => ("string", string(rest)),
            c if c.is_ascii_digit() => ("figure", run(rest, |c| c.is_ascii_alphanumeric() || c == '.')),
            c if c.is_alphabetic() || c == '_' => {
                let length = run(rest, |c| c.is_alphanumeric() || c == '_');
                (if first { "word" } else { "" }, length)
            }
            c => ("", c.len_utf8()),
        };
        let (token, after) = rest.split_at(length);
        match class {
            "" => html.text(token),
            class => html.element("span", &[("class", class)], |html| html.text(token)),
        }
        first &= next.is_whitespace();
        rest = after;
    }
    html.text("\n");
}

/// The length of what begins `text` and is so.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

/// The length of a string with its quotes; to the end where it is not closed.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            c => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_colored_and_keep_their_text() {
        let line = "    axis ffn in 160..=384 by \"a\\\"b#<i>\" x9  # 4 é <b>";
        let mut html = Html::new();
        colored(&mut html, line);
        let page = html.into_string();
        for part in [
            "    <span class=\"word\">axis</span> ffn in <span class=\"figure\">160..</span>",
            "<span class=\"string\">&quot;a\\&quot;b#&lt;i&gt;&quot;</span>",
            "<span class=\"comment\"># 4 é &lt;b&gt;</span>",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        for odd in ["\"open", "\"", "#", "", "é\"\\", "1"] {
            let mut html = Html::new();
            colored(&mut html, odd);
            assert!(!html.is_empty());
        }
    }
}
