//! Shared by the tests.

use minic_compiler::forward::{self, output};
use minic_compiler::graph::Masks;
use minic_compiler::schedule;
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::samples::Runner;
use minic_runtime::source::{self, WeightSource};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of golden files.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
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
