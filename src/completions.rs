//! `minic completions SHELL`

use crate::output::{Exit, Failure, Output};
use clap::Command;
use clap_complete::Shell;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

/// `command` is the whole command line.
pub fn run(args: &Args, mut command: Command, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "minic", &mut script);
    let script = String::from_utf8_lossy(&script);
    if output.json {
        output.document(&json!({ "shell": args.shell.to_string(), "script": script }))?;
    } else {
        output.answer(&script)?;
    }
    Ok(Exit::Done)
}
