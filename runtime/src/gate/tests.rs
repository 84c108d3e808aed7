use super::*;
use crate::device::cpu::Cpu;
use minic_compiler::cut::Keep;
use minic_compiler::model::LayerKind;
use std::path::PathBuf;
use std::sync::Arc;

fn golden(case: &str) -> WeightSource {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(case);
    WeightSource::new(Arc::new(Checkpoint::open(&folder).unwrap()))
}

/// Half of everything that can be cut: heads, channels, neurons, hidden channels, and the last layer.
fn half(desc: &ModelDesc) -> CutPlan {
    let mut plan = CutPlan::identity(desc);
    plan.layers.pop();
    let (heads, groups) = (desc.size(Dim::MambaNumHeads), desc.size(Dim::NGroups));
    for &layer in &plan.layers {
        let dims = plan.by_layer.entry(layer).or_default();
        match desc.layers[layer] {
            LayerKind::Mamba => {
                let per_group = heads / groups;
                let kept = (0..heads).filter(|h| h % per_group < per_group.div_ceil(2)).collect();
                dims.insert(Dim::MambaNumHeads, Keep::Flat(kept));
                let channels = desc.size(Dim::MambaHeadDim);
                dims.insert(Dim::MambaHeadDim, Keep::Flat((channels / 2..channels).collect()));
            }
            LayerKind::Mlp => {
                let kept = (layer..desc.size(Dim::FfnHiddenSize)).step_by(2).collect::<Vec<_>>();
                let n = desc.size(Dim::FfnHiddenSize) / 3;
                dims.insert(Dim::FfnHiddenSize, Keep::Flat(kept.into_iter().take(n.max(1)).collect()));
            }
            LayerKind::Attention => {}
        }
    }
    let hidden = desc.size(Dim::HiddenSize);
    plan.model.insert(Dim::HiddenSize, (hidden / 3..hidden).collect());
    plan
}

const WHOLE: u64 = u64::MAX;

#[test]
fn masked_and_cut_models_agree_whole_and_block_by_block() {
    for case in ["nemotron-plain", "nemotron-odd-widths", "nemotron-biases", "nemotron-one-group"] {
        let whole = golden(case);
        let plan = half(whole.desc());
        let cut = whole.cut(plan.clone()).unwrap();
        for budget in [WHOLE, 0] {
            let proof = prove_cut(&Cpu, &whole, &cut, &plan, budget).unwrap();
            assert!(proof.magnitude > 0.1, "{case}: {proof:?}");
            assert!(proof.params_after < proof.params_before);
        }
    }
}

#[test]
fn channels_chosen_per_head_agree_too() {
    let whole = golden("nemotron-plain");
    let mut plan = CutPlan::identity(whole.desc());
    let (heads, channels) = (whole.desc().size(Dim::MambaNumHeads), whole.desc().size(Dim::MambaHeadDim));
    for layer in 0..whole.desc().layers.len() {
        if whole.desc().layers[layer] == LayerKind::Mamba {
            let lists = (0..heads).map(|h| (0..channels).filter(|c| *c != h % channels).collect());
            plan.by_layer.entry(layer).or_default().insert(Dim::MambaHeadDim, Keep::PerHead(lists.collect()));
        }
    }
    let cut = whole.cut(plan.clone()).unwrap();
    prove_cut(&Cpu, &whole, &cut, &plan, WHOLE).unwrap();
}

#[test]
fn a_wrong_index_set_is_seen() {
    let whole = golden("nemotron-plain");
    let plan = half(whole.desc());
    for dim in [Dim::MambaNumHeads, Dim::MambaHeadDim, Dim::FfnHiddenSize] {
        let mut wrong = plan.clone();
        let size = whole.desc().size(dim);
        let keep = wrong.by_layer.values_mut().find_map(|dims| dims.get_mut(&dim)).unwrap();
        let Keep::Flat(kept) = keep else { panic!() };
        let last = kept.last_mut().unwrap();
        *last = if *last + 1 < size { *last + 1 } else { *last - 1 };
        kept.sort_unstable();
        kept.dedup();
        let Ok(cut) = whole.cut(wrong) else { continue };
        for budget in [WHOLE, 0] {
            let error = prove_cut(&Cpu, &whole, &cut, &plan, budget).unwrap_err();
            assert!(matches!(error, GateError::Difference { .. }), "{dim}: {error}");
            assert_eq!(error.kind(), Kind::Proof);
        }
    }
}

#[test]
fn a_cut_that_changes_nothing_is_refused() {
    let whole = golden("nemotron-plain");
    let plan = CutPlan::identity(whole.desc());
    let cut = whole.cut(plan.clone()).unwrap();
    let error = prove_cut(&Cpu, &whole, &cut, &plan, WHOLE).unwrap_err();
    assert!(matches!(error, GateError::Unchanged { .. }));
}
