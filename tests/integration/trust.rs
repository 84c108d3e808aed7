//! Runs that are killed, stopped, starved of disk, or not alone: the same command ends in the same bytes.
//!
//! `MINIC_SWEEP=100` makes that many kills, and as many places where the disk is full; a few by default.
#![allow(clippy::print_stdout, reason = "the figures of a sweep are shown with --nocapture")]

use crate::command::{minic, minic_with};
use crate::repair;
use crate::store::{edit, folder};
use crate::trainings;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Saves as often as it may.
const RUN: &[&str] = &["run", "recipe.mrecipe", "--out", "out", "--save-every", "0s", "-q"];

/// Saves when it likes, which a run of a second or two never does.
const SELDOM: &[&str] = &["run", "recipe.mrecipe", "--out", "out", "-q"];

const RECORD: &str = ".minic/runs/recipe/metrics.jsonl";
const EVENTS: &str = ".minic/runs/recipe/events.jsonl";
const RESULT: &str = ".minic/runs/recipe/result.json";

fn sweep() -> u64 {
    std::env::var("MINIC_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

fn start(folder: &Path, run: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minic"));
    command.args(run).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Files and folders in a folder; none where it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Every file that was published, what the result says apart from times, and the record of trainings apart from
/// times and speeds.
fn outcome(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in entries(&folder.join("out")).iter().flat_map(|export| entries(export)) {
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        files.insert(name, fs::read(&path).unwrap());
    }
    let mut result: Value = serde_json::from_str(&fs::read_to_string(folder.join(RESULT)).unwrap()).unwrap();
    for timing in ["seconds", "proof_seconds", "write_seconds", "update_seconds", "stages"] {
        result[timing] = Value::Null;
    }
    for circumstance in ["started", "threads"] {
        result["run"][circumstance] = Value::Null;
    }
    for (_, export) in result["exports"].as_object_mut().unwrap() {
        export["unchanged"] = Value::Null;
    }
    files.insert("result".into(), result.to_string().into_bytes());
    let record = fs::read_to_string(folder.join(RECORD)).unwrap_or_default();
    for (i, line) in record.lines().enumerate() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["time"] = Value::Null;
        line["tokens_per_second"] = Value::Null;
        files.insert(format!("record {i:06}"), line.to_string().into_bytes());
    }
    files
}

fn finish(folder: &Path, run: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let done = minic(folder, run);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    for place in ["out", ".minic/store/models"] {
        let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
        let stray: Vec<PathBuf> = entries(&folder.join(place)).into_iter().filter(hidden).collect();
        assert!(stray.is_empty(), "nothing half-written stays: {stray:?}");
    }
    outcome(folder)
}

#[track_caller]
fn same(found: &BTreeMap<String, Vec<u8>>, whole: &BTreeMap<String, Vec<u8>>, after: &str) {
    let names = found.keys().chain(whole.keys());
    let differ: Vec<&String> = names.filter(|name| found.get(*name) != whole.get(*name)).collect();
    assert!(differ.is_empty(), "{after}: {differ:?}");
}

fn forget(folder: &Path) {
    for made in ["out", ".minic"] {
        let _ = fs::remove_dir_all(folder.join(made));
    }
}

/// What stands under a final name is whole.
fn nothing_half_written(folder: &Path) {
    for export in entries(&folder.join("out")) {
        let name = export.strip_prefix(folder).unwrap().to_str().unwrap();
        if !name.starts_with("out/.") {
            let verified = minic(folder, &["verify", name]);
            assert_eq!(verified.exit, 0, "{}", verified.stderr);
        }
    }
    if let Ok(text) = fs::read_to_string(folder.join(RESULT)) {
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
}

/// What a run was doing when it was killed, by its journal.
fn doing(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(EVENTS)).unwrap_or_default();
    let event = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = event.unwrap_or_default();
    let of = |name: &str| event[name].as_str().unwrap_or("nothing").to_string();
    format!("{} ({})", of("stage"), of("event"))
}

/// Kills at random instants.
fn kill(folder: &Path, run: &[&str]) {
    let began = Instant::now();
    let whole = finish(folder, run);
    let lasts = began.elapsed();
    let (mut killed, mut resumed, mut random) = (0, 0, 0x9e37_79b9_7f4a_7c15u64);
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    forget(folder);
    while killed < sweep() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = start(folder, run);
        std::thread::sleep(lasts.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        nothing_half_written(folder);
        if status.success() {
            same(&outcome(folder), &whole, "not killed in time");
            forget(folder);
            continue;
        }
        killed += 1;
        *places.entry(doing(folder)).or_default() += 1;
        // Every other time the next kill strikes a run that goes on from this one.
        if killed % 2 == 0 {
            same(&finish(folder, run), &whole, &format!("after {killed} kills"));
            resumed += 1;
            forget(folder);
        }
    }
    same(&finish(folder, run), &whole, "at last");
    println!("{killed} kills, {resumed} times run to the end after one or more: {places:?}");
}

/// Starts a run and waits until something of it is saved.
fn start_and_save(folder: &Path) -> Child {
    let child = start(folder, RUN);
    let saved =
        || fs::read_to_string(folder.join(EVENTS)).is_ok_and(|text| text.contains(r#""event":"saved""#));
    let began = Instant::now();
    while !saved() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Ctrl-C as soon as something is saved; what the next run says.
fn stop_and_go_on(folder: &Path, stage: &str) {
    let whole = finish(folder, RUN);
    forget(folder);
    let mut child = start_and_save(folder);
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let text = fs::read_to_string(folder.join(EVENTS)).unwrap();
    assert!(text.lines().last().unwrap().contains("run_stopped"), "{text}");
    let done = minic(folder, &["run", "recipe.mrecipe", "--out", "out"]);
    assert!(done.stderr.contains(&format!("was stopped in `{stage}`")), "{}", done.stderr);
    assert!(done.stderr.contains("goes on after"), "{}", done.stderr);
    same(&outcome(folder), &whole, "stopped");
}

#[test]
fn killed_at_any_instant_a_run_ends_in_the_same_bytes() {
    kill(folder().path(), RUN);
}

#[test]
fn killed_at_any_instant_a_training_ends_in_the_same_bytes() {
    kill(trainings::folder().path(), RUN);
}

#[test]
fn killed_at_any_instant_a_repair_ends_in_the_same_bytes() {
    kill(repair::staged().path(), RUN);
}

#[test]
fn killed_before_it_saves_a_training_ends_in_the_same_bytes() {
    kill(trainings::folder().path(), SELDOM);
}

/// What the sweeps compare tells every update once, in order.
#[test]
fn the_record_of_a_training_that_was_killed_has_every_update_once() {
    let folder = trainings::folder();
    let mut child = start_and_save(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    finish(folder.path(), RUN);
    let text = fs::read_to_string(folder.path().join(RECORD)).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (stage, updates) in trainings::UPDATES {
        let of_stage = lines.iter().filter(|line| line["stage"] == *stage && line["loss"].is_number());
        let found: Vec<u64> = of_stage.map(|line| line["update"].as_u64().unwrap()).collect();
        assert_eq!(found, (1..=*updates).collect::<Vec<_>>(), "{stage}");
    }
}

#[test]
fn a_signal_saves_and_stops_and_the_next_run_goes_on() {
    let folder = folder();
    edit(folder.path(), "recipe.mrecipe", "samples = 8", "samples = 80");
    stop_and_go_on(folder.path(), "half.calibrate");
}

#[test]
fn a_signal_saves_a_training_and_the_next_run_goes_on() {
    let folder = trainings::folder();
    edit(folder.path(), "recipe.mrecipe", "tokens = 640", "tokens = 8000");
    stop_and_go_on(folder.path(), "newborn");
}

/// As many threads as there are, and a kill in between, change no bit of what is exported.
#[test]
fn any_number_of_threads_trains_and_exports_the_same_bytes() {
    let folder = trainings::folder();
    let folder = folder.path();
    let with = |threads: &str| {
        let done = minic_with(folder, RUN, &[("RAYON_NUM_THREADS", threads)]);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        outcome(folder)
    };
    let one = with("1");
    forget(folder);
    same(&with("2"), &one, "two threads");
    forget(folder);
    let mut child = start_and_save(folder);
    child.kill().unwrap();
    child.wait().unwrap();
    same(&with("2"), &one, "killed, then two threads");
    same(&with("5"), &one, "all of it in the store");
}

#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let folder = folder();
    let folder = folder.path();
    let runs = folder.join(".minic/runs/recipe");
    fs::create_dir_all(&runs).unwrap();
    let lock = File::create(runs.join("lock")).unwrap();
    lock.lock().unwrap();
    let refused = minic(folder, RUN);
    assert_eq!(refused.exit, 3);
    assert!(refused.stderr.contains("is running in this folder"), "{}", refused.stderr);
    drop(lock);
    let whole = finish(folder, RUN);
    forget(folder);
    // Two at once, and one of them is told to come back.
    let mut both = [start(folder, RUN), start(folder, RUN)];
    let exits: Vec<Option<i32>> = both.iter_mut().map(|c| c.wait().unwrap().code()).collect();
    assert!(exits.iter().all(|e| matches!(e, Some(0 | 3))) && exits.contains(&Some(0)), "{exits:?}");
    same(&finish(folder, RUN), &whole, "two at once");
}

/// No file may grow beyond a limit: what a full disk does to a write, without needing a disk.
#[cfg(unix)]
fn deny_writes(folder: &Path) {
    let whole = finish(folder, RUN);
    let lengths = whole.iter().filter(|(name, _)| name.starts_with("out/")).map(|(_, bytes)| bytes.len());
    let largest = lengths.max().unwrap() as u64;
    let (mut failed, points) = (0, sweep());
    for point in 0..points {
        forget(folder);
        // In kilobytes, from nothing at all to a little less than the largest file.
        let limit = largest / 1024 * point / points;
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_minic")]).args(RUN).current_dir(folder);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "limit {limit}: {stderr}");
        assert!(stderr.contains("cannot") && !stderr.contains("panicked"), "limit {limit}: {stderr}");
        nothing_half_written(folder);
        failed += 1;
        same(&finish(folder, RUN), &whole, &format!("limit {limit}"));
    }
    println!("{failed} writes failed");
}

#[cfg(unix)]
#[test]
fn a_write_that_fails_loses_nothing() {
    deny_writes(folder().path());
}

#[cfg(unix)]
#[test]
fn a_write_that_fails_loses_nothing_of_a_training() {
    deny_writes(trainings::folder().path());
}

/// Kilobytes that a file or a folder takes on a disk.
#[cfg(target_os = "linux")]
fn used(path: &Path) -> u64 {
    if path.is_dir() {
        return entries(path).iter().map(|path| used(path)).sum::<u64>() + 4;
    }
    path.metadata().unwrap().len().div_ceil(4096) * 4
}

/// A real disk that is full: everything lives in a small file system, which then grows.
#[cfg(target_os = "linux")]
fn fill_the_disk(folder: &Path, test: &str) {
    const SCRIPT: &str = r#"
        set -e
        mount -t tmpfs -o size="$3k" tmpfs disk
        cp -r $4 disk/
        cd disk
        code=0
        "$1" $2 > ../stdout 2> ../stderr || code=$?
        echo $code
        for export in out/*; do
            [ ! -e "$export" ] || "$1" verify "$export" -q > /dev/null
        done
        mount -o remount,size=64m .
        "$1" $2 > ../stdout
        cp -r out .minic ..
    "#;
    let inputs = entries(folder);
    let before: u64 = inputs.iter().map(|path| used(path)).sum();
    let names: Vec<&str> = inputs.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let whole = finish(folder, RUN);
    let made = used(&folder.join("out")) + 400;
    fs::create_dir(folder.join("disk")).unwrap();
    let (mut full, points) = (0, sweep());
    for point in 0..points {
        forget(folder);
        let size = (before + made * point / points).to_string();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "bash", "-c", SCRIPT, "bash"]);
        command.args([env!("CARGO_BIN_EXE_minic"), &RUN.join(" "), &size, &names.join(" ")]);
        let output = command.current_dir(folder).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if point == 0 && (stderr.contains("unshare") || stderr.contains("mount:")) {
            // Straight to the stream, which the test harness does not keep to itself.
            let why = format!("SKIPPED {test}: nobody may mount a small file system here");
            let _ = writeln!(std::io::stderr(), "{why}: {stderr}");
            return;
        }
        let told = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
        let code = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_string();
        assert!(output.status.success(), "{size} KiB: {stderr}{told}");
        assert!(code == "0" || code == "3", "{size} KiB: exit {code}: {told}");
        full += u64::from(code == "3");
        same(&outcome(folder), &whole, &format!("{size} KiB"));
    }
    assert!(full > 0);
    println!("{full} of {points} sizes of a disk were too small");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    fill_the_disk(folder().path(), "a_full_disk_loses_nothing");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing_of_a_training() {
    fill_the_disk(trainings::folder().path(), "a_full_disk_loses_nothing_of_a_training");
}

#[test]
fn a_journal_that_was_cut_short_is_continued_on_a_line_of_its_own() {
    let folder = folder();
    let folder = folder.path();
    finish(folder, RUN);
    let events = folder.join(EVENTS);
    let mut text = fs::read_to_string(&events).unwrap();
    text.truncate(text.rfind(r#"{"time_ms""#).unwrap() + 9);
    fs::write(&events, text).unwrap();
    let done = minic(folder, &["run", "recipe.mrecipe", "--out", "out", "--log", "log.jsonl"]);
    assert!(done.stderr.contains("was cut off in `report`"), "{}", done.stderr);
    for file in [events, folder.join("log.jsonl")] {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()), "{text}");
        assert!(text.lines().last().unwrap().contains("run_finished"));
    }
}
