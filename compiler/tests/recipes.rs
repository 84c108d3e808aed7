//! The recipes that are shipped, checked and planned against the published configurations of their checkpoints. A snapshot
//! holds every model with its sizes and counts, and the plan.
#![allow(clippy::disallowed_methods, reason = "recipes and configurations are read here")]

use minic_compiler::check::{Checked, Environment, check_text};
use minic_compiler::dim::Dim;
use minic_compiler::plan::{Bounds, Shapes};
use minic_compiler::text::grouped;
use minic_compiler::{lower, passes};
use minic_grammar::render;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder of recipes, with a checkpoint for every name: the published configuration of that name, or a folder there.
struct Published(PathBuf);

impl Environment for Published {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        let name = checkpoint.rsplit('/').next().unwrap_or_default();
        let published = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/configs/{name}.json"));
        let places = [self.0.join(checkpoint).join("config.json"), published];
        Ok(places.iter().find_map(|place| fs::read_to_string(place).ok()))
    }

    fn module(&self, path: &str) -> Result<Option<String>, String> {
        Ok(fs::read_to_string(self.0.join(path)).ok())
    }
}

fn shipped(path: &Path) -> Checked {
    let text = fs::read_to_string(path).expect("a recipe");
    let name = path.file_name().expect("a file").to_string_lossy();
    check_text(&name, &text, &Published(path.parent().expect("a folder").into()), &[])
}

/// `4,489,123,456`; the ends where layers or sizes are still to be chosen.
fn counted(bounds: Bounds) -> String {
    match bounds.exact() {
        Some(exact) => grouped(exact),
        None => format!("{} .. {}", grouped(bounds.min), grouped(bounds.max)),
    }
}

fn recipes() -> Vec<PathBuf> {
    let folders = ["recipes", "examples/quickstart"];
    let entries =
        folders.iter().flat_map(|f| fs::read_dir(repository().join(f)).expect("a folder of recipes"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "mrecipe"));
    paths.sort();
    paths
}

#[test]
fn shipped_recipes_have_plans_for_the_published_configurations() {
    let mut names = Vec::new();
    for path in recipes() {
        let Checked { sources, hir, found, .. } = shipped(&path);
        let drawn = render::render(&sources, &found, false);
        let hir = hir.unwrap_or_else(|| panic!("{drawn}"));
        // What is not decided: which of two limits of dt the parent was trained with, and what lies in data/.
        let told: Vec<&str> = found.iter().map(|d| d.code).filter(|c| *c != "W0402").collect();
        assert!(told.is_empty(), "{drawn}");
        let plan = passes::run(&lower::lower(&hir)).expect("a plan that verifies");
        let mut text = String::new();
        for (model, shape) in &Shapes::of(&hir).models {
            let shape = shape.as_ref().unwrap_or_else(|| panic!("{model} has no configuration"));
            let _ = write!(text, "{model}: {} parameters", counted(shape.params()));
            for dim in Dim::ALL.iter().filter(|dim| !shape.sizes(**dim).is_empty()) {
                let _ = write!(text, ", {dim} {:?}", shape.sizes(*dim));
            }
            text.push('\n');
        }
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_suffix => name.as_str() }, {
            insta::assert_snapshot!("recipe", format!("{text}\n{plan}"));
        });
        names.push(name);
    }
    for wanted in [
        "depth-only",
        "flap-mixed",
        "mamba2-1.3b-780m",
        "nemotron-h-8b-4b",
        "nemotron-nano-12b-9b",
        "quickstart",
        "width-only",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not shipped");
    }
}

/// Who opens a recipe for a published model reads where it comes from and what to expect before anything else.
#[test]
fn recipes_for_published_models_say_where_they_come_from_and_what_to_expect() {
    for path in recipes().iter().filter(|p| p.parent().is_some_and(|f| f.ends_with("recipes"))) {
        let text = fs::read_to_string(path).expect("a recipe");
        let head = text.split("\n\n").nth(1).unwrap_or_default().to_string()
            + text.split("\n\n").nth(2).unwrap_or_default();
        assert!(head.starts_with("# "), "{} has no head comment", path.display());
        assert!(head.contains("arXiv:"), "{} names no paper", path.display());
        let library = path.ends_with("common.mrecipe");
        assert!(library || head.contains("table") || head.contains("candidates"), "{}", path.display());
    }
}

/// The counts that the head comments promise.
#[test]
fn the_students_have_the_parameters_that_are_published() {
    let params = |recipe: &str, model: &str| {
        let hir = shipped(&repository().join(format!("recipes/{recipe}.mrecipe"))).hir.expect("it checks");
        Shapes::of(&hir).get(model).expect("a model").params()
    };
    let billions = |bounds: Bounds| (bounds.min as f64 / 1e9, bounds.max as f64 / 1e9);
    let within = |bounds: Bounds, published: f64| {
        let (min, max) = billions(bounds);
        assert!(min - 5e-4 <= published && published <= max + 5e-4, "{published} is not in {min} .. {max}");
    };
    within(params("nemotron-h-8b-4b", "parent"), 8.101);
    within(params("width-only", "plain"), 4.489);
    assert_eq!(params("width-only", "plain"), params("flap-mixed", "mixed"));
    within(params("depth-only", "shallow"), 4.52);
    within(params("nemotron-nano-12b-9b", "parent"), 12.31);
    for candidate in [8.923, 8.888, 8.966] {
        within(params("nemotron-nano-12b-9b", "space"), candidate);
    }
}
