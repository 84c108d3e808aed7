//! The document of broken inputs.

use super::{Row, Section};
use std::fmt::Write;

pub const HEAD: &str = "# Broken inputs

What was tried, and what minic said. Every row is a test (`tests/integration/hostile.rs`) that runs the command
in a folder where one thing is broken, with 1 GiB of address space and 20 seconds. Exit codes: 1 an input is wrong,
2 the command line is wrong, 3 the world failed, 4 a proof failed. Of long messages the beginning is shown; `/` stands
for a new line.

Written by `INSTA_UPDATE=always cargo test --test integration hostile`; compared by the same test without it.

How links are treated: a name in a folder may be a link to anywhere, because the hub's cache is made of such links,
and it is followed. A name that stands *in a file* (the index of shards, provenance.json) may only be the plain name
of a file beside it. What is opened must be a plain file: pipes and devices are refused before they are opened.
";

/// Figures of the fuzzer, which no test can make again; see CONTRIBUTING.md for the command.
pub const FUZZED: &str = "
## Fuzzing

Ten minutes a target with `fuzz/run`, on two cores of a cloud machine that others kept busy. No input panicked, and none took a second or 1 GiB.

| target | inputs | peak memory, MB |
|---|---:|---:|
| `recipe` | 178,741 | 197 |
| `config` | 5,112,126 | 35 |
| `header` | 1,828,460 | 29 |
| `index` | 799,547 | 31 |
| `tokenizer` | 430,976 | 52 |
| `data` | 1,463,557 | 828 |

One recipe took 11 s of wall time once, at the lowest priority beside ten compilers; it takes 0.2 s of CPU, and is among the committed inputs.
What shorter runs found before is mended, and stands in `fuzz/corpus` or in the tables above: the tokenizers library
panics at a decoder that is cut short, and a shape of 2^62 rows without an element was walked row by row.
";

pub fn section(section: &Section, mut said: impl FnMut(&Row) -> String) -> String {
    let mut text = format!(
        "\n## {}\n\n| what was tried | command | what minic said | exit code |\n|---|---|---|---|\n",
        section.title
    );
    for row in section.rows {
        let message = cell(&said(row));
        let _ = writeln!(text, "| {} | `{}` | {message} | {} |", row.tried, row.command, row.exit);
    }
    text
}

/// The first error of a message, on one line.
fn cell(message: &str) -> String {
    const LONGEST: usize = 240;
    let from = message.find("error").filter(|_| message != "no error").unwrap_or(0);
    let lines: Vec<&str> = message[from..].lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut line = lines.join(" / ");
    if line.chars().count() > LONGEST {
        line = line.chars().take(LONGEST).collect::<String>() + " .."
    }
    if line == "no error" { line } else { format!("`` {} ``", line.replace('|', "\\|")) }
}
