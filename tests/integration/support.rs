//! Shared by the tests.

use minic_compiler::forward::{self, output};
use minic_compiler::graph::Masks;
use minic_compiler::schedule;
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::safetensors;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of golden files.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// The folders of golden files that hold this one.
pub fn goldens_with(file: &str) -> Vec<PathBuf> {
    let mut cases: Vec<_> = golden("").read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    cases.retain(|case| case.join(file).exists());
    cases.sort();
    cases
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn tokens(path: &Path) -> Vec<Vec<u32>> {
    serde_json::from_value(json(path)).unwrap()
}

/// A tensor in f32.
pub fn tensor(file: &safetensors::Reader, name: &str) -> Vec<f32> {
    let mut bytes = Vec::new();
    file.read(name, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

pub fn source(folder: &Path) -> WeightSource {
    WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()))
}

/// Logits [L, V] of one sample.
pub fn logits(model: &WeightSource, ids: &[u32]) -> Vec<f32> {
    let graph = forward::logits(model.desc(), ids.len(), Masks::default()).unwrap();
    let schedule = schedule::schedule(&graph).unwrap();
    let weights = source::bind(&schedule, model).unwrap();
    let outputs = Runner::new(&Cpu, schedule, weights, 1).unwrap().once(ids).unwrap();
    outputs[output::LOGITS].f32().to_vec()
}
