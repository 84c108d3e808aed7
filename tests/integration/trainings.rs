//! Trainings by a recipe: what is done again, what the store keeps of them, and how they fail.

use crate::command::{Done, minic, minic_with, repository};
use crate::store::{computed, edit, new_after_in, objects, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A model from nothing in two phases, cut, and taught by what it was.
const RECIPE: &str = r#"mrecipe 1
model shape { checkpoint = "shape" }
data words { files = ["words.u16"]; sequence = 16; seed = 1 }
data others { files = ["others.u16"]; sequence = 16; seed = 2 }
data validation { files = ["validation.u16"]; sequence = 16; samples = 6 }
metric magnitude(w) = l2(w)
schedule learn {
    loss      = cross_entropy()
    optimizer = adamw(weight_decay = 0.1, clip = 1.0)
    rate      = cosine(peak = 4e-3, floor = 1e-4, warmup = 2 steps)
    batch     = 4
    phase "short" { tokens = 640 }
    phase "long" { tokens = 480; sequence = 24; batch = 2; data = others }
}
schedule recover {
    loss      = 0.9 * forward_kl(temperature = 2.0) + 0.1 * cross_entropy() + 0.5 * mse()
    optimizer = adamw()
    rate      = constant(peak = 2e-3)
    batch     = 3
    tokens    = 576
}
train newborn from shape {
    data = words; schedule = learn; weights = random(seed = 1); heldout = validation; every = 300
}
prune half from newborn { axis ffn_hidden_size = 16 by magnitude }
distill student from half {
    teacher = newborn; data = others; schedule = recover; heldout = validation; every = 200
}
evaluate student against newborn on validation { loss, kl }
export newborn to "newborn"
export student to "student"
"#;

/// Updates of its trainings: 10 of 4 windows of 16 tokens, 10 of 2 of 24; 12 of 3 of 16.
pub const UPDATES: &[(&str, u64)] = &[("newborn", 20), ("student", 12)];

/// A folder with `recipe.mrecipe`, the config.json of a tiny model, and token ids.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("recipe.mrecipe"), RECIPE).unwrap();
    fs::create_dir(at("shape")).unwrap();
    fs::copy(repository("tests/golden/nemotron-plain/config.json"), at("shape/config.json")).unwrap();
    for (seed, (name, count)) in [("words", 9000), ("others", 2000), ("validation", 200)].iter().enumerate() {
        fs::write(at(name).with_extension("u16"), tokens(*count, seed as u64 + 1)).unwrap();
    }
    folder
}

/// Each id mostly follows from the one before, so that there is something to learn.
fn tokens(count: usize, seed: u64) -> Vec<u8> {
    let (mut random, mut token) = (seed, 7);
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = (random >> 33) as u16;
        token = if drawn.is_multiple_of(4) { drawn / 4 % 260 } else { (token * 3 + 1) % 260 };
        token
    };
    (0..count).flat_map(|_| next().to_le_bytes()).collect()
}

/// Trainings among what came new into the store.
fn trained_again(change: impl FnOnce(&Path)) -> Vec<String> {
    let new = new_after_in(folder(), change).1;
    new.iter().filter_map(|what| what.strip_prefix("trained: ").map(String::from)).collect()
}

/// Stages that the last run computed. A checkpoint is opened each time.
fn done_again(folder: &Path) -> Vec<String> {
    computed(folder).into_iter().filter(|stage| stage != "shape").collect()
}

fn changed(from: &str, to: &str) -> Vec<String> {
    trained_again(|folder| edit(folder, "recipe.mrecipe", from, to))
}

#[test]
fn a_training_is_done_again_where_something_changes_its_weights() {
    let both = ["newborn", "student"];
    assert_eq!(changed("sequence = 16; seed = 1", "sequence = 16; seed = 3"), both, "the order of the data");
    assert_eq!(changed("peak = 4e-3", "peak = 3e-3"), both, "the rate of the teacher");
    assert_eq!(changed("samples = 6", "samples = 5"), both, "the data held out");
    let student = ["student"];
    assert_eq!(changed("peak = 2e-3", "peak = 1e-3"), student, "the rate");
    assert_eq!(changed("batch     = 3", "batch     = 4"), student, "the batch");
    assert_eq!(changed("temperature = 2.0", "temperature = 1.0"), student, "the loss");
    assert_eq!(changed("teacher = newborn", "teacher = half"), student, "the teacher");
    assert_eq!(changed("every = 200", "every = 300"), student, "when it is evaluated");
}

#[test]
fn names_comments_and_threads_train_nothing_again() {
    let renamed = |folder: &Path| {
        for (from, to) in [("learn {", "teach {"), ("= learn", "= teach"), ("\"short\"", "\"first\"")] {
            edit(folder, "recipe.mrecipe", from, to);
        }
        edit(folder, "recipe.mrecipe", "mrecipe 1", "# a note\nmrecipe 1");
        let other =
            minic_with(folder, &["run", "recipe.mrecipe", "--overwrite"], &[("RAYON_NUM_THREADS", "3")]);
        assert_eq!(other.exit, 0, "{}", other.stderr);
        assert_eq!(done_again(folder), ["export newborn", "export student"]);
    };
    assert_eq!(new_after_in(folder(), renamed).1, [""; 0]);
}

fn why(folder: &Path, name: &str) -> String {
    minic(folder, &["cache", "why", name]).stdout
}

#[test]
fn why_names_the_setting_that_differs() {
    let folder = folder();
    let folder = folder.path();
    run(folder);
    assert_eq!(why(folder, "student"), "student: stored\n");
    for (from, to, expected) in [
        ("batch     = 3", "batch     = 6", "phase.batch: 3 -> 6"),
        ("temperature = 2.0", "temperature = 1.0", "phase.loss: "),
        ("peak = 2e-3", "peak = 1e-3", "phase.rate: "),
        ("samples = 6", "samples = 5", "heldout.samples: 6 -> 5"),
        ("teacher = newborn", "teacher = half", "teacher"),
    ] {
        edit(folder, "recipe.mrecipe", from, to);
        // Data and models before it must be known.
        let (name, before) = match expected.starts_with("heldout") {
            true => ("newborn", "validation"),
            false => ("student", "half"),
        };
        assert_eq!(minic(folder, &["run", "recipe.mrecipe", "--until", before]).exit, 0);
        let told = why(folder, name);
        assert!(told.contains(&format!("`{name}` differs in {expected}")), "{expected}: {told}");
        edit(folder, "recipe.mrecipe", to, from);
    }
}

/// Folders of trained models in the store.
fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.join(".minic/store/models").read_dir().into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn trained_entries(folder: &Path) -> BTreeMap<String, (PathBuf, u64)> {
    let listed = minic(folder, &["cache", "ls", "--json"]).json();
    let trained = listed.as_array().unwrap().iter().filter(|e| e["kind"] == "trained").map(|e| {
        let place = folder.join(".minic/store/models").join(e["key"].as_str().unwrap());
        (e["subject"].as_str().unwrap().to_string(), (place, e["bytes"].as_u64().unwrap()))
    });
    trained.collect()
}

#[test]
fn the_store_lists_and_collects_trained_models() {
    let folder = folder();
    let folder = folder.path();
    run(folder);
    let trained = trained_entries(folder);
    assert_eq!(trained.keys().collect::<Vec<_>>(), ["newborn", "student"]);
    assert_eq!(models(folder).len(), 2);
    for (name, (place, bytes)) in &trained {
        let weights = place.join("model.safetensors").metadata().unwrap().len();
        assert!(*bytes > weights && *bytes < weights + 20_000, "{name}: {bytes}, {weights} of weights");
    }
    // A run that died while it wrote one leaves these.
    let store = folder.join(".minic/store");
    fs::create_dir(store.join("models/.0000.minic-1-0-0")).unwrap();
    fs::write(store.join("models/.0000.minic-1-0-0/model.safetensors"), "x").unwrap();
    fs::write(store.join("models/.0000.minic-1-0-0.lock"), "").unwrap();
    // Not used for long: the object, and so its model.
    let (place, _) = &trained["newborn"];
    let digest = place.file_name().unwrap().to_str().unwrap();
    let object = store.join("objects").join(&digest[..2]).join(digest);
    let old = SystemTime::now() - Duration::from_secs(90 * 86_400);
    File::options().append(true).open(object).unwrap().set_modified(old).unwrap();
    let pretended = minic(folder, &["cache", "gc", "--dry-run", "--json"]).json();
    assert_eq!(models(folder).len(), 4);
    let collected = minic(folder, &["cache", "gc", "--json"]).json();
    assert_eq!((&pretended["removed"], &pretended["bytes"]), (&collected["removed"], &collected["bytes"]));
    assert_eq!(collected["removed"], 4, "the object, its model, and what the dead run left");
    assert_eq!(models(folder), [trained["student"].0.clone()]);
    // The student is there, and its teacher is trained again to make sure of it.
    run(folder);
    assert!(
        computed(folder).contains(&"newborn".to_string()) && !computed(folder).contains(&"student".into())
    );
    assert_eq!(trained_entries(folder).len(), 2);
    minic(folder, &["cache", "gc", "--all"]);
    assert_eq!((models(folder), objects(folder).len()), (Vec::new(), 0));
}

#[test]
fn a_stored_model_that_is_damaged_is_trained_again() {
    let folder = folder();
    let folder = folder.path();
    run(folder);
    let export = || fs::read(folder.join("student/model.safetensors")).unwrap();
    let (whole, before) = (export(), objects(folder));
    let (place, _) = trained_entries(folder)["newborn"].clone();
    let weights = place.join("model.safetensors");
    let damage: [&dyn Fn(); 4] = [
        &|| {
            let mut bytes = fs::read(&weights).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&weights, bytes).unwrap();
        },
        &|| fs::remove_file(&weights).unwrap(),
        &|| fs::remove_file(place.join("config.json")).unwrap(),
        &|| fs::remove_dir_all(&place).unwrap(),
    ];
    for (i, damage) in damage.iter().enumerate() {
        damage();
        assert_eq!(
            why(folder, "newborn"),
            "newborn: missing; what the store holds of it is damaged\n",
            "{i}"
        );
        let plan = minic(folder, &["plan", "recipe.mrecipe", "--json"]).json();
        let node = plan["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "newborn").unwrap().clone();
        assert_eq!((&node["state"], node["reason"].is_string()), (&Value::from("run"), true), "{i}: {node}");
        run(folder);
        // The same weights, so that nothing follows.
        assert_eq!(done_again(folder), ["newborn", "export newborn", "export student"], "{i}");
        assert_eq!((export() == whole, objects(folder) == before), (true, true), "{i}");
    }
}

/// What a run of the changed recipe says.
fn fails(folder: &Path, from: &str, to: &str) -> Done {
    edit(folder, "recipe.mrecipe", from, to);
    minic(folder, &["run", "recipe.mrecipe", "--overwrite"])
}

#[test]
fn a_training_that_diverges_keeps_the_model_before() {
    let folder = folder();
    let folder = folder.path();
    let first =
        fails(folder, "peak = 4e-3, floor = 1e-4, warmup = 2", "peak = 1e36, floor = 1e-4, warmup = 3");
    assert_eq!(first.exit, 4, "{}", first.stderr);
    let (_, told) = first.stderr.split_once("`newborn`: update ").expect("where it diverged");
    let (update, rest) = told.split_once(": ").unwrap();
    let update: u64 = update.parse().unwrap();
    assert!(update > 1, "{told}");
    assert!(rest.contains("is not a finite number; the model before this update is saved"), "{told}");
    let again = minic(folder, &["run", "recipe.mrecipe"]);
    assert_eq!(again.exit, 4);
    let goes_on = format!("goes on after {} of 20 updates", update - 1);
    assert!(again.stderr.contains(&goes_on), "{}", again.stderr);
    assert!(again.stderr.contains(told.lines().next().unwrap()), "{}", again.stderr);
}

#[test]
fn a_model_without_weights_is_trained_from_random_ones_alone() {
    let folder = folder();
    let failed = fails(folder.path(), "weights = random(seed = 1); ", "");
    assert_eq!(failed.exit, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("the checkpoint of `shape` holds no weights"), "{}", failed.stderr);
    assert!(failed.stderr.contains("weights = random(seed = 1)"), "{}", failed.stderr);
}

/// Weights of NaN are told before anything is trained, of the student and of the teacher.
#[test]
fn weights_that_are_not_finite_are_told_before_the_training() {
    let folder = folder();
    let folder = folder.path();
    run(folder);
    fs::rename(folder.join("newborn"), folder.join("bad")).unwrap();
    let file = folder.join("bad/model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let weight = "backbone.layers.1.mixer.up_proj.weight";
    let at = header + entries[weight]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut bytes = bytes;
    bytes[at + 8..at + 12].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let own = RECIPE
        .replace("checkpoint = \"shape\"", "checkpoint = \"bad\"")
        .replace("weights = random(seed = 1); ", "");
    let taught = RECIPE
        .replace("data words", "model bad { checkpoint = \"bad\" }\ndata words")
        .replace("teacher = newborn", "teacher = bad");
    for (stage, recipe) in [("newborn", own), ("student", taught)] {
        fs::write(folder.join("recipe.mrecipe"), recipe).unwrap();
        let failed = minic(folder, &["run", "recipe.mrecipe", "--overwrite"]);
        assert_eq!(failed.exit, 1, "{stage}: {}", failed.stderr);
        let told = format!("bad/model.safetensors: weight `{weight}` holds NaN at element 2");
        assert!(failed.stderr.contains(&told), "{stage}: {}", failed.stderr);
        let events = fs::read_to_string(folder.join(".minic/runs/recipe/events.jsonl")).unwrap();
        let last: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let began = last.iter().rposition(|e| e["event"] == "stage_started" && e["stage"] == stage).unwrap();
        assert!(last[began..].iter().all(|e| e["event"] != "progress"), "{stage}: {events}");
    }
}

#[test]
fn data_that_cannot_be_trained_on_is_told() {
    for (count, expected) in [
        (0, "`others` has at most 0 tokens, and the schedule wants 480"),
        (15, "a sequence of 16 tokens is longer than the data, 15 tokens"),
    ] {
        let folder = self::folder();
        fs::write(folder.path().join("others.u16"), tokens(count, 2)).unwrap();
        // Epochs, so that it is not the count of tokens that is told.
        let failed =
            fails(folder.path(), "sequence = 16; seed = 2", "sequence = 16; seed = 2; epochs = 1000");
        assert_eq!(failed.exit, 1, "{count}: {}", failed.stderr);
        assert!(failed.stderr.contains(expected), "{count}: {}", failed.stderr);
    }
}

/// The checker counts tokens; the run counts windows.
#[test]
fn a_schedule_that_wants_more_windows_than_there_are_is_told() {
    let folder = folder();
    let folder = folder.path();
    // 21 windows of 28 tokens, and 27 tokens more.
    fs::write(folder.join("others.u16"), tokens(615, 2)).unwrap();
    edit(folder, "recipe.mrecipe", "sequence = 16; seed = 2", "sequence = 16; seed = 2; epochs = 2");
    edit(folder, "recipe.mrecipe", "batch     = 3", "batch     = 1\n    sequence  = 28");
    let failed = fails(folder, "tokens    = 576", "tokens    = 1204");
    assert_eq!(failed.exit, 1, "{}", failed.stderr);
    let told =
        "`student`: the schedule asks for 43 windows of 28 tokens, `others` gives 42 with `epochs = 2`";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
    edit(folder, "recipe.mrecipe", "tokens    = 1204", "tokens    = 1176");
    assert_eq!(minic(folder, &["run", "recipe.mrecipe", "--overwrite"]).exit, 0);
    let far = fails(folder, "tokens    = 1176", "tokens    = 1260");
    assert_eq!(far.exit, 1);
    assert!(far.stderr.contains("E0803"), "{}", far.stderr);
}

/// The plan knows what a training holds before it runs.
#[test]
fn a_training_is_planned_to_hold_what_its_run_reports() {
    let folder = folder();
    let folder = folder.path();
    let plan = minic(folder, &["plan", "recipe.mrecipe", "--json"]).json();
    run(folder);
    let events = fs::read_to_string(folder.join(".minic/runs/recipe/events.jsonl")).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (stage, updates) in UPDATES {
        let node = plan["nodes"].as_array().unwrap().iter().find(|n| n["name"] == *stage).unwrap();
        assert_eq!(node["updates"].as_u64(), Some(*updates), "{node}");
        let planned = events.iter().filter(|e| e["event"] == "planned" && e["stage"] == *stage);
        let held =
            planned.map(|e| e["weights"].as_u64().unwrap() + e["lanes"].as_u64().unwrap()).max().unwrap();
        assert_eq!(node["memory"]["max"].as_u64(), Some(held), "{node}");
        assert!(node["memory"]["min"].as_u64().unwrap() < held, "{node}");
        assert!(node["flops"].as_f64().is_some_and(|flops| flops > 1e6), "{node}");
    }
}
