use super::*;
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::publish::{self, PublishError};
use crate::safetensors::Entry;
use crate::testing;
use minic_compiler::cut::Keep;
use minic_compiler::dim::Dim;
use minic_compiler::model::{DType, LayerKind, ModelDesc};
use std::path::{Path, PathBuf};
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
fn a_cut_is_proved_on_a_vulkan_device() {
    let Some(device) = testing::vulkan_device() else { return };
    let whole = golden("nemotron-odd-widths");
    let plan = half(whole.desc());
    let cut = whole.cut(plan.clone()).unwrap();
    for budget in [WHOLE, 0] {
        let proof = prove_cut(&device, &whole, &cut, &plan, budget).unwrap();
        assert!(proof.magnitude > 0.1, "{proof:?}");
    }
}

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
fn a_rotated_model_computes_what_the_whole_one_does() {
    for case in ["nemotron-plain", "nemotron-odd-widths", "nemotron-biases", "nemotron-one-group"] {
        let whole = golden(case);
        let rotation = testing::rotation(whole.desc().size(Dim::HiddenSize), 11);
        let rotated = whole.rotate(rotation.clone()).unwrap();
        for budget in [WHOLE, 0] {
            let proof = prove_rotation(&Cpu, &whole, &rotated, &rotation, budget).unwrap();
            assert!(proof.magnitude > 0.1, "{case}: {proof:?}");
        }
        // And is cut and proved as any other.
        let plan = half(rotated.desc());
        let cut = rotated.cut(plan.clone()).unwrap();
        for budget in [WHOLE, 0] {
            let proof = prove_cut(&Cpu, &rotated, &cut, &plan, budget).unwrap();
            assert!(proof.magnitude > 0.1, "{case}: {proof:?}");
        }
    }
}

#[test]
fn a_wrong_rotation_is_seen() {
    let whole = golden("nemotron-biases");
    let width = whole.desc().size(Dim::HiddenSize);
    let right = testing::rotation(width, 12);
    let wrong = |change: &dyn Fn(&mut [f32])| {
        let mut basis = right.basis().to_vec();
        change(&mut basis);
        Arc::new(Rotation::new(width, basis).unwrap())
    };
    let one_sign = wrong(&|basis| basis[3] = -basis[3]);
    let longer = wrong(&|basis| basis.iter_mut().for_each(|v| *v *= 1.001));
    for rotation in [one_sign, longer] {
        let rotated = whole.rotate(rotation.clone()).unwrap();
        for budget in [WHOLE, 0] {
            let error = prove_rotation(&Cpu, &whole, &rotated, &rotation, budget).unwrap_err();
            assert!(matches!(error, GateError::Difference { .. }), "{error}");
            assert!(error.to_string().starts_with("the rotated model does not compute"), "{error}");
        }
    }
    // Another basis than the one that the model was turned into, though orthogonal as well.
    let mirrored = wrong(&|basis| basis.iter_mut().step_by(width).for_each(|v| *v = -*v));
    let rotated = whole.rotate(mirrored).unwrap();
    let error = prove_rotation(&Cpu, &whole, &rotated, &right, 0).unwrap_err();
    assert!(matches!(error, GateError::Difference { .. }), "{error}");
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

/// More tokens than are compared at once. The last element of the tensor `altered` is another one.
fn many_tokens(folder: &Path, altered: &str) -> WeightSource {
    let mut config = testing::config();
    config["vocab_size"] = 5000.into();
    testing::write_config(folder, &config);
    let entries = testing::entries(&testing::desc(&config), DType::F32);
    let open = |entry: &Entry| Ok(entry.clone());
    publish::write_weights(folder, &entries, None, open, |entry: &Entry, rows, piece| {
        let mut values = testing::rows(entry, rows);
        if let (true, Some(last)) = (entry.name == altered, values.last_mut()) {
            *last += 0.25;
        }
        piece.write_f32(&values)
    })
    .unwrap_or_else(|e: PublishError| panic!("{e}"));
    WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()))
}

#[test]
fn embedding_last_norm_and_head_are_compared_where_blocks_are() {
    let folders = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let whole = many_tokens(folders[0].path(), "");
    let plan = half(whole.desc());
    prove_cut(&Cpu, &whole, &whole.cut(plan.clone()).unwrap(), &plan, 0).unwrap();
    let faults = [
        ("backbone.embeddings.weight", "embeddings of tokens 4096..5000"),
        ("lm_head.weight", "logits of tokens 4096..5000"),
        ("backbone.norm_f.weight", "logits of tokens"),
    ];
    for ((tensor, place), folder) in faults.into_iter().zip(&folders[1..]) {
        let cut = many_tokens(folder.path(), tensor).cut(plan.clone()).unwrap();
        let error = prove_cut(&Cpu, &whole, &cut, &plan, 0).unwrap_err();
        let GateError::Difference { place: found, .. } = &error else { panic!("{tensor}: {error}") };
        assert!(found.starts_with(place), "{tensor}: {error}");
    }
}

#[test]
fn a_tied_head_is_compared_too() {
    let whole = golden("mamba2-tied");
    let mut plan = CutPlan::identity(whole.desc());
    plan.layers.pop();
    let cut = whole.cut(plan.clone()).unwrap();
    prove_cut(&Cpu, &whole, &cut, &plan, 0).unwrap();
}

#[test]
fn a_cut_that_changes_nothing_is_refused() {
    let whole = golden("nemotron-plain");
    let plan = CutPlan::identity(whole.desc());
    let cut = whole.cut(plan.clone()).unwrap();
    let error = prove_cut(&Cpu, &whole, &cut, &plan, WHOLE).unwrap_err();
    assert!(matches!(error, GateError::Unchanged { .. }));
}
