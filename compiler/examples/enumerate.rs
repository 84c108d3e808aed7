//! How fast spaces are enumerated: that of `recipes/nemotron-h-8b-4b.mrecipe`, and the same on finer grids.
//!
//! `cargo run --release -p minic-compiler --example enumerate`
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program of its own, that measures")]

use minic_compiler::check::{Environment, Outline, check_text};
use minic_compiler::dim::Dim;
use minic_compiler::hir::{Prune, Require};
use minic_compiler::model::ModelDesc;
use minic_compiler::space::Space;
use std::time::Instant;

const RECIPE: &str = include_str!("../../recipes/nemotron-h-8b-4b.mrecipe");
const CONFIG: &str = include_str!("../tests/configs/Nemotron-H-8B-Base-8K.json");

struct Published;

impl Environment for Published {
    fn config(&self, _checkpoint: &str) -> Result<Option<String>, String> {
        Ok(Some(CONFIG.into()))
    }
}

/// The parent, the space, and what is required of a candidate.
fn published() -> Option<(ModelDesc, Prune, Vec<Require>)> {
    let mut recipe = check_text("recipe", RECIPE, &Published, &[]).hir?;
    let parent = recipe.models.shift_remove("parent")?.desc?;
    Some((parent, recipe.prunes.shift_remove("space")?, recipe.searches.shift_remove("best")?.require))
}

fn main() {
    let Some((parent, prune, require)) = published() else {
        return println!("the recipe cannot be checked");
    };
    let parent = Outline::of(parent);
    report("the recipe", &Space::of(&parent, &prune), &require);
    for (ffn, hidden) in [(96, 64), (32, 32)] {
        let mut finer = prune.clone();
        for axis in &mut finer.axes {
            match axis.axis.dim {
                Dim::FfnHiddenSize => axis.values = (9984..=21504).step_by(ffn).collect(),
                Dim::HiddenSize => axis.values = (3072..=4096).step_by(hidden).collect(),
                Dim::MambaHeadDim => axis.values = (32..=64).step_by(4).collect(),
                Dim::MambaNumHeads => axis.values = (64..=128).step_by(8).collect(),
                _ => {}
            }
        }
        report(&format!("steps of {ffn} and {hidden}"), &Space::of(&parent, &finer), &require);
    }
}

fn report(what: &str, space: &Space, require: &[Require]) {
    let began = Instant::now();
    let found = space.feasible(require);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{what}: {} points, {} legal, {} to {} feasible, in {seconds:.3} s: {:.2} million points a second",
        space.len(),
        found.legal,
        found.certain,
        found.points.len(),
        space.len() as f64 / seconds / 1e6
    );
}
