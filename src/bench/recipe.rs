//! `minic bench recipe`: whatever the times of a recipe's plan follow from, with untrained weights of its models' sizes.

use super::surgery;
use super::throughput::{TrainingOf, Until, forward};
use crate::device::DeviceArgs;
use crate::figures::{self, Circumstances, Figure, Kind};
use crate::output::{Exit, Failure, Output};
use crate::plan::small;
use crate::recipe::{self, Recipe, World, folder_of, parse_override};
use crate::remote;
use crate::table::{Table, bytes, grouped, operations};
use minic_compiler::check::Override;
use minic_compiler::cost;
use minic_compiler::forward::Objective;
use minic_compiler::hir;
use minic_compiler::model::ModelDesc;
use minic_compiler::plan::{Estimate, Plan, Search, Shapes, Source, Stage, StageId, Value};
use minic_runtime::device::{Device, Weights};
use minic_runtime::synth;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    pub recipe: PathBuf,
    /// Override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override)]
    overrides: Vec<Override>,
    /// About so long for each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Where a checkpoint is cut, and removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Checkpoints up to so many bytes are cut; larger ones take minutes and a disk.
const CUT: u64 = 1 << 30;

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let recipe = Recipe::load(&args.recipe, &args.overrides)?;
    let hir = recipe.checked(output)?;
    let plan = recipe::plan(hir)?;
    let shapes = Shapes::of(hir);
    let world = World::new(folder_of(&args.recipe), Some(PathBuf::new()));
    let mut local = plan.clone();
    remote::locate(&mut local, world.hub())?;
    let device = args.device.open(output)?;
    let until = Until { runs: 100, seconds: f64::from(args.seconds) };
    let mut bench = Bench { device: device.as_ref(), until, output, figures: Vec::new(), read: 0 };
    for id in plan.order() {
        bench.stage(&plan, &shapes, id)?;
        bench.data(&local, id, &world)?;
        if let Stage::Load(Source::Checkpoint { path, .. }) = &local.node(id).stage {
            bench.surgery(&shapes, &plan.node(id).name, &world.base.join(path), &args.dir)?;
        }
    }
    let figures = bench.figures;
    if output.json {
        output.document(&json!({ "figures": figures }))?;
    } else {
        output.answer(&text(&figures).render(|_, line| line))?;
    }
    figures::keep(figures, output);
    Ok(Exit::Done)
}

struct Bench<'a> {
    device: &'a dyn Device,
    until: Until,
    output: &'a Output,
    figures: Vec<Figure>,
    /// Bytes of the data that was read.
    read: u64,
}

impl Bench<'_> {
    /// Nothing where it was measured already.
    fn open(&self, kind: Kind, params: u64, sequence: usize) -> Option<Circumstances> {
        let wanted = Circumstances::here(kind, &self.device.kind(), params, sequence);
        self.figures.iter().all(|figure| figure.of != wanted).then_some(wanted)
    }

    /// The model of a stage that runs one, or its training.
    fn stage(&mut self, plan: &Plan, shapes: &Shapes, id: StageId) -> Result<(), Failure> {
        let node = plan.node(id);
        let from = |value| plan.source(id, value);
        match &node.stage {
            Stage::Train(training) | Stage::Distill(training) => {
                let student = from(Value::Model).and_then(|from| made(plan, shapes, from));
                if let Some(heldout) = &training.heldout {
                    self.pass(&node.name, student.clone(), sequence(plan, id, &heldout.data))?;
                }
                let teacher = from(Value::Teacher).map(|from| made(plan, shapes, from));
                let Some(pupil) = Pupil::of(student, teacher) else { return Ok(()) };
                self.schedule(plan, id, &pupil, &training.schedule, Some(&training.data))
            }
            Stage::Search(search) => self.search(plan, shapes, id, search),
            Stage::Calibrate(_) | Stage::Score(_) | Stage::Evaluate(_) | Stage::Repair(_) => {
                let Estimate { sequence, passes, .. } = plan.estimate(shapes, id);
                let model = passes.and_then(|_| from(Value::Model)).and_then(|from| made(plan, shapes, from));
                self.pass(&node.name, model, sequence)
            }
            Stage::Sensitivity(of) => {
                let Estimate { sequence, .. } = plan.estimate(shapes, id);
                self.pass(&node.name, largest(shapes, &of.space.from), sequence)
            }
            Stage::Load(_) | Stage::Rotate | Stage::Cut(_) | Stage::Export(_) | Stage::Report => Ok(()),
        }
    }

    fn pass(
        &mut self,
        stage: &str,
        model: Option<ModelDesc>,
        sequence: Option<usize>,
    ) -> Result<(), Failure> {
        let Some((desc, sequence)) = model.zip(sequence) else { return Ok(()) };
        let Some(here) = self.open(Kind::Forward, desc.params(), sequence) else { return Ok(()) };
        if !self.has_room(stage, 4 * desc.params()) {
            return Ok(());
        }
        self.output.remark(&format!("{stage}: forward passes of {} parameters", grouped(desc.params())));
        // Every lane has something to do.
        let batch = self.device.lanes().max(1) as u32;
        let weights = weights(&desc)?;
        let mut measured = forward(self.device, &desc, weights, sequence as u32, batch, self.until)?;
        let flops = cost::flops_per_token(&desc, sequence) as f64 * sequence as f64 * f64::from(batch);
        self.figures.extend(here.measured(flops, measured.median()));
        Ok(())
    }

    /// What its rungs take of its largest candidate: an update of every schedule, and a pass over what ranks.
    fn search(&mut self, plan: &Plan, shapes: &Shapes, id: StageId, search: &Search) -> Result<(), Failure> {
        let student = made(plan, shapes, id);
        for data in search.search.rungs.iter().filter_map(|rung| rung.on.as_deref()) {
            self.pass(&plan.node(id).name, student.clone(), sequence(plan, id, data))?;
        }
        let training = search.search.training.as_ref();
        let teacher = training.and_then(|training| training.teacher.as_ref());
        let teacher = teacher.map(|teacher| largest(shapes, teacher));
        let Some(pupil) = Pupil::of(student, teacher) else { return Ok(()) };
        let after = |name: &str| search.search.rungs.iter().any(|rung| rung.after.as_deref() == Some(name));
        for (_, schedule) in search.schedules.iter().filter(|(name, _)| after(name)) {
            self.schedule(plan, id, &pupil, schedule, training.map(|training| training.data.as_str()))?;
        }
        Ok(())
    }

    /// An update of every phase; `data` is that of phases that name none.
    fn schedule(
        &mut self,
        plan: &Plan,
        id: StageId,
        pupil: &Pupil,
        schedule: &hir::Schedule,
        data: Option<&str>,
    ) -> Result<(), Failure> {
        let (name, params) = (&plan.node(id).name, pupil.student.params());
        for phase in &schedule.phases {
            let data = phase.data.as_deref().or(data);
            let sequence = data.and_then(|data| sequence(plan, id, data)).map(|n| phase.window(n));
            let Some(sequence) = sequence else { continue };
            let Some(here) = self.open(Kind::Train, params, sequence) else { continue };
            let held = 4 * (4 * params + pupil.teacher.as_ref().map_or(0, ModelDesc::params));
            if !self.has_room(name, held) {
                continue;
            }
            self.output.remark(&format!("{name}: updates of {} parameters", grouped(params)));
            // Every lane has something to do; a whole batch takes as much longer as it is larger.
            let batch = phase.batch.min(self.device.lanes().max(1));
            let seconds = self.updates(pupil, phase, sequence, batch)?;
            let each = |desc: &ModelDesc| cost::flops_per_token(desc, sequence) as f64;
            let per_token = 3.0 * each(&pupil.student) + pupil.teacher.as_ref().map_or(0.0, each);
            self.figures.extend(here.measured(per_token * (batch * sequence) as f64, seconds));
        }
        Ok(())
    }

    /// The median of seconds that an update takes.
    fn updates(
        &self,
        pupil: &Pupil,
        phase: &hir::Phase,
        sequence: usize,
        batch: usize,
    ) -> Result<f64, Failure> {
        let Pupil { student, teacher } = pupil;
        // Which layer of the teacher one is compared with changes no cost.
        let origins: Vec<usize> = (0..student.layers.len()).collect();
        let objective = Objective::new(&phase.loss, &origins);
        let training = TrainingOf {
            student,
            teacher: teacher.as_ref(),
            objective: &objective,
            sequence: sequence as u32,
            batch: batch as u32,
        };
        let teachers = teacher.as_ref().map(weights).transpose()?.unwrap_or_default();
        Ok(training.measure(self.device, weights(student)?, teachers, self.until)?.median())
    }

    /// Small data, read and tokenized. The largest counts: of small files the overheads would be taken for the rate.
    fn data(&mut self, local: &Plan, id: StageId, world: &World) -> Result<(), Failure> {
        let bytes = small::bytes(local, id, world);
        let bytes = bytes.filter(|bytes| *bytes > self.read && *bytes <= small::SMALL);
        let Some(bytes) = bytes else { return Ok(()) };
        let began = Instant::now();
        let Some(samples) = small::load(local, id, world) else { return Ok(()) };
        samples?;
        self.read = bytes;
        self.figures.retain(|figure| figure.of.kind != Kind::Data);
        let here = Circumstances::here(Kind::Data, "", 0, 0);
        self.figures.extend(here.measured(bytes as f64, began.elapsed().as_secs_f64()));
        Ok(())
    }

    /// An untrained checkpoint of a model's size, cut.
    fn surgery(&mut self, shapes: &Shapes, name: &str, folder: &Path, dir: &Path) -> Result<(), Failure> {
        let Some(desc) = largest(shapes, name) else { return Ok(()) };
        if self.open(Kind::Export, desc.params(), 0).is_none() {
            return Ok(());
        }
        if 2 * desc.params() > CUT {
            let size = bytes(2 * desc.params());
            self.output.note(&format!("{name}: of {size}, it is cut by `minic bench surgery`, and not here"));
            return Ok(());
        }
        self.output.remark(&format!("{name}: a cut"));
        match surgery::measure(&surgery::Args::of_config(folder, dir), self.output) {
            Ok(report) => self.figures.extend(report.figures()),
            // Everything else is measured all the same.
            Err(failure) => self.output.complaint(&failure),
        }
        Ok(())
    }

    fn has_room(&self, stage: &str, needs: u64) -> bool {
        let has = self.device.available();
        if needs > has {
            let message =
                format!("{stage}: not measured: it needs {}, {} are free", bytes(needs), bytes(has));
            self.output.note(&message);
        }
        needs <= has
    }
}

/// A model that is trained, and the one that it learns from.
struct Pupil {
    student: ModelDesc,
    teacher: Option<ModelDesc>,
}

impl Pupil {
    /// Nothing where a size is not known.
    fn of(student: Option<ModelDesc>, teacher: Option<Option<ModelDesc>>) -> Option<Pupil> {
        let teacher = match teacher {
            Some(teacher) => Some(teacher?),
            None => None,
        };
        Some(Pupil { student: student?, teacher })
    }
}

fn weights(desc: &ModelDesc) -> Result<Weights, Failure> {
    synth::weights(desc, 1).map_err(|error| Failure::new(Exit::Input, error.to_string()))
}

/// The largest that a model may come to.
fn largest(shapes: &Shapes, name: &str) -> Option<ModelDesc> {
    shapes.get(name)?.ends().map(|[_, most]| most.clone())
}

/// The same of the model that a stage sends on, or cuts.
fn made(plan: &Plan, shapes: &Shapes, id: StageId) -> Option<ModelDesc> {
    let own = plan.node(id).makes.first().and_then(|name| largest(shapes, name));
    own.or_else(|| made(plan, shapes, plan.source(id, Value::Model)?))
}

/// Tokens of a window of data that a stage reads.
fn sequence(plan: &Plan, id: StageId, data: &str) -> Option<usize> {
    match &plan.node(plan.samples_of(id, data)?).stage {
        Stage::Load(Source::Data(data)) => Some(data.sequence),
        _ => None,
    }
}

fn text(figures: &[Figure]) -> Table {
    let mut table = Table::new(&["of", ">parameters", ">sequence", ">a second", "on"]);
    let count = |n: u64| if n == 0 { String::new() } else { grouped(n) };
    for Figure { of, rate, .. } in figures {
        let rate = match of.kind {
            Kind::Forward | Kind::Train => format!("{}FLOP", operations(*rate)),
            Kind::Data | Kind::Load | Kind::Score | Kind::Cut | Kind::Export => bytes(*rate as u64),
        };
        let row = [of.kind.to_string(), count(of.params), count(of.sequence as u64), rate];
        let on = format!("{}, {}", of.device, recipe::count(of.threads, "thread"));
        table.row(row.into_iter().chain([on]).collect());
    }
    table
}
