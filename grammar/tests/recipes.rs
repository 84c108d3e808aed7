//! The shipped recipes parse, and so does every example of the language reference.
#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

use minic_grammar::{Sources, ast, codes, parse, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn shipped_recipes_parse_without_a_word() {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository("recipes")).expect("the recipes folder is there") {
        let path = entry.expect("a readable entry").path();
        // A run leaves `.minic` beside its recipe.
        if path.extension().is_none_or(|e| e != "mrecipe") {
            continue;
        }
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let recipe = read(&name, &fs::read_to_string(&path).expect("a readable recipe"));
        let has = |wanted: fn(&ast::Declaration) -> bool| recipe.declarations.iter().any(wanted);
        let shared = !has(|d| matches!(d, ast::Declaration::Model(_)));
        assert!(shared || has(|d| matches!(d, ast::Declaration::Export(_))), "{name}");
        names.push(name);
    }
    assert!(names.len() >= 5, "found only {names:?}");
}

#[test]
fn examples_of_the_reference_parse_and_show_every_declaration() {
    let reference = fs::read_to_string(repository("docs/language.md")).expect("the reference is there");
    let mut words = BTreeSet::new();
    for (n, example) in examples(&reference).enumerate() {
        let text = match example.starts_with("mrecipe 1\n") {
            true => example.to_owned(),
            false => format!("mrecipe 1\n{example}"),
        };
        let recipe = read(&format!("example {}", n + 1), &text);
        for declaration in &recipe.declarations {
            let printed = declaration.to_string();
            words.extend(printed.split(' ').next().map(str::to_owned));
        }
    }
    let all: BTreeSet<String> = ast::DECLARATIONS.iter().map(|d| d.to_string()).collect();
    assert_eq!(words, all);
}

#[test]
fn the_reference_lists_the_codes_of_the_language() {
    let reference = fs::read_to_string(repository("docs/language.md")).expect("the reference is there");
    for code in codes::CODES.iter().filter(|c| c.id.starts_with("E01")) {
        let row = format!("| {} | {} |", code.id, code.title);
        assert!(reference.contains(&row), "docs/language.md lacks the row {row:?}");
    }
}

/// The text of each fenced block that is marked as a recipe.
fn examples(reference: &str) -> impl Iterator<Item = &str> {
    reference.split("```mrecipe\n").skip(1).filter_map(|rest| rest.split("```").next())
}

fn read(name: &str, text: &str) -> ast::Recipe {
    let (recipe, diagnostics) = parse(text);
    assert!(diagnostics.is_empty(), "{}", render::render(&Sources::new(name, text), &diagnostics, false));
    recipe
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
