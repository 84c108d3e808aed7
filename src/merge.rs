//! `minic merge RECIPE`, and what a run says that shares its work.

use crate::device::DeviceArgs;
use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, Recipe, World, folder_of, parse_override};
use crate::remote;
use crate::table::Table;
use minic_compiler::check::Override;
use minic_runtime::run::{self, Merged, Shard, Waiting, Waits};
use minic_runtime::store::Store;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`; as the shards did
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The artifact store of the shards; by default `.minic/store` beside the recipe
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How many shards there are; by default what the parts in the store say
    #[arg(long, value_name = "N", value_parser = parse_shards)]
    shards: Option<usize>,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::at(folder_of(&self.recipe)).computes(&mut self.device).keeps(&mut self.store)
    }
}

/// The N of a shard I/N.
fn parse_shards(text: &str) -> Result<usize, String> {
    let last: Result<Shard, String> = format!("{text}/{text}").parse();
    last.map(|shard| shard.of).map_err(|_| "expected a number of shards, 1 or more".into())
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let recipe = Recipe::load(&args.recipe, &args.overrides)?;
    let mut plan = recipe::plan(recipe.checked(output)?)?;
    let folder = recipe::store_folder(&args.recipe, args.store.as_deref());
    let store = Store::open_existing(&folder)?.ok_or_else(|| {
        Failure::new(Exit::Input, format!("{}: there is no store", folder.display()))
            .help("shards make it: `minic run RECIPE --shard 1/8`; name another with --store")
    })?;
    let shards = match args.shards {
        Some(shards) => Some(shards),
        None => told_by(&store)?,
    };
    let world = World::new(folder_of(&args.recipe), Some(PathBuf::new()));
    remote::locate(&mut plan, world.hub())?;
    let settings = recipe::settings(&recipe, &args.recipe, &args.overrides, Path::new(""));
    let device = args.device.open(output)?;
    let merged = run::merge(&plan, device.as_ref(), &settings, &store, shards.unwrap_or(1))?;
    let missing = missing(&merged, shards.unwrap_or(1));
    if output.json {
        let shards_to_run: Vec<usize> = missing.iter().copied().collect();
        output.document(&json!({ "shards": shards, "stages": merged, "run": shards_to_run }))?;
    } else {
        output.answer(&table(&merged).render(|_, line| line))?;
    }
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    let words = words(&args.recipe, &args.overrides, &args.device, args.store.as_deref());
    output.error(&match shards {
        Some(of) => {
            format!("run `minic run {words} --shard I/{of}` for I = {}, then merge again", list(&missing))
        }
        None => format!("no shard has left a part; run `minic run {words} --shard I/N` for every I up to N"),
    });
    Ok(Exit::World)
}

/// Into how many shards the runs were divided that left parts.
fn told_by(store: &Store) -> Result<Option<usize>, Failure> {
    let found = run::divisions(store)?;
    match found.len() {
        0 | 1 => Ok(found.first().copied()),
        _ => Err(Failure::new(Exit::Input, format!("the store holds parts of {} shards", list(&found)))
            .help("say with --shards which of them are to be joined")),
    }
}

/// The shards that must run: those whose parts are missing, or all where something else must be made first.
fn missing(merged: &[Merged], of: usize) -> BTreeSet<usize> {
    let waits = || merged.iter().filter_map(|stage| stage.waits.as_ref());
    let parts = waits().filter_map(|waits| match waits {
        Waits::Parts { missing, .. } => Some(missing.iter().copied()),
        Waits::First | Waits::Stages { .. } => None,
    });
    let parts: BTreeSet<usize> = parts.flatten().collect();
    if parts.is_empty() && waits().next().is_some() { (1..=of).collect() } else { parts }
}

fn list(numbers: &BTreeSet<usize>) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn table(merged: &[Merged]) -> Table {
    let mut table = Table::new(&["stage", "state"]);
    for stage in merged {
        let state = match &stage.waits {
            Some(waits) => waits.to_string(),
            None if stage.joined => "joined".into(),
            None => "was there".into(),
        };
        table.row(vec![stage.stage.clone(), state]);
    }
    table
}

/// What a shard left undone, and how it goes on.
pub fn waiting(waits: &[Waiting], shard: Shard, words: &str) -> String {
    let mut out = String::new();
    let mut after = Vec::new();
    for Waiting { stage, waits } in waits {
        match waits {
            Waits::Parts { .. } | Waits::First => out += &format!("\n{stage}: {waits}"),
            Waits::Stages { .. } => after.push(stage.as_str()),
        }
    }
    if !after.is_empty() {
        out += &format!("\nafter them: {}", after.join(", "));
    }
    if waits.iter().any(|waiting| matches!(waiting.waits, Waits::Parts { .. })) {
        let merge = format!("`minic merge {words} --shards {}`", shard.of);
        out += &format!("\nwhen all parts are there: {merge}, then the same command again");
    }
    out + "\n"
}

/// A recipe and the options that decide what is computed, as on the command line.
pub fn words(recipe: &Path, overrides: &[Override], device: &DeviceArgs, store: Option<&Path>) -> String {
    let mut words = vec![recipe.display().to_string()];
    words.extend(overrides.iter().map(|o| format!("--set {}", o.text())));
    words.extend(device.words());
    words.extend(store.map(|store| format!("--store {}", store.display())));
    words.join(" ")
}
