use super::*;
use crate::calibrate::calibrate;
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::samples::Pass;
use crate::samples::Runner;
use crate::source;
use minic_compiler::axes;
use minic_compiler::cut::CutPlan;
use minic_compiler::dim::Dim;
use minic_compiler::graph::Masks;
use minic_compiler::hir::Constraints;
use minic_compiler::model::LayerKind;
use minic_compiler::{forward, schedule};
use std::path::Path;
use std::sync::Arc;

/// M-*MM-
fn golden() -> (WeightSource, Vec<Vec<u32>>) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance"));
    let tokens = serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap();
    (WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap())), tokens)
}

fn run(
    model: &WeightSource,
    graph: minic_compiler::graph::Graph,
    input: (&str, Vec<f32>),
    ids: &[u32],
) -> Vec<f32> {
    let output = graph.outputs[0].0.clone();
    let schedule = schedule::schedule(&graph).unwrap();
    let weights = source::bind(&schedule, model).unwrap();
    let runner = Runner::new(&Cpu, schedule, weights, 1).unwrap();
    let mut runner = runner.with_inputs([(input.0.to_string(), input.1)].into());
    runner.once(ids).unwrap()[output.as_str()].f32().to_vec()
}

fn logits(model: &WeightSource, ids: &[u32]) -> Vec<f32> {
    run(model, forward::logits(model.desc(), ids.len(), Masks::default()).unwrap(), ("", Vec::new()), ids)
}

/// The stream before every block and after the last, each row one position.
fn streams(model: &WeightSource, ids: &[u32]) -> Vec<Vec<f32>> {
    let embedding = forward::embedding(model.desc(), ids.len(), Masks::default()).unwrap();
    let mut streams = vec![run(model, embedding, ("", Vec::new()), ids)];
    for layer in 0..model.desc().layers.len() {
        let block = forward::block(model.desc(), layer, ids.len(), Masks::default()).unwrap();
        let before = streams[layer].clone();
        streams.push(run(model, block, (output::STREAM, before), &[]));
    }
    streams
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().fold(f64::MIN, |most, v| most.max(*v as f64));
    let total: f64 = row.iter().map(|v| (*v as f64 - most).exp()).sum();
    row.iter().map(|v| *v as f64 - most - total.ln()).collect()
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What removing `place..place + span` does, from models that are cut and run whole.
fn by_force(
    model: &WeightSource,
    tokens: &[Vec<u32>],
    metric: LayerMetric,
    place: usize,
    span: usize,
) -> f64 {
    let gone = place..place + span;
    let layers = (0..model.desc().layers.len()).filter(|l| !gone.contains(l)).collect();
    let cut = model.cut(CutPlan { layers, ..CutPlan::default() }).unwrap();
    let (vocab, width) = (model.desc().size(Dim::VocabSize), model.desc().size(Dim::HiddenSize));
    let mut values = Vec::new();
    for ids in tokens {
        if metric == LayerMetric::Cosine {
            let streams = streams(model, ids);
            let rows = streams[place].chunks(width).zip(streams[place + span].chunks(width));
            values.extend(rows.map(|(a, b)| {
                let dot =
                    |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| *x as f64 * *y as f64).sum::<f64>();
                1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
            }));
            continue;
        }
        let (whole, without) = (logits(model, ids), logits(&cut, ids));
        values.extend(whole.chunks(vocab).zip(without.chunks(vocab)).map(|(a, b)| match metric {
            LayerMetric::Mse => mean(a.iter().zip(b).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).collect()),
            _ => {
                let (p, q) = (log_softmax(a), log_softmax(b));
                p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
            }
        }));
    }
    mean(values)
}

fn ranked(score: hir::Score, depths: &[usize], constraints: &Constraints) -> Ranked {
    let (model, tokens) = golden();
    let samples: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let rules: Vec<DepthRule> =
        depths.iter().map(|kept| DepthRule::new(&model.desc().layers, *kept, constraints).unwrap()).collect();
    let watch = Watch::new("score", &());
    let gather = |gather: &Gather| calibrate(&Cpu, &model, gather, &Pass::over(&samples, &watch));
    let scorer = Scorer {
        model: &model,
        gathered: None,
        gather: &gather,
        residual: &|_| panic!("nothing is refitted"),
        depths: &rules,
        watch: &watch,
    };
    let stage = plan::Score { axis: axes::find("num_layers").unwrap(), score, program: None, tap: None };
    Ranked::new(&stage, scorer.score(&stage).unwrap())
}

#[test]
fn blocks_of_layers_are_scored_as_models_without_them_are() {
    let (model, tokens) = golden();
    for metric in [LayerMetric::Kld, LayerMetric::Mse, LayerMetric::Cosine] {
        let ranked = ranked(hir::Score::Contiguous(metric), &[2, 3, 5, 6], &Constraints::default());
        let By::Blocks(depths) = &ranked.by else { panic!("{:?}", ranked.by) };
        // Where nothing goes there is nothing to score.
        assert_eq!(depths.keys().copied().collect::<Vec<_>>(), [2, 3, 5]);
        for (kept, scores) in depths {
            assert_eq!(scores.len(), kept + 1, "one score a place");
            for (place, score) in scores.iter().enumerate() {
                let expected = by_force(&model, &tokens, metric, place, 6 - kept);
                let error = (score - expected).abs() / expected.abs().max(1e-3);
                assert!(error < 1e-3, "{metric:?}, {kept} kept, from {place}: {score}, not {expected}");
            }
        }
    }
}

#[test]
fn the_block_that_is_missed_least_goes_and_its_reverse_is_missed_most() {
    let (model, tokens) = golden();
    let free = Constraints { keep: [(LayerKind::Attention, 1)].into(), ..Constraints::default() };
    let without =
        |place: usize| -> Vec<usize> { (0..6).filter(|l| !(place..place + 2).contains(l)).collect() };
    // Layer 2 is the only attention layer: blocks with it may not go.
    let allowed = [0, 3, 4];
    let lost = |place: &usize| by_force(&model, &tokens, LayerMetric::Kld, *place, 2);
    let by_loss = |a: &usize, b: &usize| lost(a).total_cmp(&lost(b));
    let (least, most) = (allowed.into_iter().min_by(by_loss), allowed.into_iter().max_by(by_loss));
    let score = hir::Score::Contiguous(LayerMetric::Kld);
    let rule = DepthRule::new(&model.desc().layers, 4, &free).unwrap();
    let kept = |score| ranked(score, &[4], &free).survivors(&rule).unwrap();
    assert_eq!(kept(score.clone()), without(least.unwrap()));
    assert_eq!(kept(hir::Score::Reverse(Box::new(score))), without(most.unwrap()));
    assert_ne!(least, most);
}

#[test]
fn depths_that_were_not_scored_and_blocks_that_may_not_go_are_told() {
    let (model, _) = golden();
    let rule =
        |kept, constraints: &Constraints| DepthRule::new(&model.desc().layers, kept, constraints).unwrap();
    let free = Constraints::default();
    let ranked = ranked(hir::Score::Contiguous(LayerMetric::Cosine), &[4], &free);
    assert_eq!(ranked.survivors(&rule(6, &free)).unwrap(), [0, 1, 2, 3, 4, 5]);
    assert!(ranked.survivors(&rule(3, &free)).unwrap_err().to_string().contains("a depth of 3"));
    let protected = Constraints { protect: [1, 4].into(), ..free };
    let told = ranked.survivors(&rule(4, &protected)).unwrap_err().to_string();
    assert!(told.contains("no 2 neighbouring layers can go"), "{told}");
}
