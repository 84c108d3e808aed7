//! Runs that are killed, stopped, starved of disk, or not alone: the same command ends in the same bytes.
//!
//! `MINIC_SWEEP=100` makes that many kills, and as many places where the disk is full; a few by default.
#![allow(clippy::print_stdout, reason = "the figures of a sweep are shown with --nocapture")]

use crate::command::minic;
use crate::store::folder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUN: &[&str] = &["run", "recipe.mrecipe", "--out", "out", "--save-every", "0s", "-q"];

fn sweep() -> u64 {
    std::env::var("MINIC_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minic"));
    command.args(RUN).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Every file that was published, and what the result says apart from times.
fn outcome(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder.join("out/half")).unwrap().map(Result::unwrap) {
        files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    let text = fs::read_to_string(folder.join(".minic/runs/recipe/result.json")).unwrap();
    let mut result: Value = serde_json::from_str(&text).unwrap();
    for timing in ["seconds", "proof_seconds", "write_seconds", "stages"] {
        result[timing] = Value::Null;
    }
    result["exports"]["export half"]["unchanged"] = Value::Null;
    files.insert("result".into(), result.to_string().into_bytes());
    files
}

fn finish(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let done = minic(folder, RUN);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let stray =
        fs::read_dir(folder.join("out")).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n != "half");
    assert_eq!(stray.count(), 0, "nothing half-written stays beside the folder");
    outcome(folder)
}

fn forget(folder: &Path) {
    for made in ["out", ".minic"] {
        let _ = fs::remove_dir_all(folder.join(made));
    }
}

/// What stands under the final name is whole.
fn nothing_half_written(folder: &Path) {
    if folder.join("out/half").exists() {
        let verified = minic(folder, &["verify", "out/half"]);
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
    }
    let result = folder.join(".minic/runs/recipe/result.json");
    if let Ok(text) = fs::read_to_string(result) {
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
}

#[test]
fn killed_at_any_instant_a_run_ends_in_the_same_bytes() {
    let folder = folder();
    let folder = folder.path();
    let began = Instant::now();
    let whole = finish(folder);
    let lasts = began.elapsed();
    let (mut killed, mut resumed, mut random) = (0, 0, 0x9e37_79b9_7f4a_7c15u64);
    forget(folder);
    while killed < sweep() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = start(folder);
        std::thread::sleep(lasts.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        nothing_half_written(folder);
        if status.success() {
            assert_eq!(outcome(folder), whole);
            forget(folder);
            continue;
        }
        killed += 1;
        // Every other time the next kill strikes a run that goes on from this one.
        if killed % 2 == 0 {
            assert_eq!(finish(folder), whole, "after {killed} kills");
            resumed += 1;
            forget(folder);
        }
    }
    assert_eq!(finish(folder), whole);
    println!("{killed} kills, {resumed} times run to the end after one or more");
}

#[test]
fn a_signal_saves_and_stops_and_the_next_run_goes_on() {
    let folder = folder();
    let folder = folder.path();
    let recipe = fs::read_to_string(folder.join("recipe.mrecipe")).unwrap();
    fs::write(folder.join("recipe.mrecipe"), recipe.replace("samples = 8", "samples = 80")).unwrap();
    let whole = finish(folder);
    forget(folder);
    let mut child = start(folder);
    let events = folder.join(".minic/runs/recipe/events.jsonl");
    let saved = || fs::read_to_string(&events).is_ok_and(|text| text.contains(r#""event":"saved""#));
    let began = Instant::now();
    while !saved() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let text = fs::read_to_string(&events).unwrap();
    assert!(text.lines().last().unwrap().contains("run_stopped"), "{text}");
    let done = minic(folder, &["run", "recipe.mrecipe", "--out", "out"]);
    assert!(done.stderr.contains("was stopped in `half.calibrate`"), "{}", done.stderr);
    assert!(done.stderr.contains("goes on after"), "{}", done.stderr);
    assert_eq!(outcome(folder), whole);
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
    let whole = finish(folder);
    forget(folder);
    // Two at once, and one of them is told to come back.
    let mut both = [start(folder), start(folder)];
    let exits: Vec<Option<i32>> = both.iter_mut().map(|c| c.wait().unwrap().code()).collect();
    assert!(exits.iter().all(|e| matches!(e, Some(0 | 3))) && exits.contains(&Some(0)), "{exits:?}");
    assert_eq!(finish(folder), whole);
}

/// No file may grow beyond a limit: what a full disk does to a write, without needing a disk.
#[cfg(unix)]
#[test]
fn a_write_that_fails_loses_nothing() {
    let folder = folder();
    let folder = folder.path();
    let whole = finish(folder);
    let largest = folder.join("out/half/model.safetensors").metadata().unwrap().len();
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
        assert_eq!(finish(folder), whole, "limit {limit}");
    }
    println!("{failed} writes failed");
}

/// A real disk that is full: everything lives in a small file system, which then grows.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    const SCRIPT: &str = r#"
        set -e
        mount -t tmpfs -o size="$3k" tmpfs disk
        cp -r model recipe.mrecipe train.txt heldout.txt disk/
        cd disk
        code=0
        "$1" $2 > ../stdout 2> ../stderr || code=$?
        echo $code
        [ ! -e out/half ] || "$1" verify out/half -q > /dev/null
        mount -o remount,size=64m .
        "$1" $2 > ../stdout
        cp -r out .minic ..
    "#;
    let folder = folder();
    let folder = folder.path();
    let whole = finish(folder);
    let used = |path: &str| {
        let entries = fs::read_dir(folder.join(path)).unwrap().map(Result::unwrap);
        entries.map(|e| e.metadata().unwrap().len().div_ceil(4096) * 4).sum::<u64>()
    };
    let before = used("model") + used(".");
    let made = used("out/half") + 400;
    fs::create_dir(folder.join("disk")).unwrap();
    let (mut full, points) = (0, sweep());
    for point in 0..points {
        forget(folder);
        let size = (before + made * point / points).to_string();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "bash", "-c", SCRIPT, "bash"]);
        command.args([env!("CARGO_BIN_EXE_minic"), &RUN.join(" "), &size]).current_dir(folder);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if point == 0 && (stderr.contains("unshare") || stderr.contains("mount:")) {
            // Straight to the stream, which the test harness does not keep to itself.
            let why = "SKIPPED a_full_disk_loses_nothing: nobody may mount a small file system here";
            writeln!(std::io::stderr(), "{why}: {stderr}").unwrap();
            return;
        }
        let told = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
        let code = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_string();
        assert!(output.status.success(), "{size} KiB: {stderr}{told}");
        assert!(code == "0" || code == "3", "{size} KiB: exit {code}: {told}");
        full += u64::from(code == "3");
        assert_eq!(outcome(folder), whole, "{size} KiB");
    }
    assert!(full > 0);
    println!("{full} of {points} sizes of a disk were too small");
}

#[test]
fn a_journal_that_was_cut_short_is_continued_on_a_line_of_its_own() {
    let folder = folder();
    let folder = folder.path();
    finish(folder);
    let events = folder.join(".minic/runs/recipe/events.jsonl");
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
