//! What is computed again, and what is not.

use crate::command::{minic, quickstart, repository};
use minic_compiler::check::{self, DataFacts, Environment};
use minic_compiler::graph::Op;
use minic_compiler::schedule::Schedule;
use minic_compiler::{lower, passes};
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::{Device, DeviceError, Memory, Session, Training, TrainingState, Weights};
use minic_runtime::run::{self, Settings};
use minic_runtime::store::Store;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

pub const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 64; samples = 8; seed = 1 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 4 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
metric energy(x) = mean(square(x), over = tokens)
prune half from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by activation
    axis ffn_hidden_size = 256 by energy at ffn.act
    axis num_layers = 7 by kld
}
evaluate half against parent on heldout { loss, kl }
export half to "half"
"#;

/// A folder with `recipe.mrecipe`, the quickstart's model, and some of its text.
pub fn folder() -> TempDir {
    let folder = quickstart(RECIPE);
    for (file, bytes) in [("train.txt", 30_000), ("heldout.txt", 8_000)] {
        let text = fs::read_to_string(repository("examples/quickstart").join(file)).unwrap();
        fs::write(folder.path().join(file), &text[..text.floor_char_boundary(bytes)]).unwrap();
    }
    folder
}

/// Keys of everything in the store, with what they are.
pub fn objects(folder: &Path) -> BTreeSet<(String, String)> {
    let listed = minic(folder, &["cache", "ls", "--json"]);
    assert_eq!(listed.exit, 0, "{}", listed.stderr);
    let text = |v: &Value| v.as_str().unwrap().to_string();
    listed
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (text(&e["key"]), format!("{}: {}", text(&e["kind"]), text(&e["subject"]))))
        .collect()
}

pub fn run(folder: &Path) -> Value {
    let done = minic(folder, &["run", "recipe.mrecipe", "--json", "--overwrite"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    done.json()
}

/// Stages of the last run that were computed, less those whose results are not kept in the store.
pub fn computed(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join(".minic/runs/recipe/events.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let start = events.iter().rposition(|e| e["event"] == "run_started").unwrap();
    let finished = events[start..].iter().filter(|e| e["event"] == "stage_finished" && e["cached"] == false);
    finished
        .map(|e| e["stage"].as_str().unwrap().to_string())
        .filter(|s| s != "parent" && s != "report")
        .collect()
}

/// Runs before and after `change`; what came new into the store.
fn new_after(change: impl FnOnce(&Path)) -> (TempDir, Vec<String>) {
    new_after_in(folder(), change)
}

/// The same in a folder of another recipe.
pub fn new_after_in(folder: TempDir, change: impl FnOnce(&Path)) -> (TempDir, Vec<String>) {
    run(folder.path());
    let before = objects(folder.path());
    change(folder.path());
    run(folder.path());
    let new =
        objects(folder.path()).difference(&before).map(|(_, what)| what.clone()).collect::<BTreeSet<_>>();
    (folder, new.into_iter().collect())
}

pub fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(folder.join(file), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_second_run_computes_nothing_and_says_the_same() {
    let folder = folder();
    let plan = || minic(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
    let states = |plan: Value| -> BTreeSet<String> {
        plan["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| format!("{} {}", n["stage"].as_str().unwrap(), n["state"].as_str().unwrap()))
            .collect()
    };
    assert!(states(plan()).iter().all(|s| s.ends_with(" run")));
    assert!(!folder.path().join(".minic").exists(), "a plan writes nothing");
    let mut first = run(folder.path());
    let stages = computed(folder.path());
    let mut second = run(folder.path());
    let calibration = |summary: &Value| summary["stages"]["half.calibrate"].clone();
    assert!(calibration(&first)["planned"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{first:#}");
    assert_eq!(calibration(&first)["cached"], false);
    assert_eq!(calibration(&second)["cached"], true);
    assert!(stages.contains(&"half.calibrate".to_string()), "{stages:?}");
    assert_eq!(computed(folder.path()), ["export half"], "it proves what is there again");
    for summary in [&mut first, &mut second] {
        for timing in ["seconds", "stages", "proof_seconds", "write_seconds", "run"] {
            summary[timing] = Value::Null;
        }
        summary["exports"]["export half"]["unchanged"] = Value::Null;
    }
    assert_eq!(first, second);
    let after = states(plan());
    assert!(
        after.contains("cut cached") && after.contains("export cached") && !after.contains("cut run"),
        "{after:?}"
    );
    let why = minic(folder.path(), &["cache", "why", "half.cut", "--json"]).json();
    assert_eq!(why["results"][0]["stored"], true, "{why:#}");
}

#[test]
fn what_does_not_change_the_meaning_computes_nothing_again() {
    let renamed = |f: &Path| {
        let text = fs::read_to_string(f.join("recipe.mrecipe")).unwrap();
        fs::write(
            f.join("recipe.mrecipe"),
            text.replace("energy", "power").replace("mrecipe 1", "# a note\nmrecipe 1"),
        )
        .unwrap();
    };
    assert_eq!(new_after(renamed).1, [""; 0]);
}

#[test]
fn a_changed_seed_runs_what_depends_on_the_samples() {
    let (folder, new) = new_after(|f| edit(f, "recipe.mrecipe", "seed = 1", "seed = 2"));
    let want = |kind: &str| new.iter().filter(|n| n.starts_with(kind)).count();
    assert_eq!((want("samples"), want("metric"), want("layers"), want("score")), (1, 2, 1, 3), "{new:?}");
    assert!(!new.iter().any(|n| n.contains("heldout") && !n.contains("half")), "{new:?}");
    edit(folder.path(), "recipe.mrecipe", "seed = 2", "seed = 3");
    let why = minic(folder.path(), &["cache", "why", "calibration"]);
    assert!(why.stdout.contains("seed: ") && why.stdout.contains("-> 3"), "{}", why.stdout);
    let plan = minic(folder.path(), &["plan", "recipe.mrecipe", "--json"]).json();
    let node =
        |name: &str| plan["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone();
    assert_eq!(node("calibration")["state"], "run");
    assert!(node("calibration")["reason"].as_str().unwrap().starts_with("seed: "), "{plan:#}");
    assert_eq!(node("heldout")["state"], "cached");
}

#[test]
fn a_reversed_ranking_makes_another_cut_of_the_same_scores() {
    let (folder, new) = new_after(|f| edit(f, "recipe.mrecipe", "by energy at", "by reverse(energy) at"));
    let of = |kind: &str| new.iter().filter(|n| n.starts_with(kind)).count();
    assert_eq!((of("metric"), of("score"), of("cut"), of("figures")), (0, 0, 1, 1), "{new:?}");
    let kept = |name: &str| {
        let made = fs::read_to_string(folder.path().join(name).join("provenance.json")).unwrap();
        let steps: Value = serde_json::from_str(&made).unwrap();
        let axes = steps["steps"][0]["axes"].as_array().unwrap().clone();
        axes.into_iter().find(|axis| axis["axis"] == "ffn_hidden_size").unwrap()
    };
    let reversed = kept("half");
    edit(folder.path(), "recipe.mrecipe", "by reverse(energy) at", "by energy at");
    run(folder.path());
    assert_ne!(kept("half"), reversed);
}

#[test]
fn a_changed_file_runs_what_reads_it() {
    let (_folder, new) = new_after(|f| {
        let text = fs::read_to_string(f.join("heldout.txt")).unwrap();
        fs::write(f.join("heldout.txt"), text[..4000].to_string() + " One more day." + &text[4000..])
            .unwrap();
    });
    assert_eq!(
        new,
        [
            "figures: half against parent on heldout",
            "figures: parent on heldout",
            "samples: heldout",
            "tokens: tokens of a file (text)"
        ]
    );
}

#[test]
fn a_changed_metric_runs_alone() {
    let (_folder, new) = new_after(|f| {
        edit(f, "recipe.mrecipe", "mean(square(x), over = tokens)", "max(abs(x), over = tokens)")
    });
    let without_result: Vec<&str> =
        new.iter().map(String::as_str).filter(|n| !n.starts_with("figures")).collect();
    assert_eq!(
        without_result,
        [
            "cut: cut of parent",
            "metric: energy at ffn.act of parent on calibration",
            "score: ffn_hidden_size of parent by energy"
        ]
    );
}

#[test]
fn a_changed_tokenizer_runs_what_its_tokens_change() {
    // Other bytes, the same tokens: the files are read again, and nothing follows.
    let spaced = |f: &Path| {
        let text = fs::read_to_string(f.join("model/tokenizer.json")).unwrap();
        fs::write(f.join("model/tokenizer.json"), format!("{text}\n\n")).unwrap();
    };
    let new = new_after(spaced).1;
    assert_eq!(new, ["samples: calibration", "samples: heldout", "tokens: tokens of a file (text)"]);
    let fewer = |f: &Path| {
        let path = f.join("model/tokenizer.json");
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        merges.truncate(merges.len() / 2);
        fs::write(&path, json.to_string()).unwrap();
    };
    let (folder, new) = new_after(fewer);
    for kind in ["samples", "metric", "layers", "score", "figures"] {
        assert!(new.iter().any(|n| n.starts_with(kind)), "{kind}: {new:?}");
    }
    assert!(computed(folder.path()).contains(&"heldout".to_string()));
}

#[test]
fn a_stage_is_done_again_on_demand() {
    let folder = folder();
    run(folder.path());
    let before = objects(folder.path());
    let done = minic(folder.path(), &["run", "recipe.mrecipe", "--redo", "half.calibrate"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert_eq!(computed(folder.path()), ["half.calibrate", "export half"], "{}", done.stderr);
    assert_eq!(objects(folder.path()), before);
    assert_eq!(minic(folder.path(), &["run", "recipe.mrecipe", "--redo", "nothing"]).exit, 1);
    let gone = minic(folder.path(), &["cache", "gc", "--all", "--json"]);
    assert!(gone.json()["removed"].as_u64().unwrap() >= before.len() as u64, "{}", gone.stdout);
    assert_eq!(objects(folder.path()).len(), 0);
}

/// The CPU device with a newer version of one operation.
struct Newer(&'static str);

impl Device for Newer {
    fn name(&self) -> &'static str {
        Cpu.name()
    }

    fn kind(&self) -> String {
        Cpu.kind()
    }

    fn version(&self, op: &Op) -> u32 {
        Cpu.version(op) + u32::from(op.name() == self.0)
    }

    fn available(&self) -> u64 {
        Cpu.available()
    }

    fn exact(&self) -> &dyn Device {
        self
    }

    fn lanes(&self) -> usize {
        Cpu.lanes()
    }

    fn memory(&self, schedule: &Schedule, lanes: usize) -> Memory {
        Cpu.memory(schedule, lanes)
    }

    fn prepare(&self, schedule: Arc<Schedule>, weights: Weights) -> Result<Box<dyn Session>, DeviceError> {
        Cpu.prepare(schedule, weights)
    }

    fn decode(
        &self,
        schedules: [Arc<Schedule>; 2],
        weights: Weights,
    ) -> Result<[Box<dyn Session>; 2], DeviceError> {
        Cpu.decode(schedules, weights)
    }

    fn train(
        &self,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
        lanes: usize,
    ) -> Result<Box<dyn Training>, DeviceError> {
        Cpu.train(schedule, frozen, state, lanes)
    }
}

/// Of the checker: the folder's config.json, and no word about data.
struct Folder<'a>(&'a Path);

impl Environment for Folder<'_> {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        Ok(fs::read_to_string(self.0.join(checkpoint).join("config.json")).ok())
    }

    fn data(&self, _: &[String]) -> Option<DataFacts> {
        None
    }

    fn occupied(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn a_newer_operation_runs_what_uses_it() {
    let folder = folder();
    let hir = check::check_text("recipe", RECIPE, &Folder(folder.path()), &[]).hir.unwrap();
    let plan = passes::run(&lower::lower(&hir)).unwrap_or_else(|e| panic!("{}", e.1));
    let settings = Settings {
        overwrite: true,
        ..Settings::new("recipe", RECIPE, PathBuf::from(folder.path()), folder.path().into())
    };
    let root = folder.path().join(".minic/store");
    let with = |device: &dyn Device| {
        let store = Store::open(&root).unwrap();
        run::run(&plan, device, &settings, &store, &()).unwrap();
        drop(store);
        objects(folder.path())
    };
    let before = with(&Cpu);
    let new = |newer: &'static str| {
        let after = with(&Newer(newer));
        after.difference(&before).map(|(_, what)| what.clone()).collect::<Vec<_>>()
    };
    // The scores come out the same, so that the cut, which does not diverge from anything, stays.
    let mut diverging = new("divergence");
    diverging.sort();
    assert_eq!(
        diverging,
        [
            "figures: half against parent on heldout",
            "layers: kld of the layers of parent on calibration",
            "score: num_layers of parent by kld"
        ]
    );
    assert_eq!(
        new("attention").len(),
        before.len() - 4 + diverging.len(),
        "all but the samples and their tokens"
    );
}
