//! What every subcommand says, and where: the answer on standard output, everything else on standard error.

use crate::machine::parse_threads;
use clap::ColorChoice;
use minic_grammar::render::{self, JsonDiagnostic};
use minic_grammar::{Diagnostic, Severity, Sources};
use minic_runtime::checkpoint::CheckpointError;
use minic_runtime::device::DeviceError;
use minic_runtime::error::{IoError, Kind};
use minic_runtime::publish::PublishError;
use minic_runtime::run::folder::FolderError;
use minic_runtime::run::{ResultError, RunError};
use minic_runtime::store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

/// Options of every subcommand.
#[derive(clap::Args)]
pub struct Globals {
    /// Print one JSON document on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// When to use colors; `auto` heeds NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// Leave out warnings and notes
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Compute with so many threads; by default one a core. No result depends on it
    #[arg(long, global = true, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<usize>,
}

/// How a command ended. A wrong command line, 2, is reported by the parser of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// The recipe or another input is wrong.
    Input = 1,
    /// The world failed: the same command may succeed later.
    World = 3,
    /// What was made is not what was planned.
    Proof = 4,
    /// Stopped by Ctrl-C; the same command goes on.
    Stopped = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Exit {
        match kind {
            Kind::Input => Exit::Input,
            Kind::World => Exit::World,
            Kind::Proof => Exit::Proof,
            Kind::Stopped => Exit::Stopped,
        }
    }
}

/// Why a command gave no answer.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
    help: Option<String>,
    /// Findings that were drawn on standard error already.
    diagnostics: Vec<JsonDiagnostic>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), help: None, diagnostics: Vec::new() }
    }

    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    pub fn diagnostics(mut self, diagnostics: Vec<JsonDiagnostic>) -> Failure {
        self.diagnostics = diagnostics;
        self
    }

    pub fn to_json(&self) -> Value {
        json!({
            "message": self.message,
            "help": self.help,
            "exit": self.exit as u8,
            "diagnostics": self.diagnostics,
        })
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Failure {
        let failure = Failure::new(error.kind().into(), error.to_string());
        match error {
            ResultError::Io(_) => failure,
            ResultError::Invalid { .. } => failure.help("`minic run RECIPE` writes it again, from the store"),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Failure {
        Failure::new(error.kind().into(), error.to_string())
    }
}

/// The two streams, and how much goes there.
pub struct Output {
    pub json: bool,
    pub verbose: bool,
    quiet: bool,
    color: bool,
    /// Standard output takes colors.
    pub styled: bool,
    /// The code of the first error that was drawn.
    drawn: OnceLock<&'static str>,
}

impl Output {
    pub fn new(globals: &Globals) -> Output {
        let on = |terminal: bool| match globals.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && colors_welcome(),
        };
        Output {
            json: globals.json,
            verbose: globals.verbose,
            quiet: globals.quiet,
            color: on(io::stderr().is_terminal()),
            styled: on(io::stdout().is_terminal()),
            drawn: OnceLock::new(),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The answer.
    pub fn answer(&self, text: &str) -> Result<(), Failure> {
        write_all(&mut io::stdout().lock(), text)
            .map_err(|e| Failure::new(Exit::World, format!("standard output: {e}")))
    }

    /// The answer of `--json`.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Proof, e.to_string()))?;
        self.answer(&(text + "\n"))
    }

    /// A remark, unless `-q`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.aside("note", "\x1b[1;36m", text);
        }
    }

    /// A warning, unless `-q`.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            self.aside("warning", "\x1b[1;33m", text);
        }
    }

    /// A line without a head, unless `-q`.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            self.say(&format!("{text}\n"));
        }
    }

    pub fn error(&self, text: &str) {
        self.aside("error", "\x1b[1;31m", text);
    }

    /// Findings in a recipe, drawn; with `-q` only the errors.
    pub fn diagnostics(&self, sources: &Sources, found: &[Diagnostic]) {
        let shown: Vec<Diagnostic> =
            found.iter().filter(|d| !self.quiet || d.severity() == Severity::Error).cloned().collect();
        self.say(&render::render(sources, &shown, self.color));
        if let Some(error) = shown.iter().find(|d| d.severity() == Severity::Error && !d.code.is_empty()) {
            self.drawn.get_or_init(|| error.code);
        }
    }

    /// Where more is said about the errors that were drawn; once, as the last line.
    pub fn point_to_pages(&self) {
        if let Some(code) = self.drawn.get() {
            self.remark(&format!("For more about an error, try `minic explain {code}`."));
        }
    }

    pub fn failure(&self, failure: &Failure) {
        self.complaint(failure);
        if self.json {
            // The failure is on standard error already.
            let _ = self.document(&json!({ "error": failure.to_json() }));
        }
    }

    /// A failure beside an answer.
    pub fn complaint(&self, failure: &Failure) {
        self.error(&failure.message);
        if let Some(help) = &failure.help {
            self.aside("help", "\x1b[1;36m", help);
        }
    }

    fn aside(&self, head: &str, style: &str, text: &str) {
        let head = if self.color { format!("{style}{head}\x1b[0m") } else { head.to_string() };
        self.say(&format!("{head}: {}\n", legible(text)));
    }

    fn say(&self, text: &str) {
        // Nobody can be told that nobody can be told.
        let _ = write_all(&mut io::stderr().lock(), text);
    }
}

/// Messages quote what stands in files: characters that command a terminal are spelled out, and long lines
/// keep their ends.
fn legible(text: &str) -> String {
    const HEAD: usize = 400;
    const TAIL: usize = 100;
    let line = |line: &str| {
        let mut out = String::new();
        let count = line.chars().count();
        for (i, c) in line.chars().enumerate() {
            match i {
                HEAD if count > HEAD + TAIL + 5 => out.push_str(" ... "),
                HEAD.. if count > HEAD + TAIL + 5 && i < count - TAIL => {}
                _ if c.is_control() => out.extend(c.escape_default()),
                _ => out.push(c),
            }
        }
        out
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A wrong command line, as clap tells it; with `--json` also as a document. Help and version are answers.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nobody can be told that nobody can be told.
    let _ = error.print();
    let wanted = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && wanted {
        let rendered = error.render().to_string();
        let message = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = json!({ "message": message, "help": rendered, "exit": 2, "diagnostics": [] });
        let _ = write_all(&mut io::stdout().lock(), &format!("{:#}\n", json!({ "error": failure })));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// NO_COLOR (no-color.org) is set to anything, or the terminal has none.
fn colors_welcome() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// A reader that has seen enough, as `head`, is no failure.
fn write_all(to: &mut dyn Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_keep_their_ends_and_nothing_commands_the_terminal() {
        assert_eq!(legible("a\u{1b}[2Jb\r\n  c\u{e9}\t"), "a\\u{1b}[2Jb\\r\n  c\u{e9}\\t");
        let long = legible(&format!("a{}b\nc", "\u{e9}".repeat(100_000)));
        assert_eq!(long.chars().count(), 400 + 5 + 100 + 2);
        assert!(long.starts_with("a\u{e9}") && long.ends_with("\u{e9}b\nc"), "{long}");
        let short = "x".repeat(505);
        assert_eq!(legible(&short), short);
    }
}
