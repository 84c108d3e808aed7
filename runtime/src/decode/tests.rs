use super::*;
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::events::Stop;
use crate::random::SplitMix64;
use crate::samples::Runner;
use crate::testing;
use minic_compiler::cut::CutPlan;
use minic_compiler::graph::Masks;
use minic_compiler::model::DType;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn open(folder: &Path) -> WeightSource {
    WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()))
}

/// Every shape and spelling that PyTorch has seen.
fn goldens() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut cases: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("golden.json").exists());
    cases.sort();
    cases
}

fn with(config: &Value, keys: Value) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

fn drawn(vocab: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| random.below(vocab as u64) as u32).collect()
}

/// Logits [L, V] of a sample, whole.
fn logits(model: &WeightSource, tokens: &[u32]) -> Vec<f32> {
    let graph = forward::logits(model.desc(), tokens.len(), Masks::default()).unwrap();
    let schedule = schedule::schedule(&graph).unwrap();
    let weights = source::bind(&schedule, model).unwrap();
    let outputs = Runner::new(&Cpu, schedule, weights, 1).unwrap().once(tokens).unwrap();
    outputs[output::LOGITS].f32().to_vec()
}

/// The largest difference of cached logits from those of whole samples, relative to the largest of these.
fn off(device: &dyn Device, model: &WeightSource, request: Request) -> f32 {
    let Request { input, output, batch } = request;
    let vocab = model.desc().size(Dim::VocabSize);
    let samples: Vec<Vec<u32>> =
        (0..batch).map(|s| drawn(vocab, input + output, (100 * s + input) as u64)).collect();
    let expected: Vec<Vec<f32>> = samples.iter().map(|tokens| logits(model, tokens)).collect();
    let row = |s: usize, t: usize| &expected[s][t * vocab..(t + 1) * vocab];
    let mut decoder = Decoder::new(device, model, request, Answer::Logits).unwrap();
    let largest = expected.iter().flatten().fold(0.0f32, |m, x| m.max(x.abs()));
    let mut worst = 0.0f32;
    let mut compare = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let off = |(a, b): (&f32, &f32)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() };
        worst = found.iter().zip(expected).map(off).fold(worst, f32::max);
    };
    // In no order, and one of them twice: nothing is left of what a sequence remembered before.
    decoder.begin(batch - 1, &samples[0][..input]).unwrap();
    for (s, tokens) in samples.iter().enumerate().rev() {
        compare(&decoder.begin(s, &tokens[..input]).unwrap(), row(s, input - 1));
    }
    for t in input..input + output {
        let tokens: Vec<u32> = samples.iter().map(|tokens| tokens[t]).collect();
        let found = decoder.step(t, &tokens).unwrap();
        assert_eq!(found.len(), batch * vocab);
        found.chunks(vocab).enumerate().for_each(|(s, found)| compare(found, row(s, t)));
    }
    worst / largest
}

fn assert_cached_is_whole(device: &dyn Device, model: &WeightSource, name: &str, inputs: &[usize]) {
    // Its gated norm divides by the size of two numbers that can both be near zero, which magnifies every rounding.
    let tolerance = if name.ends_with("mamba2-state-one") { 1e-4 } else { 1e-5 };
    for &input in inputs {
        let request = Request { input, output: 9, batch: 3 };
        let off = off(device, model, request);
        assert!(off < tolerance, "{name}, {input} first tokens: off by {off:e} of the largest logit");
    }
}

#[test]
fn cached_logits_are_those_of_the_whole_sample_at_every_position() {
    let cases = goldens();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for case in cases {
        // Shorter than the convolution, as long, and longer than a chunk of the scan.
        assert_cached_is_whole(&Cpu, &open(&case), &case.display().to_string(), &[1, 2, 4, 5, 70]);
    }
}

#[test]
fn any_convolution_goes_on() {
    for kernel in [1, 2, 7] {
        let folder = tempfile::tempdir().unwrap();
        let config = with(&testing::config(), json!({ "conv_kernel": kernel, "use_bias": true }));
        testing::write_checkpoint(folder.path(), &config, DType::F32);
        let name = format!("{kernel} taps");
        assert_cached_is_whole(&Cpu, &open(folder.path()), &name, &[1, 3, 6, 8]);
    }
}

#[test]
fn shaders_decode_as_the_cpu_does() {
    let Some(device) = testing::vulkan_device() else { return };
    for case in ["nemotron-plain", "nemotron-biases", "mamba2-dt-limits", "mamba2-odd-widths"] {
        let case = goldens().into_iter().find(|folder| folder.ends_with(case)).unwrap();
        assert_cached_is_whole(&device, &open(&case), &case.display().to_string(), &[1, 3, 70]);
    }
}

fn hybrid(folder: &Path) -> WeightSource {
    testing::write_checkpoint(folder, &testing::config(), DType::F32);
    open(folder)
}

#[test]
fn the_likeliest_tokens_are_those_of_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = hybrid(folder.path());
    let request = Request { input: 5, output: 2, batch: 2 };
    let of = |answer| Decoder::new(&Cpu, &model, request, answer).unwrap();
    let (mut tokens, mut all) = (of(Answer::Token), of(Answer::Logits));
    let likeliest = |logits: &[f32]| {
        let rows = logits.chunks(model.desc().size(Dim::VocabSize));
        let id = |row: &[f32]| (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        rows.map(|row| id(row) as f32).collect::<Vec<f32>>()
    };
    for s in 0..2 {
        let prompt = drawn(250, 5, s as u64);
        assert_eq!(tokens.begin(s, &prompt).unwrap(), likeliest(&all.begin(s, &prompt).unwrap()));
    }
    let found = tokens.step(5, &[3, 4]).unwrap();
    assert_eq!(found, likeliest(&all.step(5, &[3, 4]).unwrap()));
}

#[test]
fn a_candidate_that_is_nowhere_on_disk_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let model = hybrid(folder.path());
    let mut plan = CutPlan::identity(model.desc());
    plan.layers.pop();
    let smaller = model.cut(plan).unwrap();
    let request = Request { input: 6, output: 100, batch: 2 };
    let watch = Watch::new("test", &());
    let [whole, cut] = [&model, &smaller].map(|model| measure(&Cpu, model, request, 1, &watch).unwrap());
    assert!(cut.state_bytes < whole.state_bytes, "no attention, no keys");
    assert_eq!((whole.steps, whole.request, whole.repeats), (24, request, 1));
    for speed in [whole, cut] {
        let seconds = |rate: Spread, tokens: usize| (2 * tokens) as f64 / rate.median;
        let both = seconds(speed.prefill, 6) + seconds(speed.decode, 100);
        assert!((both / seconds(speed.throughput, 100) - 1.0).abs() < 1e-9, "{speed:?}");
        assert!((speed.latency.median / seconds(speed.prefill, 6) - 1.0).abs() < 1e-9, "{speed:?}");
        let text = serde_json::to_string(&speed).unwrap();
        assert_eq!(serde_json::from_str::<Speed>(&text).unwrap().request, speed.request);
    }
}

#[test]
fn few_steps_are_run_and_of_many_the_others_are_interpolated() {
    for few in [1, 24] {
        assert!(matches!(&runs(few)[..], [all] if *all == (0..few)));
    }
    assert_eq!(runs(1000), [0..8, 496..504, 992..1000]);
    // A step takes as long as its context: exact but for the ends, which take what the means of their runs take.
    let exact = |run: &Range<usize>| run.clone().map(|i| 5.0 + i as f64).sum::<f64>();
    for steps in [1, 24, 25, 1000] {
        let runs = runs(steps);
        let seconds: Vec<f64> = runs.iter().map(exact).collect();
        let off = whole(&runs, &seconds) - exact(&(0..steps));
        assert!(off.abs() < 1e-6, "{steps}: off by {off}");
    }
}

#[test]
fn spreads_keep_the_least_and_the_most() {
    let Spread { median, min, max } = Spread::of(vec![4.0, 1.0, 3.0]);
    assert_eq!([median, min, max], [3.0, 1.0, 4.0]);
    assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
}

#[test]
fn what_does_not_fit_or_asks_nothing_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let model = hybrid(folder.path());
    let watch = Watch::new("test", &());
    let ask = |input, output, batch| measure(&Cpu, &model, Request { input, output, batch }, 1, &watch);
    match ask(1000, 1000, 1 << 30) {
        Err(RunError::Device(DeviceError::Decoding { bytes, states, has })) => {
            assert!(bytes > states && states > has, "{bytes} {states} {has}");
        }
        other => panic!("{other:?}"),
    }
    for nothing in [ask(0, 1, 1), ask(1, 0, 1), ask(1, 1, 0)] {
        assert!(matches!(nothing, Err(RunError::NoSamples)), "{nothing:?}");
    }
    let stop = Stop::default();
    stop.set();
    let request = Request { input: 1, output: 1, batch: 1 };
    let stopped = measure(&Cpu, &model, request, 1, &Watch { stop, ..Watch::new("test", &()) });
    assert!(matches!(stopped, Err(RunError::Stopped)));
}
