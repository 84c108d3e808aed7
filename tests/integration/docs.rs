//! The documents say what is so, and the tree is tidy.

use crate::book;
use crate::command::{copy, minic, repository};
use minic_compiler::axes::{AXES, TAPS};
use minic_compiler::check::{Environment, check_text};
use minic_compiler::families::FAMILIES;
use minic_compiler::losses::LOSSES;
use minic_compiler::metrics::{FUNCTIONS, LAYER_METRICS, RANKINGS, REDUCERS};
use minic_compiler::targets::TARGETS;
use minic_grammar::{Diagnostic, Severity, Sources, parse, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Documents for people, with what they name by a path.
fn documents() -> Vec<String> {
    let others = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(String::from);
    // What is broken there is no place of the repository.
    let chapters = book::chapters().into_iter().filter(|chapter| !chapter.ends_with("broken-inputs.md"));
    others.into_iter().chain(chapters).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The texts of the fenced blocks that are marked with `language`.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let block = |rest: &str| rest.split("```").next().unwrap_or_default().to_string();
    document.split(&fence).skip(1).map(block).collect()
}

/// What stands between backticks on one line, outside of fenced blocks.
fn code_spans(document: &str) -> BTreeSet<String> {
    let prose = document.split("```").step_by(2);
    let lines = prose.flat_map(str::lines);
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(|span| span.replace("\\|", "|")).collect()
}

/// Nothing is at hand: neither checkpoints nor data.
struct Nothing;

impl Environment for Nothing {
    fn config(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

fn assert_no_error(place: &str, text: &str, found: &[Diagnostic]) {
    let errors: Vec<Diagnostic> = found.iter().filter(|d| d.severity() == Severity::Error).cloned().collect();
    assert!(errors.is_empty(), "{}", render::render(&Sources::new(place, text), &errors, false));
}

#[test]
fn recipes_in_the_documents_check_and_fragments_of_recipes_parse() {
    let mut whole = 0;
    for document in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        for (n, block) in blocks(&read(document), "mrecipe").into_iter().enumerate() {
            let place = format!("{document}, recipe {}", n + 1);
            if block.starts_with("mrecipe 1\n") {
                assert_no_error(&place, &block, &check_text(&place, &block, &Nothing, &[]).found);
                whole += 1;
            } else {
                let text = format!("mrecipe 1\n{block}");
                assert_no_error(&place, &text, &parse(&text).1);
            }
        }
    }
    assert!(whole >= 1, "README.md shows a whole recipe");
}

#[test]
fn the_readme_shows_the_recipe_of_the_quickstart() {
    let shown = blocks(&read("README.md"), "mrecipe");
    assert_eq!(shown, [read("examples/quickstart/quickstart.mrecipe")]);
}

#[test]
fn the_first_command_of_the_readme_prunes_and_distils_the_quickstart() {
    let readme = read("README.md");
    let commands = blocks(&readme, "sh");
    let run =
        commands[0].trim().strip_prefix("cargo run --release -- ").expect("the first command runs minic");
    let folder = tempfile::tempdir().unwrap();
    copy(&repository("examples/quickstart"), &folder.path().join("examples/quickstart"));
    // What is printed of the student is of a longer training than a test can wait for.
    let arguments: Vec<&str> = run.split(' ').chain(["--set", "recovery=100K"]).collect();
    let done = minic(folder.path(), &arguments);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let printed = &blocks(&readme, "text")[0];
    let figures =
        |name: &str| printed.lines().filter(|l| l.split(' ').next() == Some(name)).collect::<Vec<_>>();
    let (parent, half) = (figures("parent"), figures("half"));
    assert_eq!((parent.len(), half.len()), (3, 3), "{printed}");
    for line in parent.into_iter().chain(half) {
        assert!(done.stdout.lines().any(|l| is_alike(line, l)), "{line:?} is not in\n{}", done.stdout);
    }
    let result =
        fs::read_to_string(folder.path().join("examples/quickstart/.minic/runs/quickstart/result.json"));
    let result: serde_json::Value = serde_json::from_str(&result.unwrap()).unwrap();
    let heldout = result["trainings"]["student"]["heldout"].as_array().unwrap();
    let loss = |row: &serde_json::Value| row["heldout_loss"].as_f64().unwrap();
    let parent = &result["evaluations"]["evaluate half on heldout"]["against_figures"]["loss"];
    let above = |row: &serde_json::Value| loss(row) - parent.as_f64().unwrap();
    assert!(above(heldout.last().unwrap()) < 0.6 * above(&heldout[0]), "the parent teaches: {heldout:?}");
    let done = minic(folder.path(), &["verify", "out/quickstart-student"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
}

/// The same words, and nearly the same figures: machines may differ in the last digits of a loss.
fn is_alike(a: &str, b: &str) -> bool {
    let alike = |(a, b): (&str, &str)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => (x - y).abs() <= 0.01 * x.abs(),
        _ => a == b,
    };
    let (a, b): (Vec<_>, Vec<_>) = (a.split_whitespace().collect(), b.split_whitespace().collect());
    a.len() == b.len() && a.into_iter().zip(b).all(alike)
}

#[test]
fn the_second_command_of_the_readme_is_what_ci_runs_last() {
    let commands = blocks(&read("README.md"), "sh");
    assert_eq!(Some(commands[1].trim()), read(".ci/run").lines().last());
}

#[test]
fn the_readme_lists_the_commands_that_there_are_and_their_options() {
    let help = minic(Path::new("."), &["--help"]).stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let there: BTreeSet<&str> = listed.filter_map(|l| l.split_whitespace().next()).collect();
    let mut named = BTreeSet::new();
    for span in code_spans(&read("README.md")) {
        let mut words = span.split_whitespace().skip_while(|w| *w != "minic").skip(1);
        let Some(command) = words.next().filter(|w| w.chars().all(|c| c.is_ascii_lowercase())) else {
            continue;
        };
        assert!(there.contains(command), "README.md names `minic {command}`");
        let help = minic(Path::new("."), &[command, "--help"]).stdout;
        for option in span.split(['[', ' ', ']']).filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "README.md names `minic {command} {option}`");
        }
        named.insert(command.to_string());
    }
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(named, there);
}

#[test]
fn scripts_for_clusters_run_commands_that_there_are() {
    let text = read("docs/cluster.md");
    let scripts = [blocks(&text, "sh"), blocks(&text, "yaml")].concat();
    let mut found = 0;
    for words in scripts.iter().flat_map(|script| script.split("minic ").skip(1)) {
        let mut words = words.lines().next().unwrap().split(['&', ';']).next().unwrap().split_whitespace();
        let command = words.next().unwrap();
        let help = minic(Path::new("."), &[command, "--help"]).stdout;
        for option in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{option} <")), "docs/cluster.md runs `minic {command} {option}`");
            found += 1;
        }
    }
    assert!(found >= 8, "{found}");
}

/// Places that are named but are not there: patterns, and what a user or a run makes.
const ELSEWHERE: &[&str] = &["NAME", "*", "~/", "$XDG", "foo/", ".minic/", "://", "out/", "shapes/", "`"];

#[test]
fn files_that_the_documents_name_are_there() {
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        for span in code_spans(&text) {
            let written = text.contains(&format!("file={span}"));
            let path = !written
                && span.contains('/')
                && !span.contains([' ', '|', '{', '='])
                && !span.starts_with('/');
            if path && !ELSEWHERE.iter().any(|e| span.contains(e)) && span.contains(['.', '/']) {
                assert!(repository(&span).exists(), "{document} names `{span}`");
                named += 1;
            }
        }
    }
    assert!(named > 80, "found only {named} paths");
}

#[test]
fn tests_and_items_that_the_architecture_names_are_there() {
    let sources: String =
        files().into_iter().filter(|f| is_rust(f)).map(|f| fs::read_to_string(f).unwrap()).collect();
    let mut named = 0;
    for span in code_spans(&read("ARCHITECTURE.md")) {
        let identifier = !span.starts_with("clippy::")
            && span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let Some(last) = span.rsplit("::").next().filter(|_| identifier && span.contains(['_', ':'])) else {
            continue;
        };
        assert!(sources.contains(last), "ARCHITECTURE.md names `{span}`");
        named += 1;
    }
    assert!(named > 30, "found only {named} names");
}

#[test]
fn the_reference_names_everything_that_a_recipe_may_name() {
    let reference = read("docs/language.md");
    let words: BTreeSet<&str> =
        reference.split(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c))).collect();
    let names = AXES.iter().map(|a| a.name).chain(TAPS.iter().map(|t| t.name));
    let names = names.chain(FUNCTIONS.iter().map(|f| f.name)).chain(REDUCERS.iter().map(|r| r.name));
    let names = names.chain(LAYER_METRICS.iter().map(|m| m.name)).chain(RANKINGS.iter().map(|r| r.name));
    let names = names.chain(LOSSES.iter().map(|l| l.name)).chain(TARGETS.iter().map(|t| t.name));
    let missing: Vec<&str> = names.filter(|n| !words.contains(n)).collect();
    assert!(missing.is_empty(), "docs/language.md does not name {missing:?}");
    let readme = read("README.md");
    for family in FAMILIES {
        assert!(readme.contains(&format!("| `{}` |", family.name())), "README.md lacks {}", family.name());
    }
}

/// Folders that are made, not written.
const MADE: &[&str] = &["target", ".git", ".minic", "__pycache__", "node_modules", "out"];

fn files() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![repository("")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let made = MADE.iter().any(|m| entry.file_name() == *m);
            match entry.file_type().unwrap().is_dir() {
                true if !made => folders.push(entry.path()),
                // In a worktree, `.git` is a file.
                false if !made => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

#[test]
fn every_source_file_says_what_it_is() {
    // `foo/tests.rs` are the tests of `foo.rs`.
    let tests = |f: &Path| f.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("tests"));
    let silent = |f: &PathBuf| !fs::read_to_string(f).unwrap().starts_with("//! ");
    let silent: Vec<PathBuf> = files().into_iter().filter(|f| is_rust(f) && !tests(f) && silent(f)).collect();
    assert!(silent.is_empty(), "begin with `//! ..`: {silent:#?}");
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let places =
        [["/wo", "rk/"], ["../sha", "red"], ["/ho", "me/"], ["/ro", "ot/"]].map(|parts| parts.concat());
    let mut texts = 0;
    for file in files() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        texts += 1;
        for (n, line) in text.lines().enumerate() {
            let found = places.iter().find(|p| line.contains(p.as_str()));
            assert!(found.is_none(), "{}:{}: {line}", file.display(), n + 1);
        }
    }
    assert!(texts > 300, "found only {texts} texts");
}

#[test]
fn nothing_is_called_mod_or_utils() {
    let named = |f: &PathBuf| {
        ["mod.rs", "utils.rs", "util.rs", "helpers.rs"].iter().any(|n| f.file_name().is_some_and(|f| f == *n))
    };
    assert_eq!(files().into_iter().filter(named).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
