//! What PyTorch computes on small checkpoints, pinned (tests/golden/README.md says how it was made).

use crate::support::{golden, goldens_with, json, logits, source, tensor, tokens};
use minic_compiler::axes;
use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::dim::Dim;
use minic_compiler::forward::Gather;
use minic_compiler::hir::{self, LayerMetric};
use minic_compiler::metrics::Program;
use minic_compiler::model::LayerKind;
use minic_compiler::plan;
use minic_runtime::calibrate::{Gathered, calibrate};
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::events::Watch;
use minic_runtime::importance::{AxisScores, DepthRule, Table, choose};
use minic_runtime::safetensors;
use minic_runtime::samples::Pass;
use minic_runtime::score::{By, Scorer};
use minic_runtime::source::WeightSource;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|v| v as usize).collect()
}

/// Mean next-token cross-entropy in nats.
fn loss(logits: &[f32], ids: &[u32], vocab: usize) -> f64 {
    let rows = logits.chunks(vocab).zip(&ids[1..]);
    let nll = rows.map(|(row, &next)| {
        let max = row.iter().copied().fold(f32::MIN, f32::max) as f64;
        let sum: f64 = row.iter().map(|&v| (v as f64 - max).exp()).sum();
        max + sum.ln() - row[next as usize] as f64
    });
    nll.sum::<f64>() / (ids.len() - 1) as f64
}

#[test]
fn logits_of_every_shape_and_spelling_are_pytorchs() {
    let cases = goldens_with("golden.json");
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for case in cases {
        let model = source(&case);
        let vocab = model.desc().size(Dim::VocabSize);
        let expected = safetensors::Reader::open(&case.join("logits.safetensors")).unwrap();
        for (name, figures) in json(&case.join("golden.json")).as_object().unwrap() {
            let positions = indices(&figures["positions"]);
            let values = tensor(&expected, name);
            let mut mean = 0.0;
            let samples = tokens(&case.join(format!("tokens-{name}.json")));
            for (ids, expected) in samples.iter().zip(values.chunks(positions.len() * vocab)) {
                let found = logits(&model, ids);
                mean += loss(&found, ids, vocab) / samples.len() as f64;
                for (row, &position) in expected.chunks(vocab).zip(&positions) {
                    let found = &found[position * vocab..(position + 1) * vocab];
                    let worst = row.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(worst < 2e-4, "{} {name} position {position}: {worst}", case.display());
                }
            }
            let expected = figures["loss"].as_f64().unwrap();
            assert!((mean - expected).abs() < 1e-5, "{} {name}: loss {mean}, {expected}", case.display());
        }
    }
}

/// Compiles `metric m(x, w) = EXPR`.
fn program(expression: &str) -> Arc<Program> {
    let parameters = if expression.contains("(w)") { "w" } else { "x" };
    let text = format!("mrecipe 1\nmetric m({parameters}) = {expression}\n");
    let (recipe, diagnostics) = minic_grammar::parse(&text);
    assert_eq!(diagnostics, []);
    let minic_grammar::ast::Declaration::Metric(metric) = &recipe.declarations[0] else { panic!() };
    let mut program = minic_compiler::metrics::compile(metric).unwrap();
    program.name = expression.into();
    Arc::new(program)
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-4 * expected.abs() + 1e-9, "{what}: {found}, expected {expected}");
}

struct Importance {
    model: WeightSource,
    gathered: Gathered,
    expected: Value,
}

fn importance() -> Importance {
    let case = golden("importance");
    let (model, expected) = (source(&case), json(&case.join("scores.json")));
    let mut gather =
        Gather { layers: vec![LayerMetric::Kld, LayerMetric::Mse, LayerMetric::Cosine], ..Gather::default() };
    for (tap, layers) in expected["taps"].as_object().unwrap() {
        let tap = axes::find_tap(tap).unwrap().name;
        let first = layers.as_object().unwrap().values().next().unwrap().as_object().unwrap();
        gather.metrics.extend(first.keys().map(|m| (tap, program(m))));
    }
    let samples = tokens(&case.join("tokens.json"));
    let windows: Vec<&[u32]> = samples.iter().map(Vec::as_slice).collect();
    let watch = Watch::new("test", &());
    let gathered = calibrate(&Cpu, &model, &gather, &Pass::over(&windows, &watch)).unwrap();
    Importance { model, gathered, expected }
}

impl Importance {
    fn score(&self, axis: &str, tap: Option<&str>, score: hir::Score, program: Option<Arc<Program>>) -> By {
        let watch = Watch::new("test", &());
        let scorer = Scorer {
            model: &self.model,
            gathered: Some(&self.gathered),
            gather: &|_: &Gather| unreachable!("nothing is removed layer by layer here"),
            residual: &|_| unreachable!("nothing is refitted here"),
            depths: &[],
            watch: &watch,
        };
        let axis = axes::find(axis).unwrap();
        let tap = tap.and_then(axes::find_tap);
        scorer.score(&plan::Score { axis, score, program, tap }).unwrap()
    }

    fn at_tap(&self, axis: &str, tap: &str, metric: &str) -> Table {
        let score = hir::Score::Metric(metric.into());
        match self.score(axis, Some(tap), score, Some(program(metric))) {
            By::Members(table) => table,
            By::Layers(_) | By::Blocks(_) => panic!(),
        }
    }

    fn layers(&self, metric: LayerMetric) -> Vec<f64> {
        match self.score("num_layers", None, hir::Score::Layer(metric), None) {
            By::Layers(scores) => scores,
            By::Members(_) | By::Blocks(_) => panic!(),
        }
    }
}

#[test]
fn scores_at_every_tap_are_pytorchs() {
    let golden = importance();
    for part in ["taps", "weights"] {
        for (tap, layers) in golden.expected[part].as_object().unwrap() {
            let axis = match tap.split('.').next().unwrap() {
                "mamba" => "mamba_num_heads",
                "ffn" => "ffn_hidden_size",
                // Attention is no axis yet; its tap is read with the scope of the model below.
                _ => "hidden_size",
            };
            if tap == "attention.out" {
                continue;
            }
            for metric in layers.as_object().unwrap().values().next().unwrap().as_object().unwrap().keys() {
                let table = golden.at_tap(axis, tap, metric);
                for (layer, scores) in layers.as_object().unwrap() {
                    let found = match &table {
                        Table::Layers(found) => &found[&layer.parse::<usize>().unwrap()],
                        Table::Model(found) => match layer.parse::<usize>() {
                            Ok(layer) => &found[layer],
                            Err(_) => found.last().unwrap(),
                        },
                    };
                    for (found, expected) in found.values.iter().zip(numbers(&scores[metric])) {
                        close(*found, expected, &format!("{part} {tap} layer {layer} {metric}"));
                    }
                }
            }
        }
    }
}

#[test]
fn scores_of_layers_are_pytorchs() {
    let golden = importance();
    for (metric, name) in
        [(LayerMetric::Kld, "kld"), (LayerMetric::Mse, "mse"), (LayerMetric::Cosine, "cosine")]
    {
        let expected = numbers(&golden.expected["layers"][name]);
        for (layer, (found, expected)) in golden.layers(metric).into_iter().zip(expected).enumerate() {
            close(found, expected, &format!("{name} of layer {layer}"));
        }
    }
}

#[test]
fn what_the_papers_ranking_keeps_is_pytorchs() {
    let golden = importance();
    let kept = &golden.expected["kept"];
    let size = |name: &str| kept["sizes"][name].as_u64().unwrap() as usize;
    let metric = "l2(mean(abs(x), over = sequence), over = batch)";
    let desc = golden.model.desc();
    let axis = |axis: &str, tap: &str, keep: usize| AxisScores {
        axis: axes::find(axis).unwrap(),
        keep,
        reverse: false,
        table: golden.at_tap(axis, tap, metric),
    };
    let axes = [
        axis("mamba_head_dim", "mamba.x", size("channels")),
        axis("mamba_num_heads", "mamba.x", size("heads_per_group") * desc.size(Dim::NGroups)),
        axis("ffn_hidden_size", "ffn.up", size("neurons")),
    ];
    let all: Vec<usize> = (0..desc.layers.len()).collect();
    let plan = choose(desc, &all, &axes, &hir::Constraints::default(), false).unwrap();
    for (layer, expected) in kept["mamba"].as_object().unwrap() {
        let layer = layer.parse().unwrap();
        assert_eq!(plan.keep(layer, Dim::MambaNumHeads), &Keep::Flat(indices(&expected["heads"])));
        assert_eq!(plan.keep(layer, Dim::MambaHeadDim), &Keep::Flat(indices(&expected["channels"])));
    }
    for (layer, expected) in kept["ffn"].as_object().unwrap() {
        assert_eq!(plan.keep(layer.parse().unwrap(), Dim::FfnHiddenSize), &Keep::Flat(indices(expected)));
    }
    let rule = DepthRule::new(&desc.layers, size("layers"), &hir::Constraints::default()).unwrap();
    assert_eq!(rule.choose(&golden.layers(LayerMetric::Kld)).unwrap(), indices(&kept["layers"]));
}

#[test]
fn a_cut_by_given_indices_is_pytorchs_byte_for_byte() {
    let (parent, cut) = (golden("slicing/parent"), golden("slicing/cut"));
    let kept = json(&cut.join("kept.json"));
    let whole = source(&parent);
    let mut plan = CutPlan { layers: indices(&kept["layers"]), ..CutPlan::default() };
    plan.model.insert(Dim::HiddenSize, indices(&kept["hidden"]));
    for &layer in &plan.layers {
        let of = &kept[format!("layer{layer}")];
        let mut dims = BTreeMap::new();
        match whole.desc().layers[layer] {
            LayerKind::Mamba => {
                dims.insert(Dim::MambaNumHeads, Keep::Flat(indices(&of["heads"])));
                dims.insert(Dim::MambaHeadDim, Keep::Flat(indices(&of["channels"])));
            }
            LayerKind::Mlp => drop(dims.insert(Dim::FfnHiddenSize, Keep::Flat(indices(&of["ffn"])))),
            LayerKind::Attention => continue,
        }
        plan.by_layer.insert(layer, dims);
    }
    let found = whole.cut(plan).unwrap();
    let expected = Checkpoint::open(&cut).unwrap();
    let table = expected.desc().weights();
    assert_eq!(found.desc().weights(), table);
    for weight in table {
        let mut bytes = Vec::new();
        expected.read_bytes(&weight.name, &mut bytes).unwrap();
        assert!(found.read(&weight.name).unwrap().bytes == bytes, "{}", weight.name);
    }
}
