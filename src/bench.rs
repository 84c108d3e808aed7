//! `minic bench`: how fast this machine does what minic asks of it.

mod surgery;

use crate::output::{Exit, Failure, Output};
use clap::Subcommand;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cut a large checkpoint by its weights alone, beside a plain copy of as many bytes
    Surgery(surgery::Args),
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    match &args.what {
        What::Surgery(args) => surgery::run(args, output),
    }
}
