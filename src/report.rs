//! `minic report RUN`: what a run made, as one page that needs nothing beside it.
//!
//! The page is a function of `result.json`: static HTML with drawings in it, which a browser without scripts and a
//! printer show whole. A few lines of JavaScript add sorting, quicker tooltips and a switch of colors.

mod comparison;
mod curves;
mod heat;
mod html;
mod importance;
mod overview;
mod page;
mod records;
mod search;
mod stages;

pub use comparison::{Named, comparison};

use crate::output::{Exit, Failure, Output};
use minic_runtime::error::IoError;
use minic_runtime::run::Summary;
use minic_runtime::run::folder::{REPORT_FILE, RESULT_FILE};
use page::Page;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A run folder, a recipe that was run, or a `result.json`
    run: PathBuf,
    /// Where the page goes; by default beside the result
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let Some(result) = result_of(&args.run)? else {
        let message = format!("{}: is no run", args.run.display());
        return Err(Failure::new(Exit::Input, message)
            .help("name a recipe that was run, or its run folder: `.minic/runs/NAME`"));
    };
    let page = page(&Summary::read(&result)?);
    let file = args.output.clone().unwrap_or_else(|| result.with_file_name(REPORT_FILE));
    write(&file, &page, output)?;
    if output.json {
        output.document(&json!({ "file": file, "bytes": page.len() }))?;
    }
    Ok(Exit::Done)
}

/// Where the result of a run lies: of a result itself, of a run folder, of a recipe that was run.
pub fn result_of(path: &Path) -> Result<Option<PathBuf>, Failure> {
    if path.join(RESULT_FILE).is_file() {
        return Ok(Some(path.join(RESULT_FILE)));
    }
    if !path.is_file() {
        return Ok(None);
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        return Ok(Some(path.to_path_buf()));
    }
    let folder = crate::run::run_folder(path);
    if folder.join(RESULT_FILE).is_file() {
        return Ok(Some(folder.join(RESULT_FILE)));
    }
    let message =
        format!("{}: no run of it has ended: {} has no {RESULT_FILE}", path.display(), folder.display());
    Err(Failure::new(Exit::Input, message).help(format!("run it: `minic run {}`", path.display())))
}

/// Writes a page, and says where it is.
pub fn write(file: &Path, page: &str, output: &Output) -> Result<(), Failure> {
    std::fs::write(file, page).map_err(IoError::at(file, "write"))?;
    output.note(&format!("the page is {}, {}", file.display(), crate::table::bytes(page.len() as u64)));
    Ok(())
}

/// The same bytes for the same result.
pub fn page(summary: &Summary) -> String {
    let recipe = Path::new(&summary.run.recipe);
    let name = recipe.file_stem().unwrap_or_default().to_string_lossy();
    let mut page = Page::new(&format!("{name}: a run of minic"), &name, &overview::lead(summary));
    page.section("summary", "Summary", overview::models(summary));
    page.section("plan", "Plan", stages::section(summary));
    page.section("lints", "Warnings", records::lints(summary));
    page.section("search", "Search", search::searches(summary));
    page.section("sensitivity", "Sensitivity", search::sensitivities(summary));
    page.section("layers", "Layers", importance::section(summary));
    page.section("importance", "Importance", heat::section(summary));
    page.section("training", "Training", curves::section(summary));
    page.section("provenance", "Provenance", records::provenance(summary));
    page.section("recipe", "Recipe", records::recipe(summary));
    page.html()
}
