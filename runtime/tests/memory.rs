//! The memory that a run is planned to hold against the memory that it held.
//!
//! A test binary of its own, because it counts what its process allocates.
#![allow(clippy::print_stdout, reason = "what was held is shown with --nocapture")]

use minic_compiler::forward::{self, Gather};
use minic_compiler::hir::LayerMetric;
use minic_compiler::{dim::Dim, schedule};
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::events::Watch;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// The plan leaves out what does not grow with the model: names, lists of steps, the threads' own buffers.
const SLACK: usize = 768 << 10;

#[test]
fn a_run_holds_what_was_planned() {
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
    }
}
