//! Tokens per second of whole forward passes, logits included: `cargo bench --bench forward -- CHECKPOINT B L ..`
//!
//! B samples of L tokens a pass, for each pair that is given. Beside them, in the same run, the rate of the
//! CPU device's own f32 product of 1024^3 before and after, so that a busy machine shows. Threads are those
//! of RAYON_NUM_THREADS.

#![allow(clippy::print_stdout)]

use minic_compiler::dim::{Dim, Extent};
use minic_compiler::forward::{self, output};
use minic_compiler::graph::{Builder, Graph, Masks};
use minic_compiler::schedule;
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::{Device, Weights};
use minic_runtime::events::Watch;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const N: usize = 1024;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (Some(folder), pairs) = (given.first(), given.get(1..).unwrap_or_default()) else {
        println!("usage: cargo bench --bench forward -- CHECKPOINT B L [B L ..]");
        return;
    };
    let model = WeightSource::new(Arc::new(Checkpoint::open(Path::new(folder)).expect("a checkpoint")));
    println!("{folder}: {} parameters, {} threads", model.desc().params(), Cpu.lanes());
    for pair in pairs.chunks_exact(2) {
        let number = |text: &String| text.parse::<usize>().expect("B and L are numbers");
        let (batch, sequence) = (number(&pair[0]), number(&pair[1]));
        let before = product();
        let (best, median, passes) = forward(&model, batch, sequence);
        let rate = |time: Duration| (batch * sequence) as f64 / time.as_secs_f64();
        println!(
            "B{batch} L{sequence:<5} best {:>8.0} tok/s  median {:>8.0}  {passes} passes  product {before:.0} {:.0} GFLOP/s",
            rate(best),
            rate(median),
            product()
        );
    }
}

/// Best and median time of a pass.
fn forward(model: &WeightSource, batch: usize, sequence: usize) -> (Duration, Duration, usize) {
    let graph = forward::logits(model.desc(), sequence, Masks::default()).expect("a graph");
    let schedule = schedule::schedule(&graph).expect("a schedule");
    let weights = source::bind(&schedule, model).expect("weights");
    let vocab = model.desc().size(Dim::VocabSize) as u32;
    let ids = |s: u32| (0..sequence as u32).map(|t| (t * 7 + s * 13 + t / 5) % vocab.min(256)).collect();
    let samples: Vec<Vec<u32>> = (0..batch as u32).map(ids).collect();
    let windows: Vec<&[u32]> = samples.iter().map(Vec::as_slice).collect();
    let mut runner = Runner::new(&Cpu, schedule, weights, batch).expect("a runner");
    let watch = Watch::new("bench", &());
    times(|| runner.all(&windows, &watch, drop).expect("a pass"))
}

/// GFLOP/s of one f32 product of 1024^3.
fn product() -> f64 {
    let graph = product_graph();
    let schedule = schedule::schedule(&graph).expect("a schedule");
    let noise = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
    let matrix = |_: &str| Ok::<_, std::convert::Infallible>((0..N * N).map(noise).collect());
    let weights = Weights::load(["w".to_string()], matrix).expect("a matrix");
    let mut runner = Runner::new(&Cpu, schedule, weights, 1).expect("a runner");
    runner.set_input("x", (0..N * N).map(noise).collect());
    let (best, ..) = times(|| drop(runner.once(&[]).expect("a product")));
    2.0 * (N as f64).powi(3) / best.as_secs_f64() / 1e9
}

fn product_graph() -> Graph {
    let mut b = Builder::new();
    let side = || Extent::of(Dim::One, N);
    let x = b.input("x", vec![side(), side()]);
    let w = b.weight("w", vec![side(), side()]);
    let y = b.linear(x, w, None);
    b.output(output::LOGITS, y);
    b.finish().expect("a product")
}

/// Best and median of at least three runs and four seconds, after one that is not counted.
fn times(mut run: impl FnMut()) -> (Duration, Duration, usize) {
    run();
    let (start, mut all) = (Instant::now(), Vec::new());
    while all.len() < 3 || (start.elapsed() < Duration::from_secs(4) && all.len() < 40) {
        let one = Instant::now();
        run();
        all.push(one.elapsed());
    }
    all.sort();
    (all[0], all[all.len() / 2], all.len())
}
