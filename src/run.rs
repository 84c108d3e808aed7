//! `minic run RECIPE`

pub mod weighed;

use crate::device::DeviceArgs;
use crate::machine::Wanted;
use crate::merge;
use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::recipe::{self, Recipe, World, folder_of, parse_override};
use crate::remote;
use crate::report;
use crate::table::{Table, bytes, grouped};
use minic_compiler::check::Override;
use minic_grammar::ast::Unit;
use minic_runtime::device::Profile;
use minic_runtime::events::{Journal, Observer, Stop};
use minic_runtime::run::folder::{REPORT_FILE, RunFolder};
use minic_runtime::run::{self, Settings, Shard, Summary};
use minic_runtime::store::Store;
use minic_runtime::train::Trained;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Run only what this stage or model needs, and itself
    #[arg(long, value_name = "NAME")]
    until: Option<String>,
    /// Replace export folders that hold something else
    #[arg(long)]
    overwrite: bool,
    /// The root of relative export folders
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Do this stage again, whatever the store holds
    #[arg(long, value_name = "NAME")]
    redo: Vec<String>,
    /// Compute part I of N of every pass over samples, for runs that share a store; `minic merge` joins them
    #[arg(long, value_name = "I/N", conflicts_with = "redo")]
    shard: Option<Shard>,
    /// The artifact store; by default as minic.toml says, or `.minic/store` beside the recipe
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the events of the run to this file too, one JSON object a line
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Longest time between two saves of an unfinished pass, e.g. 30s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    save_every: Duration,
    /// Measure every dispatch of the device: a table at the end, and a trace for Perfetto or chrome://tracing in
    /// the run's folder
    #[arg(long)]
    profile: bool,
    /// Fetch nothing: take of the hub what its cache holds
    #[arg(long)]
    offline: bool,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::at(folder_of(&self.recipe)).computes(&mut self.device).keeps(&mut self.store)
    }
}

/// `90s`, `10min`, `6h` as in recipes, and `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').map(|days| format!("{days}h"));
    let hours_of_a_day = if days.is_some() { 24.0 } else { 1.0 };
    match minic_grammar::quantity(days.as_deref().unwrap_or(text)) {
        Some((seconds, Unit::Duration)) => {
            Duration::try_from_secs_f64(seconds * hours_of_a_day).map_err(|e| e.to_string())
        }
        _ => Err("expected a duration as in 90s, 10min, 6h or 30d".into()),
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let out = (!args.overwrite).then(|| args.out.clone());
    let hub = Arc::new(remote::hub(args.offline));
    let world = World::with_hub(folder_of(&args.recipe), out, hub.clone());
    let recipe = Recipe::load_in(&args.recipe, &args.overrides, &world)?;
    if let Some(error) = world.hub_failure() {
        return Err(error.into());
    }
    let hir = recipe.checked(output)?;
    let mut plan = recipe::plan(hir)?;
    if let Some(name) = &args.until {
        plan = plan.until(name).ok_or_else(|| {
            Failure::new(Exit::Input, format!("--until {name}: there is no such stage or model"))
                .help("`minic plan` lists the stages")
        })?;
    }
    if let Some(name) = args.redo.iter().find(|name| plan.find(name).is_none()) {
        return Err(Failure::new(Exit::Input, format!("--redo {name}: there is no such stage or model"))
            .help("`minic plan` lists the stages"));
    }
    let device = args.device.open(output)?;
    if args.profile && !device.start_profile() {
        let message = format!("--profile: the device {} keeps no times of its own", device.name());
        return Err(Failure::new(Exit::Input, message).help("name a Vulkan device with `--device`"));
    }
    let progress = Progress::new(output);
    let folder = RunFolder::open(&shard_folder(&args.recipe, args.shard))?;
    let mut observers: Vec<Box<dyn Observer + Send + '_>> = vec![Box::new(folder.journal()?)];
    if let Some(log) = &args.log {
        observers.push(Box::new(Journal::open(log)?));
    }
    let store = Store::open(&recipe::store_folder(&args.recipe, args.store.as_deref()))?;
    if let Some(before) = &folder.before {
        output.note(&format!("{before}; this one goes on from what it left"));
    }
    let settings = Settings {
        records: Some(folder.path().to_path_buf()),
        overwrite: args.overwrite,
        proof_memory: minic_runtime::memory::available().min(device.available()) / 2,
        redo: args.redo.clone(),
        shard: args.shard,
        save_every: args.save_every,
        stop: stop_on_signal(output.is_quiet())?,
        ..recipe::settings(&recipe, &args.recipe, &args.overrides, &args.out)
    };
    observers.push(Box::new(&progress));
    remote::fetch(&mut plan, &hub, &observers)?;
    let summary = run::run(&plan, device.as_ref(), &settings, &store, &observers)?;
    progress.clear();
    for (name, svg) in summary.pictures() {
        folder.write(&format!("{name}.svg"), &svg)?;
    }
    folder.write_result(&recipe.standalone(), &summary)?;
    folder.write(REPORT_FILE, &report::page(&summary))?;
    let profile = device.take_profile();
    if let Some(profile) = &profile {
        folder.write(PROFILE, &profile.trace().to_string())?;
    }
    if output.json {
        output.document(&summary)?;
    } else {
        output.answer(&text(&summary))?;
        if output.verbose {
            output.answer(&format!("\n{}", stages(&summary).render(|_, line| line)))?;
        }
        if let Some(shard) = args.shard.filter(|_| !summary.waits.is_empty()) {
            let words = merge::words(&args.recipe, &args.overrides, &args.device, args.store.as_deref());
            output.answer(&merge::waiting(&summary.waits, shard, &words))?;
        }
        if let Some(profile) = &profile {
            output.answer(&format!("\n{}", times(profile).render(|_, line| line)))?;
            output.note(&format!("the trace is in {}", folder.path().join(PROFILE).display()));
        }
    }
    output.note(&format!("the page of this run is {}", folder.path().join(REPORT_FILE).display()));
    Ok(Exit::Done)
}

/// The trace in the run's folder.
const PROFILE: &str = "profile.json";

/// `.minic/runs/NAME` beside the recipe.
pub fn run_folder(recipe: &Path) -> PathBuf {
    let name = recipe.file_stem().unwrap_or_default();
    folder_of(recipe).join(".minic/runs").join(name)
}

/// That of a shard is its own: shards run at the same time.
fn shard_folder(recipe: &Path, shard: Option<Shard>) -> PathBuf {
    let mut folder = run_folder(recipe).into_os_string();
    if let Some(Shard { index, of }) = shard {
        folder.push(format!(".shard-{index}-of-{of}"));
    }
    folder.into()
}

/// The first Ctrl-C (or SIGTERM, or SIGHUP) asks the run to save and stop, the second ends it at once.
fn stop_on_signal(quiet: bool) -> Result<Stop, Failure> {
    let stop = Stop::default();
    let ours = stop.clone();
    let handler = move || {
        if ours.is_set() {
            std::process::exit(Exit::Stopped as i32);
        }
        ours.set();
        if !quiet {
            // Straight to the stream: this is another thread, and the run goes on for a moment.
            let _ = std::io::stderr()
                .write_all(b"stopping where the next run can go on; once more stops at once\n");
        }
    };
    ctrlc::set_handler(handler)
        .map_err(|e| Failure::new(Exit::World, format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(stop)
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
    for (name, search) in &summary.searches {
        out += &format!("\n{}", weighed::search(name, search));
    }
    for (name, sensitivity) in &summary.sensitivities {
        out += &format!("\n{}", weighed::sensitivity(name, sensitivity));
    }
    for (name, trained) in &summary.trainings {
        let Trained { updates, tokens, heldout, .. } = trained;
        out += &format!("\n{name}: {} updates on {} tokens", grouped(*updates), grouped(*tokens));
        if let [first, .., last] = heldout.as_slice() {
            out += &format!(", held-out loss {:.4} -> {:.4}", first.heldout_loss, last.heldout_loss);
        }
        out.push('\n');
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

/// What each stage took, in the order of their names.
fn stages(summary: &Summary) -> Table {
    let mut table = Table::new(&["stage", ">seconds", ">planned", ">peak", ""]);
    for (name, stage) in &summary.stages {
        table.row(vec![
            name.clone(),
            format!("{:.1}", stage.seconds),
            stage.planned.map(bytes).unwrap_or_default(),
            stage.peak.map(bytes).unwrap_or_default(),
            if stage.cached { "cached".into() } else { String::new() },
        ]);
    }
    table
}

/// Where the device's time went, what took longest first.
fn times(profile: &Profile) -> Table {
    let mut table = Table::new(&["operation", "shader", ">dispatches", ">seconds", ">share"]);
    let mut rows: Vec<_> = profile.totals.iter().collect();
    rows.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
    for ((op, shader), total) in rows {
        table.row(vec![
            op.to_string(),
            shader.to_string(),
            grouped(total.dispatches),
            format!("{:.4}", total.seconds),
            format!("{:.1} %", 100.0 * total.seconds / profile.seconds().max(f64::MIN_POSITIVE)),
        ]);
    }
    table
}

fn figures(summary: &Summary) -> Table {
    let asked = summary.evaluations.values().any(|e| e.figures.accuracy.is_some());
    let mut columns = vec!["model", "on", ">loss", ">perplexity", ">top1", ">kl"];
    columns.extend(asked.then_some(">accuracy"));
    let mut table = Table::new(&columns);
    let mut seen = Vec::new();
    for evaluation in summary.evaluations.values() {
        let against = evaluation.against.as_ref().zip(evaluation.against_figures.as_ref());
        let rows = against.into_iter().chain([(&evaluation.model, &evaluation.figures)]);
        for (model, figures) in rows {
            let mut row = vec![
                model.clone(),
                evaluation.data.clone(),
                format!("{:.4}", figures.loss),
                format!("{:.3}", figures.perplexity),
                format!("{:.2} %", figures.top1 * 100.0),
                figures.kl.map_or(String::new(), |kl| format!("{kl:.4}")),
            ];
            if asked {
                row.push(figures.accuracy.map_or(String::new(), |share| format!("{:.1} %", share * 100.0)));
            }
            if !seen.contains(&row) {
                seen.push(row.clone());
                table.row(row);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_in_recipes() {
        let seconds = |text: &str| parse_duration(text).map(|d| d.as_secs_f64());
        for (text, wanted) in
            [("0s", 0.0), ("90s", 90.0), ("10min", 600.0), ("6h", 21_600.0), ("30d", 2_592_000.0)]
        {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for wrong in ["", "d", "30", "-1s", "5GB", "1w", "s", "dh"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
