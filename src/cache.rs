//! `minic cache ls|why NAME|gc`

use crate::device::DeviceArgs;
use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, Recipe, parse_override};
use crate::run::parse_duration;
use crate::table::{Table, bytes};
use minic_compiler::check::Override;
use minic_runtime::error::IoError;
use minic_runtime::run;
use minic_runtime::store::{Entry, Store};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List what the store holds
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Say for each result of a stage whether it is stored, and what differs if it is not
    Why {
        /// A stage or model of the recipe
        name: String,
        /// Override a param, or a setting as in `parent.checkpoint=DIR`
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
        overrides: Vec<Override>,
        #[command(flatten)]
        device: DeviceArgs,
        #[command(flatten)]
        place: Place,
    },
    /// Throw away what was not used for a while, and what dead runs left
    Gc {
        /// Longest time since something was used, e.g. 7d
        #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration)]
        unused: Duration,
        /// Throw away everything
        #[arg(long, conflicts_with = "unused")]
        all: bool,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: Place,
    },
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        let (place, device) = match &mut self.command {
            Command::Ls { place } | Command::Gc { place, .. } => (place, None),
            Command::Why { place, device, .. } => (place, Some(device)),
        };
        let folder = place.recipe.as_deref().map(recipe::folder_of).unwrap_or_default();
        Wanted { device, ..Wanted::at(folder) }.keeps(&mut place.store)
    }
}

/// Which store.
#[derive(clap::Args)]
struct Place {
    /// The recipe whose store it is; by default the only one in the current folder
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// The artifact store; by default as minic.toml says, or `.minic/store` beside the recipe
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Place {
    fn recipe(&self) -> Result<PathBuf, Failure> {
        match &self.recipe {
            Some(recipe) => Ok(recipe.clone()),
            None => only_recipe(),
        }
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(store) => Ok(store.clone()),
            None => Ok(recipe::store_folder(&self.recipe()?, None)),
        }
    }

    fn open(&self) -> Result<Store, Failure> {
        let folder = self.folder()?;
        Store::open_existing(&folder)?.ok_or_else(|| absent(&folder))
    }
}

fn absent(folder: &Path) -> Failure {
    Failure::new(Exit::Input, format!("{}: there is no store", folder.display()))
        .help("`minic run` makes one; name its recipe with --recipe, or the store with --store")
}

fn only_recipe() -> Result<PathBuf, Failure> {
    let here = Path::new(".");
    let entries = here.read_dir().map_err(IoError::at(here, "list"))?;
    let paths = entries.flatten().map(|e| PathBuf::from(e.file_name()));
    let found: Vec<PathBuf> = paths.filter(|p| p.extension().is_some_and(|e| e == "mrecipe")).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        none_or_many => {
            let message = format!("{} recipes are in the current folder", none_or_many.len());
            Err(Failure::new(Exit::Input, message).help("name one with --recipe"))
        }
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    match &args.command {
        Command::Ls { place } => ls(&place.open()?, output),
        Command::Why { name, overrides, device, place } => why(name, overrides, device, place, output),
        Command::Gc { unused, all, dry_run, place } => {
            let folder = place.folder()?;
            if Store::open_existing(&folder)?.is_none() {
                return Err(absent(&folder));
            }
            let unused = if *all { Duration::ZERO } else { *unused };
            let gone = Store::collect(&folder, unused, *dry_run)?;
            if output.json {
                output.document(&json!({ "removed": gone.objects, "bytes": gone.bytes, "kept": gone.kept, "dry_run": dry_run }))?;
            } else {
                let what = if *dry_run { "would go" } else { "removed" };
                output.answer(&format!(
                    "{} files of {} {what}, {} kept\n",
                    gone.objects,
                    bytes(gone.bytes),
                    gone.kept
                ))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn ls(store: &Store, output: &Output) -> Result<Exit, Failure> {
    let entries = store.list()?;
    if output.json {
        output.document(&entries.iter().map(entry_json).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["kind", "what", ">size", ">unused for", "key"]);
    for entry in &entries {
        table.row(vec![
            kind(entry),
            entry.header.subject.clone(),
            bytes(entry.bytes),
            age(entry.used.elapsed().unwrap_or_default()),
            entry.name.chars().take(12).collect(),
        ]);
    }
    let total: u64 = entries.iter().map(|e| e.bytes).sum();
    let text = table.render(|_, line| line);
    output.answer(&format!(
        "{text}\n{} in {}, {}\n",
        recipe::count(entries.len(), "object"),
        store.root().display(),
        bytes(total)
    ))?;
    Ok(Exit::Done)
}

fn kind(entry: &Entry) -> String {
    entry.header.key.get("kind").and_then(Value::as_str).unwrap_or_default().to_string()
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "key": entry.name,
        "kind": kind(entry),
        "subject": entry.header.subject,
        "made_from": entry.header.key,
        "bytes": entry.bytes,
        "unused_seconds": entry.used.elapsed().unwrap_or_default().as_secs(),
        "unfinished": entry.unfinished,
    })
}

fn why(
    name: &str,
    overrides: &[Override],
    device: &DeviceArgs,
    place: &Place,
    output: &Output,
) -> Result<Exit, Failure> {
    let path = place.recipe()?;
    let recipe = Recipe::load(&path, overrides)?;
    let plan = recipe::plan(recipe.checked(output)?)?;
    let id = plan.find(name).ok_or_else(|| {
        Failure::new(Exit::Input, format!("{name}: there is no such stage or model"))
            .help("`minic plan` lists the stages")
    })?;
    let store = place.open()?;
    let settings = recipe::settings(&recipe, &path, overrides, Path::new("."));
    let explained = run::explain(&plan, device.open(output)?.as_ref(), &settings, &store, id)?;
    let stage = &plan.node(id).name;
    if output.json {
        output.document(&json!({ "stage": stage, "known": explained.is_some(), "results": explained }))?;
        return Ok(Exit::Done);
    }
    let text = match explained {
        None => format!("{stage}: something before it must run first; `minic plan` says what\n"),
        Some(results) if results.is_empty() => format!("{stage}: keeps nothing in the store\n"),
        Some(results) => {
            let line = |r: &run::Explained| {
                let stands = match (r.stored, &r.differs) {
                    (true, _) => "stored".to_string(),
                    (false, _) if r.damaged => format!("missing; {}", run::DAMAGED),
                    (false, Some(d)) => format!("missing; `{}` differs in {d}", d.than),
                    (false, None) => "missing; nothing of its kind was made yet".to_string(),
                };
                format!("{}: {stands}\n", r.subject)
            };
            results.iter().map(line).collect()
        }
    };
    output.answer(&text)?;
    Ok(Exit::Done)
}

/// `40 s`, `3 h`, `12 d`
fn age(since: Duration) -> String {
    match since.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
