//! `minic diff`: two runs, two checkpoints, and what is neither.

use crate::command::{minic, quickstart, repository};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn recipe(size: usize, seed: usize) -> String {
    format!(
        r#"mrecipe 1

model parent {{ checkpoint = "model"; dt_floor = 0.001 }}
data heldout {{ files = ["heldout.txt"]; sequence = 64; samples = 4 }}
metric magnitude(w) = l2(w)

prune half from parent {{
    axis ffn_hidden_size = {size} by magnitude
    axis hidden_size     = 96 by random(seed = {seed})
}}

evaluate half against parent on heldout {{ loss, kl }}
export half to "half-{size}-{seed}"
"#
    )
}

/// Runs of recipes called `SIZE-SEED.mrecipe`.
fn folder(runs: &[(usize, usize)]) -> TempDir {
    let folder = quickstart("");
    for (size, seed) in runs {
        let name = format!("{size}-{seed}.mrecipe");
        fs::write(folder.path().join(&name), recipe(*size, *seed)).unwrap();
        let done = minic(folder.path(), &["run", &name, "-q"]);
        assert_eq!(done.exit, 0, "{}", done.stderr);
    }
    folder
}

#[test]
fn two_runs_and_two_checkpoints_are_shown_side_by_side() {
    let folder = folder(&[(192, 1), (256, 2)]);
    let (a, b) = ("192-1.mrecipe", "256-2.mrecipe");
    let runs = minic(folder.path(), &["diff", a, b, "--json"]);
    assert_eq!(runs.exit, 0, "{}", runs.stderr);
    let json = runs.json();
    assert_eq!(json["kind"], "runs");
    let dims = &json["models"]["both"]["half"]["dims"];
    assert_eq!((&dims["ffn_hidden_size"]["a"], &dims["ffn_hidden_size"]["b"]), (&192.into(), &256.into()));
    assert!(json["models"]["both"]["parent"]["dims"].as_object().unwrap().is_empty());
    let loss = &json["evaluations"]["half on heldout"]["loss"];
    let difference = loss["b"].as_f64().unwrap() - loss["a"].as_f64().unwrap();
    assert_eq!(loss["difference"].as_f64(), Some(difference));
    assert_eq!(json["recipe"]["equal"], false);
    let axes = json["kept"][0]["axes"].as_array().unwrap();
    let axis = |name: &str| axes.iter().find(|a| a["axis"] == name).unwrap()["layers"].clone();
    // The 192 largest neurons are among the 256 largest.
    for layer in axis("ffn_hidden_size").as_array().unwrap() {
        assert_eq!((&layer["a"], &layer["b"], &layer["common"]), (&192.into(), &256.into(), &192.into()));
        assert_eq!(layer["only_b"].as_array().unwrap().len(), 64);
    }
    let hidden = &axis("hidden_size")[0];
    assert!(hidden["common"].as_u64().unwrap() < 96, "two seeds keep other channels: {hidden}");

    let made = minic(folder.path(), &["diff", "half-192-1", "half-256-2", "--json"]).json();
    assert_eq!(made["kind"], "checkpoints");
    assert_eq!(made["kept"], json["kept"]);
    assert_eq!(made["evaluations"]["half on heldout"]["loss"]["a"], loss["a"]);
    assert_eq!(made["inputs"]["model parent"]["equal"], true);
    assert_eq!(made["inputs"]["recipe"]["equal"], false);
    let text = minic(folder.path(), &["diff", "half-192-1", "half-256-2"]).stdout;
    for part in ["ffn_hidden_size", "half on heldout", "kept indices", "weights: ", "inputs, by digest"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn one_changed_bit_of_a_weight_is_found_and_measured() {
    let folder = folder(&[]);
    let (a, b) = (folder.path().join("model"), folder.path().join("changed"));
    fs::create_dir(&b).unwrap();
    for entry in fs::read_dir(&a).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), b.join(entry.file_name())).unwrap();
    }
    let same = minic(folder.path(), &["diff", "model", "changed", "--json"]).json();
    assert_eq!(
        (&same["weights"]["different"], &same["weights"]["identical"]),
        (&0.into(), &same["weights"]["count"])
    );
    let weights = b.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The sign of the last element, in the last byte of little-endian bf16.
    *bytes.last_mut().unwrap() ^= 0x80;
    let last =
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[bytes.len() - 2], bytes[bytes.len() - 1]])) << 16);
    fs::write(&weights, bytes).unwrap();
    let done = minic(folder.path(), &["diff", "model", "changed", "--json"]);
    assert_eq!(done.exit, 0, "a difference is an answer, no failure");
    let found = done.json()["weights"]["tensors"].as_array().unwrap().clone();
    let different: Vec<_> = found.iter().filter(|t| t["identical"] == false).collect();
    assert_eq!(different.len(), 1);
    assert_eq!(different[0]["values"]["different"], 1);
    assert_eq!(different[0]["values"]["max_abs"].as_f64(), Some(f64::from(last.abs()) * 2.0));
    assert_ne!(different[0]["a"]["digest"], different[0]["b"]["digest"]);
}

#[test]
fn configs_without_weights_are_compared_by_their_shapes() {
    let root = repository("compiler/tests/corpus/models");
    let done = minic(&root, &["diff", "Nemotron-H-8B-Base-8K", "mamba2-1.3b", "--json"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert!(done.json()["model"]["a"]["params"].as_u64() > done.json()["model"]["b"]["params"].as_u64());
    assert!(done.json().get("weights").is_none());
}

#[test]
fn what_is_neither_run_nor_checkpoint_is_told() {
    let folder = folder(&[]);
    fs::write(folder.path().join("never.mrecipe"), recipe(192, 1)).unwrap();
    let fails = |a: &str, b: &str, says: &str| {
        let done = minic(folder.path(), &["diff", a, b]);
        assert_eq!(done.exit, 1, "{}", done.stderr);
        assert!(done.stderr.contains(says) && done.stdout.is_empty(), "{}", done.stderr);
    };
    fails("model", "nowhere", "nowhere: is neither a checkpoint nor a run");
    fails("model", "never.mrecipe", "no run of it has ended");
    let run = Path::new(".minic/runs/never");
    fs::create_dir_all(folder.path().join(run)).unwrap();
    fs::write(folder.path().join(run).join("result.json"), "{}").unwrap();
    fails("never.mrecipe", "model", "one is a run, the other a checkpoint");
    fails("never.mrecipe", ".minic/runs/never", "result.json: has no `format`");
}
