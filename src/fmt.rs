//! `minic fmt [--check] FILE..`

use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, count};
use minic_grammar::Sources;
use minic_grammar::format::{self, FormatError};
use minic_grammar::render::{self, JsonDiagnostic};
use minic_runtime::error::IoError;
use minic_runtime::input;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Recipes; `-` is standard input, whose layout goes to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write nothing: list the files whose layout would change, and end with exit code 1 if there are any
    #[arg(long)]
    check: bool,
}

/// One element of `files` of what `--json` prints.
#[derive(Serialize)]
struct Laid {
    file: String,
    /// Its layout is, or was, another one.
    changed: bool,
    /// The layout of standard input.
    text: Option<String>,
    /// Why it was left alone.
    diagnostics: Vec<JsonDiagnostic>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    for path in &args.files {
        files.push(lay_out(path, args.check, output)?);
    }
    let faulty = files.iter().filter(|f| !f.diagnostics.is_empty()).count();
    let changed = files.iter().filter(|f| f.changed).count();
    let verb = if args.check { "would change" } else { "changed" };
    let faults = if faulty == 0 { String::new() } else { format!(", {faulty} with errors left alone") };
    output.remark(&format!("{}: {changed} {verb}{faults}", count(files.len(), "recipe")));
    if output.json {
        output.document(&serde_json::json!({ "files": files }))?;
    } else if args.check {
        let listed: Vec<String> =
            files.iter().filter(|f| f.changed).map(|f| format!("{}\n", f.file)).collect();
        output.answer(&listed.concat())?;
    } else {
        let texts: Vec<&str> = files.iter().filter_map(|f| f.text.as_deref()).collect();
        output.answer(&texts.concat())?;
    }
    Ok(if faulty > 0 || (args.check && changed > 0) { Exit::Input } else { Exit::Done })
}

fn lay_out(path: &Path, check: bool, output: &Output) -> Result<Laid, Failure> {
    let is_input = path == Path::new("-");
    let file = if is_input { "standard input".to_string() } else { path.display().to_string() };
    let bytes = if is_input { read_input()? } else { input::read(path, input::RECIPE)? };
    let source = recipe::utf8(&file, bytes).map_err(|message| Failure::new(Exit::Input, message))?;
    let text = match format::format(&source) {
        Ok(text) => text,
        Err(FormatError::Unread(found)) => {
            let sources = Sources::new(&file, &source);
            output.diagnostics(&sources, &found);
            let diagnostics = render::to_json(&sources, &found);
            return Ok(Laid { file, changed: false, text: None, diagnostics });
        }
        Err(FormatError::Changed(what)) => {
            let message = format!("{file}: the layout would change {what}; it is left alone");
            return Err(Failure::new(Exit::Proof, message)
                .help("this is a bug of minic; please report it with the recipe"));
        }
    };
    let changed = text != source;
    if changed && !check && !is_input {
        replace(path, &text)?;
        output.remark(&format!("changed {file}"));
    }
    Ok(Laid { file, changed, text: (is_input && !check).then_some(text), diagnostics: Vec::new() })
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(input::RECIPE + 1).read_to_end(&mut bytes);
    read.map_err(IoError::at(Path::new("standard input"), "read"))?;
    if bytes.len() as u64 > input::RECIPE {
        return Err(Failure::new(Exit::Input, "standard input: is longer than a recipe may be"));
    }
    Ok(bytes)
}

/// Puts a text in the place of a file's, whole or not at all: what is written lies beside it until it is on the disk.
/// Permissions stay, and of a link the file that it leads to is replaced.
fn replace(path: &Path, text: &str) -> Result<(), IoError> {
    let target = fs::canonicalize(path).map_err(IoError::at(path, "read"))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let done = write_beside(&target, &partial, text)
        .and_then(|()| fs::rename(&partial, &target).map_err(IoError::at(path, "replace")));
    if done.is_err() {
        // What failed is told; a leftover that cannot be removed either adds nothing to it.
        let _ = fs::remove_file(&partial);
    }
    done
}

fn write_beside(target: &Path, partial: &Path, text: &str) -> Result<(), IoError> {
    let permissions = fs::metadata(target).map_err(IoError::at(target, "read"))?.permissions();
    let mut file = File::create(partial).map_err(IoError::at(partial, "create"))?;
    file.write_all(text.as_bytes()).map_err(IoError::at(partial, "write"))?;
    file.set_permissions(permissions).map_err(IoError::at(partial, "write"))?;
    file.sync_all().map_err(IoError::at(partial, "sync"))
}
