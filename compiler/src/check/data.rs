//! `data NAME { .. }`, and how many tokens it has where that can be counted.

use super::Checker;
use super::named::{Named, word};
use super::names::{Want, legible};
use crate::hir;
use minic_grammar::ast::{Expr, ExprKind, Ident, Settings, Unit};
use minic_grammar::{Diagnostic, Help, Span, Spanned};

pub(crate) const KEYS: &[Named] = &[
    FILES,
    word(
        "mix",
        "several sources with weights, `[{ files = [..]; weight = 70% }, ..]`, in the place of `files`",
    ),
    word("sequence", "tokens of one window"),
    word("samples", "how many windows are drawn; without it, all"),
    word("seed", "decides which windows are drawn, and their order; 0 by default"),
    word("epochs", "how often a schedule may pass over the data; 1 by default"),
    word("field", "the field of a row that is read, a text or a list of token ids; `\"text\"` by default"),
    word("answer", "the field of the answer: each row is a question, a sample by itself, for `evaluate`"),
    word("tokenizer", "a tokenizer.json other than the model's"),
    word("bad_rows", "the most rows that one file may lose because they cannot be read: `1%`, or how many"),
];

/// Of one source of a mix.
pub(crate) const SOURCE_KEYS: &[Named] = &[
    FILES,
    word("weight", "its share of the samples: percentages that sum to 100%, or numbers to be weighed"),
];

const FILES: Named =
    word("files", "paths and globs, relative to the recipe, or `hf://datasets/org/name/path`");

/// What is known of a declared data source.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub sequence: Option<usize>,
    /// Upper bound of the tokens that a schedule may take from it, `epochs` included.
    pub most_tokens: Option<f64>,
    pub epochs: f64,
    /// Its rows are questions; the place of `answer`.
    pub answer: Option<Span>,
}

impl<'a> Checker<'a> {
    pub(super) fn data(&mut self, data: &'a Settings) {
        let name = &data.name.node;
        let fields = self.fields(format!("data `{name}`"), data.name.span, &data.settings, data.span, KEYS);
        let mix = match (fields.get("files"), fields.get("mix")) {
            (Some(files), None) => self.files(files).map(|files| vec![hir::Source { files, weight: 1.0 }]),
            (None, Some(mix)) => self.mix(mix),
            (Some(_), Some(mix)) => {
                let place = fields.key("mix").map_or(mix.span, |k| k.span);
                self.report(
                    Diagnostic::new("E0801", place, format!("data `{name}` has both `files` and `mix`"))
                        .label("several sources")
                        .also(fields.key("files").map_or(place, |k| k.span), "one source")
                        .help("keep `files` for one source, or `mix` for several with weights"),
                );
                None
            }
            (None, None) => {
                self.report(
                    Diagnostic::new("E0801", data.name.span, format!("data `{name}` names no files"))
                        .label("`files` is missing")
                        .help("add `files = [\"data/*.txt\"]`, or `mix` for several sources with weights"),
                );
                None
            }
        };
        let sequence = self.required(&fields, "sequence", "4096");
        let sequence = sequence.and_then(|e| self.size(e, "a sequence", 2));
        let samples = fields.get("samples").map(|e| self.size(e, "the number of samples", 1));
        let seed = fields.get("seed").map_or(Some(0), |e| self.whole(e));
        let epochs = fields.get("epochs").map_or(Some(1.0), |e| self.positive(e, "`epochs`"));
        let field = fields.get("field").map(|e| self.string(e, "the name of the text field"));
        let answer = fields.get("answer").map(|e| self.string(e, "the name of the field of answers"));
        if let (Some(key), Some(_)) = (fields.key("answer"), fields.get("mix")) {
            self.report(
                Diagnostic::new("E0802", key.span, "questions are not mixed")
                    .label("each row is a sample")
                    .help("name the files of questions with `files`, one `data` for each kind of question"),
            );
        }
        let tokenizer = fields.get("tokenizer").map(|e| self.string(e, "the path of the tokenizer"));
        let bad_rows = fields.get("bad_rows").map(|e| self.bad_rows(e));
        if !self.is_first(&data.name) {
            return;
        }
        let known = Known {
            sequence,
            most_tokens: self.most_tokens(mix.as_deref(), sequence, samples.flatten(), epochs.unwrap_or(1.0)),
            epochs: epochs.unwrap_or(1.0),
            answer: fields.key("answer").map(|key| key.span),
        };
        self.data.insert(name, known);
        let item = || {
            Some(hir::Data {
                mix: mix?,
                sequence: sequence?,
                samples: transposed(samples)?,
                seed: seed?,
                epochs: epochs?,
                field: transposed(field)?,
                answer: transposed(answer)?,
                tokenizer: transposed(tokenizer)?,
                bad_rows: transposed(bad_rows)?,
                span: data.span,
            })
        };
        if let Some(item) = item() {
            self.out.data.insert(name.clone(), item);
        }
    }

    /// `1%` of the rows of a file, or a whole number of them.
    fn bad_rows(&mut self, expr: &Expr) -> Option<hir::BadRows> {
        let number = self.number(expr)?;
        if number.unit != Unit::Percent {
            return self.whole(expr).map(hir::BadRows::Count);
        }
        let share = number.value;
        if (0.0..=1.0).contains(&share) {
            return Some(hir::BadRows::Share(share));
        }
        self.report(
            Diagnostic::new("E0304", expr.span, "`bad_rows` is a share of the rows, 0% to 100%")
                .label(format!("this is {}%", round(share * 100.0)))
                .help("write a percentage such as `1%`, or how many rows a file may lose"),
        );
        None
    }

    fn files(&mut self, expr: &Expr) -> Option<Vec<String>> {
        let files = self.strings(expr, "files")?;
        if let Some(empty) = files.iter().find(|f| f.node.trim().is_empty()) {
            self.report(
                Diagnostic::new("E0801", empty.span, "the name of a file is empty")
                    .help("name a file, or a pattern such as `data/*.txt`"),
            );
            return None;
        }
        self.unmatched(&files);
        Some(files.into_iter().map(|f| f.node).collect())
    }

    fn unmatched(&mut self, files: &[Spanned<String>]) {
        let plain: Vec<String> = files.iter().map(|f| f.node.clone()).collect();
        let Some(facts) = self.environment.data(&plain) else { return };
        for file in files.iter().filter(|f| facts.unmatched.contains(&f.node)) {
            self.report(
                Diagnostic::new("W0801", file.span, format!("no file matches `{}`", file.node))
                    .label("matches nothing now")
                    .help(format!(
                        "mend `{}`: paths are relative to the folder of the recipe",
                        legible(&file.node)
                    )),
            );
        }
    }

    /// `[{ files = [..]; weight = 70% }, ..]`, its weights made to sum to one.
    fn mix(&mut self, expr: &'a Expr) -> Option<Vec<hir::Source>> {
        let ExprKind::List(items) = &expr.kind else {
            self.report(malformed_mix(expr.span));
            return None;
        };
        if items.is_empty() {
            self.report(malformed_mix(expr.span));
            return None;
        }
        if let Some(other) = items.iter().find(|item| !matches!(item.kind, ExprKind::Record(_))) {
            self.report(malformed_mix(other.span));
            return None;
        }
        let sources: Vec<Option<hir::Source>> = items.iter().map(|item| self.source(item)).collect();
        let mut sources: Vec<hir::Source> = sources.into_iter().collect::<Option<_>>()?;
        let sum: f64 = sources.iter().map(|s| s.weight).sum();
        let percents = items.iter().all(in_percent);
        if percents && (sum - 1.0).abs() > 1e-6 {
            self.report(
                Diagnostic::new("E0802", expr.span, "the weights of the mix do not sum to 100%")
                    .label(format!("they sum to {}%", round(sum * 100.0)))
                    .help(off_by(sum)),
            );
        }
        sources.iter_mut().for_each(|s| s.weight /= sum);
        Some(sources)
    }

    fn source(&mut self, item: &'a Expr) -> Option<hir::Source> {
        let ExprKind::Record(settings) = &item.kind else { return None };
        let fields = self.fields("a source of a mix".into(), item.span, settings, item.span, SOURCE_KEYS);
        let files = self.required(&fields, "files", "[\"data/*.txt\"]").and_then(|e| self.files(e));
        let weight = self.required(&fields, "weight", "50%").and_then(|e| self.positive(e, "a weight"));
        Some(hir::Source { files: files?, weight: weight? })
    }

    /// A number above zero.
    pub(super) fn positive(&mut self, expr: &Expr, what: &str) -> Option<f64> {
        let value = self.plain(expr)?;
        if value > 0.0 {
            return Some(value);
        }
        let above = value.abs().to_string();
        self.report(
            Diagnostic::new("E0304", expr.span, format!("{what} must be greater than zero"))
                .label(format!("this is {value}"))
                .help(match value < 0.0 {
                    true => Help::instead(format!("write a number above 0: `{above}`"), [above]),
                    false => "write a number above 0, such as `0.5`".into(),
                }),
        );
        None
    }

    fn most_tokens(
        &self,
        mix: Option<&[hir::Source]>,
        sequence: Option<usize>,
        samples: Option<usize>,
        epochs: f64,
    ) -> Option<f64> {
        let drawn = samples.zip(sequence).map(|(n, l)| n as f64 * l as f64);
        // In a mix the scarcest source bounds the rest; only a single source is counted here.
        let files = match mix {
            Some([only]) => {
                self.environment.data(&only.files).filter(|f| f.unmatched.len() < only.files.len())
            }
            _ => None,
        };
        let stored = files.and_then(|f| f.most_tokens).map(|t| t as f64);
        let least = [drawn, stored].into_iter().flatten().reduce(f64::min);
        least.map(|tokens| tokens * epochs)
    }

    pub(super) fn resolve_data(&mut self, ident: &Ident) -> Option<&'a str> {
        self.resolve(ident, Want::Data)
    }

    /// The same, of data that is read as one text: to calibrate on, to train on.
    pub(super) fn resolve_text(&mut self, ident: &Ident) -> Option<&'a str> {
        let name = self.resolve_data(ident)?;
        if let Some(answer) = self.data.get(name).and_then(|known| known.answer) {
            self.report(
                Diagnostic::new("E0804", ident.span, format!("the rows of `{name}` are questions"))
                    .label("text is wanted here")
                    .also(answer, "their answers")
                    .help("questions are for `evaluate`: name other data here, or declare the files a second time without `answer`"),
            );
        }
        Some(name)
    }

    /// Who asks for `accuracy` needs questions.
    pub(super) fn accuracy_of(&mut self, data: Option<&str>, measure: Span) {
        let known = data.and_then(|name| Some((name, self.data.get(name)?)));
        let Some((name, _)) = known.filter(|(_, known)| known.answer.is_none()) else { return };
        self.report(
            Diagnostic::new("E0908", measure, format!("`accuracy` counts answers, and `{name}` has none"))
                .label("which answers?")
                .help(format!(
                    "say which field of `{name}` holds them, `answer = \"answer\"`, or measure `top1`"
                )),
        );
    }

    /// A schedule must not want more tokens than the data can give.
    pub(super) fn enough_tokens(&mut self, data: (&str, Span), wanted: u64, schedule: Span) {
        let Some(known) = self.data.get(data.0) else { return };
        let Some(most) = known.most_tokens.filter(|most| (wanted as f64) > *most) else { return };
        let per_epoch = (most / known.epochs).max(1.0);
        let epochs = (wanted as f64 / per_epoch).ceil();
        let report = Diagnostic::new(
            "E0803",
            data.1,
            format!(
                "`{}` has at most {} tokens, and the schedule wants {}",
                data.0,
                super::value::count(most),
                super::value::count(wanted as f64)
            ),
        )
        .label(format!("{} passes over it would be needed", epochs))
        .also(schedule, "this schedule")
        .help(format!(
            "allow the passes, `epochs = {epochs}` in data `{}`; or add data, or lower `tokens`",
            data.0
        ));
        let declared = self.names.get(data.0).map(|(_, entry)| entry.span);
        let report = declared.into_iter().fold(report, |report, span| report.also(span, "this data"));
        self.report(report);
    }
}

/// A setting that may be left out: absent is fine, unreadable is not.
fn transposed<T>(setting: Option<Option<T>>) -> Option<Option<T>> {
    match setting {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

fn in_percent(item: &Expr) -> bool {
    let ExprKind::Record(settings) = &item.kind else { return false };
    let weight = settings.iter().find(|s| s.key.node == "weight");
    weight.is_some_and(|s| matches!(&s.value.kind, ExprKind::Number(n) if n.unit == Unit::Percent))
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn off_by(sum: f64) -> String {
    let (verb, off) = if sum < 1.0 { ("add", 1.0 - sum) } else { ("take", sum - 1.0) };
    let off = round(off * 100.0);
    format!(
        "{verb} {off}% {} one of them; or write plain numbers, which need not sum to anything",
        if sum < 1.0 { "to" } else { "from" }
    )
}

fn malformed_mix(span: Span) -> Diagnostic {
    Diagnostic::new("E0802", span, "a mix is a list of sources with weights")
        .help("write `mix = [{ files = [\"a.txt\"]; weight = 70% }, { files = [\"b.txt\"]; weight = 30% }]`")
}
