//! `minic run RECIPE`

use crate::device::{self, Choice};
use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::recipe::{self, Recipe, World, folder_of, parse_override};
use crate::table::{Table, grouped};
use minic_compiler::check::Override;
use minic_compiler::plan::Plan;
use minic_grammar::Diagnostic;
use minic_runtime::error::IoError;
use minic_runtime::events::{Event, Journal, Observer};
use minic_runtime::run::{self, Settings, Summary};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    /// Where to compute: auto, cpu, vulkan or vulkan:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Choice,
    /// Run only what this stage or model needs, and itself
    #[arg(long, value_name = "NAME")]
    until: Option<String>,
    /// Replace export folders that hold something else
    #[arg(long)]
    overwrite: bool,
    /// The root of relative export folders
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Both of them see every event.
struct Both<'a>(&'a Progress<'a>, &'a Journal);

impl Observer for Both<'_> {
    fn observe(&self, event: &Event) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let out = (!args.overwrite).then(|| args.out.clone());
    let world = World { base: folder_of(&args.recipe), out };
    let recipe = Recipe::load_in(&args.recipe, &args.overrides, world)?;
    let hir = recipe.checked(output)?;
    let mut plan = recipe::plan(hir)?;
    if let Some(name) = &args.until {
        plan = plan.until(name).ok_or_else(|| {
            Failure::new(Exit::Input, format!("--until {name}: there is no such stage or model"))
                .help("`minic plan` lists the stages")
        })?;
    }
    refuse_unsupported(&plan, &recipe, output)?;
    let device = args.device.open()?;
    let folder = run_folder(&args.recipe);
    std::fs::create_dir_all(&folder).map_err(IoError::at(&folder, "create"))?;
    let journal = Journal::open(&folder.join("events.jsonl"))?;
    let progress = Progress::new(output);
    let settings = Settings {
        recipe: recipe.file.clone(),
        recipe_text: recipe.text.clone(),
        overrides: args.overrides.iter().map(Override::text).collect(),
        base: folder_of(&args.recipe),
        out: args.out.clone(),
        overwrite: args.overwrite,
        proof_memory: device::available_memory() / 2,
    };
    let summary = run::run(&plan, device.as_ref(), &settings, &Both(&progress, &journal))?;
    progress.clear();
    write_result(&folder, &summary)?;
    if output.json {
        output.document(&summary)?;
    } else {
        output.answer(&text(&summary))?;
    }
    Ok(Exit::Done)
}

/// `.minic/runs/NAME` beside the recipe.
fn run_folder(recipe: &Path) -> PathBuf {
    let name = recipe.file_stem().unwrap_or_default();
    folder_of(recipe).join(".minic/runs").join(name)
}

/// What this version cannot run is said before anything starts, at the declaration that asks for it.
fn refuse_unsupported(plan: &Plan, recipe: &Recipe, output: &Output) -> Result<(), Failure> {
    let unsupported = plan.unsupported();
    if unsupported.is_empty() {
        return Ok(());
    }
    let found: Vec<Diagnostic> = unsupported
        .iter()
        .map(|node| {
            let what = node.stage.name();
            Diagnostic::new("E1101", node.span, format!("this version of minic cannot run `{what}`"))
                .label(format!("needed for the stage `{}`", node.name))
                .help("`minic plan` shows what it would do; `--until NAME` runs what does not need it")
        })
        .collect();
    output.diagnostics(&recipe.file, &recipe.text, &found);
    let names: Vec<&str> = unsupported.iter().map(|n| n.name.as_str()).collect();
    Err(Failure::new(Exit::Input, format!("{}: cannot run {}", recipe.file, names.join(", "))))
}

/// `result.json`, whole or not at all.
fn write_result(folder: &Path, summary: &Summary) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(summary).map_err(|e| Failure::new(Exit::Proof, e.to_string()))?;
    let (partial, path) = (folder.join("result.json.partial"), folder.join("result.json"));
    std::fs::write(&partial, text + "\n").map_err(IoError::at(&partial, "write"))?;
    Ok(std::fs::rename(&partial, &path).map_err(IoError::at(&path, "write"))?)
}

fn text(summary: &Summary) -> String {
    let mut out = String::new();
    let mut models = Table::new(&["model", ">parameters", "layers", "hidden", "ffn", "heads x channels"]);
    for (name, model) in &summary.models {
        let size = |dim| model.dims.get(&dim).map_or("-".to_string(), ToString::to_string);
        use minic_compiler::dim::Dim;
        models.row(vec![
            name.clone(),
            grouped(model.params),
            format!("{} {}", model.pattern.len(), model.pattern),
            size(Dim::HiddenSize),
            size(Dim::FfnHiddenSize),
            format!("{} x {}", size(Dim::MambaNumHeads), size(Dim::MambaHeadDim)),
        ]);
    }
    out += &models.render(|_, line| line);
    if !summary.evaluations.is_empty() {
        out.push('\n');
        out += &figures(summary).render(|_, line| line);
    }
    for export in summary.exports.values() {
        let how = if export.unchanged { "was there already, proved again" } else { "read back and proved" };
        out += &format!(
            "\n{} -> {}: {} parameters, {}\n",
            export.model,
            export.folder.display(),
            grouped(export.proof.params),
            how
        );
    }
    out
}

fn figures(summary: &Summary) -> Table {
    let mut table = Table::new(&["model", "on", ">loss", ">perplexity", ">top1", ">kl"]);
    let mut seen = Vec::new();
    for evaluation in summary.evaluations.values() {
        let against = evaluation.against.as_ref().zip(evaluation.against_figures.as_ref());
        let rows = against.into_iter().chain([(&evaluation.model, &evaluation.figures)]);
        for (model, figures) in rows {
            let row = vec![
                model.clone(),
                evaluation.data.clone(),
                format!("{:.4}", figures.loss),
                format!("{:.3}", figures.perplexity),
                format!("{:.2} %", figures.top1 * 100.0),
                figures.kl.map_or(String::new(), |kl| format!("{kl:.4}")),
            ];
            if !seen.contains(&row) {
                seen.push(row.clone());
                table.row(row);
            }
        }
    }
    table
}
