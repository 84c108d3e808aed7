use super::*;
use crate::graph::HeadLoss;
use crate::hir::{LayerMetric, Phase, Recipe};
use crate::losses::Term;
use crate::model::LayerKind;
use crate::plan::fixture::{self, axis, by};
use crate::{lower, passes};

fn estimate(recipe: &Recipe, name: &str) -> Estimate {
    let plan = passes::run(&lower::lower(recipe)).expect("a plan");
    plan.estimate(&Shapes::of(recipe), plan.find(name).expect("the stage"))
}

/// Operations of one token of the model of that configuration, at the data's 256 positions.
fn token(model: &str) -> f64 {
    cost::flops_per_token(&fixture::desc(model), 256) as f64
}

#[test]
fn a_calibration_costs_its_passes_over_all_samples() {
    let mut recipe = fixture::base("tiny");
    let cut = fixture::prune("parent", vec![axis("hidden_size", &[8], by("activation"))]);
    recipe.prunes.insert("half".into(), cut);
    fixture::export(&mut recipe, "half");
    let calibration = estimate(&recipe, "half.calibrate");
    assert_eq!(calibration.passes, Some(Passes { whole: 1, partial: 0 }));
    assert_eq!(calibration.flops.and_then(Bounds::exact), Some(64.0 * 256.0 * token("tiny")));
    let params = fixture::desc("tiny").params();
    assert!(calibration.memory.is_some_and(|held| held.min > 2 * params), "weights and buffers");
    // Without a number of samples only one of them can be counted.
    recipe.data["calibration"].samples = None;
    let open = estimate(&recipe, "half.calibrate");
    assert_eq!((open.samples, open.flops), (None, None));
    assert_eq!(open.sample_flops.and_then(Bounds::exact), Some(256.0 * token("tiny")));
}

#[test]
fn an_iterative_ranking_has_passes_of_its_own() {
    let mut recipe = fixture::base("8b");
    let metric = hir::Score::Iterative(LayerMetric::Cosine);
    recipe.prunes.insert("half".into(), fixture::prune("parent", vec![axis("num_layers", &[48], metric)]));
    fixture::export(&mut recipe, "half");
    let score = estimate(&recipe, "half.score.num_layers");
    assert_eq!(score.passes, Some(Passes { whole: 4, partial: 0 }));
    assert_eq!(score.flops.and_then(Bounds::exact), Some(4.0 * 64.0 * 256.0 * token("8b")));
}

#[test]
fn blocks_of_layers_have_a_pass_for_every_depth_and_a_branch_for_every_place() {
    let passes = |metric, depths: &[usize]| {
        let mut recipe = fixture::base("8b");
        let axis = axis("num_layers", depths, hir::Score::Contiguous(metric));
        recipe.prunes.insert("half".into(), fixture::prune("parent", vec![axis]));
        let (controls, training, span) = (Vec::new(), None, Default::default());
        let (require, rungs, ties, space) = (Vec::new(), Vec::new(), Vec::new(), "half".into());
        let search = hir::Search { space, require, rungs, ties, controls, training, span };
        recipe.searches.insert("best".into(), search);
        fixture::export(&mut recipe, "best");
        estimate(&recipe, "half.score.num_layers").passes
    };
    // 52 layers as they are need no pass.
    assert_eq!(passes(LayerMetric::Kld, &[44, 48, 52]), Some(Passes { whole: 2, partial: 45 + 49 }));
    assert_eq!(passes(LayerMetric::Cosine, &[44, 48]), Some(Passes { whole: 2, partial: 0 }));
}

#[test]
fn a_residual_ranking_passes_once_and_inverts_what_blocks_read() {
    let estimated = |damping| {
        let mut recipe = fixture::base("tiny");
        let cut = axis("ffn_hidden_size", &[8], hir::Score::Residual { damping });
        recipe.prunes.insert("half".into(), fixture::prune("parent", vec![cut]));
        fixture::export(&mut recipe, "half");
        estimate(&recipe, "half.score.ffn_hidden_size")
    };
    let score = estimated(0.05);
    assert_eq!(score.passes, Some(Passes { whole: 1, partial: 0 }));
    let desc = fixture::desc("tiny");
    let (k, e) = (desc.size(Dim::FfnHiddenSize) as f64, desc.size(Dim::HiddenSize) as f64);
    let layers = desc.layers.iter().filter(|l| **l == LayerKind::Mlp).count() as f64;
    let ranked = layers * k * k * (64.0 * 256.0 + 3.0 * k + e);
    let flops = score.flops.and_then(Bounds::exact).unwrap();
    assert_eq!(flops, 64.0 * 256.0 * token("tiny") + ranked);
    assert_eq!(score.memory.and_then(Bounds::exact), Some((8.0 * k * (2.0 * k + e)) as u64));
    assert_eq!(estimated(0.0), score);
}

#[test]
fn a_repair_passes_both_models_and_tries_a_power_for_each_kind_of_norm() {
    let repaired = |kind: hir::RepairKind, axis| {
        let mut recipe = fixture::base("tiny");
        let mut cut = fixture::prune("parent", vec![axis]);
        cut.repairs.push(hir::Repair { kind, span: Default::default() });
        recipe.prunes.insert("half".into(), cut);
        fixture::export(&mut recipe, "half");
        estimate(&recipe, "half.repair")
    };
    let hidden = || axis("hidden_size", &[4], by("activation"));
    let neurons = || axis("ffn_hidden_size", &[8], by("activation"));
    let passes = |estimate: &Estimate| estimate.passes.map_or(0, |passes| passes.whole);
    let fitted = || hir::RepairKind::Norms { power: None };
    assert_eq!(passes(&repaired(fitted(), hidden())), FITTED, "gated norms keep their width");
    assert_eq!(passes(&repaired(fitted(), neurons())), 0, "and so do all");
    let solved = |sequential| hir::RepairKind::LeastSquares { damping: 0.01, sequential };
    let (local, walked) = (repaired(solved(false), hidden()), repaired(solved(true), hidden()));
    assert_eq!((passes(&local), passes(&walked)), (2, 3));
    let flops = |estimate: &Estimate| estimate.flops.and_then(Bounds::exact).unwrap_or(0.0);
    assert!(flops(&walked) > flops(&local) && flops(&local) > 64.0 * 256.0 * token("tiny"));
    assert!(local.memory.is_some_and(|held| held.min > 0));
}

#[test]
fn an_evaluation_passes_every_model_once() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "other", "mamba2");
    fixture::evaluate(&mut recipe, "parent", Some("other"), "heldout");
    fixture::evaluate(&mut recipe, "other", None, "heldout");
    let both = estimate(&recipe, "evaluate parent");
    assert_eq!(both.passes, Some(Passes { whole: 2, partial: 0 }));
    let flops = 64.0 * 256.0 * (token("tiny") + token("mamba2"));
    assert_eq!(both.flops.and_then(Bounds::exact), Some(flops));
}

fn divergence() -> hir::LossTerm {
    let term = Term::Head(HeadLoss::ForwardKl { temperature: 1.0 });
    let (arguments, span) = Default::default();
    hir::LossTerm { weight: 1.0, loss: "forward_kl", arguments, term, span }
}

/// One window an update.
pub(super) fn phase() -> Phase {
    let optimizer = hir::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, clip: None };
    let rate = hir::Rate { shape: "constant", peak: 1e-4, floor: 0.0, warmup: 0, decay: None };
    Phase {
        name: "recover".into(),
        loss: vec![divergence()],
        optimizer,
        rate,
        batch: 1,
        tokens: 1000,
        sequence: None,
        data: None,
        span: Default::default(),
    }
}

#[test]
fn a_distillation_costs_three_passes_of_the_student_and_one_of_the_teacher() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "other", "mamba2");
    recipe.schedules["recover"].phases.push(phase());
    fixture::distill(&mut recipe, "student", "other");
    fixture::export(&mut recipe, "student");
    // Three updates of one window: the rest of the 1000 tokens makes no fourth one.
    let flops = 768.0 * (3.0 * token("mamba2") + token("tiny"));
    let student = estimate(&recipe, "student");
    assert_eq!((student.updates, student.tokens), (Some(3), Some(768)));
    assert_eq!(student.flops.and_then(Bounds::exact), Some(flops));
    // A phase on windows of its own.
    let phase = &mut recipe.schedules["recover"].phases[0];
    (phase.sequence, phase.batch) = (Some(100), 3);
    let student = estimate(&recipe, "student");
    assert_eq!((student.updates, student.tokens), (Some(3), Some(900)));
    // In the dtype of the config where none is named.
    let bytes = cost::disk(fixture::desc("mamba2").params(), DType::F32);
    assert_eq!(estimate(&recipe, "export student").disk.and_then(Bounds::exact), Some(bytes));
}

#[test]
fn a_training_holds_both_models_averages_and_the_gradients_of_its_lanes() {
    let mut recipe = fixture::base("tiny");
    recipe.schedules["recover"].phases.push(phase());
    fixture::distill(&mut recipe, "student", "parent");
    fixture::export(&mut recipe, "student");
    let params = fixture::desc("tiny").params();
    let mut held = |batch| {
        recipe.schedules["recover"].phases[0].batch = batch;
        estimate(&recipe, "student").memory.expect("shapes are known")
    };
    let [one, two, four, five] = [1, 2, 4, 5].map(&mut held);
    // Weights of both, one gradient, two averages; less where blocks are computed again.
    assert!(one.min > 4 * 5 * params && one.min < one.max, "{one}");
    // A second lane has gradients of its own; there is no fifth.
    assert!(two.min > one.min + 4 * params && five == four, "{one} {two} {four} {five}");
    // The larger phase counts.
    let long = Phase { sequence: Some(512), batch: 5, ..phase() };
    recipe.schedules["recover"].phases.push(long);
    assert!(estimate(&recipe, "student").memory.is_some_and(|both| both.max > five.max));
}

#[test]
fn models_whose_layers_are_chosen_at_run_time_are_planned_between_the_smallest_and_the_largest() {
    let mut recipe = fixture::base("8b");
    let depth = axis("num_layers", &[48], hir::Score::Layer(LayerMetric::Kld));
    recipe.prunes.insert("half".into(), fixture::prune("parent", vec![depth]));
    fixture::evaluate(&mut recipe, "half", None, "heldout");
    recipe.schedules["recover"].phases.push(phase());
    fixture::distill(&mut recipe, "student", "parent");
    recipe.distills["student"].from = "half".into();
    fixture::export(&mut recipe, "student");
    let shapes = Shapes::of(&recipe);
    let params = shapes.get("half").expect("a shape").params();
    let (evaluation, student) = (estimate(&recipe, "evaluate half"), estimate(&recipe, "student"));
    let held = evaluation.memory.expect("bounds");
    assert!(4 * params.min < held.min && held.min < held.max && held.max > 4 * params.max, "{held}");
    assert!(student.memory.is_some_and(|held| held.min > 4 * 4 * params.min && held.min < held.max));
    assert_eq!(student.params, Some(params));
    // Weights and two averages, in f32.
    assert_eq!(student.disk, Some(params.map(|n| 12 * n)));
    let cut = estimate(&recipe, "half.cut");
    let parent = fixture::desc("8b").params();
    assert_eq!(cut.moved, Some(params.map(|n| 2 * (n + parent))), "both in bf16");
}

#[test]
fn held_out_losses_are_part_of_a_training_and_no_part_of_its_updates() {
    let mut recipe = fixture::base("tiny");
    recipe.schedules["recover"].phases.push(phase());
    fixture::distill(&mut recipe, "student", "parent");
    fixture::export(&mut recipe, "student");
    let alone = estimate(&recipe, "student");
    assert_eq!(alone.flops, alone.trained);
    recipe.distills["student"].heldout = Some(hir::Heldout { data: "heldout".into(), every: 300 });
    recipe.data["heldout"].samples = Some(10);
    let with = estimate(&recipe, "student");
    assert_eq!(with.trained, alone.trained);
    // Before the first of 768 tokens, after 300 and 600, and after the last; by student and teacher.
    let looks = 4.0 * 10.0 * 256.0 * 2.0 * token("tiny");
    let flops = |estimate: &Estimate| estimate.flops.and_then(Bounds::exact).expect("a number");
    assert_eq!(flops(&with) - flops(&alone), looks);
    recipe.data["heldout"].samples = None;
    assert_eq!(estimate(&recipe, "student").flops, None, "nobody knows how many there are");
}
