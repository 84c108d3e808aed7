//! The fuzzer's targets over their committed inputs and some thousands of plain mutations of them: what the fuzzer
//! does for hours with an eye on the code that is reached (`fuzz/run`), every build does blindly for seconds.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use minic_runtime::random::SplitMix64;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use targets::TARGETS;

const MUTATIONS: usize = 2000;
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn recipe() {
    replay("recipe", MUTATIONS / 4);
}

#[test]
fn config() {
    replay("config", MUTATIONS);
}

#[test]
fn header() {
    replay("header", MUTATIONS);
}

#[test]
fn index() {
    replay("index", MUTATIONS);
}

#[test]
fn tokenizer() {
    replay("tokenizer", MUTATIONS);
}

#[test]
fn data() {
    replay("data", MUTATIONS);
}

#[test]
fn every_target_has_its_entry_and_its_inputs() {
    let names: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_string()).collect();
    let stems = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder(path)).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let here = fs::read_to_string(file!()).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert!(here.contains(&format!("replay(\"{name}\"")), "{name}");
    }
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn replay(name: &str, mutations: usize) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder("corpus").join(name)).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|p| fs::read(p).unwrap()).collect();
    let run = |what: &str, bytes: &[u8]| {
        let begin = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
        assert!(done.is_ok(), "{name}, {what}: {}", bytes.escape_ascii());
        let took = begin.elapsed();
        assert!(took < LONGEST, "{name}, {what}: {took:?} for {}", bytes.escape_ascii());
    };
    for (path, seed) in paths.iter().zip(&seeds) {
        run(&path.display().to_string(), seed);
    }
    let mut random = SplitMix64::new(1);
    for i in 0..mutations {
        run(&format!("mutation {i}"), &mutated(&seeds, &mut random));
    }
}

/// Values at the edges of types, and what brackets and ends texts.
const TOKENS: &[&str] = &[
    "0",
    "-1",
    "1e400",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "NaN",
    "Infinity",
    "null",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "\\",
    ",",
    ":",
    "=",
    "#",
    "\0",
    "\n",
    "\u{feff}",
    "\u{301}",
    "true",
];

/// One input with a few changes, each at a random place.
fn mutated(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let mut below = |n: usize| random.below(n.max(1) as u64) as usize;
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..1 + below(4) {
        let at = below(bytes.len());
        let end = (at + 1 + below(16)).min(bytes.len());
        match below(6) {
            0 if at < bytes.len() => bytes[at] = below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            2 if at < end => drop(bytes.drain(at..end)),
            3 if at < end => bytes.extend_from_within(at..end),
            4 => drop(bytes.splice(at..end.max(at), TOKENS[below(TOKENS.len())].bytes())),
            _ => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}
