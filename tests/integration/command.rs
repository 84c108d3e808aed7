//! Running minic, and a folder with a recipe for it.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a command did.
pub struct Done {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {:?}", self.stdout))
    }
}

/// Runs minic in `folder`, with a cache of the hub that holds nothing.
pub fn minic(folder: &Path, arguments: &[&str]) -> Done {
    let nowhere = folder.join("no-cache").display().to_string();
    minic_with(folder, arguments, &[("HF_HOME", &nowhere), ("HF_HUB_OFFLINE", "1")])
}

/// The same with the hub's environment variables.
pub fn minic_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    const HUB: &[&str] = &[
        "HF_ENDPOINT",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HUGGINGFACE_HUB_CACHE",
        "HUGGING_FACE_HUB_TOKEN",
    ];
    const MACHINE: &[&str] = &["MINIC_DEVICE", "MINIC_STORE", "RAYON_NUM_THREADS"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_minic"));
    HUB.iter().chain(MACHINE).for_each(|name| _ = command.env_remove(name));
    let output = command
        // What drivers and devices keep from one run to the next is not left with the user.
        .env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"))
        // Nor are the user's settings and figures those of tests.
        .env("XDG_CONFIG_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/config"))
        .env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
        .envs(variables.iter().copied())
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .output()
        .expect("minic starts");
    Done {
        exit: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder and what is in it, less what runs have left there.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a kind").is_dir() {
            true if entry.file_name() != ".minic" => copy(&entry.path(), &target),
            true => {}
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// A folder with `recipe.mrecipe`, a model's config.json under `8b` and `tiny`, and a line of data.
pub fn folder(recipe: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("recipe.mrecipe"), recipe).expect("a recipe");
    for (name, config) in [("8b", "Nemotron-H-8B-Base-8K.json"), ("tiny", "tiny.json")] {
        fs::create_dir(at(name)).expect("a folder");
        let config = repository("compiler/tests/configs").join(config);
        fs::copy(config, at(name).join("config.json")).expect("a config");
    }
    fs::write(at("train.txt"), "Once there was a river that knew its way.\n".repeat(100)).expect("data");
    folder
}

/// A folder with `recipe.mrecipe`, and the quickstart's model and held-out text.
pub fn quickstart(recipe: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (quickstart, model) = (repository("examples/quickstart"), folder.path().join("model"));
    fs::create_dir(&model).expect("a folder");
    for entry in fs::read_dir(quickstart.join("model")).expect("a model").map(Result::unwrap) {
        fs::copy(entry.path(), model.join(entry.file_name())).expect("a file of the model");
    }
    fs::copy(quickstart.join("heldout.txt"), folder.path().join("heldout.txt")).expect("text");
    fs::write(folder.path().join("recipe.mrecipe"), recipe).expect("a recipe");
    folder
}

/// The 8B parent cut to the published 4B shape.
pub const FIXED_4B: &str = r#"mrecipe 1

model parent { checkpoint = "8b" }
data calibration { files = ["train.txt"]; sequence = 64; samples = 8 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
prune student from parent {
    calibrate on calibration
    axis mamba_num_heads = 112   by activation
    axis ffn_hidden_size = 12288 by activation
    axis hidden_size     = 3072  by activation
}
export student to "out" { dtype = bf16 }
"#;
