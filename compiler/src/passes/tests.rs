use crate::hir::Recipe;
use crate::plan::fixture::{self, axis, by, kld};
use crate::plan::{Plan, Stage};
use crate::{lower, passes};

fn planned(recipe: &Recipe) -> Plan {
    passes::run(&lower::lower(recipe)).expect("a plan")
}

fn count(plan: &Plan, stage: &str) -> usize {
    plan.graph.node_weights().filter(|n| n.stage.name() == stage).count()
}

#[test]
fn what_nobody_asks_for_is_dropped() {
    let mut recipe = fixture::base("tiny");
    for name in ["used", "unused"] {
        let cut = fixture::prune("parent", vec![axis("hidden_size", &[128], by("activation"))]);
        recipe.prunes.insert(name.into(), cut);
    }
    fixture::export(&mut recipe, "used");
    let plan = planned(&recipe);
    assert!(plan.find("used.cut").is_some());
    assert!(plan.find("unused.cut").is_none());
    assert!(plan.find("heldout").is_none());
}

/// Two prunes of one parent on one data set: one calibration, and one score where axis and metric agree.
#[test]
fn prunes_of_one_parent_share_calibration_and_scores() {
    let mut recipe = fixture::base("tiny");
    let axes = |hidden, layers| {
        vec![axis("num_layers", &[layers], kld()), axis("hidden_size", &[hidden], by("activation"))]
    };
    recipe.prunes.insert("half".into(), fixture::prune("parent", axes(128, 10)));
    let mut quarter = axes(96, 8);
    quarter.push(axis("ffn_hidden_size", &[320], by("energy")));
    recipe.prunes.insert("quarter".into(), fixture::prune("parent", quarter));
    fixture::export(&mut recipe, "half");
    fixture::export(&mut recipe, "quarter");
    let plan = planned(&recipe);
    assert_eq!((count(&plan, "calibrate"), count(&plan, "score"), count(&plan, "cut")), (1, 3, 2));
    // The stage still answers to the name that it had in the second prune.
    assert_eq!(plan.find("quarter.calibrate"), plan.find("half.calibrate"));
    assert_eq!(plan.find("quarter.score.hidden_size"), plan.find("half.score.hidden_size"));
    let Stage::Calibrate(wanted) = &plan.node(plan.find("half.calibrate").unwrap()).stage else { panic!() };
    assert_eq!((wanted.requests.len(), wanted.layers.len()), (2, 1));
}

#[test]
fn prunes_on_other_data_calibrate_apart() {
    let mut recipe = fixture::base("tiny");
    for (name, data) in [("half", "calibration"), ("quarter", "heldout")] {
        let mut cut = fixture::prune("parent", vec![axis("hidden_size", &[128], by("activation"))]);
        cut.calibrate = Some(data.into());
        recipe.prunes.insert(name.into(), cut);
        fixture::export(&mut recipe, name);
    }
    let plan = planned(&recipe);
    assert_eq!((count(&plan, "calibrate"), count(&plan, "score")), (2, 2));
}

#[test]
fn one_checkpoint_is_opened_once() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "again", "tiny");
    fixture::evaluate(&mut recipe, "parent", None, "heldout");
    fixture::evaluate(&mut recipe, "again", None, "heldout");
    let plan = planned(&recipe);
    assert_eq!(plan.maker("again"), plan.maker("parent"));
    assert_eq!((count(&plan, "load"), count(&plan, "evaluate")), (2, 1));
}

#[test]
fn evaluations_of_the_parent_join_its_calibration() {
    let mut recipe = fixture::base("tiny");
    let cut = fixture::prune("parent", vec![axis("hidden_size", &[128], by("activation"))]);
    recipe.prunes.insert("half".into(), cut);
    fixture::evaluate(&mut recipe, "parent", None, "calibration");
    fixture::evaluate(&mut recipe, "parent", None, "heldout");
    fixture::evaluate(&mut recipe, "half", None, "calibration");
    let plan = planned(&recipe);
    let calibration = plan.find("half.calibrate").unwrap();
    assert_eq!(plan.find("evaluate parent on calibration"), Some(calibration));
    assert_ne!(plan.find("evaluate parent on heldout"), Some(calibration));
    // The student's own pass over the same samples cannot come before it is cut.
    assert_ne!(plan.find("evaluate half"), Some(calibration));
    let report = plan.find("report").unwrap();
    assert!(plan.inputs(report).contains(&(calibration, crate::plan::Value::Figures)));
}

#[test]
fn students_of_one_teacher_are_evaluated_together_unless_one_would_wait() {
    let mut recipe = fixture::base("tiny");
    for (name, hidden) in [("half", 128), ("quarter", 96)] {
        let cut = fixture::prune("parent", vec![axis("hidden_size", &[hidden], by("activation"))]);
        recipe.prunes.insert(name.into(), cut);
        fixture::evaluate(&mut recipe, name, Some("parent"), "heldout");
    }
    fixture::distill(&mut recipe, "student", "half");
    fixture::evaluate(&mut recipe, "student", Some("parent"), "heldout");
    fixture::evaluate(&mut recipe, "parent", None, "heldout");
    let plan = planned(&recipe);
    let shared = plan.find("evaluate half").unwrap();
    assert_eq!(plan.find("evaluate quarter"), Some(shared));
    assert_eq!(plan.find("evaluate parent"), Some(shared));
    assert_ne!(plan.find("evaluate student"), Some(shared));
    assert_eq!(count(&plan, "evaluate"), 2);
}

#[test]
fn evaluations_against_two_teachers_stay_apart() {
    let mut recipe = fixture::base("tiny");
    fixture::add_model(&mut recipe, "other", "8b");
    fixture::evaluate(&mut recipe, "parent", Some("other"), "heldout");
    fixture::evaluate(&mut recipe, "other", Some("parent"), "heldout");
    assert_eq!(count(&planned(&recipe), "evaluate"), 2);
}

#[test]
fn passes_change_nothing_the_second_time() {
    let once = planned(&fixture::tiny_half());
    let twice = passes::run(&once).expect("a plan");
    assert_eq!(once.to_string(), twice.to_string());
}
