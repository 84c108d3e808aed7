//! `minic bench`: how fast this machine does what minic asks of it.

mod decode;
mod kernels;
mod recipe;
mod surgery;
mod throughput;

use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::folder_of;
use clap::Subcommand;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every shader of a model's blocks at their true sizes, forwards and in reverse
    Kernels(kernels::Args),
    /// Tokens a second of a whole model, forwards
    Forward(throughput::Args),
    /// Tokens a second of updates of a whole model: forwards, in reverse, and AdamW
    Train(throughput::Args),
    /// Latency and throughput of whole models that decode token by token, side by side
    Decode(decode::Args),
    /// Whatever the times of a recipe's plan follow from: passes, updates and cuts of its models' sizes
    Recipe(recipe::Args),
    /// Cut a large checkpoint by its weights alone, beside a plain copy of as many bytes
    Surgery(surgery::Args),
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        match &mut self.what {
            What::Kernels(args) => Wanted::here().computes(&mut args.device),
            What::Forward(args) | What::Train(args) => Wanted::here().computes(&mut args.device),
            What::Decode(args) => Wanted::here().computes(&mut args.device),
            What::Recipe(args) => Wanted::at(folder_of(&args.recipe)).computes(&mut args.device),
            What::Surgery(_) => Wanted::here(),
        }
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    match &args.what {
        What::Kernels(args) => kernels::run(args, output),
        What::Forward(args) => throughput::run(throughput::What::Forward, args, output),
        What::Train(args) => throughput::run(throughput::What::Train, args, output),
        What::Decode(args) => decode::run(args, output),
        What::Recipe(args) => recipe::run(args, output),
        What::Surgery(args) => surgery::run(args, output),
    }
}
