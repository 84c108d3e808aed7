use super::fixture::{self, axis, by, kld};
use super::*;
use crate::dim::Dim;
use crate::{hir, lower, passes};

fn planned(recipe: &hir::Recipe) -> Plan {
    passes::run(&lower::lower(recipe)).expect("a plan")
}

#[test]
fn a_model_that_is_trained_from_random_weights_needs_none() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "shape", "mamba2");
    fixture::distill(&mut recipe, "student", "shape");
    fixture::export(&mut recipe, "student");
    let reads = |recipe: &hir::Recipe, name: &str| {
        let plan = planned(recipe);
        plan.reads_weights(plan.find(name).unwrap())
    };
    assert!(reads(&recipe, "shape") && reads(&recipe, "parent"));
    recipe.distills["student"].weights = hir::Weights::Random { seed: 1 };
    assert!(!reads(&recipe, "shape") && reads(&recipe, "parent"));
    fixture::evaluate(&mut recipe, "shape", None, "heldout");
    assert!(reads(&recipe, "shape"));
}

/// Two tokenizers read one text: the second stage of it has the name of its model, too.
#[test]
fn data_of_a_training_is_found_by_its_declared_name() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "other", "mamba2");
    for (name, from) in [("first", "parent"), ("second", "other")] {
        fixture::distill(&mut recipe, name, from);
        recipe.distills[name].heldout = Some(hir::Heldout { data: "heldout".into(), every: 10 });
        fixture::export(&mut recipe, name);
    }
    let plan = planned(&recipe);
    let name = |model: &str, data: &str| {
        let id = plan.samples_of(plan.find(model)?, data)?;
        Some(plan.node(id).name.as_str())
    };
    assert_eq!(name("first", "calibration"), Some("calibration"));
    assert_eq!(name("second", "calibration"), Some("calibration.other"));
    assert_eq!(name("second", "heldout"), Some("heldout.other"));
    assert_eq!(name("first", "nothing"), None);
}

#[test]
fn a_plan_prints_its_stages_in_the_order_of_the_run() {
    let plan = planned(&fixture::tiny_half());
    insta::assert_snapshot!("tiny_half", plan);
    // What needs no gradient steps comes before what does.
    let order: Vec<&str> = plan.order().into_iter().map(|id| plan.node(id).name.as_str()).collect();
    let place = |name| order.iter().position(|n| *n == name);
    assert!(place("evaluate half") < place("student"));
}

#[test]
fn a_plan_draws_itself() {
    let mut recipe = fixture::base("tiny");
    let cut = fixture::prune("parent", vec![axis("hidden_size", &[128], by("activation"))]);
    recipe.prunes.insert("half".into(), cut);
    fixture::export(&mut recipe, "half");
    let plan = planned(&recipe);
    insta::assert_snapshot!("dot", plan.to_dot());
    insta::assert_snapshot!("mermaid", plan.to_mermaid());
    let json = serde_json::to_string_pretty(&plan.to_json()).expect("JSON");
    insta::assert_snapshot!("json", json);
}

#[test]
fn the_drawing_shows_every_stage_apart_from_the_others() {
    let plan = planned(&fixture::tiny_half());
    let svg = plan.to_svg();
    for node in plan.graph.node_weights() {
        assert!(svg.contains(&format!(">{}</text>", node.name)), "{} is missing", node.name);
    }
    let boxes: Vec<[f64; 4]> =
        svg.lines().filter(|l| l.starts_with("<g class=\"stage")).map(corners).collect();
    assert_eq!(boxes.len(), plan.graph.node_count());
    for (i, a) in boxes.iter().enumerate() {
        for b in &boxes[i + 1..] {
            let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
            assert!(apart, "{a:?} and {b:?} overlap");
        }
    }
}

/// Left, top, right, bottom of the rectangle in a line.
fn corners(line: &str) -> [f64; 4] {
    let value = |key: &str| -> f64 {
        let rest = line.split(&format!("{key}=\"")).nth(1).expect("the attribute");
        rest.split('"').next().and_then(|v| v.parse().ok()).expect("a number")
    };
    let (x, y) = (value(" x"), value(" y"));
    [x, y, x + value(" width"), y + value(" height")]
}

#[test]
fn a_plan_may_end_at_any_of_its_names() {
    let mut recipe = fixture::tiny_half();
    search(&mut recipe);
    fixture::export(&mut recipe, "best");
    let plan = planned(&recipe);
    let until = plan.until("half").expect("the model");
    assert!(until.find("best").is_none());
    assert!(until.verify().is_ok());
    assert_eq!(until.find("half.cut"), until.maker("half"));
    assert!(until.find("evaluate half").is_none());
    assert!(plan.until("nobody").is_none());
}

/// `search best in space`
fn search(recipe: &mut hir::Recipe) {
    let axes = vec![axis("num_layers", &[8, 10], kld()), axis("hidden_size", &[96, 128], by("activation"))];
    recipe.prunes.insert("space".into(), fixture::prune("parent", axes));
    let rung = hir::Rung {
        by: hir::Objective::of(hir::Quantity::Measured(hir::Measure::Loss)),
        descending: false,
        on: Some("heldout".into()),
        after: Some("recover".into()),
        tokens: None,
        keep: 1,
        span: Span::default(),
    };
    let search = hir::Search {
        space: "space".into(),
        require: vec![],
        rungs: vec![rung],
        ties: Vec::new(),
        training: Some(hir::RungTraining { teacher: Some("parent".into()), data: "calibration".into() }),
        controls: vec![],
        span: Span::default(),
    };
    recipe.searches.insert("best".into(), search);
}

#[test]
fn rotation_repair_and_search_are_stages() {
    let mut recipe = fixture::base("tiny");
    let mut cut = fixture::prune("parent", vec![axis("hidden_size", &[128], hir::Score::Pca)]);
    cut.repairs
        .push(hir::Repair { kind: hir::RepairKind::Norms { power: Some(0.5) }, span: Span::default() });
    recipe.prunes.insert("rotated".into(), cut);
    search(&mut recipe);
    fixture::export(&mut recipe, "rotated");
    fixture::export(&mut recipe, "best");
    let plan = planned(&recipe);
    insta::assert_snapshot!("rotation_repair_search", plan);
}

#[test]
fn a_candidate_has_the_stages_of_a_model() {
    let mut recipe = fixture::base("tiny");
    search(&mut recipe);
    let axes = &mut recipe.prunes["space"].axes;
    axes[1].score = hir::Score::Pca;
    recipe.prunes["space"].repairs.push(hir::Repair {
        kind: hir::RepairKind::LeastSquares { damping: 0.01, sequential: false },
        span: Span::default(),
    });
    fixture::export(&mut recipe, "best");
    let plan = planned(&recipe);
    let id = plan.find("best").expect("the search");
    let told = |sizes: &[(Dim, usize)], control: Option<hir::Control>| {
        let sizes = sizes.iter().copied().collect();
        let made = lower::candidate(&plan, id, "best.7", &sizes, control.as_ref()).expect("a candidate");
        let own =
            |text: String| text.lines().filter(|l| l.starts_with("best.7")).collect::<Vec<_>>().join("\n");
        own(made.plan.to_string())
    };
    let both = [(Dim::NumLayers, 8), (Dim::HiddenSize, 96)];
    insta::assert_snapshot!(
        "candidates",
        [
            told(&both, None),
            told(&both[..1], None),
            told(&both, Some(hir::Control::Random { seed: 3 })),
            told(&both, Some(hir::Control::GroupUnaware)),
        ]
        .join("\n\n")
    );
}

#[test]
fn weights_alone_and_seeds_need_no_calibration() {
    let mut recipe = fixture::base("tiny");
    let axes = vec![
        axis("ffn_hidden_size", &[320], by("magnitude")),
        axis("hidden_size", &[128], hir::Score::Reverse(Box::new(hir::Score::Random { seed: 1 }))),
    ];
    let mut cut = fixture::prune("parent", axes);
    cut.calibrate = None;
    recipe.prunes.insert("half".into(), cut);
    fixture::export(&mut recipe, "half");
    let plan = planned(&recipe);
    assert!(plan.find("half.calibrate").is_none());
    assert!(plan.find("calibration").is_none());
}

#[test]
fn two_tokenizers_read_the_same_data_twice() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "other", "8b");
    fixture::evaluate(&mut recipe, "parent", None, "heldout");
    fixture::evaluate(&mut recipe, "other", None, "heldout");
    let plan = planned(&recipe);
    let second = plan.find("heldout.other").expect("the second reading");
    assert_eq!(plan.source(second, Value::Tokenizer), plan.find("other"));
    // With a tokenizer of its own it is read once.
    recipe.data["heldout"].tokenizer = Some("tokenizer.json".into());
    assert!(planned(&recipe).find("heldout.other").is_none());
}

#[test]
fn a_recipe_that_goes_in_circles_is_no_plan() {
    let mut recipe = fixture::base("tiny");
    let cut = |from: &str| fixture::prune(from, vec![axis("hidden_size", &[128], by("activation"))]);
    recipe.prunes.insert("a".into(), cut("b"));
    recipe.prunes.insert("b".into(), cut("a"));
    fixture::export(&mut recipe, "a");
    assert!(passes::run(&lower::lower(&recipe)).is_err());
}

#[test]
fn the_verifier_names_the_broken_stage() {
    let plan = planned(&fixture::tiny_half());
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan.verify().expect_err("a broken plan").to_string()
    };
    let at = |plan: &Plan, name: &str| plan.find(name).expect("a stage");
    let unplug = |plan: &mut Plan, from: &str, to: &str| {
        let edge = plan.graph.find_edge(at(plan, from), at(plan, to)).expect("an edge");
        plan.graph.remove_edge(edge);
    };
    type Fault<'a> = (&'a str, &'a dyn Fn(&mut Plan));
    let faults: [Fault; 7] = [
        ("a name twice", &|p| {
            let id = at(p, "half.calibrate");
            p.graph[id].name = "parent".into();
        }),
        ("an axis without scores", &|p| unplug(p, "half.score.hidden_size", "half.cut")),
        ("an evaluation without its teacher", &|p| unplug(p, "parent", "evaluate half")),
        ("scores that nobody gathers", &|p| {
            let id = at(p, "half.calibrate");
            if let Stage::Calibrate(wanted) = &mut p.graph[id].stage {
                wanted.layers.clear();
            }
        }),
        ("a cycle", &|p| p.connect(at(p, "half.cut"), at(p, "parent"), Value::Model)),
        ("scores out of a model", &|p| p.connect(at(p, "parent"), at(p, "half.cut"), Value::Scores)),
        ("two makers", &|p| {
            let id = at(p, "parent");
            p.graph[id].makes.push("half".into());
        }),
    ];
    let report: Vec<String> =
        faults.iter().map(|(name, fault)| format!("{name}: {}", broken(*fault))).collect();
    insta::assert_snapshot!("faults", report.join("\n"));
}
