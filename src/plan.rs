//! `minic plan RECIPE`

mod limits;
mod report;
pub mod small;
mod text;
mod time;

use crate::device::DeviceArgs;
use crate::figures::Figures;
use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, Recipe, World, folder_of, parse_override};
use crate::remote;
use crate::synth::parse_bytes;
use limits::Room;
use minic_compiler::check::Override;
use minic_compiler::hir;
use minic_compiler::plan::{Plan, Shapes, Source, Stage};
use minic_runtime::device::vulkan;
use minic_runtime::run;
use minic_runtime::shader::Dispatch;
use minic_runtime::store::Store;
use report::{Parts, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use time::Clock;

#[derive(clap::Args)]
pub struct Args {
    recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    /// Print one level of the compiler instead
    #[arg(long, value_enum, value_name = "LEVEL")]
    emit: Option<Level>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The artifact store of the run; by default as minic.toml says, or `.minic/store` beside the recipe
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The root of relative export folders
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Of a run that may replace export folders that hold something else
    #[arg(long)]
    overwrite: bool,
    /// Plan for a device that has so much memory, e.g. 80GB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::at(folder_of(&self.recipe)).computes(&mut self.device).keeps(&mut self.store)
    }
}

/// What a recipe is turned into, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// The syntax tree
    Ast,
    /// The checked recipe
    Hir,
    /// The stages and what flows between them
    Plan,
    /// The tensor graphs of the stages that run a model
    Graph,
    /// Their schedules: steps and buffers
    Schedule,
    /// The shaders of the Vulkan device, each once, and where they run
    Wgsl,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    args.device.exists()?;
    let recipe = Recipe::load(&args.recipe, &args.overrides)?;
    if args.emit == Some(Level::Ast) {
        return emit_ast(&recipe, output);
    }
    let hir = recipe.checked(output)?;
    if args.emit == Some(Level::Hir) {
        return emit(output, "hir", hir.to_string());
    }
    let plan = recipe::plan(hir)?;
    let shapes = Shapes::of(hir);
    match args.emit {
        Some(Level::Graph) => return emit(output, "graph", graphs(&plan, &shapes)?),
        Some(Level::Schedule) => return emit(output, "schedule", schedules(&plan, &shapes)?),
        Some(Level::Wgsl) => return emit(output, "wgsl", shaders(&plan, &shapes, &args.device)?),
        Some(Level::Plan) if output.json => output.document(&plan.to_json())?,
        Some(_) => output.answer(&plan.to_string())?,
        None => return show(&plan, &shapes, hir, &recipe, args, output),
    }
    Ok(Exit::Done)
}

/// The plan itself; what would stop a run is told below it, and fails the command.
fn show(
    plan: &Plan,
    shapes: &Shapes,
    hir: &hir::Recipe,
    recipe: &Recipe,
    args: &Args,
    output: &Output,
) -> Result<Exit, Failure> {
    let world = World::new(folder_of(&args.recipe), Some(args.out.clone()));
    let mut local = plan.clone();
    remote::locate(&mut local, world.hub())?;
    let device = args.device.open(output)?;
    let store = recipe::store_folder(&args.recipe, args.store.as_deref());
    let settings = run::Settings {
        overwrite: args.overwrite,
        ..recipe::settings(recipe, &args.recipe, &args.overrides, &args.out)
    };
    // Nothing is known of a store that is not there.
    let states = match Store::open_existing(&store)? {
        Some(store) => run::preview(&local, device.as_ref(), &settings, &store),
        None => BTreeMap::new(),
    };
    let (mut counted, mut problems) = (plan.clone(), Vec::new());
    for (id, samples) in small::read(&local, &world, &|id| report::obstacle(plan, id, &world).is_some()) {
        match (samples, &mut counted.graph[id].stage) {
            (Ok(samples), Stage::Load(Source::Data(data))) => data.samples = Some(samples.len()),
            (Ok(_), _) => {}
            (Err(failure), _) => problems.push(failure),
        }
    }
    let sizes = local.order().into_iter().filter_map(|id| Some((id, small::bytes(&local, id, &world)?)));
    let clock = Clock { figures: &Figures::kept(output), device: device.kind() };
    let parts = Parts {
        plan,
        counted: &counted,
        shapes,
        recipe: hir,
        world: &world,
        states: &states,
        clock: &clock,
        files: &sizes.collect(),
    };
    let mut report = Report::new(parts);
    problems.extend(run::refuse_occupied_folders(&local, &settings).err().map(Failure::from));
    let (memory, halved) = args.device.memory()?;
    let memory = args.memory.or(memory);
    let room = Room { device: device.kind(), memory, halved, store: &store, out: &args.out };
    problems.extend(room.problems(&report.stages_ahead()));
    report.problems = problems;
    if output.json {
        output.document(&report.to_json())?;
    } else {
        output.answer(&report.to_text(output))?;
    }
    report.problems.iter().for_each(|problem| output.complaint(problem));
    Ok(report.problems.first().map_or(Exit::Done, |problem| problem.exit))
}

/// The tree is there even where the checker finds errors.
fn emit_ast(recipe: &Recipe, output: &Output) -> Result<Exit, Failure> {
    output.diagnostics(&recipe.sources, &recipe.found);
    emit(output, "ast", recipe.ast.to_string())?;
    Ok(if recipe.errors() == 0 { Exit::Done } else { Exit::Input })
}

/// A level's text; with `--json` in a document `{LEVEL: TEXT}`.
fn emit(output: &Output, level: &str, text: String) -> Result<Exit, Failure> {
    if output.json {
        output.document(&serde_json::json!({ level: text }))?
    } else {
        output.answer(&text)?
    }
    Ok(Exit::Done)
}

/// `evaluate half:` and its graph, for every stage that runs a model of a known shape.
fn graphs(plan: &Plan, shapes: &Shapes) -> Result<String, Failure> {
    let mut out = String::new();
    for id in plan.order() {
        if let Some(graph) = plan.tensor_graph(shapes, id) {
            out += &format!("# {}\n{}\n", plan.node(id).name, graph.map_err(bug)?);
        }
    }
    Ok(out)
}

fn schedules(plan: &Plan, shapes: &Shapes) -> Result<String, Failure> {
    let mut out = String::new();
    for id in plan.order() {
        if let Some(graph) = plan.tensor_graph(shapes, id) {
            let schedule = minic_compiler::schedule::schedule(&graph.map_err(bug)?).map_err(bug)?;
            out += &format!("# {}\n{schedule}\n", plan.node(id).name);
        }
    }
    Ok(out)
}

/// Every shader of the schedules of [`schedules`] once, with the operations of the stages that run it. Those of the device
/// that is named, or of one that has just what minic needs.
fn shaders(plan: &Plan, shapes: &Shapes, device: &DeviceArgs) -> Result<String, Failure> {
    let (caps, precision) = device.shading()?;
    let mut texts: Vec<(Dispatch, BTreeSet<String>)> = Vec::new();
    for id in plan.order() {
        let Some(graph) = plan.tensor_graph(shapes, id) else { continue };
        let schedule = minic_compiler::schedule::schedule(&graph.map_err(bug)?).map_err(bug)?;
        let steps = vulkan::dispatches(&caps, precision, &schedule).map_err(bug)?;
        for (step, dispatches) in schedule.steps.iter().zip(steps) {
            for dispatch in dispatches {
                let user = format!("{} of {}", step.op.name(), plan.node(id).name);
                match texts.iter_mut().find(|(known, _)| known.text == dispatch.text) {
                    Some((_, users)) => drop(users.insert(user)),
                    None => texts.push((dispatch, BTreeSet::from([user]))),
                }
            }
        }
    }
    let shader = |(dispatch, users): &(Dispatch, BTreeSet<String>)| {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        format!("// {}: {}\n{}\n", dispatch.name, users.join(", "), dispatch.text)
    };
    Ok(texts.iter().map(shader).collect())
}

fn bug(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Proof, error.to_string())
        .help("this is a bug of minic; please report it with the recipe")
}
