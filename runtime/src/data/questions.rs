//! Questions and their answers: two fields of every row of JSONL or Parquet. A question and its answer are one
//! sample, padded behind to the length of all samples; what stands behind an answer changes nothing before it.

use super::encoder::{Encoder, MOST_HELD};
use super::files::{Form, Format};
use super::packed::Unpacked;
use super::rows::{Leftovers, Place, Row, Rows};
use super::{Context, DEFAULT_FIELD, DataError, FileRecord, Samples, arrays, files, jsonl, parquet};
use crate::checkpoint::digest_file;
use crate::input;
use crate::random::SplitMix64;
use crate::tokens::Tokenizer;
use minic_compiler::hir;
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// The id that samples are padded with. No figure depends on it.
const PADDING: u32 = 0;

/// A question, and the part of its tokens that is the answer.
struct Question {
    tokens: Vec<u32>,
    answer: Range<usize>,
}

/// The questions of a declaration whose `answer` is this field, all in the order of the files, or so many
/// `samples` in the order of a seeded shuffle.
pub(super) fn load(data: &hir::Data, answer: &str, context: &Context) -> Result<Samples, DataError> {
    let encoder = Encoder::new(context);
    let field = data.field.as_deref().unwrap_or(DEFAULT_FIELD);
    let patterns: Vec<String> = data.mix.iter().flat_map(|source| source.files.iter().cloned()).collect();
    let (mut questions, mut records) = (Vec::new(), Vec::new());
    for path in files::expand(context.base, &patterns)? {
        let digest = digest_file(&path)?;
        let (read, leftovers) = read(&path, field, answer, data.sequence, &encoder)?;
        leftovers.judge(&path, data.bad_rows)?;
        let tokens = read.iter().map(|question| question.tokens.len()).sum();
        questions.extend(read);
        records.push(FileRecord { path, digest, tokens, leftovers });
    }
    if questions.is_empty() {
        return Err(DataError::Empty { files: patterns });
    }
    let order = match data.samples {
        Some(n) if n > questions.len() => {
            return Err(DataError::TooFewQuestions {
                wanted: n,
                found: questions.len(),
                files: patterns.join(", "),
            });
        }
        Some(n) => SplitMix64::stream(data.seed, 0).sample(questions.len(), n),
        None => (0..questions.len()).collect(),
    };
    if order.len().saturating_mul(data.sequence) > MOST_HELD {
        return Err(DataError::too_many(patterns.join(", ")));
    }
    Ok(padded(order.iter().map(|&i| &questions[i]), data.sequence, records))
}

fn padded<'q>(
    questions: impl Iterator<Item = &'q Question>,
    sequence: usize,
    files: Vec<FileRecord>,
) -> Samples {
    let (mut tokens, mut answers) = (Vec::new(), Vec::new());
    for question in questions {
        tokens.extend(&question.tokens);
        tokens.resize((answers.len() + 1) * sequence, PADDING);
        answers.push(question.answer.clone());
    }
    let windows = super::sampling::digest(sequence, &tokens);
    let mut hasher = blake3::Hasher::new();
    hasher.update(windows.as_bytes());
    for answer in &answers {
        hasher.update(&(answer.start as u64).to_le_bytes()).update(&(answer.end as u64).to_le_bytes());
    }
    let digest = hasher.finalize().to_hex().to_string();
    Samples { sequence, tokens, answers: Some(answers), files, digest }
}

/// Keeps rows as they are.
#[derive(Default)]
struct Kept(Vec<(Place, Result<Row, String>)>);

impl Rows for Kept {
    fn push(&mut self, at: Place, row: Result<Row, String>) -> Result<(), DataError> {
        self.0.push((at, row));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        Ok(())
    }
}

/// The rows of one field, or why one cannot be read.
type Column = Vec<(Place, Result<Row, String>)>;

fn read(
    path: &Path,
    field: &str,
    answer: &str,
    sequence: usize,
    encoder: &Encoder,
) -> Result<(Vec<Question>, Leftovers), DataError> {
    let column = |name: &str| -> Result<Column, DataError> {
        let mut rows = Kept::default();
        let form = Form::of(path)?;
        match form.format {
            Format::Jsonl => jsonl::read(&mut Unpacked::open(path, form.packing)?, name, &mut rows)?,
            Format::Parquet => parquet::read(path, input::open(path)?, name, &mut rows)?,
            Format::Text | Format::Npy | Format::Safetensors | Format::Raw(_) => {
                let reason = "questions and answers are fields of JSONL or Parquet rows".into();
                return Err(DataError::Format { path: path.to_path_buf(), reason });
            }
        }
        Ok(rows.0)
    };
    let (asked, answered) = (column(field)?, column(answer)?);
    let is_text = |(_, row): &(Place, Result<Row, String>)| matches!(row, Ok(Row::Text(_)));
    let tokenizer = asked.iter().any(is_text).then(|| encoder.tokenizer(path)).transpose()?;
    let mut leftovers = Leftovers { rows: asked.len() as u64, ..Leftovers::default() };
    let pairs: Vec<_> = asked.into_iter().zip(answered).collect();
    let made: Vec<(Place, Result<Question, String>)> = pairs
        .into_par_iter()
        .map(|((at, asked), (_, answered))| (at, question(asked, answered, sequence, tokenizer)))
        .collect();
    let mut questions = Vec::new();
    for (at, question) in made {
        match question {
            Ok(question) => {
                arrays::check_ids(path, 0, &question.tokens, encoder.vocab_size())?;
                questions.push(question);
            }
            Err(reason) => leftovers.leave_out(at, reason),
        }
    }
    Ok((questions, leftovers))
}

fn question(
    asked: Result<Row, String>,
    answered: Result<Row, String>,
    sequence: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<Question, String> {
    let (tokens, start) = match (asked?, answered?, tokenizer) {
        (Row::Text(asked), Row::Text(answered), Some(tokenizer)) => encoded(&asked, &answered, tokenizer)?,
        (Row::Ids(mut tokens), Row::Ids(answered), _) => {
            let start = tokens.len();
            tokens.extend(answered);
            (tokens, start)
        }
        _ => return Err("of its question and its answer one is a text and one a list of token ids".into()),
    };
    if start == 0 || start == tokens.len() {
        return Err(format!("its {} is empty", if start == 0 { "question" } else { "answer" }));
    }
    if tokens.len() > sequence {
        return Err(format!("takes {} tokens, and `sequence` is {sequence}", tokens.len()));
    }
    Ok(Question { answer: start..tokens.len(), tokens })
}

/// The tokens of a question with its answer, and where the answer begins. A model that is asked sees the
/// tokens of the question alone, so these must stay the same when the answer follows.
fn encoded(asked: &str, answered: &str, tokenizer: &Tokenizer) -> Result<(Vec<u32>, usize), String> {
    let encode = |text: &str| tokenizer.encode(text).map_err(|e| e.to_string());
    let (alone, whole) = (encode(asked)?, encode(&format!("{asked}{answered}"))?);
    if !whole.starts_with(&alone) {
        return Err(
            "the tokens of its question change when its answer follows; begin the answer with the blank"
                .into(),
        );
    }
    Ok((whole, alone.len()))
}
