use super::*;
use crate::hir::LayerMetric;
use crate::model::{Role, Weight};
use crate::plan::Calibrate;
use crate::plan::fixture;

/// Multiplications and additions of all matrices, by way of the weight table: two for each entry.
fn matrices(desc: &ModelDesc) -> u64 {
    let outer = |role: Role| matches!(role, Role::Embedding | Role::Norm);
    let counted = |w: &&Weight| !outer(w.role) && w.shape.len() > 1;
    let stored: u64 = desc.weights().iter().filter(counted).map(|w| 2 * w.len() as u64).sum();
    let tied = if desc.tied { head_flops(desc) } else { 0 };
    stored + tied
}

/// The closed formulas agree with the weight table, once what has no weight is taken off.
#[test]
fn operations_agree_with_the_weight_table() {
    for name in ["8b", "mamba2", "tiny"] {
        let desc = fixture::desc(name);
        let s = |dim| desc.size(dim) as u64;
        let inner = s(Dim::MambaNumHeads) * s(Dim::MambaHeadDim);
        let scan = 5 * inner * s(Dim::SsmStateSize) + 2 * inner;
        let keys = 2 * s(Dim::NumAttentionHeads) * s(Dim::AttentionHeadDim) * (1000 + 1);
        let count = |kind| desc.layers.iter().filter(|k| **k == kind).count() as u64;
        let weightless = count(LayerKind::Mamba) * scan + count(LayerKind::Attention) * keys;
        assert_eq!(flops_per_token(&desc, 1000) - weightless, matrices(&desc), "{name}");
    }
}

/// By hand for Nemotron-H 8B: four attention layers with 8 heads of 128, 24 SSMs of 128 x 64 x 128.
#[test]
fn memory_of_the_8b_parent() {
    let desc = fixture::desc("8b");
    let keys_and_values = 4 * 2 * 8 * 128 * 65536 * 2;
    let states = 24 * (128 * 64 * 128 * 4 + 4 * (128 * 64 + 2 * 8 * 128) * 2);
    assert_eq!(memory(&desc, 4, 65536), 2 * 8_100_852_736 + 4 * (keys_and_values + states));
    assert_eq!(disk(8_100_852_736, DType::BF16), 16_201_705_472);
    assert_eq!(disk(10, DType::F32), 40);
}

#[test]
fn a_calibration_is_one_pass_whatever_it_gathers() {
    let one = Calibrate { layers: vec![LayerMetric::Cosine], covariance: true, ..Default::default() };
    assert_eq!(Passes::calibration(&one, 52), Passes { whole: 1, partial: 0 });
    let layers = Calibrate { layers: vec![LayerMetric::Kld, LayerMetric::Mse], ..Default::default() };
    assert_eq!(Passes::calibration(&layers, 52), Passes { whole: 1, partial: 52 });
}

#[test]
fn an_iterative_ranking_passes_again_after_every_removal() {
    let passes = Passes { whole: 4, partial: 52 + 51 + 50 + 49 };
    assert_eq!(Passes::iterative(LayerMetric::Mse, 52, 48), passes);
    assert_eq!(Passes::iterative(LayerMetric::Cosine, 52, 48), Passes { whole: 4, partial: 0 });
}

/// Leaving out each of five equal blocks in turn runs 4 + 3 + 2 + 1 + 0 of them, and five heads.
#[test]
fn partial_passes_run_half_of_the_blocks_in_the_mean() {
    let mut desc = fixture::desc("tiny");
    desc.layers = vec![LayerKind::Mlp; 5];
    let (block, head) = (block_flops(&desc, LayerKind::Mlp, 10), head_flops(&desc));
    let passes = Passes { whole: 0, partial: 5 };
    let exact = 10 * ((4 + 3 + 2 + 1) * block + 5 * head);
    // The one left out is counted as half a block more.
    assert_eq!(passes.flops(flops_per_token(&desc, 10), head, 10), exact + 10 * 5 * block / 2);
}
