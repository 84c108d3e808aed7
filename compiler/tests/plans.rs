//! The good recipes of the corpus as plans, with the shape of every model. Remote checkpoints stand for the
//! configuration of their name.

#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

use minic_compiler::check::{Checked, Environment, check_text};
use minic_compiler::dim::Dim;
use minic_compiler::plan::{Shape, Shapes};
use minic_compiler::{lower, passes};
use std::fmt::Write;
use std::fs;
use std::path::Path;

struct Configs;

impl Environment for Configs {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let name = checkpoint.rsplit('/').next().unwrap_or_default();
        let places = [
            tests.join("corpus").join(checkpoint).join("config.json"),
            tests.join("configs").join(format!("{name}.json")),
        ];
        Ok(places.iter().find_map(|place| fs::read_to_string(place).ok()))
    }

    fn module(&self, path: &str) -> Result<Option<String>, String> {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/modules");
        Ok(fs::read_to_string(modules.join(path)).ok())
    }
}

fn shape(name: &str, shape: &Shape) -> String {
    let mut out = format!("{name}: params {}, layers {:?}", shape.params(), shape.sizes(Dim::NumLayers));
    for dim in [Dim::HiddenSize, Dim::FfnHiddenSize, Dim::MambaNumHeads, Dim::MambaHeadDim] {
        let _ = write!(out, ", {dim} {:?}", shape.sizes(dim));
    }
    out
}

#[test]
fn good_recipes_have_plans() {
    insta::glob!("corpus/good/*.mrecipe", |path| {
        let source = fs::read_to_string(path).expect("a recipe of the corpus");
        let Checked { hir, found, .. } = check_text("a.mrecipe", &source, &Configs, &[]);
        let hir = hir.unwrap_or_else(|| panic!("{}: {found:?}", path.display()));
        let plan = passes::run(&lower::lower(&hir)).expect("a plan that verifies");
        let mut text = plan.to_string();
        let shapes = Shapes::of(&hir);
        // Whatever numbers a recipe holds: they are estimated without overflow.
        for id in plan.order() {
            plan.estimate(&shapes, id);
        }
        for (name, known) in &shapes.models {
            let line =
                known.as_ref().map_or(format!("{name}: config.json is not at hand"), |s| shape(name, s));
            let _ = write!(text, "\n{line}");
        }
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("plan", text);
        });
    });
}
