//! `minic synth CONFIG --output DIR`

use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::table::{bytes, grouped};
use minic_compiler::config;
use minic_compiler::families;
use minic_compiler::model::{DType, ModelDesc};
use minic_grammar::ast::Unit;
use minic_runtime::checkpoint::CONFIG_FILE;
use minic_runtime::events::Watch;
use minic_runtime::input;
use minic_runtime::synth::{Synth, SynthError};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A config.json of a supported family, or a folder with one
    config: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Another seed gives other weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// f32, bf16 or f16; without it the config's own, or bf16
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<DType>,
    /// Largest file of weights
    #[arg(long, default_value = "5GB", value_name = "BYTES", value_parser = parse_bytes)]
    shard: u64,
    /// Replace a folder that holds something
    #[arg(long)]
    overwrite: bool,
}

/// Largest file of weights where nothing else is said, as in transformers before its fifth version.
pub const SHARD: u64 = 5_000_000_000;

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let (desc, text) = read_config(&args.config)?;
    let progress = Progress::new(output);
    let watch = Watch::new("synth, MiB", &progress);
    let synth = Synth { desc: &desc, config: &text, dtype: args.dtype, seed: args.seed, shard: args.shard };
    let made = synth.write(&args.output, args.overwrite, &watch);
    progress.clear();
    let made = made.map_err(|e| failure(&args.config, e))?;
    if output.json {
        output.document(&made)?;
    } else {
        let (params, size) = (grouped(made.params), bytes(made.bytes));
        let (dtype, files) = (made.dtype.recipe_name(), made.files.len());
        output.answer(&format!(
            "{}: {} of {params} parameters in {dtype}, {size} in {files} files, seed {}\n",
            args.output.display(),
            made.family,
            made.seed
        ))?;
    }
    Ok(Exit::Done)
}

pub fn failure(config: &Path, error: SynthError) -> Failure {
    let place = match &error {
        SynthError::Config(_) => format!("{}: ", config.display()),
        SynthError::Publish(_) => String::new(),
    };
    Failure::new(error.kind().into(), format!("{place}{error}"))
}

/// A model and the text that describes it.
pub fn read_config(path: &Path) -> Result<(ModelDesc, String), Failure> {
    let path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_path_buf() };
    let wrong = |reason: String| Failure::new(Exit::Input, format!("{}: {reason}", path.display()));
    let bytes = input::read(&path, input::CONFIG)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".into()))?;
    let desc = config::parse(&text).and_then(|map| families::describe(&map)).map_err(|e| {
        let failure = wrong(e.to_string());
        e.help.into_iter().fold(failure, Failure::help)
    })?;
    Ok((desc, text))
}

fn parse_dtype(text: &str) -> Result<DType, String> {
    let named = DType::ALL.iter().copied().find(|d| d.recipe_name() == text);
    named.ok_or_else(|| "expected f32, bf16 or f16".to_string())
}

/// `5GB`, `512MiB`, as in recipes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    match minic_grammar::quantity(text) {
        Some((n, Unit::Bytes)) if n >= 1.0 => Ok(n as u64),
        _ => Err("expected a number of bytes as in 5GB or 512MiB".to_string()),
    }
}
