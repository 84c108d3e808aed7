//! `minic check`: what is said, where, and with which exit code.

use crate::command::{FIXED_4B, folder, minic};
use std::fs;

const TWO_ERRORS: &str = "mrecipe 1\n\nmodel parent { checkpoint = \"8b\" }\n\nexport nobody to \"out\"\nexport parent to \"a\" { dtype = f64 }\n";

#[test]
fn a_good_recipe_exits_with_0_and_says_nothing_on_standard_output() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["check", "recipe.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (0, ""), "{}", done.stderr);
    assert!(done.stderr.contains("1 recipe checked: 0 errors"), "{}", done.stderr);
}

#[test]
fn all_errors_are_drawn_on_standard_error() {
    let folder = folder(TWO_ERRORS);
    let done = minic(folder.path(), &["check", "recipe.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("recipe.mrecipe:5:8"), "{}", done.stderr);
    assert!(done.stderr.contains("recipe.mrecipe:6:"), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}'), "colors go to terminals only");
    let colored = minic(folder.path(), &["check", "recipe.mrecipe", "--color", "always"]);
    assert!(colored.stderr.contains('\u{1b}'));
}

#[test]
fn json_is_one_sorted_list() {
    let folder = folder(TWO_ERRORS);
    fs::write(folder.path().join("another.mrecipe"), FIXED_4B).unwrap();
    let done = minic(folder.path(), &["check", "--json", "recipe.mrecipe", "another.mrecipe"]);
    assert_eq!(done.exit, 1);
    let json = done.json();
    let found = json.as_array().unwrap();
    assert!(found.len() >= 2);
    for diagnostic in found {
        for key in ["line", "column", "end_line", "end_column"] {
            assert!(diagnostic[key].is_u64(), "{key} in {diagnostic}");
        }
        for key in ["code", "severity", "message", "file"] {
            assert!(diagnostic[key].is_string(), "{key} in {diagnostic}");
        }
        assert!(diagnostic.get("help").is_some());
    }
    let place = |d: &serde_json::Value| {
        (d["file"].as_str().unwrap().to_string(), d["line"].as_u64(), d["column"].as_u64())
    };
    assert!(found.is_sorted_by_key(place));
    let errors = found.iter().filter(|d| d["severity"] == "error");
    assert!(errors.clone().count() >= 2 && errors.clone().all(|d| d["file"] == "recipe.mrecipe"));
}

#[test]
fn json_of_a_good_recipe_is_a_list_without_errors() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["check", "--json", "recipe.mrecipe"]);
    assert_eq!(done.exit, 0);
    assert!(done.json().as_array().unwrap().iter().all(|d| d["severity"] == "warning"));
}

#[test]
fn a_recipe_that_is_not_there_is_an_input_error() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["check", "nowhere.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("nowhere.mrecipe"), "{}", done.stderr);
    let json = minic(folder.path(), &["check", "nowhere.mrecipe", "--json"]);
    assert_eq!(json.json()["error"]["exit"], 1);
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let folder = folder(FIXED_4B);
    for arguments in
        [&["check"][..], &["prune", "recipe.mrecipe"], &["check", "--color", "blue", "recipe.mrecipe"]]
    {
        let done = minic(folder.path(), arguments);
        assert_eq!((done.exit, done.stdout.as_str()), (2, ""), "{arguments:?}");
    }
}

#[test]
fn quiet_keeps_the_errors_and_drops_the_rest() {
    let folder = folder(TWO_ERRORS);
    let done = minic(folder.path(), &["check", "-q", "recipe.mrecipe"]);
    assert!(done.stderr.contains("error["), "{}", done.stderr);
    assert!(!done.stderr.contains("warning") && !done.stderr.contains("checked"), "{}", done.stderr);
}

#[test]
fn a_folder_of_something_else_is_not_exported_to() {
    let folder = folder(FIXED_4B);
    fs::create_dir(folder.path().join("out")).unwrap();
    assert_eq!(minic(folder.path(), &["check", "recipe.mrecipe"]).exit, 0, "an empty folder is free");
    fs::write(folder.path().join("out/notes.txt"), "mine").unwrap();
    let done = minic(folder.path(), &["check", "recipe.mrecipe"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("notes.txt"), "{}", done.stderr);
    fs::write(folder.path().join("out/provenance.json"), "{}").unwrap();
    assert_eq!(
        minic(folder.path(), &["check", "recipe.mrecipe"]).exit,
        0,
        "a run decides whether it is this export"
    );
}
