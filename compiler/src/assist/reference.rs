//! The words of the language as a page of the documentation: what the grammar and the registries know of themselves.

use super::words::{self, Word};
use crate::axes::{AXES, TAPS};
use crate::families::FAMILIES;
use crate::targets::TARGETS;
use minic_grammar::ast::DECLARATIONS;
use minic_grammar::codes::CODES;
use minic_grammar::{GRAMMAR, forms};
use std::fmt::Write;

/// The page, as Markdown.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    declarations(&mut out);
    settings(&mut out);
    axes(&mut out);
    section(
        &mut out,
        "Rankings",
        "After `by` in an `axis` line, beside the metrics of the recipe.",
        &words::rankings(),
    );
    section(
        &mut out,
        "Functions of metrics",
        "In the expression of a `metric`; `x` are activations at a tap, `w` is the weight beside it.",
        &words::functions(),
    );
    section(&mut out, "Repairs", "After `repair`.", &words::repairs());
    section(&mut out, "Ways to solve", "After `by` in a `repair outputs` line.", &words::methods());
    section(
        &mut out,
        "Quantities that follow from the sizes",
        "In `require` and `rank by`, without data.",
        &words::quantities(false),
    );
    section(
        &mut out,
        "Quantities that are measured",
        "In `rank by`, `evaluate` and `sensitivity`, on data.",
        &words::measures(),
    );
    section(&mut out, "Controls", "After `control` in a `search`.", &words::controls());
    section(
        &mut out,
        "Losses",
        "In `loss = ..` of a schedule, in weighted sums; means over all predicted positions, in nats.",
        &words::losses(),
    );
    section(&mut out, "Optimizers", "In `optimizer = ..` of a schedule.", &words::optimizers());
    section(&mut out, "Learning rates", "In `rate = ..` of a schedule.", &words::rates());
    section(&mut out, "Element types", "In `dtype = ..` of an export.", &words::dtypes());
    targets(&mut out);
    families(&mut out);
    codes(&mut out);
    let _ = write!(
        out,
        "\n## The grammar\n\nIn the notation of [pest](https://pest.rs); `grammar/mrecipe.pest` is this text.\n\n```text\n{}```\n",
        GRAMMAR
    );
    out
}

const HEAD: &str = "# Words of the language\n\n\
    <!-- Written by `INSTA_UPDATE=always cargo test -p minic-compiler --test reference` from the grammar and the registries. -->\n\n\
    Every word that a recipe may hold, as the compiler knows it; an editor shows the same ([Editors](editors.md)). What the words are for, with examples, stands in \
    [The language](language.md).\n";

fn cell(text: &str) -> String {
    text.replace("\n\n- ", "<br>")
        .replace("\n- ", "<br>")
        .replace("\n\n", "<br>")
        .replace('\n', " ")
        .replace('|', "\\|")
}

fn row(out: &mut String, word: &str, meaning: &str) {
    let _ = writeln!(out, "| `{}` | {} |", cell(word), cell(meaning));
}

fn table(out: &mut String, words: &[Word]) {
    out.push_str("\n| word | meaning |\n|---|---|\n");
    for word in words {
        row(out, if word.detail.is_empty() { &word.label } else { &word.detail }, &word.doc);
    }
}

fn section(out: &mut String, title: &str, where_: &str, words: &[Word]) {
    let _ = write!(out, "\n## {title}\n\n{where_}\n");
    table(out, words);
}

fn declarations(out: &mut String) {
    out.push_str("\n## Declarations and their lines\n\n| form | meaning |\n|---|---|\n");
    for word in DECLARATIONS {
        row(out, forms::declaration(word).unwrap_or(word), forms::doc(word).unwrap_or_default());
        for line in forms::lines(word) {
            let form = forms::line(line).unwrap_or(line).replace("`, or `", "` or `");
            let _ = writeln!(
                out,
                "| &nbsp;&nbsp;`{}` | {} |",
                cell(&form),
                cell(forms::doc(line).unwrap_or_default())
            );
        }
    }
}

fn settings(out: &mut String) {
    out.push_str("\n## Settings\n\n| of | setting | meaning |\n|---|---|---|\n");
    for (owner, keys) in words::SETTINGS {
        for key in *keys {
            let _ = writeln!(out, "| `{owner}` | `{}` | {} |", key.name, cell(key.doc));
        }
    }
}

fn axes(out: &mut String) {
    out.push_str("\n## Axes\n\n| axis | meaning | taps, the default first |\n|---|---|---|\n");
    for axis in AXES {
        let taps: Vec<String> = axis.taps.iter().map(|tap| format!("`{tap}`")).collect();
        let _ = writeln!(out, "| `{}` | {} | {} |", axis.name, cell(axis.doc), taps.join(", "));
    }
    out.push_str("\n## Taps\n\n| tap | meaning |\n|---|---|\n");
    for tap in TAPS {
        row(out, tap.name, tap.doc);
    }
}

fn targets(out: &mut String) {
    out.push_str("\n## Loaders\n\nAfter `for` in a `deploy` line. What is marked \"slow\" is a warning, everything else is refused.\n");
    for (target, word) in TARGETS.iter().zip(words::targets()) {
        let form = if word.detail.is_empty() { target.name } else { &word.detail };
        let _ =
            write!(out, "\n### `{form}`\n\n{}\n\n| rule | asks | from |\n|---|---|---|\n", cell(target.doc));
        for rule in target.rules {
            let slow = if rule.refuses { "" } else { " (slow)" };
            let _ = writeln!(
                out,
                "| `{}`{slow} | {} | [{}]({}) |",
                rule.name,
                cell(rule.asks),
                rule.origin.name,
                rule.origin.url
            );
        }
    }
}

fn families(out: &mut String) {
    out.push_str("\n## Families\n\nThe `model_type` of a config.json.\n\n| family | meaning |\n|---|---|\n");
    for family in FAMILIES {
        row(out, family.name(), family.doc());
    }
}

fn codes(out: &mut String) {
    out.push_str("\n## What can be wrong\n\n`minic explain CODE` has a page about each, with a recipe that draws it and the same recipe mended. E are errors, W warnings.\n\n| code | meaning |\n|---|---|\n");
    for code in CODES {
        let _ = writeln!(out, "| {} | {} |", code.id, cell(code.title));
    }
}
