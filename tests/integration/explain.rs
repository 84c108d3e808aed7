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

#[test]
fn what_a_used_file_declares_is_explained_with_who_sets_its_params() {
    let folder = folder(
        r#"mrecipe 1

use "lib/common.mrecipe" { width = 2 * half }

param half = 160

model parent { checkpoint = "8b" }
data calibration { files = ["train.txt"]; sequence = 64; samples = 8 }

prune student from parent {
    calibrate on calibration
    axis ffn_hidden_size = width by activation
    axis num_layers = depth by cosine
}

export student to "out"
"#,
    );
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    let common = "mrecipe 1\nuse \"../depths.mrecipe\"\nparam width = 256 # neurons\nmetric activation(x) = mean(abs(x), over = tokens)\n";
    std::fs::write(folder.path().join("lib/common.mrecipe"), common).unwrap();
    std::fs::write(folder.path().join("depths.mrecipe"), "mrecipe 1\nparam depth = 10\n").unwrap();
    let check = minic(folder.path(), &["check", "recipe.mrecipe", "lib/common.mrecipe", "--json"]);
    assert_eq!(check.exit, 0, "{}", check.stderr);
    let found = check.json();
    assert!(found.as_array().unwrap().iter().all(|d| d["file"] == "recipe.mrecipe"), "{found}");

    let done = minic(folder.path(), &["explain", "recipe.mrecipe", "student", "--set", "depth=9"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    for part in [
        "half   160       `param` at recipe.mrecipe:5",
        "width  2 * half  `use` at recipe.mrecipe:3, instead of 256, `param` at lib/common.mrecipe:3",
        "depth  9         `--set`, instead of 10, `param` at depths.mrecipe:2",
    ] {
        assert!(done.stdout.contains(part), "{part:?} is not in\n{}", done.stdout);
    }
    let json = minic(folder.path(), &["explain", "recipe.mrecipe", "student", "--json"]).json();
    assert_eq!(json["params"][1]["name"], "width");
    assert_eq!(json["params"][1]["values"][0]["by"], "use");
    assert_eq!(json["params"][1]["values"][1]["file"], "lib/common.mrecipe");
    let plan = minic(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
    assert_eq!(plan["models"]["student"]["dims"]["ffn_hidden_size"], 320);

    // A fault in a used file is told at its place there.
    std::fs::write(folder.path().join("depths.mrecipe"), "mrecipe 1\nparam depth = 10 steps\n").unwrap();
    let check = minic(folder.path(), &["check", "recipe.mrecipe", "--json"]);
    assert_eq!(check.exit, 1);
    let found = check.json();
    assert!(found.as_array().unwrap().iter().any(|d| d["severity"] == "error"), "{found}");
}
