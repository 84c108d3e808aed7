//! A recipe file with everything that the checker finds in it, and the world that it looks at.

use crate::output::{Exit, Failure, Output};
use crate::remote;
use crate::table::grouped;
use minic_compiler::check::{self, Checked, DataFacts, Environment, Override};
use minic_compiler::hir;
use minic_compiler::plan::Plan;
use minic_compiler::{lower, passes};
use minic_grammar::render::{self, JsonDiagnostic};
use minic_grammar::{Diagnostic, Severity};
use minic_runtime::checkpoint::Checkpoint;
use minic_runtime::data;
use minic_runtime::hub::{Hub, HubError, PREFIX, Remote};
use minic_runtime::input;
use minic_runtime::provenance::PROVENANCE_FILE;
use minic_runtime::run::{LintRecord, Settings};
use std::cell::RefCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `--set NAME=VALUE`, for clap.
pub fn parse_override(text: &str) -> Result<Override, String> {
    Override::parse(text).ok_or_else(|| "expected NAME=VALUE".to_string())
}

/// A recipe as read and checked.
pub struct Recipe(Checked);

impl Deref for Recipe {
    type Target = Checked;

    fn deref(&self) -> &Checked {
        &self.0
    }
}

impl Recipe {
    /// Fails only where the file cannot be read. Relative exports are those of the current folder.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Recipe, Failure> {
        let out = Some(PathBuf::new());
        Recipe::load_in(path, overrides, &World::new(folder_of(path), out))
    }

    /// The same, for a world of the caller's.
    pub fn load_in(path: &Path, overrides: &[Override], world: &World) -> Result<Recipe, Failure> {
        let bytes = input::read(path, input::RECIPE)?;
        let file = path.display().to_string();
        let text = utf8(&file, bytes).map_err(|message| Failure::new(Exit::Input, message))?;
        Ok(Recipe(check::check_text(&file, &text, world, overrides)))
    }

    /// As given on the command line.
    pub fn file(&self) -> &str {
        &self.sources.own().name
    }

    pub fn to_json(&self) -> Vec<JsonDiagnostic> {
        render::to_json(&self.sources, &self.found)
    }

    pub fn errors(&self) -> usize {
        self.found.iter().filter(|d| is_error(d)).count()
    }

    pub fn warnings(&self) -> usize {
        self.found.len() - self.errors()
    }

    /// Draws the findings, and gives the checked recipe if there is one.
    pub fn checked(&self, output: &Output) -> Result<&hir::Recipe, Failure> {
        output.diagnostics(&self.sources, &self.found);
        if let Some(hir) = &self.hir {
            return Ok(hir);
        }
        let failure = match self.errors() {
            0 => Failure::new(
                Exit::Input,
                format!("{}: a value depends on a config.json that is not at hand", self.file()),
            )
            .help("name a folder that has it: `--set parent.checkpoint=DIR`"),
            n => Failure::new(Exit::Input, format!("{}: {}", self.file(), count(n, "error"))),
        };
        Err(failure.diagnostics(self.to_json()))
    }
}

/// The text of a file of recipes.
pub fn utf8(file: &str, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{file}: is not UTF-8 text, and so no recipe"))
}

/// The store of a recipe: as given, or `.minic/store` beside it.
pub fn store_folder(recipe: &Path, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| folder_of(recipe).join(".minic/store"), Path::to_path_buf)
}

/// What a run of `recipe` is told; everything else is as by default.
pub fn settings(recipe: &Recipe, path: &Path, overrides: &[Override], out: &Path) -> Settings {
    let overrides = overrides.iter().map(Override::text).collect();
    let lint = |d: JsonDiagnostic| LintRecord {
        code: d.code.into(),
        severity: d.severity.into(),
        message: d.message,
        file: d.file,
        line: d.line,
        column: d.column,
        help: d.help,
    };
    let lints = recipe.to_json().into_iter().map(lint).collect();
    let (file, text) = (recipe.file(), recipe.standalone());
    Settings { overrides, lints, ..Settings::new(file, &text, folder_of(path), out.into()) }
}

/// The plan of a checked recipe.
pub fn plan(hir: &hir::Recipe) -> Result<Plan, Failure> {
    let bug = "this is a bug of minic; please report it with the recipe";
    passes::run(&lower::lower(hir))
        .map_err(|(pass, error)| Failure::new(Exit::Proof, format!("after {pass}: {error}")).help(bug))
}

fn is_error(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity() == Severity::Error
}

/// `1 error`, `2 errors`
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1 update`, `10,013 updates`
pub fn count_of(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Relative paths of a recipe are relative to it.
pub fn folder_of(recipe: &Path) -> PathBuf {
    recipe.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The file system, as a recipe sees it, and the hub.
pub struct World {
    /// The recipe's folder.
    pub base: PathBuf,
    /// The root of relative export folders; absent where what stands there may be replaced.
    pub out: Option<PathBuf>,
    hub: Arc<Hub>,
    /// The first thing that the hub failed at.
    failure: RefCell<Option<HubError>>,
}

impl World {
    /// Of the hub only what its cache holds: nothing is fetched.
    pub fn new(base: PathBuf, out: Option<PathBuf>) -> World {
        World::with_hub(base, out, Arc::new(remote::hub(true)))
    }

    /// The same, and config.json of checkpoints is fetched where the hub may.
    pub fn with_hub(base: PathBuf, out: Option<PathBuf>, hub: Arc<Hub>) -> World {
        World { base, out, hub, failure: RefCell::new(None) }
    }

    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What the hub failed at, of what it was asked for until now.
    pub fn hub_failure(&self) -> Option<HubError> {
        self.failure.take()
    }

    /// The folder of a checkpoint of which config.json is there; `None` where it is not at hand.
    fn checkpoint(&self, checkpoint: &str) -> Result<Option<PathBuf>, String> {
        let Some(remote) = Remote::parse(checkpoint) else { return Ok(Some(self.base.join(checkpoint))) };
        match remote.and_then(|remote| self.hub.config(&remote)) {
            Ok(snapshot) => Ok(Some(snapshot.folder)),
            Err(error @ HubError::Name { .. }) => Err(error.to_string()),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// The pattern itself, or where the cache holds what it names of the hub; `None` where it holds nothing.
    fn local(&self, pattern: &str) -> Option<String> {
        match Remote::parse(pattern) {
            None => Some(pattern.to_string()),
            Some(remote) => {
                let remote = remote.ok()?;
                self.hub.cached_whole(&remote)?.pattern(&remote)
            }
        }
    }

    /// A file of the hub that its cache does not hold.
    pub fn is_unfetched(&self, file: &str) -> bool {
        file.starts_with(PREFIX) && self.local(file).is_none()
    }

    /// Why one of these files cannot be read; `None` where nothing speaks against it.
    pub fn unread(&self, files: &[String]) -> Option<String> {
        let local = files.iter().filter_map(|pattern| self.local(pattern));
        let paths = local.filter_map(|pattern| data::matching(&self.base, &pattern).ok()).flatten();
        paths.map(|path| data::most_tokens(&path)).find_map(|most| most.err()).map(|e| e.to_string())
    }
}

impl Environment for World {
    fn module(&self, path: &str) -> Result<Option<String>, String> {
        let path = self.base.join(path);
        if !input::exists(&path).map_err(|e| e.to_string())? {
            return Ok(None);
        }
        let bytes = input::read(&path, input::RECIPE).map_err(|e| e.to_string())?;
        utf8(&path.display().to_string(), bytes).map(Some)
    }

    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        let Some(folder) = self.checkpoint(checkpoint)? else { return Ok(None) };
        let path = folder.join("config.json");
        let read = || match input::exists(&path)? {
            true => input::read(&path, input::CONFIG).map(Some),
            false => Ok(None),
        };
        let Some(bytes) = read().map_err(|e| e.to_string())? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| format!("{}: is not UTF-8", path.display()))
    }

    fn is_weightless(&self, checkpoint: &str) -> bool {
        // Of a checkpoint of the hub the weights are fetched when the run begins.
        Remote::parse(checkpoint).is_none() && Checkpoint::is_weightless(&self.base.join(checkpoint))
    }

    fn data(&self, files: &[String]) -> Option<DataFacts> {
        let mut facts = DataFacts { unmatched: Vec::new(), most_tokens: Some(0) };
        for pattern in files {
            let Some(pattern) = self.local(pattern) else {
                facts.most_tokens = None;
                continue;
            };
            match data::matching(&self.base, &pattern) {
                Ok(paths) => {
                    for path in paths {
                        let most = data::most_tokens(&path).ok().flatten();
                        facts.most_tokens = facts.most_tokens.zip(most).map(|(a, b)| a + b);
                    }
                }
                Err(data::DataError::NoMatch { .. }) => facts.unmatched.push(pattern),
                Err(_) => facts.most_tokens = None,
            }
        }
        Some(facts)
    }

    fn occupied(&self, folder: &str) -> Option<String> {
        let path = self.out.as_ref()?.join(folder);
        if path.is_file() {
            return Some("is a file".into());
        }
        let mut entries = std::fs::read_dir(&path).ok()?;
        let first = entries.next()?.ok()?;
        // Whether an export that stands there is this one is decided when it is made.
        let exported = path.join(PROVENANCE_FILE).is_file();
        (!exported)
            .then(|| format!("holds `{}` and no {PROVENANCE_FILE}", first.file_name().to_string_lossy()))
    }
}
