//! `minic diff A B`

mod checkpoint;
mod figures;
mod kept;
mod lines;
mod model;
mod run;

use crate::output::{Exit, Failure, Output};
use crate::report;
use crate::table::Table;
use minic_runtime::checkpoint::CONFIG_FILE;
use minic_runtime::run::Summary;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint, the folder of a run, or a recipe that was run
    a: PathBuf,
    /// What it is compared with
    b: PathBuf,
    /// Write two runs side by side as a page, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A part of the answer, for people and for programs.
pub struct Section {
    pub name: &'static str,
    /// Empty where there is nothing to say.
    pub parts: Vec<Part>,
    json: Value,
}

pub enum Part {
    Text(String),
    Table {
        title: String,
        table: Table,
    },
    /// Lines of a text that differ, below its name.
    Lines(String, Vec<String>),
}

impl Section {
    fn text(&self) -> String {
        let apart = |(i, part): (usize, &Part)| match part {
            Part::Table { .. } if i > 0 => format!("\n{}", part.text()),
            _ => part.text(),
        };
        self.parts.iter().enumerate().map(apart).collect()
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Part::Text(text) => format!("{text}\n"),
            Part::Table { title, table } => {
                format!("{title}\n{}", table.render(|_, line| format!("    {line}")))
            }
            Part::Lines(title, lines) => {
                format!("{title}\n{}", lines.iter().map(|line| format!("    {line}\n")).collect::<String>())
            }
        }
    }
}

enum Subject {
    /// The result of a run.
    Run(PathBuf),
    Checkpoint(PathBuf),
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let (kind, sections) = match (Subject::of(&args.a)?, Subject::of(&args.b)?) {
        (Subject::Run(a), Subject::Run(b)) => {
            let (a, b) = (Summary::read(&a)?, Summary::read(&b)?);
            let sections = run::compare(&a, &b, output);
            if let Some(file) = &args.html {
                let named =
                    |summary, path: &PathBuf| report::Named { name: path.display().to_string(), summary };
                let page = report::comparison(&named(&a, &args.a), &named(&b, &args.b), &sections);
                report::write(file, &page, output)?;
            }
            ("runs", sections)
        }
        (Subject::Checkpoint(_), Subject::Checkpoint(_)) if args.html.is_some() => {
            return Err(Failure::new(
                Exit::Input,
                "--html: a page is made of runs, and these are checkpoints",
            )
            .help("name the recipes that made them, or their run folders: `.minic/runs/NAME`"));
        }
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
        let parts = sections.iter().filter(|s| !s.parts.is_empty()).map(|s| format!("\n{}", s.text()));
        output.answer(&(head + &parts.collect::<String>()))?;
    }
    Ok(Exit::Done)
}

impl Subject {
    fn of(path: &Path) -> Result<Subject, Failure> {
        if path.join(CONFIG_FILE).is_file() {
            return Ok(Subject::Checkpoint(path.to_path_buf()));
        }
        match report::result_of(path)? {
            Some(result) => Ok(Subject::Run(result)),
            None => {
                let message = format!("{}: is neither a checkpoint nor a run", path.display());
                Err(Failure::new(Exit::Input, message).help(
                    "a checkpoint has config.json; a run has result.json, once it has ended: `.minic/runs/NAME`",
                ))
            }
        }
    }
}

/// A number and the sign of a difference: `+0.1234`.
fn signed(difference: f64, decimals: usize) -> String {
    format!("{difference:+.decimals$}")
}
