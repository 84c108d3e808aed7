//! The command line of minic: one file a subcommand, and what they share.

mod bench;
mod cache;
mod check;
mod completions;
mod device;
mod diff;
mod doctor;
mod eval;
mod explain;
mod figures;
mod fmt;
mod graph;
mod inspect;
mod logits;
mod lsp;
mod machine;
mod merge;
mod output;
mod plan;
mod progress;
mod recipe;
mod remote;
mod report;
mod run;
mod synth;
mod system;
mod table;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};
use machine::{Machine, Wanted};
use output::{Exit, Failure, Globals, Output};
use std::process::ExitCode;

/// Prunes hybrid Mamba2/attention language models from a recipe.
#[derive(Parser)]
#[command(name = "minic", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a recipe: prune, prove, evaluate and export
    Run(run::Args),
    /// Join what runs with `--shard` computed
    Merge(merge::Args),
    /// Report everything that is wrong with recipes, and run nothing
    Check(check::Args),
    /// Show what a run would do: every stage, every shape, what it costs
    Plan(plan::Args),
    /// Draw the plan
    Graph(graph::Args),
    /// Lay recipes out in the one canonical way
    Fmt(fmt::Args),
    /// Explain a diagnostic code, or how a stage of a recipe comes about
    Explain(explain::Args),
    /// Say what a checkpoint is
    Inspect(inspect::Args),
    /// Measure loss, perplexity and accuracy of a checkpoint
    Eval(eval::Args),
    /// Write the logits of given tokens, for other programs to compare
    Logits(logits::Args),
    /// Prove a folder again that minic exported
    Verify(verify::Args),
    /// Write an untrained checkpoint of any supported config
    Synth(synth::Args),
    /// Show two runs or two checkpoints side by side
    Diff(diff::Args),
    /// Make the page of a run that has ended
    Report(report::Args),
    /// Measure how fast this machine does what minic asks of it
    Bench(bench::Args),
    /// Look into the artifact store, and clear it up
    Cache(cache::Args),
    /// Say what would run where on this machine, and what would not
    Doctor(doctor::Args),
    /// Serve editors: diagnostics as you type, over the language server protocol on standard input and output
    Lsp(lsp::Args),
    /// Print the completions of the command line for a shell
    Completions(completions::Args),
}

impl Command {
    /// What of it belongs to the machine; nothing where it would not matter.
    fn wanted(&mut self) -> Option<Wanted<'_>> {
        Some(match self {
            Command::Run(args) => args.wanted(),
            Command::Merge(args) => args.wanted(),
            Command::Check(args) => args.wanted(),
            Command::Plan(args) => args.wanted(),
            Command::Graph(args) => args.wanted(),
            Command::Explain(args) => args.wanted(),
            Command::Eval(args) => args.wanted(),
            Command::Logits(args) => args.wanted(),
            Command::Bench(args) => args.wanted(),
            Command::Cache(args) => args.wanted(),
            Command::Doctor(args) => args.wanted(),
            Command::Inspect(_)
            | Command::Verify(_)
            | Command::Synth(_)
            | Command::Diff(_)
            | Command::Report(_) => Wanted::here(),
            Command::Fmt(_) | Command::Lsp(_) | Command::Completions(_) => return None,
        })
    }
}

fn main() -> ExitCode {
    // A layer of Mesa's would reorder the adapters by what shows the desktop, and complain where there is none.
    // SAFETY: no thread has been started.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let output = Output::new(&cli.globals);
    let exit = finish(run(cli, &output), &output);
    output.point_to_pages();
    exit.into()
}

fn run(mut cli: Cli, output: &Output) -> Result<Exit, Failure> {
    let wanted = cli.command.wanted();
    let threads = cli.globals.threads;
    let machine = match wanted {
        Some(wanted) => Machine::settle(Wanted { threads, ..wanted }, output)?,
        None => Machine::default(),
    };
    match &cli.command {
        Command::Run(args) => run::run(args, output),
        Command::Merge(args) => merge::run(args, output),
        Command::Check(args) => check::run(args, output),
        Command::Plan(args) => plan::run(args, output),
        Command::Graph(args) => graph::run(args, output),
        Command::Fmt(args) => fmt::run(args, output),
        Command::Explain(args) => explain::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Eval(args) => eval::run(args, output),
        Command::Logits(args) => logits::run(args, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Synth(args) => synth::run(args, output),
        Command::Diff(args) => diff::run(args, output),
        Command::Bench(args) => bench::run(args, output),
        Command::Cache(args) => cache::run(args, output),
        Command::Doctor(args) => doctor::run(args, &machine, output),
        Command::Report(args) => report::run(args, output),
        Command::Lsp(args) => lsp::run(args),
        Command::Completions(args) => completions::run(args, Cli::command(), output),
    }
}

fn finish(done: Result<Exit, Failure>, output: &Output) -> Exit {
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    }
}
