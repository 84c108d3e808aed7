//! Least squares and eigenvectors at the widths of large models, of synthetic statistics.
//!
//! `cargo bench -p minic-runtime --bench linalg -- WIDTH.. [--outputs M] [--positions L]`: for each width the sum
//! of products of L positions, the solution of normal equations with M outputs, and, up to 8192, eigenvectors;
//! seconds, GFLOP/s, and the peak of resident memory.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use minic_runtime::{linalg, memory};
use std::time::Instant;

/// Wider streams than this there are none.
const WIDEST_STREAM: usize = 8192;

fn main() {
    let (mut widths, mut outputs, mut positions) = (Vec::new(), 4096, 1024);
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(argument) = arguments.next() {
        let number = |text: Option<String>| text.and_then(|t| t.parse().ok()).expect("a number");
        match argument.as_str() {
            "--outputs" => outputs = number(arguments.next()),
            "--positions" => positions = number(arguments.next()),
            width => widths.push(number(Some(width.into()))),
        }
    }
    println!("{:>6} {:12} {:>9} {:>9} {:>9}", "width", "work", "seconds", "GFLOP/s", "peak MiB");
    for n in widths {
        let x = draw(positions * n, 1);
        let mut gram = vec![0.0; n * n];
        let flops = positions as f64 * (n * n) as f64;
        timed(n, "sums", flops, || linalg::add_gram(&x, n, &mut gram));
        // What 1024 positions leave open is given by a ridge, as damping does.
        let mean = (0..n).map(|i| gram[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| gram[i * n + i] += 0.01 * mean);
        if n <= WIDEST_STREAM {
            let cube = (n as f64).powi(3);
            timed(n, "eigenvectors", 9.0 * cube, || linalg::eigen(&gram, n).expect("finite"));
        }
        linalg::mirror(&mut gram, n);
        let mut right = draw(n * outputs, 2);
        let flops = (n as f64).powi(3) / 3.0 + 2.0 * (n * n) as f64 * outputs as f64;
        timed(n, "solution", flops, || linalg::solve(&mut gram, n, &mut right, outputs).expect("definite"));
    }
}

fn timed<T>(n: usize, work: &str, flops: f64, run: impl FnOnce() -> T) {
    memory::reset_peak();
    let started = Instant::now();
    std::hint::black_box(run());
    let seconds = started.elapsed().as_secs_f64();
    let peak = memory::peak().unwrap_or_default() >> 20;
    println!("{n:>6} {work:12} {seconds:>9.2} {:>9.1} {peak:>9}", flops / seconds / 1e9);
}

fn draw(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
