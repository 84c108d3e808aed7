//! `minic verify DIR`

use crate::output::{Exit, Failure, Output};
use crate::table::grouped;
use minic_runtime::provenance;
use minic_runtime::run::RunError;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// A folder that minic exported
    folder: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let verified = provenance::verify(&args.folder).map_err(RunError::from)?;
    if output.json {
        output.document(&json!({
            "model": verified.model,
            "params": verified.params,
            "files": verified.files,
            "tensors": verified.tensors,
            "steps": verified.steps,
        }))?;
    } else {
        output.answer(&format!(
            "{}: proved: `{}`, {} parameters in {} tensors, {} files as recorded, kept indices of {} cuts in order\n",
            args.folder.display(),
            verified.model,
            grouped(verified.params),
            verified.tensors,
            verified.files,
            verified.steps
        ))?;
    }
    Ok(Exit::Done)
}
