//! The symmetry that group-aware pruning rests on (arXiv:2504.11409, equations 17 and 18): heads may change
//! places within their SSM group, and channels within all heads alike; heads of two groups may not.

use crate::support::{golden, source};
use minic_compiler::dim::{Dim, Part};
use minic_compiler::forward::{self, output};
use minic_compiler::graph::Masks;
use minic_compiler::model::{LayerKind, Weight};
use minic_compiler::schedule;
use minic_runtime::device::Weights;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::samples::Runner;
use minic_runtime::source::WeightSource;

/// New order of heads and of channels; what stands at position i comes from `heads[i]`.
struct Order {
    heads: Vec<usize>,
    channels: Vec<usize>,
}

/// Old index of each element of a part.
fn moved(part: &Part, order: &Order) -> Vec<usize> {
    let mut old = vec![0];
    for factor in &part.factors {
        let members: Vec<usize> = match factor.dim {
            Dim::MambaNumHeads => order.heads.clone(),
            Dim::MambaHeadDim => order.channels.clone(),
            _ => (0..factor.size).collect(),
        };
        old = old.iter().flat_map(|o| members.iter().map(move |m| o * factor.size + m)).collect();
    }
    old
}

fn permuted(values: Vec<f32>, weight: &Weight, order: &Order) -> Vec<f32> {
    let mut shape = weight.sizes();
    shape.resize(2, 1);
    let run: usize = weight.sizes().iter().skip(1).product();
    let index = |axis: usize| -> Vec<usize> {
        let Some(extent) = weight.shape.get(axis) else { return vec![0] };
        let mut offset = 0;
        let mut all = Vec::new();
        for part in &extent.parts {
            all.extend(moved(part, order).into_iter().map(|i| offset + i));
            offset += part.size();
        }
        all
    };
    let rows = index(0);
    let columns: Vec<usize> = if weight.shape.len() == 2 { index(1) } else { (0..run).collect() };
    rows.iter().flat_map(|r| columns.iter().map(move |c| r * run + c)).map(|i| values[i]).collect()
}

fn logits(model: &WeightSource, order: &Order) -> Vec<f32> {
    let ids: Vec<u32> = (0..80).map(|i| (i * 7 + i / 9) % model.desc().size(Dim::VocabSize) as u32).collect();
    let graph = forward::logits(model.desc(), ids.len(), Masks::default()).unwrap();
    let schedule = schedule::schedule(&graph).unwrap();
    let table = model.desc().weights();
    let weights = Weights::load(schedule.weights.keys().cloned(), |name| {
        let weight = table.iter().find(|w| w.name == name).unwrap();
        let mamba = weight.layer.is_some_and(|l| model.desc().layers[l] == LayerKind::Mamba);
        let values = model.read_f32(name)?;
        Ok::<_, minic_runtime::source::SourceError>(if mamba {
            permuted(values, weight, order)
        } else {
            values
        })
    });
    let mut runner = Runner::new(&Cpu, schedule, weights.unwrap(), 1).unwrap();
    runner.once(&ids).unwrap()[output::LOGITS].f32().to_vec()
}

/// Largest difference, as a share of the largest logit.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().map(|v| v.abs()).fold(0.0, f32::max);
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn heads_move_within_their_group_and_not_across() {
    for case in ["nemotron-plain", "nemotron-odd-widths", "mamba2-untied"] {
        let model = source(&golden(case));
        let (heads, groups) = (model.desc().size(Dim::MambaNumHeads), model.desc().size(Dim::NGroups));
        let channels = model.desc().size(Dim::MambaHeadDim);
        let group = heads / groups;
        let (in_place, same): (Vec<usize>, Vec<usize>) = ((0..heads).collect(), (0..channels).collect());
        let whole = logits(&model, &Order { heads: in_place.clone(), channels: same.clone() });

        let within = (0..heads).map(|h| h / group * group + (group - 1 - h % group)).collect();
        let turned = (0..channels).map(|c| (c + 1) % channels).collect();
        let moved = logits(&model, &Order { heads: within, channels: turned });
        assert!(difference(&whole, &moved) < 1e-5, "{case}: {}", difference(&whole, &moved));

        if groups > 1 {
            let mut across = in_place;
            across.swap(0, group);
            let moved = logits(&model, &Order { heads: across, channels: same });
            assert!(difference(&whole, &moved) > 1e-3, "{case}: {}", difference(&whole, &moved));
        }
    }
}
