//! The Vulkan device through the commands: on whatever adapter Vulkan names first, in CI Mesa's on the processor.

use crate::command::{copy, minic, minic_with, repository};
use minic_runtime::device::vulkan::adapters_found;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Whether there is an adapter. Where there is none, which is told, the test passes, unless `MINIC_REQUIRE_VULKAN`
/// is set.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn there_is_one() -> bool {
    let there = !adapters_found().is_empty();
    assert!(there || std::env::var_os("MINIC_REQUIRE_VULKAN").is_none(), "there is no Vulkan adapter");
    if !there {
        println!("skipped: there is no Vulkan adapter");
    }
    there
}

/// The quickstart on less data: its result, and its events.
fn quickstart(folder: &Path, device: &[&str]) -> (Value, String) {
    copy(&repository("examples/quickstart"), &folder.join("quickstart"));
    let less = ["recovery=3K", "calibration.samples=6", "heldout.samples=4", "recall.samples=8"];
    let less = less.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["run", "quickstart/quickstart.mrecipe", "--json"]
        .into_iter()
        .chain(less)
        .chain(device.iter().copied())
        .collect();
    let done = minic(folder, &arguments);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    (done.json(), done.stderr)
}

/// Everything at once: metrics, covariances, a rotation, a repair, proofs, a distillation and evaluations.
#[test]
fn the_quickstart_on_vulkan_is_the_quickstart_on_the_cpu() {
    if !there_is_one() {
        return;
    }
    let [on_cpu, on_device] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (cpu, _) = quickstart(on_cpu.path(), &["--device", "cpu"]);
    let (device, _) =
        quickstart(on_device.path(), &["--device", "vulkan", "--precision", "f32", "--profile"]);
    let (cpu, device) = (&cpu["evaluations"], &device["evaluations"]);
    let names: Vec<&String> = cpu.as_object().unwrap().keys().collect();
    assert!(names.len() == 4 && names == device.as_object().unwrap().keys().collect::<Vec<_>>());
    for name in names {
        for key in ["loss", "kl"] {
            let [a, b] = [cpu, device].map(|all| all[name]["figures"][key].as_f64().unwrap());
            assert!((a - b).abs() < 2e-4 * a.abs(), "{name} {key}: {a} {b}");
        }
    }
    let trace = fs::read_to_string(on_device.path().join("quickstart/.minic/runs/quickstart/profile.json"));
    let trace: Value = serde_json::from_str(&trace.unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |op: &str| events.iter().any(|e| e["name"] == op && e["dur"].as_f64().is_some_and(|d| d > 0.0));
    assert!(["ssd", "ssd_grad", "attention", "head_loss", "metric", "covariance"].iter().all(|op| of(op)));
    // What one device computed is not taken for what another computes.
    let mut again = vec!["plan", "quickstart/quickstart.mrecipe", "--json", "--device", "vulkan"];
    again.extend(["--precision", "bf16", "--set", "recovery=3K", "--set", "calibration.samples=6"]);
    let planned = minic(on_device.path(), &again).json();
    let nodes = planned["nodes"].as_array().unwrap();
    let student = nodes.iter().find(|node| node["name"] == "student").unwrap();
    assert_ne!(student["state"], "cached", "{student}");
    let proved = minic(on_device.path(), &["verify", "quickstart-student"]);
    assert_eq!(proved.exit, 0, "{}", proved.stderr);
}

#[test]
fn losses_in_16_bits_are_near_those_in_32() {
    if !there_is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [model, text] = ["examples/quickstart/model", "examples/quickstart/heldout.txt"].map(repository);
    let loss = |device: &[&str]| {
        let model = ["eval", model.to_str().unwrap(), "--data", text.to_str().unwrap()];
        let samples = ["--samples", "4", "--sequence", "128", "--json"];
        let done = minic(folder.path(), &[&model[..], &samples, device].concat());
        assert_eq!(done.exit, 0, "{}", done.stderr);
        done.json()["loss"].as_f64().unwrap()
    };
    let expected = loss(&["--device", "cpu"]);
    for (precision, tolerance) in [("f32", 1e-5), ("f16", 1e-3), ("bf16", 1e-2)] {
        let found = loss(&["--device", "vulkan:0", "--precision", precision]);
        assert!((found - expected).abs() < tolerance * expected, "{precision}: {found} {expected}");
    }
}

#[test]
fn compiled_pipelines_are_kept_and_broken_ones_are_made_again() {
    if !there_is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [model, text] = ["examples/quickstart/model", "examples/quickstart/heldout.txt"].map(repository);
    let eval = ["eval", model.to_str().unwrap(), "--data", text.to_str().unwrap(), "--samples", "1"];
    let arguments = [&eval[..], &["--sequence", "64", "--device", "vulkan"]].concat();
    let cache = folder.path().join("cache").display().to_string();
    let run = || minic_with(folder.path(), &arguments, &[("XDG_CACHE_HOME", &cache)]);
    let kept = || {
        let files = fs::read_dir(folder.path().join("cache/minic/pipelines")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        (files[0].clone(), fs::read(&files[0]).unwrap())
    };
    let first = run();
    let (path, whole) = kept();
    assert!(first.exit == 0 && whole.len() > 32, "{}", first.stderr);
    for broken in [&b"short"[..], &whole[..whole.len() - 1], &[7; 100]] {
        fs::write(&path, broken).unwrap();
        let again = run();
        assert_eq!((again.exit, &again.stdout), (0, &first.stdout), "{}", again.stderr);
        assert_eq!(kept().1.len(), whole.len(), "it is whole again");
    }
}

#[test]
fn devices_that_are_not_there_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository("examples/quickstart/model");
    let eval = |device: &[&str]| {
        let eval = ["eval", model.to_str().unwrap(), "--data", "none.txt"];
        minic(folder.path(), &[&eval[..], device].concat())
    };
    let done = eval(&["--device", "vulkan:99"]);
    assert!(done.exit == 3 && done.stderr.contains("doctor"), "{}", done.stderr);
    let done = eval(&["--device", "cpu", "--precision", "f16"]);
    assert!(done.exit == 1 && done.stderr.contains("f32"), "{}", done.stderr);
    assert_eq!(eval(&["--device", "gpu"]).exit, 2);
    assert_eq!(eval(&["--precision", "fp8"]).exit, 2);
    copy(&repository("examples/quickstart"), &folder.path().join("quickstart"));
    let run = ["run", "quickstart/quickstart.mrecipe", "--profile", "--device", "cpu"];
    let done = minic(folder.path(), &run);
    assert!(done.exit == 1 && done.stderr.contains("times"), "{}", done.stderr);
}

#[test]
fn kernels_and_models_are_measured_on_the_device() {
    if !there_is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = repository("compiler/tests/configs/tiny.json");
    let config = config.to_str().unwrap();
    let kernels = ["bench", "kernels", config, "--sequence", "32", "--runs", "1", "--json"];
    let done = minic(folder.path(), &[&kernels[..], &["--device", "vulkan"]].concat());
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let operations = &done.json()["operations"];
    for (op, products) in [("linear", true), ("ssd_grad", false), ("head_loss", true), ("attention", false)] {
        let of = &operations[op];
        assert!(of["seconds"].as_f64().is_some_and(|s| s > 0.0), "{op}: {operations:#}");
        assert_eq!(of["flops"].as_u64().is_some_and(|n| n > 0), products, "{op}");
    }
    let done = minic(folder.path(), &[&kernels[..], &["--device", "cpu"]].concat());
    assert!(done.exit == 1 && done.stderr.contains("cargo bench"), "{}", done.stderr);

    let model = repository("tests/golden/nemotron-plain");
    let model = model.to_str().unwrap();
    for device in ["cpu", "vulkan"] {
        for what in [&["forward", model][..], &["train", model], &["train", model, "--teacher", model]] {
            let sizes = ["--sequence", "16", "--batch", "2", "--runs", "1", "--json", "--device", device];
            let done = minic(folder.path(), &[&["bench"], what, &sizes].concat());
            assert_eq!(done.exit, 0, "{}", done.stderr);
            assert!(done.json()["tokens_per_second"].as_f64().is_some_and(|n| n > 0.0));
        }
    }
}

#[test]
fn doctor_says_which_shaders_operations_get() {
    if !there_is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let findings = minic(folder.path(), &["doctor", "--json"]).json();
    let adapter = findings["findings"].as_array().unwrap().iter().find(|f| f["name"] == "adapter").unwrap();
    let shaders = adapter["facts"]["shaders"].as_object().unwrap();
    for op in
        ["linear", "linear_grad", "linear_weight_grad", "ssd", "ssd_grad", "attention_grad", "head_loss"]
    {
        assert!(shaders[op].as_array().is_some_and(|names| !names.is_empty()), "{op}");
    }
    let text = minic(folder.path(), &["doctor"]).stdout;
    assert!(
        text.contains("vulkan:0") && text.contains("products in") && !text.contains("ssd_pass"),
        "{text}"
    );
    let text = minic(folder.path(), &["doctor", "-v"]).stdout;
    assert!(text.contains("ssd_grad") && text.contains("ssd_pass"), "{text}");
}
