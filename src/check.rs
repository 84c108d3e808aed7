//! `minic check RECIPE..`

use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{Recipe, count, folder_of};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::at(self.recipes.first().map(|recipe| folder_of(recipe)).unwrap_or_default())
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let mut recipes = Vec::new();
    for path in &args.recipes {
        recipes.push(Recipe::load(path, &[])?);
    }
    for recipe in &recipes {
        output.diagnostics(&recipe.sources, &recipe.found);
    }
    let errors: usize = recipes.iter().map(Recipe::errors).sum();
    let warnings: usize = recipes.iter().map(Recipe::warnings).sum();
    output.remark(&format!(
        "{} checked: {}, {}",
        count(recipes.len(), "recipe"),
        count(errors, "error"),
        count(warnings, "warning")
    ));
    if output.json {
        let mut all: Vec<_> = recipes.iter().flat_map(Recipe::to_json).collect();
        all.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        output.document(&all)?;
    }
    Ok(if errors == 0 { Exit::Done } else { Exit::Input })
}
