//! Runs that share their work end in the bytes of one process, whichever of them goes first or is killed.

use crate::command::{Done, copy, minic};
use crate::{store, trainings};
use minic_runtime::store::Store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Everything that passes gather, over data of different sizes: one sample is fewer than there are shards.
const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 64; samples = 7; seed = 1 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 4 }
data one { files = ["heldout.txt"]; sequence = 32; samples = 1 }
metric energy(x) = mean(square(x), over = tokens)
metric spread(x) = variance(x, over = tokens)
prune half from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by spread
    axis ffn_hidden_size = 256 by energy at ffn.act
    axis hidden_size = 96 by pca
    axis num_layers = 7 by kld
    repair norms
}
evaluate parent on calibration { loss }
evaluate half against parent on heldout { loss, kl }
evaluate half on one { loss }
export half to "half"
"#;

/// Layers go one after the other: a pass for each.
const ITERATIVE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 64; samples = 5; seed = 1 }
prune half from parent {
    calibrate on calibration
    axis num_layers = 6 by iterative(cosine)
}
export half to "half"
"#;

fn folder(recipe: &str) -> TempDir {
    let folder = store::folder();
    fs::write(folder.path().join("recipe.mrecipe"), recipe).unwrap();
    folder
}

fn shard(folder: &Path, index: usize, of: usize) -> Done {
    let done = minic(folder, &["run", "recipe.mrecipe", "--shard", &format!("{index}/{of}")]);
    assert_eq!(done.exit, 0, "shard {index} of {of}: {}", done.stderr);
    done
}

/// Starts a shard that saves as often as it may, on one lane.
fn start(folder: &Path, index: usize, of: usize) -> Child {
    let shard = format!("{index}/{of}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_minic"));
    command.args(["run", "recipe.mrecipe", "--save-every", "0s", "--shard", &shard]);
    command.current_dir(folder).env("RAYON_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Shards in this order, again and again until nothing is missing; how often that is.
fn rounds(folder: &Path, order: &[usize]) -> usize {
    for round in 1..=6 {
        order.iter().for_each(|&index| drop(shard(folder, index, order.len())));
        let merged = minic(folder, &["merge", "recipe.mrecipe"]);
        if merged.exit == 0 {
            return round;
        }
        assert_eq!(merged.exit, 3, "{}", merged.stderr);
    }
    panic!("six rounds are not enough");
}

/// Digests of the payloads in the store, less those that say how long a proof took.
fn payloads(folder: &Path) -> BTreeMap<String, (String, String)> {
    let store = Store::open(&folder.join(".minic/store")).unwrap();
    let entries = store.list().unwrap().into_iter().filter(|e| {
        assert!(!e.unfinished, "{}", e.header.subject);
        !["cut", "rotation", "part"].iter().any(|kind| e.header.key["kind"] == *kind)
    });
    entries.map(|e| (e.name, (e.header.subject, e.header.digest))).collect()
}

/// Every file of exports, by its path.
fn exports(folder: &Path, names: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in names {
        for entry in folder.join(name).read_dir().unwrap().map(Result::unwrap) {
            files.insert(Path::new(name).join(entry.file_name()), fs::read(entry.path()).unwrap());
        }
    }
    assert!(files.len() > 4 * names.len());
    files
}

/// The result of a run of one process, less what it took.
fn outcome(folder: &Path) -> Value {
    let mut result = store::run(folder);
    for timing in ["seconds", "proof_seconds", "write_seconds", "update_seconds", "stages"] {
        result[timing] = Value::Null;
    }
    result["run"]["started"] = Value::Null;
    result["exports"].as_object_mut().unwrap().values_mut().for_each(|e| e["unchanged"] = Value::Null);
    result
}

/// What one process leaves.
struct Whole {
    folder: TempDir,
    outcome: Value,
    exports: Vec<&'static str>,
}

impl Whole {
    fn of(folder: TempDir, exports: &[&'static str]) -> Whole {
        let outcome = outcome(folder.path());
        Whole { folder, outcome, exports: exports.to_vec() }
    }

    /// Shards left the same objects; a run of one process computes nothing more and exports the same.
    #[track_caller]
    fn same(&self, shards: &Path, cached: &[&str], how: &str) {
        let (whole, parts) = (payloads(self.folder.path()), payloads(shards));
        assert_eq!(parts, whole, "{how}");
        let last = store::run(shards);
        for stage in cached {
            assert_eq!(last["stages"][stage]["cached"], true, "{how}: {stage}: {last:#}");
        }
        assert_eq!(outcome(shards), self.outcome, "{how}");
        let (whole, parts) = (exports(self.folder.path(), &self.exports), exports(shards, &self.exports));
        let names = whole.keys().chain(parts.keys());
        let differ: Vec<&PathBuf> = names.filter(|name| whole.get(*name) != parts.get(*name)).collect();
        assert!(differ.is_empty(), "{how}: {differ:?}");
    }
}

const CACHED: &[&str] = &["half.calibrate", "evaluate half on heldout", "evaluate half on one", "half.cut"];

#[test]
fn shards_in_any_order_leave_what_one_process_leaves() {
    let whole = Whole::of(folder(RECIPE), &["half"]);
    for order in [&[1, 2][..], &[2, 1], &[3, 1, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        let shards = folder(RECIPE);
        let rounds = rounds(shards.path(), order);
        assert!((2..=3).contains(&rounds), "{order:?}: {rounds} rounds");
        whole.same(shards.path(), CACHED, &format!("{order:?}"));
    }
}

#[test]
fn shards_at_the_same_time_leave_what_one_process_leaves() {
    let whole = Whole::of(folder(RECIPE), &["half"]);
    let shards = folder(RECIPE);
    for round in 1.. {
        let mut running: Vec<Child> = (1..=3).map(|index| start(shards.path(), index, 3)).collect();
        assert!(running.iter_mut().all(|child| child.wait().unwrap().success()));
        match minic(shards.path(), &["merge", "recipe.mrecipe"]).exit {
            0 => break,
            exit => assert!(exit == 3 && round < 4, "round {round} ends with {exit}"),
        }
    }
    whole.same(shards.path(), CACHED, "at the same time");
}

#[test]
fn a_shard_says_what_it_waits_for_and_computes_its_part_once() {
    let folder = folder(RECIPE);
    let done = shard(folder.path(), 2, 3);
    for said in [
        "half.calibrate: 1 of 3 parts is there, 1, 3 are missing\n",
        "after them: half.",
        "`minic merge recipe.mrecipe --shards 3`, then the same command again\n",
    ] {
        assert!(done.stdout.contains(said), "{said:?} is not in\n{}", done.stdout);
    }
    let before = store::objects(folder.path());
    let json = minic(folder.path(), &["run", "recipe.mrecipe", "--shard", "2/3", "--json"]).json();
    let waits = json["waits"].as_array().unwrap();
    assert_eq!(waits[0]["stage"], "half.calibrate");
    assert_eq!((&waits[0]["waits_for"], &waits[0]["of"]), (&"parts".into(), &3.into()), "{json:#}");
    assert_eq!(waits[0]["missing"], serde_json::json!([1, 3]));
    assert!(waits.iter().any(|w| w["stage"] == "export half" && w["waits_for"] == "stages"), "{json:#}");
    assert_eq!(store::objects(folder.path()), before, "its parts are there already");
    let events = fs::read_to_string(folder.path().join(".minic/runs/recipe.shard-2-of-3/events.jsonl"));
    let events = events.unwrap();
    let passes = |event: &str| events.lines().filter(|line| line.contains(event)).count();
    assert_eq!((passes(r#""event":"planned""#), passes(r#""event":"stage_waits""#) > 4), (1, true));
}

#[test]
fn a_shard_that_is_killed_goes_on_and_nobody_notices() {
    let whole = Whole::of(folder(RECIPE), &["half"]);
    let shards = folder(RECIPE);
    let mut child = start(shards.path(), 2, 2);
    let events = shards.path().join(".minic/runs/recipe.shard-2-of-2/events.jsonl");
    let saved = || fs::read_to_string(&events).is_ok_and(|text| text.contains(r#""event":"saved""#));
    let began = Instant::now();
    while !saved() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    shard(shards.path(), 1, 2);
    let resumed = shard(shards.path(), 2, 2);
    assert!(resumed.stderr.contains("goes on after"), "{}", resumed.stderr);
    rounds(shards.path(), &[1, 2]);
    whole.same(shards.path(), CACHED, "killed");
}

/// Shards without a common file system: their stores are copied together.
#[test]
fn parts_of_several_stores_are_merged_in_one() {
    let whole = folder(RECIPE);
    store::run(whole.path());
    let (here, there) = (folder(RECIPE), folder(RECIPE));
    shard(here.path(), 1, 2);
    shard(there.path(), 2, 2);
    let missing = minic(here.path(), &["merge", "recipe.mrecipe", "--json"]);
    assert_eq!(missing.exit, 3);
    assert_eq!(missing.json()["shards"], 2, "the parts tell how many there are");
    assert_eq!(missing.json()["run"], serde_json::json!([2]));
    assert!(
        missing.stderr.contains("`minic run recipe.mrecipe --shard I/2` for I = 2"),
        "{}",
        missing.stderr
    );
    let objects = ".minic/store/objects";
    copy(&there.path().join(objects), &here.path().join(objects));
    let merged = minic(here.path(), &["merge", "recipe.mrecipe", "--shards", "2", "--json"]);
    let stages = merged.json()["stages"].as_array().unwrap().clone();
    let calibration = stages.iter().find(|s| s["stage"] == "half.calibrate").unwrap();
    assert_eq!(calibration["joined"], true, "{stages:#?}");
    let evaluation = stages.iter().find(|s| s["stage"] == "evaluate half on heldout").unwrap();
    assert_eq!(evaluation["waits_for"], "stages", "the cut is not made yet");
    assert_eq!((merged.exit, merged.json()["run"].clone()), (3, serde_json::json!([1, 2])));
    let again = minic(here.path(), &["merge", "recipe.mrecipe"]);
    assert!(
        again.stdout.contains("half.calibrate") && again.stdout.contains("was there"),
        "{}",
        again.stdout
    );
    let last = store::run(here.path());
    assert_eq!(last["stages"]["half.calibrate"]["cached"], true);
    let (merged, whole) = (payloads(here.path()), payloads(whole.path()));
    assert_eq!(merged, whole);
    assert_eq!(minic(here.path(), &["merge", "recipe.mrecipe"]).exit, 0);
}

#[test]
fn layers_that_go_one_after_the_other_take_a_round_each() {
    let whole = Whole::of(folder(ITERATIVE), &["half"]);
    let shards = folder(ITERATIVE);
    assert_eq!(rounds(shards.path(), &[1, 2]), 2);
    whole.same(shards.path(), &["half.score.num_layers", "half.cut"], "iterative");
}

#[test]
fn the_first_shard_alone_trains_and_exports() {
    let whole = Whole::of(trainings::folder(), &["newborn", "student"]);
    let shards = trainings::folder();
    let left = shard(shards.path(), 2, 2);
    assert!(left.stdout.contains("newborn: left to shard 1"), "{}", left.stdout);
    assert!(!left.stdout.contains("minic merge"), "there are no parts: {}", left.stdout);
    let first = shard(shards.path(), 1, 2);
    assert!(first.stdout.contains("student: 12 updates"), "{}", first.stdout);
    let exported = |name: &str| shards.path().join(name).exists();
    assert!(exported("newborn"), "nothing was missing before it");
    assert!(!exported("student"), "an export records the figures before it");
    let second = shard(shards.path(), 2, 2);
    assert!(second.stdout.contains("export student: left to shard 1"), "{}", second.stdout);
    shard(shards.path(), 1, 2);
    assert!(exported("student"));
    whole.same(shards.path(), &["newborn", "student", "evaluate student"], "trained");
}

#[test]
fn wrong_shards_are_refused() {
    let folder = folder(RECIPE);
    let minic = |words: &[&str]| minic(folder.path(), words);
    for wrong in ["0/2", "3/2", "a/b", "2", "1/0", "1/65537"] {
        let done = minic(&["run", "recipe.mrecipe", "--shard", wrong]);
        assert_eq!(done.exit, 2, "{wrong}: {}", done.stderr);
        assert!(done.stderr.contains("as in 3/8"), "{}", done.stderr);
    }
    let done = minic(&["run", "recipe.mrecipe", "--shard", "1/2", "--redo", "half.calibrate"]);
    assert!(done.exit == 2 && done.stderr.contains("cannot be used with"), "{}", done.stderr);
    assert_eq!(minic(&["merge", "recipe.mrecipe", "--shards", "0"]).exit, 2);
    let done = minic(&["merge", "recipe.mrecipe"]);
    assert!(done.exit == 1 && done.stderr.contains("there is no store"), "{}", done.stderr);
    assert!(!folder.path().join(".minic").exists());
    for shard in ["1/2", "2/3"] {
        assert_eq!(minic(&["run", "recipe.mrecipe", "--until", "half.calibrate", "--shard", shard]).exit, 0);
    }
    let done = minic(&["merge", "recipe.mrecipe"]);
    assert!(done.exit == 1 && done.stderr.contains("parts of 2, 3 shards"), "{}", done.stderr);
    let done = minic(&["merge", "recipe.mrecipe", "--shards", "4"]);
    assert_eq!(done.exit, 3);
    assert!(done.stdout.contains("0 of 4 parts are there, 1, 2, 3, 4 are missing"), "{}", done.stdout);
    let store = folder.path().join("empty");
    drop(Store::open(&store).unwrap());
    let done = minic(&["merge", "recipe.mrecipe", "--store", "empty"]);
    assert!(done.exit == 3 && done.stderr.contains("no shard has left a part"), "{}", done.stderr);
}
