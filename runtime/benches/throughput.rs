//! Tokens per second of whole models: `cargo bench --bench throughput -- forward|train CHECKPOINT B L ..`
//!
//! B samples of L tokens a pass, for each pair that is given. `forward` computes logits; `train` makes updates of
//! AdamW on the cross-entropy of the next token. Beside them, in the same run, the rate of the CPU device's own
//! f32 product of 1024^3 before and after, so that a busy machine shows, and the share of it that the products of
//! the model's matrices reach. Threads are those of RAYON_NUM_THREADS.

#![allow(clippy::print_stdout)]

use minic_compiler::autodiff::Recompute;
use minic_compiler::dim::{Dim, Extent};
use minic_compiler::forward::{self, Objective, output};
use minic_compiler::graph::{Builder, Graph, Masks};
use minic_compiler::model::{ModelDesc, Role, Weight};
use minic_compiler::schedule;
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::{Bindings, Device, TrainingState, Weights};
use minic_runtime::events::Watch;
use minic_runtime::memory;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use minic_runtime::train::optimizer::Update;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const N: usize = 1024;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [mode, folder, pairs @ ..] = given.as_slice() else {
        println!("usage: cargo bench --bench throughput -- forward|train CHECKPOINT B L [B L ..]");
        return;
    };
    let model = WeightSource::new(Arc::new(Checkpoint::open(Path::new(folder)).expect("a checkpoint")));
    println!("{folder}: {} parameters, {} threads", model.desc().params(), Cpu.lanes());
    for pair in pairs.chunks_exact(2) {
        let number = |text: &String| text.parse::<usize>().expect("B and L are numbers");
        let (batch, sequence) = (number(&pair[0]), number(&pair[1]));
        let before = product();
        let tokens = (batch * sequence) as f64;
        let ((best, median, passes), products) = match mode.as_str() {
            "forward" => (forward(&model, batch, sequence), 1.0),
            "train" => (train(&model, batch, sequence), 3.0),
            other => panic!("{other} is neither forward nor train"),
        };
        let after = product();
        let rate = |time: Duration| tokens / time.as_secs_f64();
        let flops = 2.0 * products * matrices(model.desc()) as f64 * rate(median) / 1e9;
        println!(
            "{mode} B{batch} L{sequence:<5} best {:>8.0} tok/s  median {:>8.0}  {passes} passes  product {before:.0} {after:.0} GFLOP/s  share of the better {:.0} %  peak {} MiB",
            rate(best),
            rate(median),
            100.0 * flops / before.max(after),
            memory::peak().unwrap_or(0) >> 20
        );
    }
}

/// Elements of the matrices that every token is multiplied with.
fn matrices(desc: &ModelDesc) -> usize {
    let is_read = |w: &&Weight| w.shape.len() == 2 && w.role != Role::Embedding;
    let head = if desc.tied { desc.size(Dim::VocabSize) * desc.size(Dim::HiddenSize) } else { 0 };
    desc.weights().iter().filter(is_read).map(Weight::len).sum::<usize>() + head
}

fn samples(model: &WeightSource, batch: usize, sequence: usize) -> Vec<Vec<u32>> {
    let vocab = model.desc().size(Dim::VocabSize) as u32;
    let ids = |s: u32| (0..sequence as u32).map(|t| (t * 7 + s * 13 + t / 5) % vocab.min(256)).collect();
    (0..batch as u32).map(ids).collect()
}

/// Best and median time of an update.
fn train(model: &WeightSource, batch: usize, sequence: usize) -> (Duration, Duration, usize) {
    let objective = Objective::cross_entropy();
    let graph = forward::training(model.desc(), None, &objective, sequence, batch, Recompute::Cheap)
        .expect("a graph");
    let schedule = Arc::new(schedule::schedule(&graph.graph).expect("a schedule"));
    let state = TrainingState {
        weights: source::bind(&schedule, model).expect("weights"),
        ..TrainingState::default()
    };
    let lanes = forward::lanes(model.desc().params(), batch);
    let mut training = Cpu.train(schedule, Weights::default(), state, lanes).expect("a training");
    let samples = samples(model, batch, sequence);
    let windows: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
    let mut step = 0;
    times(|| {
        step += 1;
        training.gradients(&windows).expect("gradients");
        let scale = 1.0 / training.norm().expect("a norm").max(1.0);
        let update = Update { beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 1e-5, step, scale };
        training.update(&update, &|_| 0.0).expect("an update");
    })
}

/// Best and median time of a pass.
fn forward(model: &WeightSource, batch: usize, sequence: usize) -> (Duration, Duration, usize) {
    let graph = forward::logits(model.desc(), sequence, Masks::default()).expect("a graph");
    let schedule = schedule::schedule(&graph).expect("a schedule");
    let weights = source::bind(&schedule, model).expect("weights");
    let samples = samples(model, batch, sequence);
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
