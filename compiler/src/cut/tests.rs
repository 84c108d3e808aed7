use super::{CutError, CutPlan, Keep};
use crate::dim::Dim;
use crate::model::{Biases, DtLimit, LayerKind, ModelDesc};
use std::collections::BTreeMap;

/// M-M*: 4 heads of 3 channels in 2 groups, 6 neurons, 5 hidden channels.
fn desc() -> ModelDesc {
    use LayerKind::{Attention, Mamba, Mlp};
    let sizes = [
        (Dim::HiddenSize, 5),
        (Dim::FfnHiddenSize, 6),
        (Dim::MambaNumHeads, 4),
        (Dim::MambaHeadDim, 3),
        (Dim::NGroups, 2),
        (Dim::NumLayers, 4),
    ];
    ModelDesc {
        family: "nemotron_h",
        dims: sizes.into_iter().collect(),
        layers: vec![Mamba, Mlp, Mamba, Attention],
        eps: 1e-5,
        dt: DtLimit { lo: 0.0, hi: f64::INFINITY },
        dt_conflict: None,
        biases: Biases { mixer: false, mlp: false, conv: true },
        tied: false,
        prefix: "backbone.".into(),
        dtype: None,
        config: serde_json::Map::new(),
    }
}

/// Heads 0 and 3, channels 0 and 2 of both Mamba layers, 2 neurons, 3 hidden channels.
fn plan() -> CutPlan {
    let mamba = || {
        BTreeMap::from([
            (Dim::MambaNumHeads, Keep::Flat(vec![0, 3])),
            (Dim::MambaHeadDim, Keep::Flat(vec![0, 2])),
        ])
    };
    CutPlan {
        layers: vec![0, 1, 2, 3],
        model: BTreeMap::from([(Dim::HiddenSize, vec![0, 2, 4])]),
        by_layer: BTreeMap::from([
            (0, mamba()),
            (1, BTreeMap::from([(Dim::FfnHiddenSize, Keep::Flat(vec![1, 5]))])),
            (2, mamba()),
        ]),
        regrouped: false,
    }
}

fn fault(change: impl Fn(&mut CutPlan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    plan.verify(&desc()).expect_err("the change breaks the plan").to_string()
}

fn set(plan: &mut CutPlan, layer: usize, dim: Dim, keep: Keep) {
    plan.by_layer.entry(layer).or_default().insert(dim, keep);
}

#[test]
fn accepts_a_sound_plan_and_tells_its_sizes() {
    assert_eq!(plan().verify(&desc()), Ok(()));
    assert_eq!(CutPlan::identity(&desc()).verify(&desc()), Ok(()));
    let sizes = plan().sizes(&desc());
    assert_eq!(sizes[&Dim::MambaNumHeads], 2);
    assert_eq!(sizes[&Dim::MambaHeadDim], 2);
    assert_eq!(sizes[&Dim::FfnHiddenSize], 2);
    assert_eq!(sizes[&Dim::HiddenSize], 3);
}

#[test]
fn survives_json() {
    let mut plan = plan();
    set(&mut plan, 0, Dim::MambaHeadDim, Keep::PerHead(vec![vec![0, 1], vec![1, 2]]));
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<CutPlan>(&text).unwrap(), plan);
}

#[test]
fn names_every_fault() {
    use Dim::{FfnHiddenSize, HiddenSize, MambaHeadDim, MambaNumHeads, NGroups};
    let flat = Keep::Flat;
    let faults = [
        fault(|p| p.layers = vec![]),
        fault(|p| p.layers.push(4)),
        fault(|p| p.layers = vec![0, 1, 3]),
        fault(|p| *p.model.get_mut(&HiddenSize).unwrap() = vec![0, 0]),
        fault(|p| drop(p.model.insert(NGroups, vec![0]))),
        fault(|p| set(p, 1, FfnHiddenSize, flat(vec![6]))),
        fault(|p| set(p, 1, MambaNumHeads, flat(vec![0, 2]))),
        fault(|p| set(p, 0, MambaNumHeads, flat(vec![0, 1]))),
        fault(|p| set(p, 2, MambaNumHeads, flat(vec![0, 1, 2, 3]))),
        fault(|p| set(p, 2, MambaNumHeads, Keep::All)),
        fault(|p| set(p, 0, MambaHeadDim, Keep::PerHead(vec![vec![0, 1]]))),
        fault(|p| set(p, 0, MambaHeadDim, Keep::PerHead(vec![vec![0, 1], vec![1]]))),
        fault(|p| set(p, 0, MambaNumHeads, Keep::PerHead(vec![vec![0], vec![1]]))),
    ];
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn a_dropped_layer_cannot_be_cut() {
    let mut plan = plan();
    plan.layers = vec![1, 2, 3];
    let error = plan.verify(&desc());
    assert_eq!(error, Err(CutError::LayerIsGone { layer: 0, dim: Dim::MambaNumHeads }));
}
