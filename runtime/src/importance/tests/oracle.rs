//! Scores of the golden model, against those that PyTorch computes from its own activations.

use super::program;
use crate::calibrate::calibrate;
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::events::Watch;
use crate::samples::Pass;
use crate::source::WeightSource;
use minic_compiler::axes::TAPS;
use minic_compiler::forward::{Gather, output};
use minic_compiler::hir::LayerMetric;
use std::path::Path;
use std::sync::Arc;

const METRICS: [(&str, &str); 4] = [
    ("activation", "l2(mean(abs(x), over = sequence), over = batch)"),
    ("spread", "variance(x, over = tokens)"),
    ("energy", "mean(square(x), over = tokens)"),
    ("peak", "max(abs(x), over = tokens)"),
];

/// Largest difference between scores, relative to the largest score.
fn error(scores: &[f64], golden: &serde_json::Value) -> f64 {
    let golden: Vec<f64> = serde_json::from_value(golden.clone()).unwrap();
    assert_eq!(scores.len(), golden.len());
    let largest = golden.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    scores.iter().zip(&golden).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn scores_are_pytorchs() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance"));
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&read("scores.json")).unwrap();
    let tokens: Vec<Vec<u32>> = serde_json::from_slice(&read("tokens.json")).unwrap();
    let samples: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let model = WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()));
    let programs = METRICS.map(|(name, expr)| (Arc::new(program(&format!("{name}(x) = {expr}"))), expr));
    let metrics = TAPS.iter().flat_map(|tap| programs.iter().map(|(p, _)| (tap.name, p.clone()))).collect();
    let layers = vec![LayerMetric::Kld, LayerMetric::Mse, LayerMetric::Cosine];
    let gather = Gather { metrics, layers, ..Gather::default() };
    let watch = Watch::new("calibrate", &());
    let gathered = calibrate(&Cpu, &model, &gather, &Pass::over(&samples, &watch)).unwrap();
    let mut compared = 0;
    for (tap, places) in golden["taps"].as_object().unwrap() {
        for (place, by_metric) in places.as_object().unwrap() {
            for (program, expr) in &programs {
                let name = output::metric(tap, &program.name, place.parse().ok());
                let elements = by_metric[expr].as_array().unwrap().len();
                let scores = program.finish(elements, Some(&gathered.metrics[&name]), &[]);
                let error = error(&scores, &by_metric[expr]);
                assert!(error < 1e-5, "{name}: {error}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 4 * (7 + 3 * 3 + 2 * 2 + 1));
    for (metric, scores) in &gathered.layers {
        let name = minic_compiler::metrics::LAYER_METRICS.iter().find(|m| m.metric == *metric).unwrap().name;
        let error = error(scores, &golden["layers"][name]);
        assert!(error < 1e-4, "{name}: {error}");
    }
    assert_eq!(gathered.layers.len(), 3);
}
