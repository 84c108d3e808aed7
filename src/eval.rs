//! `minic eval CHECKPOINT --data FILE..`

use crate::device::DeviceArgs;
use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::remote;
use minic_compiler::dim::Dim;
use minic_compiler::hir;
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::data::{self, Context};
use minic_runtime::evaluate::{Comparison, Figures, evaluate};
use minic_runtime::events::Watch;
use minic_runtime::run::RunError;
use minic_runtime::samples::Pass;
use minic_runtime::source::WeightSource;
use minic_runtime::tokens;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder, or `hf://org/name@revision`
    checkpoint: PathBuf,
    /// Text, JSONL, Parquet or token arrays; the tokens of all files are put one after the other
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Tokens of a window; each predicts its positions 2 to N, a short last window is dropped
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    sequence: u32,
    /// Take so many windows, picked by a seeded shuffle, instead of all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// The field of JSONL and Parquet rows that holds a text or token ids
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// The field of answers: rows are questions, and the share that is answered is reported
    #[arg(long, value_name = "NAME")]
    answer: Option<String>,
    /// Also report the divergence from this checkpoint
    #[arg(long, value_name = "CHECKPOINT")]
    teacher: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::here().computes(&mut self.device)
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let device = args.device.open(output)?;
    let model = open(&args.checkpoint, output)?;
    let teacher = args.teacher.as_ref().map(|t| open(t, output)).transpose()?;
    if let Some(teacher) = &teacher {
        same_vocabulary(&model, teacher)?;
    }
    let data = declaration(args);
    let context = Context {
        base: Path::new(""),
        tokenizer: Some(model.base().folder()),
        vocab_size: model.desc().size(Dim::VocabSize),
        eos: tokens::eos_id(&model.desc().config),
        cache: None,
    };
    let samples = data::load(&data, &context).map_err(RunError::from)?;
    samples.notes().iter().for_each(|note| output.note(note));
    let windows: Vec<&[u32]> = samples.windows().collect();
    let progress = Progress::new(output);
    let watch = Watch::new("eval", &progress);
    let mut models = vec![("model", &model)];
    models.extend(teacher.as_ref().map(|t| ("teacher", t)));
    let comparison = Comparison { model: "model", against: teacher.as_ref().map(|_| "teacher") };
    let pass = Pass { answers: samples.answers(), ..Pass::over(&windows, &watch) };
    let figures = evaluate(device.as_ref(), &models, &[comparison], &pass)?;
    progress.clear();
    let Some(figures) = figures.into_iter().next() else {
        return Err(RunError::NoSamples.into());
    };
    if output.json {
        output.document(&figures)?;
    } else {
        output.answer(&text(&figures))?;
    }
    Ok(Exit::Done)
}

/// A checkpoint, with its notes told.
pub fn open(folder: &Path, output: &Output) -> Result<WeightSource, Failure> {
    let checkpoint = Checkpoint::open(&remote::folder(folder, output)?)?;
    checkpoint.notes().iter().for_each(|note| output.note(note));
    Ok(WeightSource::new(Arc::new(checkpoint)))
}

fn same_vocabulary(model: &WeightSource, teacher: &WeightSource) -> Result<(), Failure> {
    let size = |m: &WeightSource| m.desc().size(Dim::VocabSize);
    if size(model) == size(teacher) {
        return Ok(());
    }
    let message = format!(
        "the vocabularies differ: the model's has {} tokens, the teacher's {}",
        size(model),
        size(teacher)
    );
    Err(Failure::new(Exit::Input, message))
}

fn declaration(args: &Args) -> hir::Data {
    hir::Data {
        mix: vec![hir::Source { files: args.data.clone(), weight: 1.0 }],
        sequence: args.sequence as usize,
        samples: args.samples.map(|n| n as usize),
        seed: 0,
        epochs: 1.0,
        field: args.field.clone(),
        answer: args.answer.clone(),
        tokenizer: None,
        bad_rows: None,
        span: Default::default(),
    }
}

fn text(figures: &Figures) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "loss        {:.5} nats per token", figures.loss);
    let _ = writeln!(out, "perplexity  {:.4}", figures.perplexity);
    let _ = writeln!(out, "top1        {:.2} %", figures.top1 * 100.0);
    if let Some(kl) = figures.kl {
        let _ = writeln!(out, "kl          {kl:.5} nats per token");
    }
    if let (Some(accuracy), Some(questions)) = (figures.accuracy, figures.questions) {
        let _ = writeln!(out, "accuracy    {:.2} % of {questions} questions", accuracy * 100.0);
    }
    let _ = writeln!(out, "tokens      {}", figures.tokens);
    out
}
