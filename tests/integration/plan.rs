//! `minic plan`: shapes, counts and costs, from config.json alone.

use crate::command::{FIXED_4B, folder, minic};
use serde_json::Value;
use std::fs;

fn node<'a>(json: &'a Value, name: &str) -> &'a Value {
    let nodes = json["nodes"].as_array().expect("nodes");
    nodes.iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("no node {name}"))
}

#[test]
fn shapes_and_counts_are_exact_from_config_json_alone() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let json = done.json();
    let (parent, student) = (&json["models"]["parent"], &json["models"]["student"]);
    assert_eq!(parent["params"], 8_100_852_736_u64);
    assert_eq!(student["params"], 4_489_223_040_u64);
    assert_eq!(student["from"], "parent");
    assert_eq!(student["layers"], 52);
    let dims = &student["dims"];
    let sizes =
        ["hidden_size", "ffn_hidden_size", "mamba_num_heads", "mamba_head_dim"].map(|d| dims[d].as_u64());
    assert_eq!(sizes, [3072, 12288, 112, 64].map(Some));
    assert_eq!(node(&json, "export student")["disk"], 2 * 4_489_223_040_u64);
}

/// Only the config is there: nothing can run, and every stage says why.
#[test]
fn blocked_stages_say_why() {
    let folder = folder(FIXED_4B);
    let json = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]).json();
    assert_eq!(node(&json, "parent")["state"], "blocked");
    assert!(node(&json, "parent")["reason"].as_str().unwrap().contains("no weights"));
    assert_eq!(node(&json, "student.cut")["reason"], "waits for `parent`");
    for node in json["nodes"].as_array().unwrap() {
        assert!(node["stage"].is_string());
        assert_eq!(node["state"] == "blocked", node["reason"].is_string(), "{node}");
    }
    // Once there are weights, everything can run.
    fs::write(folder.path().join("8b/model.safetensors"), "").unwrap();
    let json = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]).json();
    assert!(json["nodes"].as_array().unwrap().iter().all(|n| n["state"] == "run"));
    fs::remove_file(folder.path().join("train.txt")).unwrap();
    let json = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]).json();
    assert!(node(&json, "calibration")["reason"].as_str().unwrap().contains("train.txt"));
    assert_eq!(node(&json, "parent")["state"], "run");
}

#[test]
fn a_training_is_planned_with_what_it_takes() {
    let distilled = format!(
        "{FIXED_4B}
schedule recover {{
    loss = forward_kl(); optimizer = adamw(); rate = cosine(peak = 1e-4, floor = 1e-5, warmup = 1 steps)
    batch = 2; tokens = 256
}}
distill better from student {{ teacher = parent; data = calibration; schedule = recover }}
export better to \"better\"
"
    );
    let folder = folder(&distilled);
    fs::write(folder.path().join("8b/model.safetensors"), "").unwrap();
    let done = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let json = done.json();
    let better = node(&json, "better");
    assert_eq!((&better["state"], &node(&json, "export better")["state"]), (&"run".into(), &"run".into()));
    assert_eq!((better["updates"].as_u64(), better["tokens"].as_u64()), (Some(2), Some(256)));
    // Weights of both, the gradients of the only lane, two averages, and buffers.
    let (student, teacher) = (4_489_223_040_u64, 8_100_852_736_u64);
    let (min, max) = (better["memory"]["min"].as_u64().unwrap(), better["memory"]["max"].as_u64().unwrap());
    let fixed = 4 * (4 * student + teacher);
    assert!(fixed < min && min <= max && max < fixed + (1 << 30), "{better}");
    let text = minic(folder.path(), &["plan", "recipe.mrecipe"]).stdout;
    let line = text.lines().find(|line| line.contains(" distill ")).expect("the stage");
    assert!(line.contains("2 updates") && line.contains("GB"), "{line}");
    assert_eq!(json["models"]["better"]["params"], 4_489_223_040_u64);
}

#[test]
fn the_text_shows_old_and_new_sizes() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["plan", "recipe.mrecipe"]);
    assert_eq!(done.exit, 0);
    for expected in
        ["4096 -> 3072", "8,100,852,736 -> 4,489,223,040  55.4 % of parent", "student.score.ffn_hidden_size"]
    {
        assert!(done.stdout.contains(expected), "{expected} in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains('\u{1b}'));
}

#[test]
fn an_override_replaces_a_checkpoint() {
    let folder = folder(&FIXED_4B.replace("\"8b\"", "\"hf://nvidia/Nemotron-H-8B-Base-8K\""));
    let arguments = ["plan", "--json", "recipe.mrecipe", "--set", "parent.checkpoint=8b"];
    let json = minic(folder.path(), &arguments).json();
    assert_eq!(json["models"]["student"]["params"], 4_489_223_040_u64);
    // Without it the shapes are unknown, and the plan says so.
    let json = minic(folder.path(), &arguments[..3]).json();
    assert!(json["models"]["student"].is_null());
    assert_eq!(node(&json, "parent")["state"], "blocked");
    let done = minic(folder.path(), &["plan", "recipe.mrecipe", "--set", "nonsense"]);
    assert_eq!(done.exit, 2);
}

#[test]
fn depth_is_a_range_until_the_run() {
    let recipe =
        FIXED_4B.replace("axis hidden_size     = 3072  by activation", "axis num_layers = 48 by kld");
    let folder = folder(&recipe);
    let json = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]).json();
    let student = &json["models"]["student"];
    let (min, max) = (student["params"]["min"].as_u64().unwrap(), student["params"]["max"].as_u64().unwrap());
    assert!(min < max && max < 8_100_852_736);
    assert_eq!((student["layers"].as_u64(), student["pattern"].is_null()), (Some(48), true));
    let passes = &node(&json, "student.calibrate")["passes"];
    assert_eq!((passes["whole"].as_u64(), passes["partial"].as_u64()), (Some(1), Some(52)));
}

#[test]
fn a_search_is_planned_rung_by_rung() {
    let searched = format!(
        "{}
search best in student {{
    require params <= 5.5B
    rank by params keep 3
    rank by loss on calibration keep 1
}}
sensitivity figure of student on calibration {{ loss, params }}
",
        FIXED_4B
            .replace("axis hidden_size     = 3072  by", "axis hidden_size in {3072, 3584, 4096} by")
            .replace("axis ffn_hidden_size = 12288 by", "axis ffn_hidden_size in {12288, 21504} by")
            .replace("export student", "export best")
    );
    let folder = folder(&searched);
    let done = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let json = done.json();
    let points = |model: &str| json["models"][model]["points"].clone();
    assert_eq!(points("student"), serde_json::json!({ "all": 6, "feasible": 6 }));
    // Of those with 12288 neurons the narrower two, 4.489 and 5.237 billion; the widest has 5.985.
    assert_eq!(points("best"), serde_json::json!({ "all": 6, "feasible": 2 }));
    assert_eq!(json["models"]["best"]["params"]["min"], 4_489_223_040_u64);
    let rungs = &node(&json, "best")["rungs"];
    let candidates = |n: usize| rungs[n]["candidates"].as_u64();
    assert_eq!((candidates(0), candidates(1)), (Some(2), Some(2)));
    assert_eq!((rungs[0]["passes"].as_u64(), rungs[1]["passes"].as_u64()), (Some(0), Some(1)));
    assert_eq!(node(&json, "best")["flops"], rungs[1]["flops"]);
    assert!(node(&json, "figure")["passes"]["whole"].as_u64() > Some(3));
    let text = minic(folder.path(), &["plan", "recipe.mrecipe"]).stdout;
    for expected in ["6, of which 2 are feasible", "best, rung by rung", "loss on calibration keep 1"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn every_level_prints() {
    let folder = folder(FIXED_4B);
    let emit = |level: &str| minic(folder.path(), &["plan", "recipe.mrecipe", "--emit", level]);
    for (level, expected) in [
        ("ast", "mrecipe 1"),
        ("hir", "prune student"),
        ("plan", "student.cut <- model parent"),
        ("graph", "ssd("),
        ("schedule", "# student.calibrate"),
        // The metric of the recipe, as one shader; no device is needed.
        ("wgsl", "// metric: metric of student.calibrate\n"),
    ] {
        let done = emit(level);
        assert_eq!(done.exit, 0, "{level}: {}", done.stderr);
        assert!(done.stdout.contains(expected), "{level} lacks {expected}");
    }
    assert_eq!(emit("bytes").exit, 2);
    let device = |name: &str| minic(folder.path(), &["plan", "recipe.mrecipe", "--device", name]).exit;
    assert_eq!([device("cpu"), device("vulkan:99"), device("tpu")], [0, 3, 2]);
}

#[test]
fn a_recipe_with_errors_has_no_plan() {
    let folder = folder("mrecipe 1\nexport nobody to \"out\"\n");
    let done = minic(folder.path(), &["plan", "recipe.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("nobody"), "{}", done.stderr);
    let json = minic(folder.path(), &["plan", "--json", "recipe.mrecipe"]).json();
    assert_eq!(json["error"]["exit"], 1);
    assert_eq!(json["error"]["diagnostics"][0]["line"], 2);
}
