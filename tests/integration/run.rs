//! `minic run`, `eval`, `logits` and `verify`: what is written, what is said, and with which exit code.

use crate::command::{Done, minic, quickstart};
use std::fs;
use std::path::Path;

const HALF: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 4 }
metric magnitude(w) = l2(w)
prune half from parent { axis ffn_hidden_size = 192 by magnitude }
evaluate half against parent on heldout { loss, kl }
export half to "half"
"#;

fn run(folder: &Path, more: &[&str]) -> Done {
    minic(folder, &[&["run", "recipe.mrecipe"], more].concat())
}

#[test]
fn a_run_writes_a_folder_that_is_proved_again_and_left_alone_the_second_time() {
    let folder = quickstart(HALF);
    let done = run(folder.path(), &["--json"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let summary = done.json();
    let exported = &summary["exports"]["export half"];
    assert_eq!(exported["unchanged"], false, "{summary:#}");
    let runs = folder.path().join(".minic/runs/recipe");
    let events = fs::read_to_string(runs.join("events.jsonl")).unwrap();
    assert!(events.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()));
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(runs.join("result.json")).unwrap()).unwrap();
    assert_eq!(written["exports"], summary["exports"]);

    let inspected = minic(folder.path(), &["inspect", "half", "--json"]).json();
    assert_eq!(inspected["dims"]["ffn_hidden_size"], 192);
    assert_eq!(inspected["params"], exported["proof"]["params"]);
    assert_eq!(minic(folder.path(), &["verify", "half"]).exit, 0);
    let again = run(folder.path(), &["--json"]);
    assert_eq!(again.json()["exports"]["export half"]["unchanged"], true, "{}", again.stderr);

    let weights = folder.path().join("half/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_eq!(minic(folder.path(), &["verify", "half"]).exit, 4);
}

#[test]
fn what_stands_in_the_way_is_replaced_only_on_demand() {
    let folder = quickstart(HALF);
    fs::create_dir(folder.path().join("half")).unwrap();
    fs::write(folder.path().join("half/notes"), "mine").unwrap();
    let refused = run(folder.path(), &[]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("E0904"), "{}", refused.stderr);
    let elsewhere = run(folder.path(), &["--out", "out"]);
    assert_eq!(elsewhere.exit, 0, "{}", elsewhere.stderr);
    assert!(folder.path().join("out/half/config.json").exists());
    assert_eq!(fs::read_to_string(folder.path().join("half/notes")).unwrap(), "mine");
    let replaced = run(folder.path(), &["--overwrite"]);
    assert_eq!(replaced.exit, 0, "{}", replaced.stderr);
    assert!(!folder.path().join("half/notes").exists());
}

#[test]
fn a_run_may_end_at_any_name() {
    let folder = quickstart(HALF);
    let part = run(folder.path(), &["--until", "heldout"]);
    assert_eq!(part.exit, 0, "{}", part.stderr);
    assert!(!folder.path().join("half").exists());
    let nothing = run(folder.path(), &["--until", "nobody"]);
    assert_eq!(nothing.exit, 1, "{}", nothing.stderr);
}

#[test]
fn wrong_inputs_and_devices_have_exit_code_1_and_wrong_command_lines_2() {
    let folder = quickstart(HALF);
    assert_eq!(run(folder.path(), &["--set", "parent.checkpoint=nowhere"]).exit, 1);
    assert_eq!(run(folder.path(), &["--device", "vulkan:99"]).exit, 3);
    assert_eq!(run(folder.path(), &["--device", "abacus"]).exit, 2);
    assert_eq!(minic(folder.path(), &["run"]).exit, 2);
    assert_eq!(minic(folder.path(), &["verify", "."]).exit, 1);
}

#[test]
fn figures_of_eval_are_those_of_the_run() {
    let folder = quickstart(&HALF.replace("; samples = 4", ""));
    let summary = run(folder.path(), &["--json"]).json();
    let expected = &summary["evaluations"]["evaluate half"]["figures"];
    let arguments =
        ["eval", "half", "--data", "heldout.txt", "--sequence", "64", "--teacher", "model", "--json"];
    let found = minic(folder.path(), &arguments).json();
    for figure in ["loss", "kl", "tokens"] {
        let (a, b) = (found[figure].as_f64().unwrap(), expected[figure].as_f64().unwrap());
        // Both checkpoints are bf16, so that the folder holds the very values that the run evaluated.
        assert!((a - b).abs() <= 1e-9 * b.abs(), "{figure}: {a}, {b}");
    }
}

#[test]
fn logits_of_wrong_tokens_are_refused() {
    let folder = quickstart(HALF);
    let logits = |tokens: &str| {
        fs::write(folder.path().join("tokens.json"), tokens).unwrap();
        minic(folder.path(), &["logits", "model", "--tokens", "tokens.json", "--output", "l.safetensors"])
            .exit
    };
    for wrong in ["[]", "[[]]", "[[1], [2, 3]]", "[[565]]", "[[-1]]", "{}"] {
        assert_eq!(logits(wrong), 1, "{wrong}");
    }
    assert!(!folder.path().join("l.safetensors").exists());
    assert_eq!(logits("[[1, 2, 3], [4, 5, 466]]"), 0);
    assert!(folder.path().join("l.safetensors").exists());
}
