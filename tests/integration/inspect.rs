//! `minic inspect`: what a checkpoint is.

use crate::command::{FIXED_4B, folder, minic, repository};
use serde_json::Value;
use std::fs;

const DIMS: [&str; 10] = [
    "hidden_size",
    "ffn_hidden_size",
    "mamba_num_heads",
    "mamba_head_dim",
    "n_groups",
    "ssm_state_size",
    "num_attention_heads",
    "num_key_value_heads",
    "attention_head_dim",
    "vocab_size",
];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_documented_fields_and_no_other() {
    let golden = repository("tests/golden");
    let done = minic(&golden, &["inspect", "nemotron-plain", "--json"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let json = done.json();
    assert_eq!(keys(&json), ["family", "params", "layers", "pattern", "dims"]);
    assert_eq!(keys(&json["dims"]), DIMS);
    let config = fs::read_to_string(golden.join("nemotron-plain/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(json["family"], config["model_type"]);
    assert_eq!(json["dims"]["hidden_size"], config["hidden_size"]);
    assert_eq!(json["dims"]["ffn_hidden_size"], config["intermediate_size"]);
    assert_eq!(json["dims"]["attention_head_dim"], config["head_dim"]);
    assert_eq!(json["pattern"].as_str().unwrap().len() as u64, json["layers"].as_u64().unwrap());
}

#[test]
fn dimensions_that_a_family_lacks_are_null() {
    let json = minic(&repository("tests/golden"), &["inspect", "mamba2-untied", "--json"]).json();
    assert_eq!(json["family"], "mamba2");
    let absent: Vec<&str> = DIMS.into_iter().filter(|d| json["dims"][d].is_null()).collect();
    assert_eq!(
        absent,
        ["ffn_hidden_size", "num_attention_heads", "num_key_value_heads", "attention_head_dim"]
    );
}

/// The parts add up to the whole, for tied heads too.
#[test]
fn the_text_counts_every_part() {
    for model in ["nemotron-plain", "mamba2-tied", "nemotron-biases"] {
        let golden = repository("tests/golden");
        let text = minic(&golden, &["inspect", model]).stdout;
        let json = minic(&golden, &["inspect", model, "--json"]).json();
        let parts = text.split("part ").nth(1).expect("the table of parts").lines().skip(1);
        let share_before = |line: &str| -> Option<u64> {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(words.len().checked_sub(3)?)?.replace(',', "").parse().ok()
        };
        let sum: u64 = parts.filter_map(share_before).sum();
        assert_eq!(Some(sum), json["params"].as_u64(), "{text}");
    }
}

#[test]
fn a_folder_without_weights_is_described_by_its_config() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["inspect", "8b", "--json"]);
    assert_eq!(done.exit, 0);
    assert_eq!(done.json()["params"], 8_100_852_736_u64);
    assert!(done.stderr.contains("no weights"), "{}", done.stderr);
}

#[test]
fn a_broken_checkpoint_exits_with_1_and_says_where() {
    let folder = folder(FIXED_4B);
    let done = minic(folder.path(), &["inspect", "nowhere"]);
    assert_eq!((done.exit, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("nowhere"), "{}", done.stderr);
    fs::write(folder.path().join("tiny/model.safetensors"), "not safetensors").unwrap();
    let done = minic(folder.path(), &["inspect", "tiny"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("model.safetensors"), "{}", done.stderr);
}
