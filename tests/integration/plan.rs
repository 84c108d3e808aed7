//! `minic plan`: shapes, counts and costs, from config.json alone.

use crate::command::{Done, FIXED_4B, copy, folder, minic, minic_with, quickstart, repository};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Plans for a device that has room for anything.
fn roomy(folder: &Path, arguments: &[&str]) -> Done {
    minic(folder, &[&["plan", "recipe.mrecipe", "--memory", "1TB"], arguments].concat())
}

fn node<'a>(json: &'a Value, name: &str) -> &'a Value {
    let nodes = json["nodes"].as_array().expect("nodes");
    nodes.iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("no node {name}"))
}

#[test]
fn shapes_and_counts_are_exact_from_config_json_alone() {
    let folder = folder(FIXED_4B);
    let done = roomy(folder.path(), &["--json"]);
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
    let folder = folder(&distilled.replace("train.txt", "train.u16"));
    fs::write(folder.path().join("8b/model.safetensors"), "").unwrap();
    fs::write(folder.path().join("train.u16"), [0; 4096]).unwrap();
    let done = roomy(folder.path(), &["--json"]);
    // Its averages may be more than the disk holds.
    assert!(done.exit == 0 || done.stderr.contains(" of disk"), "{}", done.stderr);
    let json = done.json();
    let better = node(&json, "better");
    assert_eq!((&better["state"], &node(&json, "export better")["state"]), (&"run".into(), &"run".into()));
    assert_eq!((better["updates"].as_u64(), better["tokens"].as_u64()), (Some(2), Some(256)));
    // Weights of both, the gradients of the only lane, two averages, and buffers.
    let (student, teacher) = (4_489_223_040_u64, 8_100_852_736_u64);
    let (min, max) = (better["memory"]["min"].as_u64().unwrap(), better["memory"]["max"].as_u64().unwrap());
    let fixed = 4 * (4 * student + teacher);
    assert!(fixed < min && min <= max && max < fixed + (1 << 30), "{better}");
    let phase = json!([{ "name": "recover", "data": "calibration", "updates": 2, "batch": 2, "sequence": 64, "tokens": 256 }]);
    assert_eq!(better["phases"], phase);
    let text = roomy(folder.path(), &[]).stdout;
    let line = text.lines().find(|line| line.contains(" distill ")).expect("the stage");
    assert!(line.contains("GB") && text.contains("recover: 2 updates of 2 x 64 = 256 tokens"), "{text}");
    assert!(text.contains("2 updates on 256 tokens"), "{text}");
    assert_eq!(json["models"]["better"]["params"], 4_489_223_040_u64);
}

#[test]
fn the_text_shows_old_and_new_sizes() {
    let folder = folder(FIXED_4B);
    let done = roomy(folder.path(), &[]);
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
    let done = roomy(folder.path(), &["--json"]);
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
    let device = |name: &str| roomy(folder.path(), &["--device", name]).exit;
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

/// Every field of a stage; a plan tells no less of one than of another.
const FIELDS: &[&str] = &[
    "name",
    "stage",
    "state",
    "reason",
    "detail",
    "aliases",
    "makes",
    "inputs",
    "samples",
    "passes",
    "updates",
    "tokens",
    "flops_per_sample",
    "flops",
    "memory",
    "disk",
    "seconds",
    "rough",
    "params",
    "phases",
    "rungs",
];

#[test]
fn every_shipped_recipe_is_planned_with_every_field_of_every_stage() {
    let place = tempfile::tempdir().unwrap();
    for folder in ["recipes", "examples/quickstart"] {
        copy(&repository(folder), &place.path().join(folder));
    }
    let config = |name: &str| {
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        let config = repository("compiler/tests/configs").join(format!("{name}.json"));
        fs::copy(config, folder.join("config.json")).unwrap();
        format!("parent.checkpoint={}", folder.display())
    };
    let (hybrid, mamba) = (config("Nemotron-H-8B-Base-8K"), config("mamba2-1.3b"));
    let nano = config("NVIDIA-Nemotron-Nano-12B-v2-Base");
    let mut planned = 0;
    for folder in ["recipes", "examples/quickstart"] {
        for entry in fs::read_dir(place.path().join(folder)).unwrap().map(Result::unwrap) {
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if !name.ends_with(".mrecipe") {
                continue;
            }
            let model = match name.as_str() {
                // What others use is no recipe by itself.
                "recipes/common.mrecipe" => continue,
                "recipes/nemotron-nano-12b-9b.mrecipe" => Some(&nano),
                "recipes/mamba2-1.3b-780m.mrecipe" => Some(&mamba),
                _ => Some(&hybrid).filter(|_| folder == "recipes"),
            };
            let mut words = vec!["plan", "--json", "--memory", "1TB", &name];
            words.extend(model.map(|model| ["--set", model.as_str()]).into_iter().flatten());
            let done = minic(place.path(), &words);
            let json = done.json();
            assert!(json["error"].is_null(), "{name}: {}", done.stderr);
            for node in json["nodes"].as_array().unwrap() {
                let fields: Vec<&str> = node.as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(fields, FIELDS, "{name}: {node}");
                // Shapes say what a stage costs that runs a model, wherever they are known.
                let runs = ["calibrate", "evaluate", "train", "distill", "sensitivity", "search"];
                let (stage, known) =
                    (node["stage"].as_str().unwrap(), model.is_some() || folder != "recipes");
                if runs.contains(&stage) && known {
                    let counted = !node["flops"].is_null() || !node["flops_per_sample"].is_null();
                    let unread = folder == "recipes" && ["train", "distill", "search"].contains(&stage);
                    assert!(!node["memory"].is_null() && (counted || unread), "{name}: {node}");
                }
            }
            for total in
                ["run", "cached", "blocked", "seconds", "flops", "memory", "disk", "updates", "tokens"]
            {
                assert!(json["totals"].get(total).is_some(), "{name}: {total}");
            }
            let text = minic(place.path(), &[&words[..1], &words[2..]].concat()).stdout;
            let nodes = json["nodes"].as_array().unwrap();
            assert!(nodes.iter().all(|node| text.contains(node["name"].as_str().unwrap())), "{text}");
            planned += 1;
        }
    }
    assert_eq!(planned, 10);
}

const TRAINED: &str = r#"mrecipe 1

model parent { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 16; epochs = 2 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
prune half from parent {
    calibrate on heldout
    axis ffn_hidden_size = 224 by activation
}
schedule recover {
    loss = forward_kl(); optimizer = adamw(); rate = constant(peak = 1e-4)
    batch = 2; tokens = 1280
}
distill student from half { teacher = parent; data = heldout; schedule = recover }
evaluate student on heldout { loss }
export student to "out"
"#;

/// Plans with the figures of a folder of its own.
fn timed(folder: &Path, words: &[&str]) -> Done {
    let (states, nowhere) =
        (folder.join("states").display().to_string(), folder.join("no").display().to_string());
    let variables = [
        ("XDG_STATE_HOME", states.as_str()),
        ("HF_HOME", &nowhere),
        ("HF_HUB_OFFLINE", "1"),
        ("MINIC_DEVICE", "cpu"),
    ];
    minic_with(folder, words, &variables)
}

#[test]
fn times_are_those_of_benchmarks_and_nothing_else() {
    let folder = quickstart(TRAINED);
    let plan = |words: &[&str]| {
        let done = timed(folder.path(), &[&["plan", "recipe.mrecipe", "--threads", "2"], words].concat());
        assert_eq!(done.exit, 0, "{}", done.stderr);
        done
    };
    let json = plan(&["--json"]).json();
    assert!(json["nodes"].as_array().unwrap().iter().all(|n| n["rough"] == false));
    assert!(
        node(&json, "student")["seconds"].is_null() && node(&json, "half.calibrate")["seconds"].is_null()
    );
    assert_eq!(
        json["not_measured"],
        json!([
            "exports",
            "forward passes",
            "loading checkpoints",
            "proving cuts",
            "reading data",
            "training"
        ])
    );
    let text = plan(&[]).stdout;
    assert!(text.contains("time not measured") && text.contains("`minic bench recipe RECIPE`"), "{text}");
    // Figures as a benchmark would leave them, of the model itself and of one much larger.
    let device = json["device"].as_str().unwrap();
    let figure = |kind: &str, device: &str, params: u64, sequence: u64, rate: f64| {
        json!({ "kind": kind, "device": device, "threads": 2, "params": params, "sequence": sequence, "rate": rate,
                "date": "2026-11-26", "minic": "0.1.0" })
    };
    let parent = json["models"]["parent"]["params"].as_u64().unwrap();
    let figures = json!({ "figures": [
        figure("forward", device, parent, 64, 2e9),
        figure("forward", "another device", parent, 64, 1.0),
        figure("train", device, 100 * parent, 64, 4e9),
        figure("export", "host", parent, 0, 1e6),
    ]});
    fs::create_dir_all(folder.path().join("states/minic")).unwrap();
    fs::write(folder.path().join("states/minic/figures.json"), figures.to_string()).unwrap();
    let json = plan(&["--json"]).json();
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    let calibrate = node(&json, "half.calibrate");
    assert!((number(&calibrate["seconds"]) - number(&calibrate["flops"]) / 2e9).abs() < 1e-9, "{calibrate}");
    let (student, export) = (node(&json, "student"), node(&json, "export student"));
    assert!((number(&student["seconds"]) - number(&student["flops"]) / 4e9).abs() < 1e-9, "{student}");
    assert_eq!((&calibrate["rough"], &student["rough"]), (&json!(false), &json!(true)));
    assert!((number(&export["seconds"]) - number(&export["disk"]) / 1e6).abs() < 1e-9, "{export}");
    assert!(node(&json, "parent")["seconds"].is_null());
    assert_eq!(json["not_measured"], json!(["loading checkpoints", "proving cuts", "reading data"]));
    let text = plan(&[]).stdout;
    let line = text.lines().find(|line| line.contains("distill student")).unwrap();
    assert!(
        line.contains('~') && text.contains("Not measured on this machine: loading checkpoints"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    // Other threads are another machine.
    let json = timed(folder.path(), &["plan", "recipe.mrecipe", "--json", "--threads", "1"]).json();
    assert!(node(&json, "half.calibrate")["seconds"].is_null());
}

#[test]
fn a_benchmark_of_the_recipe_leaves_no_time_unmeasured() {
    let folder = quickstart(TRAINED);
    let done = timed(
        folder.path(),
        &["bench", "recipe", "recipe.mrecipe", "--seconds", "1", "--dir", "work", "--json"],
    );
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let figures = done.json()["figures"].as_array().unwrap().clone();
    let kinds: Vec<&str> = figures.iter().map(|f| f["kind"].as_str().unwrap()).collect();
    for kind in ["forward", "train", "data", "load", "score", "cut", "export"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert!(figures.iter().all(|f| f["rate"].as_f64().is_some_and(|rate| rate > 0.0)));
    assert!(
        !folder.path().join(".minic").exists()
            && fs::read_dir(folder.path().join("work")).unwrap().count() == 0
    );
    let json = timed(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
    for node in json["nodes"].as_array().unwrap() {
        assert!(!node["seconds"].is_null() && node["rough"] == false, "{node}");
    }
    assert_eq!((&json["totals"]["untimed"], &json["not_measured"]), (&json!(0), &json!([])));
    assert!(json["totals"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{}", json["totals"]);
    // Once it has run, nothing takes time but what is not stored.
    assert_eq!(timed(folder.path(), &["run", "recipe.mrecipe"]).exit, 0);
    let json = timed(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
    assert_eq!((&json["totals"]["updates"], &node(&json, "student")["state"]), (&json!(0), &json!("cached")));
}

/// Nothing but its rungs trains.
const SEARCHED: &str = r#"mrecipe 1

model parent { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 16; epochs = 2 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
prune space from parent {
    calibrate on heldout
    axis ffn_hidden_size in {192, 224} by activation
}
schedule recover {
    loss = forward_kl(); optimizer = adamw(); rate = constant(peak = 1e-4)
    batch = 2; data = heldout; tokens = 1280
}
search best in space {
    require params <= 1B
    rank by loss on heldout after recover keep 1
}
export best to "out"
"#;

/// Nothing but the look at held-out data passes forwards.
const HELD_OUT: &str = r#"mrecipe 1

model shape { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 16; epochs = 2 }
schedule recover {
    loss = cross_entropy(); optimizer = adamw(); rate = constant(peak = 1e-4)
    batch = 2; tokens = 1280
}
train best from shape { data = heldout; heldout = heldout; schedule = recover }
export best to "out"
"#;

#[test]
fn a_benchmark_measures_updates_of_rungs_and_passes_of_trainings() {
    for recipe in [SEARCHED, HELD_OUT] {
        let folder = quickstart(recipe);
        let bench = ["bench", "recipe", "recipe.mrecipe", "--seconds", "1", "--dir", "work", "--json"];
        let done = timed(folder.path(), &bench);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        let json = timed(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
        assert_eq!((&json["totals"]["untimed"], &json["not_measured"]), (&json!(0), &json!([])), "{json}");
        let best = node(&json, "best");
        assert!(!best["seconds"].is_null() && best["rough"] == false, "{best}");
    }
}

#[test]
fn what_would_stop_a_run_fails_its_plan() {
    let folder = quickstart(TRAINED);
    let at = |name: &str| folder.path().join(name);
    let plan = |words: &[&str]| timed(folder.path(), &[&["plan", "recipe.mrecipe"], words].concat());
    let told = |words: &[&str], exit: i32, expected: &[&str]| {
        let done = plan(words);
        assert_eq!(done.exit, exit, "{}", done.stderr);
        assert!(done.stdout.contains("to run"), "the plan is shown all the same");
        for part in expected {
            assert!(done.stderr.contains(part), "{part:?} is not in\n{}", done.stderr);
        }
        let json = plan(&[words, &["--json"]].concat()).json();
        let problems = json["problems"].as_array().unwrap();
        assert_eq!((problems.len(), &problems[0]["exit"]), (1, &json!(exit)), "{problems:?}");
    };
    assert_eq!(plan(&[]).exit, 0);
    told(&["--memory", "1MB"], 3, &["`student` needs at least", "1.00 MB", "--memory 80GB"]);
    told(&["--store", "heldout.txt/store"], 3, &["store cannot be written to", "--store"]);
    told(&["--out", "heldout.txt"], 3, &["the folder of `export student` cannot be written to", "--out"]);
    fs::write(at("recipe.mrecipe"), TRAINED.replace("samples = 16", "samples = 100000")).unwrap();
    told(&[], 1, &["100000", "heldout.txt"]);
    fs::write(at("recipe.mrecipe"), TRAINED).unwrap();
    // An export of another recipe; only --overwrite replaces it.
    fs::create_dir(at("out")).unwrap();
    fs::write(at("out/provenance.json"), "{}").unwrap();
    told(&[], 1, &["out: holds something that this recipe did not make", "--overwrite"]);
    assert_eq!(plan(&["--overwrite"]).exit, 0);
    fs::remove_dir_all(at("out")).unwrap();
    // What is missing is blocked, and no failure: somebody may still fetch it.
    fs::remove_file(at("model/model.safetensors")).unwrap();
    let done = plan(&[]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert!(done.stdout.contains("! blocked") && done.stdout.contains("0 to run"), "{}", done.stdout);
}
