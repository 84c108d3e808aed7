//! `minic synth`: an untrained checkpoint that everything else takes.

use crate::command::{minic, repository};
use std::fs;

#[test]
fn a_synthetic_checkpoint_is_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = repository("compiler/tests/configs/tiny.json");
    let config = config.to_str().expect("a name");
    let synth = |to: &str, more: &[&str]| {
        let arguments = [&["synth", config, "--output", to, "--shard", "2KB", "--json"], more].concat();
        minic(folder.path(), &arguments)
    };
    let made = synth("a", &["--dtype", "bf16", "--seed", "4"]);
    assert_eq!(made.exit, 0, "{}", made.stderr);
    let inspected = minic(folder.path(), &["inspect", "a", "--json"]);
    assert_eq!(inspected.exit, 0, "{}", inspected.stderr);
    let (made, inspected) = (made.json(), inspected.json());
    assert_eq!((&made["params"], &made["family"]), (&inspected["params"], &inspected["family"]));
    assert_eq!(made["bytes"].as_u64(), made["params"].as_u64().map(|n| 2 * n));
    let files = made["files"].as_array().expect("files");
    assert!(
        files.len() > 1 && files.iter().all(|f| folder.path().join("a").join(f.as_str().unwrap()).is_file())
    );

    let logits = ["logits", "a", "--tokens", "tokens.json", "--output", "logits.safetensors"];
    fs::write(folder.path().join("tokens.json"), "[[1, 2, 3, 4]]").expect("tokens");
    assert_eq!(minic(folder.path(), &logits).exit, 0);

    let refused = synth("a", &[]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("holds something already"), "{}", refused.stderr);
    assert_eq!(synth("a", &["--overwrite"]).exit, 0);
}

#[test]
fn what_is_no_config_is_an_input_error() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).expect("a config");
    for config in ["config.json", ".", "absent.json"] {
        let done = minic(folder.path(), &["synth", config, "--output", "out"]);
        assert_eq!(done.exit, 1, "{}", done.stderr);
        assert!(!folder.path().join("out").exists());
    }
    for wrong in [["--shard", "5"], ["--shard", "5GBs"], ["--dtype", "int8"], ["--seed", "-1"]] {
        let done = minic(folder.path(), &["synth", "config.json", "--output", "out", wrong[0], wrong[1]]);
        assert_eq!(done.exit, 2, "{}", done.stderr);
    }
}
