//! `minic bench surgery`

use crate::figures::{self, Circumstances, Figure, Kind};
use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::recipe::{self, Recipe, World, folder_of};
use crate::synth;
use crate::table::{Table, bytes, grouped};
use minic_compiler::check::Override;
use minic_compiler::dim::Dim;
use minic_compiler::model::ModelDesc;
use minic_grammar::ast::Declaration;
use minic_runtime::bench::{self, Timed};
use minic_runtime::checkpoint::{self, Checkpoint};
use minic_runtime::device::cpu::Cpu;
use minic_runtime::error::IoError;
use minic_runtime::events::Watch;
use minic_runtime::publish::StagedFolder;
use minic_runtime::run::{self, Settings};
use minic_runtime::store::Store;
use minic_runtime::synth::Synth;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint to cut
    #[arg(required_unless_present = "config")]
    checkpoint: Option<PathBuf>,
    /// Make an untrained checkpoint of this config.json instead
    #[arg(long, conflicts_with = "checkpoint")]
    config: Option<PathBuf>,
    /// How to cut it; without it every width by the norms of its weights, to about half of the parameters
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Where everything is written, and removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Cut and copy so many times, in alternating order; medians are reported
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..100))]
    rounds: u32,
}

impl Args {
    /// Once, of an untrained checkpoint of the config.json in a folder.
    pub fn of_config(folder: &Path, dir: &Path) -> Args {
        let config = Some(folder.to_path_buf());
        Args { checkpoint: None, config, recipe: None, dir: dir.to_path_buf(), rounds: 1 }
    }
}

/// Seconds of one cut.
#[derive(Clone, Debug, Default, Serialize)]
struct Seconds {
    /// Digests of the parent included.
    load: f64,
    score: f64,
    /// Choosing what is kept.
    cut: f64,
    /// Reading the parent by rows, gathering, hashing and writing, until it is on the disk.
    write: f64,
    /// Provenance, renaming, and what lies between stages.
    rest: f64,
    /// Masked and cut model compared.
    gate: f64,
    /// The folder read back.
    proof: f64,
    /// A plain copy that reads and writes as many bytes as `write`.
    copy: f64,
}

impl Seconds {
    fn without_proofs(&self) -> f64 {
        self.load + self.score + self.cut + self.write + self.rest
    }

    /// Column by column.
    fn median(rounds: &[Seconds]) -> Seconds {
        let of = |field: fn(&Seconds) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            match values.len() {
                0 => 0.0,
                n if n % 2 == 1 => values[middle],
                _ => (values[middle - 1] + values[middle]) / 2.0,
            }
        };
        Seconds {
            load: of(|s| s.load),
            score: of(|s| s.score),
            cut: of(|s| s.cut),
            write: of(|s| s.write),
            rest: of(|s| s.rest),
            gate: of(|s| s.gate),
            proof: of(|s| s.proof),
            copy: of(|s| s.copy),
        }
    }
}

#[derive(Serialize)]
pub struct Report {
    params_before: u64,
    params_after: u64,
    /// Bytes of weights.
    read: u64,
    written: u64,
    rounds: usize,
    threads: usize,
    median: Seconds,
    /// Read and written, by the seconds of `write` alone.
    surgery_gb_per_second: f64,
    copy_gb_per_second: f64,
    /// Seconds without gate and proof, and of `write` alone, in units of the copy's.
    without_proofs_over_copy: f64,
    write_over_copy: f64,
    /// Largest resident size of the process while it cut and proved, in bytes, where the system says.
    peak_resident: Option<u64>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let report = measure(args, output)?;
    figures::keep(report.figures(), output);
    if output.json {
        output.document(&report)?;
    } else {
        output.answer(&text(&report))?;
    }
    Ok(Exit::Done)
}

pub fn measure(args: &Args, output: &Output) -> Result<Report, Failure> {
    // Removed when it is dropped, and by the next benchmark if this one is killed.
    let work = StagedFolder::new(&args.dir.join("minic-bench-surgery"), true)?;
    let parent = match (&args.checkpoint, &args.config) {
        (Some(checkpoint), _) => checkpoint.canonicalize().map_err(IoError::at(checkpoint, "resolve"))?,
        (None, Some(config)) => synthesize(config, &work.path().join("parent"), output)?,
        (None, None) => return Err(Failure::new(Exit::Input, "neither a checkpoint nor a config is given")),
    };
    Checkpoint::open(&parent)?;
    let weights = weight_files(&parent)?;
    let read = size(&weights);
    let recipe = load_recipe(args.recipe.as_deref(), &parent, work.path())?;
    let mut rounds = Vec::new();
    let mut made = Made::default();
    let mut peak = None;
    for round in 0..args.rounds {
        let folder = work.path().join(format!("round-{round}"));
        std::fs::create_dir(&folder).map_err(IoError::at(&folder, "create"))?;
        // The first cut says how much is to be copied.
        let mut copy = 0.0;
        if round % 2 == 1 {
            copy = copied(&weights, (read + made.written) / 2, &folder.join("copy"))?;
        }
        let mut seconds;
        (seconds, made) = cut(&recipe, &folder, output)?;
        peak = peak.max(made.peak);
        if round % 2 == 0 {
            copy = copied(&weights, (read + made.written) / 2, &folder.join("copy"))?;
        }
        seconds.copy = copy;
        rounds.push(seconds);
        std::fs::remove_dir_all(&folder).map_err(IoError::at(&folder, "remove"))?;
    }
    made.peak = peak;
    Ok(report(&rounds, read, &made))
}

impl Report {
    /// Its rates, for plans.
    pub fn figures(&self) -> Vec<Figure> {
        let Report { read, written, median, .. } = self;
        let export = median.write + median.proof + median.rest;
        let rates = [
            (Kind::Load, *read, median.load),
            (Kind::Score, *read, median.score),
            (Kind::Cut, read + written, median.cut + median.gate),
            (Kind::Export, *written, export),
        ];
        let figure = |(kind, bytes, seconds): (Kind, u64, f64)| {
            Circumstances::here(kind, "", self.params_before, 0).measured(bytes as f64, seconds)
        };
        rates.into_iter().filter_map(figure).collect()
    }
}

fn report(rounds: &[Seconds], read: u64, made: &Made) -> Report {
    let median = Seconds::median(rounds);
    let moved = read + made.written;
    Report {
        params_before: made.params_before,
        params_after: made.params_after,
        read,
        written: made.written,
        rounds: rounds.len(),
        threads: minic_runtime::threads::count(),
        surgery_gb_per_second: moved as f64 / 1e9 / median.write,
        copy_gb_per_second: moved as f64 / 1e9 / median.copy,
        write_over_copy: median.write / median.copy,
        without_proofs_over_copy: median.without_proofs() / median.copy,
        peak_resident: made.peak,
        median,
    }
}

fn synthesize(config: &Path, target: &Path, output: &Output) -> Result<PathBuf, Failure> {
    let (desc, text) = synth::read_config(config)?;
    let progress = Progress::new(output);
    let watch = Watch::new("synth, MiB", &progress);
    let wanted = Synth { desc: &desc, config: &text, dtype: None, seed: 0, shard: synth::SHARD };
    let made = wanted.write(target, false, &watch);
    progress.clear();
    Ok(made.map_err(|e| synth::failure(config, e))?.folder)
}

/// In the order of their names.
fn weight_files(checkpoint: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(checkpoint).map_err(IoError::at(checkpoint, "list"))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    Ok(files)
}

fn size(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum()
}

/// A copy of so many bytes, in seconds; removed again.
fn copied(files: &[PathBuf], bytes: u64, folder: &Path) -> Result<f64, Failure> {
    std::fs::create_dir(folder).map_err(IoError::at(folder, "create"))?;
    let time = bench::copy(files, bytes, folder)?;
    std::fs::remove_dir_all(folder).map_err(IoError::at(folder, "remove"))?;
    Ok(time.as_secs_f64())
}

/// The recipe, its only checkpoint replaced by `parent`. Its data are found where it lies; it exports below
/// the folder of a round.
fn load_recipe(given: Option<&Path>, parent: &Path, work: &Path) -> Result<Recipe, Failure> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => {
            let path = work.join("surgery.mrecipe");
            let text = magnitude_recipe(&checkpoint::read_desc(parent)?)?;
            std::fs::write(&path, text).map_err(IoError::at(&path, "write"))?;
            path
        }
    };
    let unset = Recipe::load(&path, &[])?;
    let models = unset.ast.declarations.iter().filter_map(|d| match d {
        Declaration::Model(model) => Some(model.name.node.clone()),
        _ => None,
    });
    let [model] = models.collect::<Vec<_>>().try_into().map_err(|_| {
        Failure::new(Exit::Input, format!("{}: a recipe of one checkpoint is wanted", path.display()))
    })?;
    let setting = Override::parse(&format!("{model}.checkpoint={}", parent.display()));
    let overrides: Vec<Override> = setting.into_iter().collect();
    let world = World::new(folder_of(&path), None);
    Recipe::load_in(&path, &overrides, &world)
}

/// Every width that a model has, by the norms of its weights; Nemotron-H 8B becomes the published 4B.
fn magnitude_recipe(desc: &ModelDesc) -> Result<String, Failure> {
    let axes = [
        ("mamba_num_heads", Dim::MambaNumHeads, [(7, 8), (1, 2)]),
        ("ffn_hidden_size", Dim::FfnHiddenSize, [(4, 7), (1, 2)]),
        ("hidden_size", Dim::HiddenSize, [(3, 4), (1, 2)]),
    ];
    for choice in 0..2 {
        let mut sizes = BTreeMap::new();
        let mut lines = String::new();
        for (axis, dim, shares) in axes {
            let Some(size) = desc.dim(dim) else { continue };
            let ((share, of), unit) = (shares[choice], dim.within().map_or(1, |outer| desc.size(outer)));
            let kept = (size * share / of / unit).max(1) * unit;
            sizes.insert(dim, kept);
            let _ = writeln!(lines, "    axis {axis} = {kept} by magnitude");
        }
        let layers: Vec<usize> = (0..desc.layers.len()).collect();
        let student = desc.resized(&sizes, &layers);
        if student.family().constraint(&student).is_ok() && student.params() < desc.params() {
            let floor = desc.dt_conflict.map_or(String::new(), |_| format!("; dt_floor = {}", desc.dt.lo));
            return Ok(format!(
                "mrecipe 1\n\nmodel parent {{ checkpoint = \"parent\"{floor} }}\nmetric magnitude(w) = l2(w)\n\
                 prune student from parent {{\n{lines}}}\nexport student to \"out\" {{ shard = 5GB }}\n"
            ));
        }
    }
    Err(Failure::new(Exit::Input, "no cut of this model is known to the benchmark")
        .help("name a recipe: --recipe"))
}

/// What a cut made.
#[derive(Default)]
struct Made {
    params_before: u64,
    params_after: u64,
    /// Bytes.
    written: u64,
    peak: Option<u64>,
}

/// Runs the recipe into `out`; all but the copy's seconds.
fn cut(recipe: &Recipe, out: &Path, output: &Output) -> Result<(Seconds, Made), Failure> {
    let plan = recipe::plan(recipe.checked(output)?)?;
    let progress = Progress::new(output);
    let timed = Timed::new(&progress);
    let base = folder_of(Path::new(recipe.file()));
    let settings = Settings {
        proof_memory: minic_runtime::memory::available() / 2,
        ..Settings::new(recipe.file(), &recipe.standalone(), base, out.into())
    };
    // A store of its own, so that nothing is known before.
    let root = out.with_extension("store");
    let summary = run::run(&plan, &Cpu, &settings, &Store::open(&root)?, &timed)?;
    std::fs::remove_dir_all(&root).map_err(IoError::at(&root, "remove"))?;
    progress.clear();
    let proofs = |kept: &dyn Fn(&String) -> bool| {
        summary.proof_seconds.iter().filter(|(stage, _)| kept(stage)).map(|(_, s)| s).sum::<f64>()
    };
    let gate = proofs(&|stage| summary.cuts.contains_key(stage));
    let proof = proofs(&|stage| !summary.cuts.contains_key(stage));
    let write = summary.write_seconds.values().sum::<f64>();
    let (load, score) = (timed.seconds("load"), timed.seconds("score"));
    let cut = timed.seconds("cut") - gate;
    let rest = summary.seconds - load - score - cut - gate - write - proof;
    let cuts = || summary.cuts.values();
    let exported = summary.exports.values().map(|export| weight_files(&export.folder));
    let exported = exported.collect::<Result<Vec<_>, _>>()?.concat();
    let made = Made {
        params_before: cuts().map(|step| step.proof.params_before).max().unwrap_or(0),
        params_after: cuts().map(|step| step.proof.params_after).min().unwrap_or(0),
        written: size(&exported),
        peak: timed.peak(),
    };
    Ok((Seconds { load, score, cut, write, rest, gate, proof, copy: 0.0 }, made))
}

fn text(report: &Report) -> String {
    let Report { params_before, params_after, median, .. } = report;
    let mut table = Table::new(&["what", ">seconds", "remark"]);
    let moved = bytes(report.read + report.written);
    let rate = |gb: f64| format!("{moved} read and written, {gb:.2} GB/s");
    for (what, seconds, remark) in [
        ("load", median.load, "digests of the parent included".into()),
        ("score", median.score, String::new()),
        ("choose", median.cut, String::new()),
        ("write", median.write, rate(report.surgery_gb_per_second)),
        ("rest", median.rest, "provenance, renaming".into()),
        ("all without proofs", median.without_proofs(), String::new()),
        ("gate", median.gate, "masked against cut".into()),
        ("proof", median.proof, "the folder read back".into()),
        ("plain copy", median.copy, rate(report.copy_gb_per_second)),
    ] {
        table.row(vec![what.into(), format!("{seconds:.2}"), remark]);
    }
    let peak = report.peak_resident.map_or("not known here".to_string(), bytes);
    format!(
        "{} -> {} parameters, {} threads, median of {}\n\n{}\nwrite / copy {:.2}, all without proofs / copy {:.2}; peak resident memory {peak}\n",
        grouped(*params_before),
        grouped(*params_after),
        report.threads,
        recipe::count(report.rounds, "round"),
        table.render(|_, line| line),
        report.write_over_copy,
        report.without_proofs_over_copy,
    )
}
