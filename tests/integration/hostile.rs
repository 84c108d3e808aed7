//! Broken and hostile input, end to end: one clear error that names the file, the documented exit code, and
//! bounded memory and time. The rows are the source of docs/broken-inputs.md.

#[path = "hostile/breaks.rs"]
mod breaks;
#[path = "hostile/rows.rs"]
mod rows;
#[path = "hostile/table.rs"]
mod table;

use crate::command::{copy, repository};
use rows::ROWS;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What stands in the folder before something is broken.
#[derive(Clone, Copy)]
enum Base {
    /// `model/` in three shards, a recipe that prunes it, and tokens.
    Sharded,
    /// `model/` in one file with a tokenizer, a recipe that prunes it, and text.
    Text,
    /// `half/`, an export of the recipe of `Text`.
    Exported,
}

struct Row {
    /// What was tried, for the reader of the table.
    tried: &'static str,
    base: Base,
    prepare: fn(&Path),
    command: &'static str,
    exit: i32,
    /// The file that must be named.
    names: &'static str,
}

struct Section {
    title: &'static str,
    rows: &'static [Row],
}

const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
metric magnitude(w) = l2(w)
prune half from parent { axis ffn_hidden_size = 192 by magnitude }
export half to "half"
"#;

impl Base {
    fn folder(self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("recipe.mrecipe"), RECIPE).expect("a recipe");
        match self {
            Base::Sharded => {
                copy(&repository("tests/golden/nemotron-sharded"), &at("model"));
                fs::write(at("tokens.json"), "[[1, 2, 3, 4]]").expect("tokens");
            }
            Base::Text => {
                copy(&repository("examples/quickstart/model"), &at("model"));
                fs::write(at("data.txt"), "Once there was a river that knew its way.\n".repeat(20))
                    .expect("text");
            }
            Base::Exported => copy(exported(), &at("half")),
        }
        folder
    }
}

/// An export of the recipe, made once.
fn exported() -> &'static Path {
    use std::sync::OnceLock;
    static MADE: OnceLock<(TempDir, std::path::PathBuf)> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = Base::Text.folder();
        let done = limited(folder.path(), &["run", "recipe.mrecipe"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let half = folder.path().join("half");
        (folder, half)
    });
    &made.1
}

/// Address space of a command in KiB, which bounds what it can hold.
const MEMORY_KIB: u64 = 1 << 20;
const SECONDS: u64 = 20;

/// Runs minic in `folder` with 1 GiB of address space and 20 seconds.
fn limited(folder: &Path, arguments: &[&str]) -> Output {
    let limit = format!("ulimit -v {MEMORY_KIB} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limit, "sh", env!("CARGO_BIN_EXE_minic")]).args(arguments).current_dir(folder);
    // Each thread and each arena reserves addresses that it does not fill.
    command.env("RAYON_NUM_THREADS", "2").env("MALLOC_ARENA_MAX", "2").env("RUST_BACKTRACE", "0");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("minic starts");
    let streams = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = ended(&mut child);
    let join = |stream: std::thread::JoinHandle<Vec<u8>>| stream.join().expect("a stream");
    Output { status, stdout: join(streams.0), stderr: join(streams.1) }
}

fn drain(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.expect("a pipe").read_to_end(&mut bytes).expect("output");
        bytes
    })
}

/// One that takes too long is killed, and has no exit code then.
fn ended(child: &mut Child) -> std::process::ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if begin.elapsed() > Duration::from_secs(SECONDS) {
            child.kill().expect("a child");
            return child.wait().expect("a child");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What minic said of a row, with what is wrong with it by any measure.
fn said(row: &Row) -> Result<String, String> {
    let folder = row.base.folder();
    (row.prepare)(folder.path());
    let arguments: Vec<&str> = row.command.split(' ').collect();
    let done = limited(folder.path(), &arguments);
    let stderr = String::from_utf8(done.stderr).map_err(|e| e.to_string())?;
    let fault = |what: &str| Err(format!("{}: {what}\n{stderr}", row.tried));
    if done.status.code() != Some(row.exit) {
        return fault(&format!("{} instead of {}", done.status, row.exit));
    }
    let heads = stderr.lines().filter(|l| l.starts_with("error")).count();
    match row.exit {
        _ if stderr.contains("panicked") => fault("it panicked"),
        _ if stderr.chars().any(|c| c.is_control() && c != '\n') => fault("it commands the terminal"),
        0 if heads > 0 => fault("an error, and exit code 0"),
        0 => Ok("no error".into()),
        _ if heads == 0 => fault("no error"),
        _ if stderr.lines().count() > 40 => fault("too long"),
        _ if !stderr.contains(row.names) => fault(&format!("`{}` is not named", row.names)),
        _ => Ok(stderr.replace(&folder.path().display().to_string(), "")),
    }
}

/// Root may read everything, so the command runs as nobody then.
#[test]
fn what_may_not_be_read_is_the_worlds_failure() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = Base::Text.folder();
    let mode = |name: &str, mode| {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    // Nobody may not look into the folder that the build is in.
    fs::copy(env!("CARGO_BIN_EXE_minic"), folder.path().join("minic")).expect("a copy");
    mode("", 0o755);
    for name in ["model/config.json", "model/model.safetensors", "model/tokenizer.json", "data.txt", "model"]
    {
        mode(name, 0o000);
        let mut command = Command::new(folder.path().join("minic"));
        command.args(["eval", "model", "--data", "data.txt", "--sequence", "64"]).current_dir(folder.path());
        if fs::File::open(folder.path().join(name)).is_ok() {
            command.uid(65_534).gid(65_534);
        }
        let done = command.output().expect("minic starts");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(3), "{name}: {stderr}");
        assert!(
            stderr.contains(&format!("{name}: cannot open: Permission denied")) || name == "model",
            "{stderr}"
        );
        mode(name, 0o755);
    }
}

/// Every row, and the document that they make. `INSTA_UPDATE=always` writes it.
#[test]
fn broken_inputs_are_told_in_one_error_as_documented() {
    let mut text = table::HEAD.to_string();
    let mut faults = Vec::new();
    for section in ROWS {
        text += &table::section(section, |row| {
            said(row).unwrap_or_else(|fault| {
                faults.push(fault);
                String::new()
            })
        });
    }
    text += table::FUZZED;
    assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
    let path = repository("docs/broken-inputs.md");
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        fs::write(&path, &text).expect("the document");
    }
    let documented = fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(documented.lines()).find(|(a, b)| a != b);
    assert!(
        text == documented,
        "docs/broken-inputs.md differs, first in {differs:#?}\n\
         `INSTA_UPDATE=always cargo test --test integration hostile` writes it again; then read it"
    );
}
