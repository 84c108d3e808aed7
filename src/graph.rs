//! `minic graph RECIPE --format dot|mermaid|json|svg`

use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, Recipe, folder_of, parse_override};
use minic_compiler::check::Override;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    /// With `--json` it is json
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::at(folder_of(&self.recipe))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The language of Graphviz
    Dot,
    /// A flowchart for Markdown
    Mermaid,
    Json,
    /// A drawing for a browser
    Svg,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let recipe = Recipe::load(&args.recipe, &args.overrides)?;
    let plan = recipe::plan(recipe.checked(output)?)?;
    match if output.json { Format::Json } else { args.format } {
        Format::Dot => output.answer(&plan.to_dot())?,
        Format::Mermaid => output.answer(&plan.to_mermaid())?,
        Format::Json => output.document(&plan.to_json())?,
        Format::Svg => output.answer(&plan.to_svg())?,
    }
    Ok(Exit::Done)
}
