use super::*;
use crate::dim::Dim;
use crate::hir::{Objective, Recipe, Require, Rung, RungTraining};
use crate::plan::fixture::{self, axis, by, kld};
use crate::{cost, lower, passes};

fn rung(quantity: Quantity, on: Option<&str>, after: Option<&str>, tokens: Option<u64>, keep: usize) -> Rung {
    let (on, after) = (on.map(str::to_string), after.map(str::to_string));
    let (descending, span) = Default::default();
    Rung { by: Objective::of(quantity), descending, on, after, tokens, keep, span }
}

/// Six points of the 8B, of which one is too large.
fn searched(rungs: Vec<Rung>, axes: Vec<hir::AxisCut>) -> Recipe {
    let mut recipe = fixture::base("8b");
    recipe.prunes.insert("space".into(), fixture::prune("parent", axes));
    let require = Require { quantity: Quantity::Params, lo: 0.0, hi: 8e9, span: Default::default() };
    let training = RungTraining { teacher: Some("parent".into()), data: "heldout".into() };
    let (ties, controls, span) = (Vec::new(), Vec::new(), Default::default());
    let (space, require, training) = ("space".into(), vec![require], Some(training));
    recipe
        .searches
        .insert("best".into(), hir::Search { space, require, rungs, ties, controls, training, span });
    fixture::export(&mut recipe, "best");
    recipe
}

fn widths() -> Vec<hir::AxisCut> {
    vec![
        axis("ffn_hidden_size", &[10752, 21504], by("activation")),
        axis("mamba_num_heads", &[64, 96, 128], by("activation")),
    ]
}

fn estimate(recipe: &Recipe, name: &str) -> Estimate {
    let plan = passes::run(&lower::lower(recipe)).expect("a plan");
    plan.estimate(&Shapes::of(recipe), plan.find(name).expect("the stage"))
}

/// Operations of one token of the 8B with these sizes.
fn token(ffn: usize, heads: usize) -> f64 {
    let sizes = [(Dim::FfnHiddenSize, ffn), (Dim::MambaNumHeads, heads)];
    let desc = fixture::desc("8b").resized(&sizes.into(), &(0..52).collect::<Vec<_>>());
    cost::flops_per_token(&desc, 256) as f64
}

#[test]
fn rungs_cost_their_passes_and_trainings_for_every_candidate() {
    let loss = || Quantity::Measured(Measure::Loss);
    let recover = Some("recover");
    let mut recipe = searched(
        vec![
            rung(Quantity::Params, None, None, None, 4),
            rung(Quantity::Measured(Measure::Kl), Some("calibration"), None, None, 3),
            rung(loss(), Some("heldout"), recover, Some(2000), 2),
            rung(loss(), Some("heldout"), recover, None, 1),
        ],
        widths(),
    );
    recipe.schedules["recover"].phases =
        vec![hir::Phase { tokens: 5000, batch: 3, ..super::super::tests::phase() }];
    let found = estimate(&recipe, "best");
    let [free, zero_shot, first, second] = &found.rungs[..] else { panic!("{found:?}") };
    let counts = |rung: &RungEstimate| rung.candidates.exact();
    assert_eq!([free, zero_shot, first, second].map(counts), [Some(5), Some(4), Some(3), Some(2)]);
    assert_eq!((free.passes, free.flops), (0, Some(Bounds { min: 0.0, max: 0.0 })));
    // Its own pass and that of the parent, over 64 samples of 256 tokens.
    let (least, most, whole) = (token(10752, 64), token(21504, 96), token(21504, 128));
    let tokens = 64.0 * 256.0;
    assert_eq!((zero_shot.passes, zero_shot.samples), (2, Some(64)));
    let expected = |per: f64, n: f64| n * tokens * per;
    let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-12;
    let flops = zero_shot.flops.unwrap();
    assert!(close(flops.min, expected(least + whole, 4.0)) && close(flops.max, expected(most + whole, 4.0)));
    // Two updates of 3 x 256, and four more; and the pass over the held-out samples.
    assert_eq!((first.tokens, second.tokens), (Some(1536), Some(3072)));
    for (rung, n) in [(first, 3.0), (second, 2.0)] {
        let trained = rung.tokens.unwrap() as f64;
        let flops = rung.flops.unwrap();
        let each = |per: f64| n * (trained * (3.0 * per + whole) + tokens * per);
        assert!(close(flops.min, each(least)) && close(flops.max, each(most)), "{flops:?}");
        let held = rung.memory.unwrap();
        assert!(held.min > 4 * fixture::desc("8b").params() && held.min < held.max, "{held}");
    }
    let sum: f64 = found.rungs.iter().map(|rung| rung.flops.unwrap().max).sum();
    assert!(close(found.flops.unwrap().max, sum));
    assert_eq!(found.memory.map(|held| held.max), second.memory.map(|held| held.max));
}

#[test]
fn where_depth_is_open_the_number_of_candidates_is_a_range() {
    let rungs = vec![rung(Quantity::Measured(Measure::Loss), Some("calibration"), None, None, 9)];
    let mut recipe = searched(rungs, vec![axis("num_layers", &[44, 48, 52], kld())]);
    // Of 44 layers any choice has fewer, 7.427 billion at most; of 48 some have, 7.396 at least; of 52 none.
    recipe.searches["best"].require[0].hi = 7.43e9;
    let found = estimate(&recipe, "best");
    assert_eq!(found.rungs[0].candidates, Bounds { min: 1, max: 2 });
    recipe.searches["best"].require[0].hi = 8e9;
    assert_eq!(estimate(&recipe, "best").rungs[0].candidates.exact(), Some(2));
}

#[test]
fn a_sensitivity_passes_a_model_for_every_value() {
    let mut recipe = searched(Vec::new(), widths());
    let quantities = vec![Quantity::Measured(Measure::Loss)];
    let (space, on, span) = ("space".to_string(), "calibration".to_string(), Default::default());
    let item = hir::Sensitivity { space, on, quantities, span };
    recipe.sensitivities.insert("figure".into(), item);
    let found = estimate(&recipe, "figure");
    assert_eq!(found.passes, Some(Passes { whole: 6, partial: 0 }));
    let models = [(21504, 128), (10752, 128), (21504, 128), (21504, 64), (21504, 96), (21504, 128)];
    let sum: f64 = models.iter().map(|(ffn, heads)| token(*ffn, *heads)).sum();
    assert_eq!(found.flops.and_then(Bounds::exact), Some(sum * 64.0 * 256.0));
    // Nothing is passed for what follows from the sizes.
    recipe.sensitivities["figure"].quantities = vec![Quantity::Params];
    assert_eq!(estimate(&recipe, "figure"), Estimate::default());
}
