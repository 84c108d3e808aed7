//! The memory that a run is planned to hold against the memory that it held.
//!
//! A test binary of its own, because it counts what its process allocates.
#![allow(clippy::print_stdout, reason = "what was held is shown with --nocapture")]

use minic_compiler::autodiff::Recompute;
use minic_compiler::families;
use minic_compiler::forward::{self, Gather, Objective, TEACHER};
use minic_compiler::graph::HeadLoss;
use minic_compiler::hir::{LayerMetric, LossTerm};
use minic_compiler::losses::Term;
use minic_compiler::model::{DType, Role};
use minic_compiler::{dim::Dim, schedule};
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::{Bindings, Device, TrainingState, Weights};
use minic_runtime::events::Watch;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, Rotation, WeightSource};
use minic_runtime::synth::Synth;
use minic_runtime::train::optimizer::Update;
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a schedule of one checkpoint is planned to hold, and held, in bytes.
fn planned_and_used(folder: &Path, sequence: usize, gather: &Gather) -> (usize, usize) {
    let model = WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()));
    let vocab = model.desc().size(Dim::VocabSize) as u32;
    let samples: Vec<Vec<u32>> =
        (0..6).map(|s| (0..sequence as u32).map(|t| (t * 7 + s) % vocab).collect()).collect();
    let windows: Vec<&[u32]> = samples.iter().map(Vec::as_slice).collect();
    let schedule =
        schedule::schedule(&forward::calibration(model.desc(), sequence, gather).unwrap()).unwrap();
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let weights = source::bind(&schedule, &model).unwrap();
    let mut runner = Runner::new(&Cpu, schedule, weights, windows.len()).unwrap();
    let planned = runner.memory.total() as usize;
    runner.all(&windows, &Watch::new("test", &()), drop).unwrap();
    (planned, PEAK.load(Ordering::Relaxed) - before)
}

/// The same of two updates of a model that is taught by its equal, and how much of the plan is scratch.
fn planned_and_used_in_training(folder: &Path, batch: usize, recompute: Recompute) -> (usize, usize, usize) {
    const SEQUENCE: usize = 256;
    let model = WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()));
    let desc = model.desc();
    let vocab = desc.size(Dim::VocabSize) as u32;
    let samples: Vec<Vec<u32>> =
        (0..batch as u32).map(|s| (0..SEQUENCE as u32).map(|t| (t * 7 + s) % vocab).collect()).collect();
    let windows: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
    let term = Term::Head(HeadLoss::ForwardKl { temperature: 1.0 });
    let (arguments, span) = Default::default();
    let loss = [LossTerm { weight: 1.0, loss: "forward_kl", arguments, term, span }];
    let objective = Objective::new(&loss, &[]);
    let graph = forward::training(desc, Some(desc), &objective, SEQUENCE, batch, recompute).unwrap().graph;
    let schedule = Arc::new(schedule::schedule(&graph).unwrap());
    let lanes = forward::lanes(desc.params(), batch);
    let memory = Cpu.memory(&schedule, lanes);
    let planned = memory.total() + schedule.average_bytes();
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let load = || {
        let names = desc.weights().into_iter().map(|w| w.name);
        Weights::load(names, |name| model.read_f32(name)).unwrap()
    };
    let state = TrainingState { weights: load(), ..TrainingState::default() };
    let mut training = Cpu.train(schedule, load().scoped(TEACHER), state, lanes).unwrap();
    for step in 1..3 {
        training.gradients(&windows).unwrap();
        assert!(training.norm().unwrap() >= 0.0);
        let update = Update { beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 1e-3, step, scale: 1.0 };
        training.update(&update, &|_| 0.0).unwrap();
    }
    (planned as usize, memory.scratch as usize, PEAK.load(Ordering::Relaxed) - before)
}

/// The plan leaves out what does not grow with the model: names, lists of steps, the threads' own buffers.
const SLACK: usize = 768 << 10;

/// One test at a time counts.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_run_holds_what_was_planned() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let layers = vec![LayerMetric::Kld, LayerMetric::Cosine];
    let gathers =
        [Gather { loss: true, ..Gather::default() }, Gather { loss: true, layers, ..Gather::default() }];
    for folder in
        ["examples/quickstart/model", "tests/golden/nemotron-wide-vocab", "tests/golden/mamba2-tied"]
    {
        for gather in &gathers {
            let (planned, used) = planned_and_used(&root.join(folder), 512, gather);
            assert!(used <= planned + SLACK, "{folder}: {used} bytes were held, {planned} planned");
            assert!(used + SLACK >= planned / 2, "{folder}: {used} bytes were held, {planned} planned");
            println!("{folder}: {planned} bytes planned, {used} held");
        }
        for (batch, recompute) in [(1, Recompute::Cheap), (6, Recompute::Cheap), (6, Recompute::Blocks)] {
            let (planned, scratch, used) = planned_and_used_in_training(&root.join(folder), batch, recompute);
            let told =
                format!("{folder}, batch {batch}, {recompute:?}: {used} bytes were held, {planned} planned");
            assert!(used <= planned + SLACK, "{told}");
            // The workers may have their scratch from a model before.
            assert!(used + SLACK >= (planned - scratch) * 9 / 10, "{told}");
            println!("{told}");
        }
    }
}

/// A matrix that writes to a rotated stream is computed whole: it is held once, beside some of its rows before.
#[test]
fn a_rotated_tensor_is_held_once() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let (width, neurons, rows) = (1600, 8192, 768);
    let config = json!({
        "model_type": "nemotron_h", "hybrid_override_pattern": "-", "vocab_size": 64, "hidden_size": width,
        "intermediate_size": neurons, "time_step_limit": [0.001, { "__float__": "Infinity" }]
    });
    let desc = families::describe(config.as_object().unwrap()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (folder, config) = (home.path().join("model"), config.to_string());
    let synth = Synth { desc: &desc, config: &config, dtype: Some(DType::BF16), seed: 1, shard: u64::MAX };
    synth.write(&folder, false, &Watch::new("test", &())).unwrap();
    let mut basis = vec![0.0; width * width];
    (0..width).for_each(|i| basis[i * width + (i + 1) % width] = 1.0);
    let rotation = Arc::new(Rotation::new(width, basis).unwrap());
    let model = WeightSource::new(Arc::new(Checkpoint::open(&folder).unwrap())).rotate(rotation).unwrap();
    let down = desc.weights().into_iter().find(|w| w.role == Role::DownProj).unwrap().name;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let values = pool.install(|| model.read_f32(&down)).unwrap();
    let (used, result) = (PEAK.load(Ordering::Relaxed) - before, size_of_val(values.as_slice()));
    let rows = size_of::<f32>() * neurons * rows;
    // What the two threads read and lay out.
    let scratch = 16 << 20;
    assert!((result + rows..result + rows + scratch).contains(&used), "{used} bytes for {result}");
    assert!(scratch < result - rows, "a second copy would be seen");
    println!("{used} bytes were held for a result of {result}");
}
