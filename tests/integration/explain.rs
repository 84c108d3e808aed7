//! `minic explain`: pages of codes, and how a stage comes about.

use crate::command::{FIXED_4B, folder, minic};
use minic_grammar::codes::CODES;
use std::path::Path;

#[test]
fn every_code_is_listed_and_explained() {
    let listed = minic(Path::new("."), &["explain", "--json"]).json();
    let codes: Vec<&str> =
        listed["codes"].as_array().unwrap().iter().map(|c| c["code"].as_str().unwrap()).collect();
    assert_eq!(codes, CODES.iter().map(|c| c.id).collect::<Vec<_>>());
    let page = minic(Path::new("."), &["explain", "w0402", "--json"]).json();
    assert_eq!((&page["code"], &page["severity"]), (&"W0402".into(), &"warning".into()));
    for part in ["title", "text", "failing", "mended"] {
        assert!(page[part].as_str().is_some_and(|text| !text.is_empty()), "{part}");
    }
    let text = minic(Path::new("."), &["explain", "W0402"]);
    assert_eq!(text.exit, 0);
    assert!(text.stdout.starts_with("warning[W0402]: "), "{}", text.stdout);
    assert!(text.stdout.contains(page["text"].as_str().unwrap()));
}

#[test]
fn an_unknown_code_is_an_error_with_the_nearest_one() {
    let done = minic(Path::new("."), &["explain", "E0499", "--json"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("did you mean `E0409`?"), "{}", done.stderr);
    assert!(done.json()["error"]["help"].as_str().unwrap().contains("E0409"));
}

#[test]
fn errors_point_to_their_pages_once() {
    let folder = folder("mrecipe 1\n\nexport a to \"x\"\nexport b to \"y\"\n");
    let done = minic(folder.path(), &["check", "recipe.mrecipe"]);
    assert!(
        done.stderr.ends_with("For more about an error, try `minic explain E0202`.\n"),
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr.matches("minic explain").count(), 1);
    let quiet = minic(folder.path(), &["check", "recipe.mrecipe", "-q"]);
    assert!(!quiet.stderr.contains("minic explain") && quiet.stderr.contains("E0202"), "{}", quiet.stderr);
}

#[test]
fn a_stage_is_explained_from_its_declaration_to_what_needs_it() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["explain", "recipe.mrecipe", "student"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    for part in [
        "student.cut: cut",
        "makes student",
        "asked for at recipe.mrecipe:6",
        "prune student from parent {",
        "    student.score.hidden_size",
        "needed by\n    export student",
    ] {
        assert!(done.stdout.contains(part), "{part:?} is not in\n{}", done.stdout);
    }
    let overridden = ["explain", "recipe.mrecipe", "calibration", "--json", "--set", "calibration.samples=4"];
    let json = minic(folder.path(), &overridden).json();
    assert_eq!(json["depends_on"], serde_json::json!(["parent"]));
    assert_eq!(json["declaration"]["line"], 4);
    assert_eq!(json["overrides"], serde_json::json!(["calibration.samples=4"]));
    assert!(json["detail"].as_str().unwrap().contains("4 samples"), "{json}");
    assert_eq!(json["needed_by"][0]["name"], "student.calibrate");
}

#[test]
fn a_stage_that_there_is_not_is_told_with_the_nearest() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["explain", "recipe.mrecipe", "studnet.cut"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("did you mean `student.cut`?"), "{}", done.stderr);
    let done = minic(folder.path(), &["explain", "recipe.mrecipe"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("minic explain recipe.mrecipe NAME"), "{}", done.stderr);
}
