//! `minic graph`: the plan in every format.

use crate::command::{FIXED_4B, folder, minic};

#[test]
fn the_plan_is_drawn_in_every_format() {
    let folder = folder(FIXED_4B);
    let draw = |format: &str| {
        let done = minic(folder.path(), &["graph", "recipe.mrecipe", "--format", format]);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        done
    };
    assert!(draw("dot").stdout.starts_with("digraph plan {"));
    assert!(draw("mermaid").stdout.starts_with("flowchart LR"));
    let svg = draw("svg").stdout;
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("student.cut"));
    let json = draw("json").json();
    let nodes = json["nodes"].as_array().unwrap();
    let cut = nodes.iter().find(|n| n["name"] == "student.cut").unwrap();
    assert_eq!(cut["inputs"][0], serde_json::json!({ "from": "parent", "value": "model" }));
    let same = minic(folder.path(), &["graph", "recipe.mrecipe", "--json"]);
    assert_eq!(same.json(), json);
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    let folder = folder(FIXED_4B);
    for format in ["dot", "mermaid", "json", "svg"] {
        let draw = || minic(folder.path(), &["graph", "recipe.mrecipe", "--format", format]).stdout;
        assert_eq!(draw(), draw());
    }
}

#[test]
fn an_unknown_format_is_a_wrong_command_line() {
    let folder = folder(FIXED_4B);
    assert_eq!(minic(folder.path(), &["graph", "recipe.mrecipe", "--format", "png"]).exit, 2);
}
