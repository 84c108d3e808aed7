//! `minic diff A B`

mod checkpoint;
mod figures;
mod kept;
mod lines;
mod model;
mod run;

use crate::output::{Exit, Failure, Output};
use minic_runtime::checkpoint::CONFIG_FILE;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint, the folder of a run, or a recipe that was run
    a: PathBuf,
    /// What it is compared with
    b: PathBuf,
}

/// A part of the answer, for people and for programs.
struct Section {
    name: &'static str,
    /// Empty where there is nothing to say.
    text: String,
    json: Value,
}

enum Subject {
    /// The folder of a run, with its result.
    Run(PathBuf),
    Checkpoint(PathBuf),
}

pub use minic_runtime::run::folder::RESULT_FILE;

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let (kind, sections) = match (Subject::of(&args.a)?, Subject::of(&args.b)?) {
        (Subject::Run(a), Subject::Run(b)) => ("runs", run::compare(&a, &b, output)?),
        (Subject::Checkpoint(a), Subject::Checkpoint(b)) => {
            ("checkpoints", checkpoint::compare(&a, &b, output)?)
        }
        _ => {
            let message = format!(
                "{} and {}: one is a run, the other a checkpoint",
                args.a.display(),
                args.b.display()
            );
            return Err(Failure::new(Exit::Input, message)
                .help("the checkpoints that a run has exported can be compared with others"));
        }
    };
    if output.json {
        let mut document = Map::new();
        document.insert("kind".into(), json!(kind));
        document.insert("a".into(), json!(args.a));
        document.insert("b".into(), json!(args.b));
        document.extend(sections.into_iter().map(|s| (s.name.to_string(), s.json)));
        output.document(&document)?;
    } else {
        let head = format!("a  {}\nb  {}\n", args.a.display(), args.b.display());
        let parts = sections.into_iter().filter(|s| !s.text.is_empty()).map(|s| format!("\n{}", s.text));
        output.answer(&(head + &parts.collect::<String>()))?;
    }
    Ok(Exit::Done)
}

impl Subject {
    fn of(path: &Path) -> Result<Subject, Failure> {
        if path.join(CONFIG_FILE).is_file() {
            return Ok(Subject::Checkpoint(path.to_path_buf()));
        }
        if path.join(RESULT_FILE).is_file() {
            return Ok(Subject::Run(path.to_path_buf()));
        }
        if !path.is_file() {
            let message = format!("{}: is neither a checkpoint nor a run", path.display());
            return Err(Failure::new(Exit::Input, message).help(
                "a checkpoint has config.json; a run has result.json, once it has ended: `.minic/runs/NAME`",
            ));
        }
        let folder = crate::run::run_folder(path);
        if folder.join(RESULT_FILE).is_file() {
            return Ok(Subject::Run(folder));
        }
        let message =
            format!("{}: no run of it has ended: {} has no {RESULT_FILE}", path.display(), folder.display());
        Err(Failure::new(Exit::Input, message).help(format!("run it: `minic run {}`", path.display())))
    }
}

/// A number and the sign of a difference: `+0.1234`.
fn signed(difference: f64, decimals: usize) -> String {
    format!("{difference:+.decimals$}")
}

/// The rows of a table, below a title.
fn titled(title: &str, table: &crate::table::Table) -> String {
    let rows = table.render(|_, line| format!("    {line}"));
    format!("{title}\n{rows}")
}
