//! Checked recipes for the tests of plan and passes, written without the checker.

use crate::axes;
use crate::hir::{self, AxisCut, LayerMetric, Measure, Recipe, Score};
use crate::metrics::{Expr, Leaf, Program, Reducer, Reduction};
use crate::model::{LayerKind, ModelDesc};
use crate::{config, families};
use minic_grammar::Span;
use std::sync::Arc;

/// One of the configurations under `compiler/tests/configs`.
pub fn desc(name: &str) -> ModelDesc {
    let text = match name {
        "8b" => include_str!("../../tests/configs/Nemotron-H-8B-Base-8K.json"),
        "mamba2" => include_str!("../../tests/configs/mamba2-1.3b.json"),
        _ => include_str!("../../tests/configs/tiny.json"),
    };
    families::describe(&config::parse(text).expect("a config")).expect("a model")
}

pub fn by(metric: &str) -> Score {
    Score::Metric(metric.into())
}

pub fn kld() -> Score {
    Score::Layer(LayerMetric::Kld)
}

/// An axis at its default tap.
pub fn axis(name: &str, values: &[usize], score: Score) -> AxisCut {
    let axis = axes::find(name).expect("an axis");
    let tap = axis.taps.first().and_then(|t| axes::find_tap(t));
    AxisCut { axis, values: values.to_vec(), score, tap, span: Span::default() }
}

pub fn prune(from: &str, axes: Vec<AxisCut>) -> hir::Prune {
    hir::Prune {
        from: from.into(),
        calibrate: Some("calibration".into()),
        axes,
        constraints: hir::Constraints::default(),
        repairs: Vec::new(),
        span: Span::default(),
    }
}

pub fn keep(kind: LayerKind, count: usize) -> hir::Constraints {
    hir::Constraints { keep: [(kind, count)].into(), ..hir::Constraints::default() }
}

fn metric(name: &str, reads_x: bool) -> hir::Metric {
    let l2 = |leaf| vec![Reduction { reducer: Reducer::L2, of: Expr::Leaf(leaf) }];
    let program = Program {
        name: name.into(),
        sequence: Vec::new(),
        batch: Vec::new(),
        tokens: if reads_x { l2(Leaf::X) } else { Vec::new() },
        weight: if reads_x { Vec::new() } else { l2(Leaf::W) },
        score: Expr::Leaf(if reads_x { Leaf::Tokens(0) } else { Leaf::Weight(0) }),
    };
    hir::Metric { program: Arc::new(program), span: Span::default() }
}

fn data(file: &str) -> hir::Data {
    hir::Data {
        mix: vec![hir::Source { files: vec![file.into()], weight: 1.0 }],
        sequence: 256,
        samples: Some(64),
        seed: 0,
        epochs: 1.0,
        field: None,
        answer: None,
        tokenizer: None,
        bad_rows: None,
        span: Span::default(),
    }
}

/// A model `parent`, data `calibration` and `heldout`, metrics `activation`, `energy` and `magnitude`
/// (which reads the weights alone), a schedule `recover`.
pub fn base(model: &str) -> Recipe {
    let mut recipe = Recipe::default();
    add_model(&mut recipe, "parent", model);
    recipe.data.insert("calibration".into(), data("train.txt"));
    recipe.data.insert("heldout".into(), data("val.txt"));
    for (name, reads_x) in [("activation", true), ("energy", true), ("magnitude", false)] {
        recipe.metrics.insert(name.into(), metric(name, reads_x));
    }
    recipe.schedules.insert("recover".into(), hir::Schedule { phases: Vec::new(), span: Span::default() });
    recipe
}

pub fn add_model(recipe: &mut Recipe, name: &str, model: &str) {
    let desc = Some(desc(model));
    let checkpoint = format!("models/{model}");
    recipe.models.insert(name.into(), hir::Model { checkpoint, dt_floor: None, desc, span: Span::default() });
}

pub fn evaluate(recipe: &mut Recipe, model: &str, against: Option<&str>, on: &str) {
    recipe.evaluations.push(hir::Evaluation {
        model: model.into(),
        against: against.map(Into::into),
        on: on.into(),
        measures: vec![Measure::Loss],
        span: Span::default(),
    });
}

pub fn export(recipe: &mut Recipe, model: &str) {
    let to = format!("out/{model}");
    recipe.exports.push(hir::Export {
        model: model.into(),
        to,
        dtype: None,
        shard: None,
        span: Span::default(),
    });
}

pub fn distill(recipe: &mut Recipe, name: &str, from: &str) {
    recipe.distills.insert(
        name.into(),
        hir::Distill {
            from: from.into(),
            teacher: Some("parent".into()),
            data: "calibration".into(),
            schedule: "recover".into(),
            weights: hir::Weights::Own,
            heldout: None,
            span: Span::default(),
        },
    );
}

/// The recipe of the small hybrid: all five axes, a distillation, two evaluations, one export.
pub fn tiny_half() -> Recipe {
    let mut recipe = base("tiny");
    let axes = vec![
        axis("num_layers", &[10], kld()),
        axis("mamba_head_dim", &[16], by("activation")),
        axis("mamba_num_heads", &[12], by("activation")),
        axis("ffn_hidden_size", &[320], by("energy")),
        axis("hidden_size", &[128], by("activation")),
    ];
    recipe.prunes.insert("half".into(), prune("parent", axes));
    distill(&mut recipe, "student", "half");
    evaluate(&mut recipe, "half", Some("parent"), "heldout");
    evaluate(&mut recipe, "student", Some("parent"), "heldout");
    export(&mut recipe, "student");
    recipe
}
