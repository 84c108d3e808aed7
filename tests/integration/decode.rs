//! Decoding token by token, through the commands.

use crate::command::{minic, repository};
use crate::support::{golden, json, tensor};
use minic_runtime::safetensors::Reader;
use std::path::Path;

/// `minic logits` with more arguments, on the short tokens of a folder of golden files.
fn logits(folder: &Path, case: &Path, more: &[&str]) -> Vec<f32> {
    let (case, tokens) = (case.display().to_string(), case.join("tokens-short.json").display().to_string());
    let arguments = ["logits", &case, "--tokens", &tokens, "--output", "l.safetensors", "--device", "cpu"];
    let done = minic(folder, &[&arguments[..], more].concat());
    assert_eq!(done.exit, 0, "{}", done.stderr);
    tensor(&Reader::open(&folder.join("l.safetensors")).unwrap(), "logits")
}

#[test]
fn what_is_decoded_is_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["nemotron-biases", "nemotron-dt-floor", "mamba2-dt-limits"] {
        let case = golden(name);
        let expected = tensor(&Reader::open(&case.join("logits.safetensors")).unwrap(), "short");
        let positions = json(&case.join("golden.json"))["short"]["positions"].clone();
        let positions: Vec<usize> = serde_json::from_value(positions).unwrap();
        let found = logits(folder.path(), &case, &["--decode", "63"]);
        // Two samples of 64 tokens.
        let vocab = found.len() / 128;
        for (i, row) in expected.chunks(vocab).enumerate() {
            let (sample, position) = (i / positions.len(), positions[i % positions.len()]);
            let found = &found[(sample * 64 + position) * vocab..][..vocab];
            let worst = row.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-4, "{name} position {position}: {worst}");
        }
        let whole = logits(folder.path(), &case, &[]);
        assert!(whole != found, "{name}: nothing was computed another way");
    }
    let case = golden("nemotron-plain").display().to_string();
    let tokens = golden("nemotron-plain").join("tokens-short.json").display().to_string();
    let arguments = ["logits", &case, "--tokens", &tokens, "--output", "l.safetensors", "--decode", "64"];
    let done = minic(folder.path(), &arguments);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("at most --decode 63"), "{}", done.stderr);
}

#[test]
fn checkpoints_are_measured_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let models = ["nemotron-plain", "mamba2-untied"].map(|name| golden(name).display().to_string());
    let request = ["--input", "6", "--output", "40", "--batch", "2", "--repeats", "1", "--device", "cpu"];
    let arguments = [&["bench", "decode", &models[0], &models[1]][..], &request].concat();
    let done = minic(folder.path(), &[&arguments[..], &["--json"]].concat());
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let report = done.json();
    let measured = report["models"].as_array().unwrap();
    assert_eq!(measured.len(), 2);
    for (row, model) in measured.iter().zip(&models) {
        assert_eq!(row["checkpoint"].as_str(), Some(model.as_str()));
        let (speed, number) = (&row["speed"], |at: &str| row.pointer(at).and_then(|n| n.as_f64()).unwrap());
        assert_eq!((speed["steps"].as_u64(), speed["input"].as_u64()), (Some(24), Some(6)));
        for figure in ["latency", "throughput", "prefill", "decode"] {
            let [least, median, most] =
                ["min", "median", "max"].map(|which| number(&format!("/speed/{figure}/{which}")));
            assert!(0.0 < least && least <= median && median <= most, "{figure} in {row:#}");
        }
        let ratio = number("/speed/throughput/median")
            / measured[0].pointer("/speed/throughput/median").and_then(|n| n.as_f64()).unwrap();
        assert!((number("/ratio") - ratio).abs() < 1e-12, "{row:#}");
    }
    let done = minic(folder.path(), &arguments);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert!(done.stdout.contains("24 of 40 steps were run, the others are interpolated"), "{}", done.stdout);
    assert!(models.iter().all(|model| done.stdout.contains(model.as_str())), "{}", done.stdout);
}

#[test]
fn a_request_that_no_memory_holds_is_told_before_it_runs() {
    let model = repository("tests/golden/nemotron-plain").display().to_string();
    let request = ["--input", "4000000", "--output", "4000000", "--batch", "65536", "--device", "cpu"];
    let done = minic(Path::new("."), &[&["bench", "decode", &model][..], &request].concat());
    assert_eq!(done.exit, 3, "{}", done.stderr);
    assert!(done.stderr.contains("take fewer sequences, or shorter ones"), "{}", done.stderr);
}
