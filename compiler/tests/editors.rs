//! The files that colour recipes in editors say what the language says.
#![allow(clippy::disallowed_methods, reason = "files of the repository are read here")]

use minic_compiler::axes::{AXES, TAPS};
use minic_compiler::losses::LOSSES;
use minic_compiler::metrics::{FUNCTIONS, LAYER_METRICS, RANKINGS, REDUCERS};
use minic_compiler::targets::TARGETS;
use minic_grammar::ast::DECLARATIONS;
use minic_grammar::{forms, units};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../editors/vscode").join(name);
    let text = fs::read_to_string(&path).expect(name);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The words in the patterns of the TextMate grammar.
fn words() -> BTreeSet<String> {
    let grammar = read("syntaxes/mrecipe.tmLanguage.json");
    let rules = grammar["repository"].as_object().expect("rules").values();
    let patterns = rules.filter_map(|rule| rule["match"].as_str());
    let words = patterns
        .flat_map(|pattern| pattern.split(|c: char| !c.is_ascii_alphabetic() && c != '_' && c != '%'));
    words.map(str::to_string).collect()
}

#[test]
fn every_word_and_unit_of_the_language_is_coloured() {
    let words = words();
    let lines = ["prune", "group", "search", "schedule"].into_iter().flat_map(forms::lines);
    let language = DECLARATIONS.iter().copied().chain(lines);
    let language = language.chain(forms::RESERVED.iter().copied()).chain(forms::CLAUSES.iter().copied());
    for word in language.chain(units()) {
        assert!(words.contains(word), "`{word}` is not in the TextMate grammar");
    }
}

#[test]
fn names_of_registries_are_no_words_of_the_language() {
    let words = words();
    let axes = AXES.iter().map(|a| a.name).chain(TAPS.iter().map(|t| t.name));
    let metrics = LAYER_METRICS.iter().map(|m| m.name).chain(RANKINGS.iter().map(|r| r.name));
    let functions = FUNCTIONS.iter().map(|f| f.name).chain(REDUCERS.iter().map(|r| r.name));
    let others = LOSSES.iter().map(|l| l.name).chain(TARGETS.iter().map(|t| t.name));
    // `min` is a unit as well.
    for name in axes.chain(metrics).chain(functions).chain(others).filter(|name| *name != "min") {
        assert!(!words.contains(name), "`{name}` is in the TextMate grammar");
    }
}

#[test]
fn the_folder_is_an_extension() {
    let manifest = read("package.json");
    let language = &manifest["contributes"]["languages"][0];
    assert_eq!(language["extensions"][0], ".mrecipe");
    let grammar = &manifest["contributes"]["grammars"][0];
    assert_eq!(grammar["scopeName"], read("syntaxes/mrecipe.tmLanguage.json")["scopeName"]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../editors/vscode");
    for file in [&manifest["main"], &language["configuration"], &grammar["path"]] {
        let file = file.as_str().expect("a path");
        assert!(folder.join(file).is_file(), "{file}");
    }
    assert_eq!(read("language-configuration.json")["comments"]["lineComment"], "#");
    assert_eq!(manifest.get("dependencies"), None, "it is installed by copying it");
}
