//! What all commands have in common: `--json` is one document, whatever happens; `-q` and `--color` are heeded.

use crate::command::{minic, repository};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const RECIPE: &str = r#"mrecipe 1

model parent { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 4 }
metric magnitude(w) = l2(w)

prune half from parent {
    axis ffn_hidden_size = 192 by magnitude
}

evaluate half against parent on heldout { loss, kl }
export half to "half"
"#;

/// Every command: the words that succeed in [`folder`], after those before them, and words that fail.
const COMMANDS: &[(&str, &[&str], &[&str])] = &[
    ("run", &["recipe.mrecipe"], &["bad.mrecipe"]),
    ("merge", &["recipe.mrecipe"], &["bad.mrecipe"]),
    ("check", &["recipe.mrecipe"], &["bad.mrecipe"]),
    ("plan", &["recipe.mrecipe"], &["bad.mrecipe"]),
    ("graph", &["recipe.mrecipe", "--format", "json"], &["bad.mrecipe", "--format", "json"]),
    ("fmt", &["--check", "recipe.mrecipe"], &["bad.mrecipe"]),
    ("explain", &["E0409"], &["E0499"]),
    ("inspect", &["model"], &["nowhere"]),
    (
        "eval",
        &["model", "--data", "heldout.txt", "--sequence", "64", "--samples", "2"],
        &["model", "--data", "none"],
    ),
    (
        "logits",
        &["model", "--tokens", "ids.json", "--output", "l.safetensors"],
        &["model", "--tokens", "bad.mrecipe", "--output", "l"],
    ),
    ("verify", &["half"], &["nowhere"]),
    ("synth", &["model", "--output", "made"], &["nowhere", "--output", "made"]),
    ("report", &["recipe.mrecipe"], &["nowhere"]),
    ("diff", &["model", "half"], &["model", "recipe.mrecipe"]),
    ("bench", &["surgery", "model"], &["surgery", "nowhere"]),
    ("cache", &["ls", "--recipe", "recipe.mrecipe"], &["ls", "--store", "nowhere"]),
    ("doctor", &[], &["--store", "heldout.txt/store"]),
    ("completions", &["bash"], &["tcsh"]),
];

/// The quickstart's model and text, a good recipe and a bad one.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (quickstart, at) = (repository("examples/quickstart"), |name: &str| folder.path().join(name));
    fs::create_dir(at("model")).unwrap();
    for entry in fs::read_dir(quickstart.join("model")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), at("model").join(entry.file_name())).unwrap();
    }
    fs::copy(quickstart.join("heldout.txt"), at("heldout.txt")).unwrap();
    fs::write(at("recipe.mrecipe"), RECIPE).unwrap();
    fs::write(at("bad.mrecipe"), "mrecipe 1\nmodel parent { checkpoint = }\n").unwrap();
    fs::write(at("ids.json"), "[[1, 2, 3, 4]]").unwrap();
    folder
}

fn words<'a>(command: &'a str, words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&[command], words, more].concat()
}

#[test]
fn every_command_is_walked_over() {
    let help = minic(Path::new("."), &["--help"]).stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let there = listed.filter_map(|l| l.split_whitespace().next());
    // What `lsp` writes is a protocol, with or without `--json`.
    let there: BTreeSet<&str> = there.filter(|name| *name != "lsp").collect();
    assert_eq!(COMMANDS.iter().map(|(name, ..)| *name).collect::<BTreeSet<_>>(), there);
}

#[test]
fn json_is_one_document_on_success_and_on_failure() {
    let folder = folder();
    for (name, good, bad) in COMMANDS {
        let done = minic(folder.path(), &words(name, good, &["--json", "-q", "--color", "always"]));
        assert_eq!(done.exit, 0, "{name}: {}", done.stderr);
        assert!(done.json().is_object() || matches!(*name, "check" | "cache"), "{name}: {}", done.stdout);
        assert_eq!(done.stderr, "", "{name}: -q");
        let done = minic(folder.path(), &words(name, bad, &["--json", "--color", "never"]));
        assert!(matches!(done.exit, 1..=4), "{name} {bad:?} ends with {}", done.exit);
        let document = done.json();
        let own = matches!(*name, "check" | "fmt" | "doctor");
        assert!(own || document["error"]["exit"] == done.exit, "{name}: {}", done.stdout);
        assert!(!done.stderr.contains('\x1b'), "{name}: {}", done.stderr);
    }
}

#[test]
fn without_json_there_is_an_answer_and_no_color_in_a_pipe() {
    let folder = folder();
    assert_eq!(minic(folder.path(), &["run", "recipe.mrecipe"]).exit, 0);
    for (name, good, bad) in COMMANDS.iter().filter(|(name, ..)| !matches!(*name, "synth" | "bench")) {
        let done = minic(folder.path(), &words(name, good, &[]));
        assert_eq!(done.exit, 0, "{name}: {}", done.stderr);
        assert!(!done.stdout.contains('\x1b') && !done.stderr.contains('\x1b'), "{name}");
        assert!(serde_json::from_str::<Value>(&done.stdout).is_err() || *name == "graph", "{name}");
        let done = minic(folder.path(), &words(name, bad, &["--color", "always"]));
        // The shell's name is refused by the parser of the command line.
        assert!(
            done.stderr.contains('\x1b') || matches!(*name, "completions" | "doctor"),
            "{name}: {}",
            done.stderr
        );
    }
}

#[test]
fn a_wrong_command_line_is_a_document_too() {
    let done = minic(Path::new("."), &["inspect", "--json"]);
    assert_eq!(done.exit, 2);
    assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    assert_eq!(done.json()["error"]["exit"], 2);
    assert!(!done.json()["error"]["message"].as_str().unwrap().is_empty());
    let help = minic(Path::new("."), &["inspect", "--help", "--json"]);
    assert!(help.exit == 0 && help.stdout.contains("Usage"), "{}", help.stdout);
}
