use super::fixture::{self, axis, by, keep, kld};
use super::{Bounds, Shapes};
use crate::dim::Dim;
use crate::hir::{self, Quantity, Require};
use crate::model::LayerKind;
use minic_grammar::Span;

fn with_prune(model: &str, prune: hir::Prune) -> hir::Recipe {
    let mut recipe = fixture::base(model);
    recipe.prunes.insert("student".into(), prune);
    recipe
}

/// The published 4B shape: candidate 1 of table 1 of arXiv:2504.11409.
fn fixed_4b() -> Vec<hir::AxisCut> {
    vec![
        axis("mamba_num_heads", &[112], by("activation")),
        axis("ffn_hidden_size", &[12288], by("activation")),
        axis("hidden_size", &[3072], by("activation")),
    ]
}

#[test]
fn fixed_widths_have_exact_counts() {
    let shapes = Shapes::of(&with_prune("8b", fixture::prune("parent", fixed_4b())));
    let student = shapes.get("student").unwrap();
    assert_eq!(shapes.get("parent").unwrap().params().exact(), Some(8_100_852_736));
    assert_eq!(student.params().exact(), Some(4_489_223_040));
    assert_eq!(student.sizes(Dim::HiddenSize), [3072]);
    let desc = student.desc().unwrap();
    assert_eq!((desc.params(), desc.layers.len()), (4_489_223_040, 52));
    assert_eq!(student.from.as_deref(), Some("parent"));
}

/// Sums over layers agree with the family's formula for the whole model, kind by kind (paper section 1.1).
#[test]
fn layers_cost_what_the_paper_says() {
    let desc = fixture::desc("8b");
    let without = |kind: LayerKind| {
        let first = desc.layers.iter().position(|k| *k == kind).unwrap();
        let kept: Vec<usize> = (0..desc.layers.len()).filter(|i| *i != first).collect();
        desc.params() - desc.resized(&Default::default(), &kept).params()
    };
    assert_eq!(without(LayerKind::Mamba), 109_640_064);
    assert_eq!(without(LayerKind::Attention), 41_947_136);
    assert_eq!(without(LayerKind::Mlp), 176_164_864);
    let shapes = Shapes::of(&fixture::base("8b"));
    assert_eq!(shapes.get("parent").unwrap().params().exact(), Some(desc.params()));
}

/// Four of 52 layers go: at the dearest four FFN, at the cheapest three attention layers and one Mamba.
#[test]
fn a_depth_cut_is_a_range_over_the_surviving_layers() {
    let cut = fixture::prune("parent", vec![axis("num_layers", &[48], kld())]);
    let shapes = Shapes::of(&with_prune("8b", cut));
    let student = shapes.get("student").unwrap();
    let whole = 8_100_852_736;
    let bounds = Bounds { min: whole - 4 * 176_164_864, max: whole - 3 * 41_947_136 - 109_640_064 };
    assert_eq!(student.params(), bounds);
    assert_eq!(student.count(LayerKind::Attention), Bounds { min: 1, max: 4 });
    assert_eq!(student.sizes(Dim::NumLayers), [48]);
    assert!(student.desc().is_none());
}

#[test]
fn keep_and_protect_narrow_the_range() {
    let mut cut = fixture::prune("parent", vec![axis("num_layers", &[48], kld())]);
    cut.constraints = keep(LayerKind::Attention, 4);
    let shapes = Shapes::of(&with_prune("8b", cut.clone()));
    let whole = 8_100_852_736;
    let bounds = Bounds { min: whole - 4 * 176_164_864, max: whole - 4 * 109_640_064 };
    assert_eq!(shapes.get("student").unwrap().params(), bounds);
    // All but one FFN are protected.
    let parent = fixture::desc("8b");
    let ffn = (0..52).filter(|&i| parent.layers[i] == LayerKind::Mlp);
    cut.constraints.protect = ffn.skip(1).collect();
    let shapes = Shapes::of(&with_prune("8b", cut));
    let bounds = Bounds { min: whole - 176_164_864 - 3 * 109_640_064, max: whole - 4 * 109_640_064 };
    assert_eq!(shapes.get("student").unwrap().params(), bounds);
}

#[test]
fn a_family_of_equal_layers_has_exact_counts_at_any_depth() {
    let axes = vec![axis("num_layers", &[40], kld())];
    let shapes = Shapes::of(&with_prune("mamba2", fixture::prune("parent", axes)));
    let desc = fixture::desc("mamba2");
    let kept: Vec<usize> = (0..40).collect();
    let params = desc.resized(&Default::default(), &kept).params();
    assert_eq!(shapes.get("student").unwrap().params().exact(), Some(params));
}

fn space() -> Vec<hir::AxisCut> {
    vec![
        axis("mamba_head_dim", &[48, 56, 60, 62, 64], by("activation")),
        axis("mamba_num_heads", &[64, 96, 104, 112, 120, 128], by("activation")),
        axis("ffn_hidden_size", &(0..=15).map(|i| 9984 + 768 * i).collect::<Vec<_>>(), by("activation")),
        axis("hidden_size", &[3072, 3328, 3584, 3840, 4096], by("activation")),
        axis("num_layers", &[26, 44, 48, 52], kld()),
    ]
}

fn search(require: Vec<Require>) -> hir::Search {
    hir::Search {
        space: "student".into(),
        require,
        rungs: vec![],
        ties: Vec::new(),
        training: None,
        controls: vec![],
        span: Span::default(),
    }
}

#[test]
fn a_search_is_a_range_over_what_meets_its_requirements() {
    let mut recipe = with_prune("8b", fixture::prune("parent", space()));
    let require = |quantity, lo, hi| Require { quantity, lo, hi, span: Span::default() };
    recipe.searches.insert("all".into(), search(vec![]));
    recipe.searches.insert("best".into(), search(vec![require(Quantity::Params, 4.3e9, 4.5e9)]));
    let memory = Quantity::Memory { batch: 4, sequence: 65536 };
    recipe.searches.insert("none".into(), search(vec![require(memory, 0.0, 1e9)]));
    let shapes = Shapes::of(&recipe);
    let (all, best) = (shapes.get("all").unwrap(), shapes.get("best").unwrap());
    assert_eq!(all.params().max, 8_100_852_736);
    let params = best.params();
    assert!(params.min >= 4_300_000_000 && params.max <= 4_500_000_000, "{params}");
    let (whole, left) = (all.points.unwrap(), best.points.unwrap());
    assert_eq!((whole.all, whole.feasible.exact()), (9600, Some(9600)));
    assert!(left.feasible.min > 100 && left.feasible.max < 2000 && left.all == 9600, "{left:?}");
    // Of 26 layers all that is left is as wide as the parent, and 4.5 billion are just enough for its Mamba layers.
    assert_eq!(best.sizes(Dim::NumLayers), [26, 44, 48, 52]);
    assert!(best.count(LayerKind::Mlp).max < all.count(LayerKind::Mlp).max + 1);
    assert!(shapes.get("none").unwrap().is_empty());
}

/// Every cost grows with every size: of a space that has all its points, the ends have the extremes.
#[test]
fn a_large_space_has_the_same_range_as_its_corners() {
    let sizes = |from: usize, to: usize| (from..=to).step_by(8).collect::<Vec<_>>();
    let large = vec![
        axis("ffn_hidden_size", &sizes(9984, 21504), by("activation")),
        axis("hidden_size", &sizes(1024, 4096), by("activation")),
    ];
    let corners = vec![
        axis("ffn_hidden_size", &[9984, 21504], by("activation")),
        axis("hidden_size", &[1024, 4096], by("activation")),
    ];
    let params =
        |axes| Shapes::of(&with_prune("8b", fixture::prune("parent", axes))).get("student").unwrap().params();
    assert_eq!(params(large), params(corners));
}

#[test]
fn widths_that_the_family_cannot_store_are_left_out() {
    let axes = vec![
        axis("mamba_num_heads", &[48, 64], by("activation")),
        axis("hidden_size", &[1536, 2048], by("activation")),
    ];
    let shapes = Shapes::of(&with_prune("mamba2", fixture::prune("parent", axes)));
    let student = shapes.get("student").unwrap();
    assert_eq!(student.points.map(|points| (points.all, points.feasible.exact())), Some((4, Some(2))));
    assert_eq!(student.sizes(Dim::HiddenSize), [1536, 2048]);
    // 48 heads with 1536 channels, and 64 with 2048.
    let params = |heads, hidden| {
        let sizes = [(Dim::MambaNumHeads, heads), (Dim::HiddenSize, hidden)];
        let desc = fixture::desc("mamba2");
        desc.resized(&sizes.into(), &(0..desc.layers.len()).collect::<Vec<_>>()).params()
    };
    assert_eq!(student.params(), Bounds { min: params(48, 1536), max: params(64, 2048) });
}

#[test]
fn a_model_without_a_config_has_no_shape() {
    let mut recipe = with_prune("8b", fixture::prune("parent", fixed_4b()));
    recipe.models["parent"].desc = None;
    assert_eq!(Shapes::of(&recipe).models["student"], None);
}

#[test]
fn the_ends_of_a_shape_are_the_models_of_its_fewest_and_its_most_parameters() {
    let mut recipe = fixture::base("8b");
    let cut = axis("num_layers", &[44, 48], hir::Score::Layer(hir::LayerMetric::Kld));
    recipe.prunes.insert("half".into(), fixture::prune("parent", vec![cut]));
    let shapes = Shapes::of(&recipe);
    let (parent, half) = (shapes.get("parent").expect("a shape"), shapes.get("half").expect("a shape"));
    let [least, most] = parent.ends().expect("a model");
    assert_eq!((least, least.layers.len()), (most, 52));
    let [least, most] = half.ends().expect("models");
    assert_eq!((least.layers.len(), most.layers.len()), (44, 48));
    let bounds = half.quantity(&hir::Quantity::Params);
    assert_eq!(bounds, Some(Bounds { min: least.params(), max: most.params() }));
    assert_eq!(bounds, Some(half.params()));
}
