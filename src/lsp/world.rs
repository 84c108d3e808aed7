//! The world of a recipe in an editor: what was asked of the disk is remembered for a moment.

use crate::recipe::World;
use minic_compiler::check::{DataFacts, Environment, resolved};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long what is on disk is taken to stay as it is: while a key is held, nothing is looked up again.
const FRESH: Duration = Duration::from_secs(2);

type Config = Result<Option<String>, String>;

/// Texts that are open in the editor, by their paths: they go before what is on disk.
pub type Open = Rc<RefCell<BTreeMap<PathBuf, String>>>;

/// The answers of a [`World`], and when the first of them was given.
pub struct Remembered {
    world: World,
    open: Open,
    modules: RefCell<BTreeMap<String, Config>>,
    since: RefCell<Option<Instant>>,
    configs: RefCell<BTreeMap<String, Config>>,
    weightless: RefCell<BTreeMap<String, bool>>,
    data: RefCell<BTreeMap<Vec<String>, Option<DataFacts>>>,
}

impl Remembered {
    /// Of a recipe in this folder. What stands where it exports is not looked at: that depends on where it is run.
    pub fn new(folder: PathBuf, open: Open) -> Remembered {
        Remembered {
            world: World::new(folder, None),
            open,
            modules: RefCell::default(),
            since: RefCell::default(),
            configs: RefCell::default(),
            weightless: RefCell::default(),
            data: RefCell::default(),
        }
    }

    /// Whether something that the recipe was told of the disk is not so any longer; it is forgotten then.
    pub fn has_changed(&self) -> bool {
        let other = |answers: &RefCell<BTreeMap<String, Config>>, ask: &dyn Fn(&str) -> Config| {
            answers.borrow().iter().any(|(key, known)| ask(key) != *known)
        };
        let changed = other(&self.configs, &|checkpoint| self.world.config(checkpoint))
            || other(&self.modules, &|path| self.world.module(path));
        if changed {
            self.forget();
        }
        changed
    }

    pub fn forget(&self) {
        self.since.take();
        self.configs.take();
        self.modules.take();
        self.weightless.take();
        self.data.take();
    }

    /// Begins a check: what is old is forgotten.
    pub fn refresh(&self) {
        if self.since.borrow().is_some_and(|since| since.elapsed() > FRESH) {
            self.forget();
        }
        self.since.borrow_mut().get_or_insert_with(Instant::now);
    }
}

/// The answer to a question, asked once.
fn once<K: Ord + Clone, V: Clone>(answers: &RefCell<BTreeMap<K, V>>, key: K, ask: impl FnOnce(&K) -> V) -> V {
    if let Some(known) = answers.borrow().get(&key) {
        return known.clone();
    }
    let answer = ask(&key);
    answers.borrow_mut().insert(key, answer.clone());
    answer
}

impl Environment for Remembered {
    fn config(&self, checkpoint: &str) -> Config {
        once(&self.configs, checkpoint.to_string(), |checkpoint| self.world.config(checkpoint))
    }

    fn module(&self, path: &str) -> Config {
        let whole = resolved(Path::new(""), &self.world.base.join(path).to_string_lossy());
        if let Some(text) = self.open.borrow().get(&whole) {
            return Ok(Some(text.clone()));
        }
        once(&self.modules, path.to_string(), |path| self.world.module(path))
    }

    fn is_weightless(&self, checkpoint: &str) -> bool {
        once(&self.weightless, checkpoint.to_string(), |checkpoint| self.world.is_weightless(checkpoint))
    }

    fn data(&self, files: &[String]) -> Option<DataFacts> {
        once(&self.data, files.to_vec(), |files| self.world.data(files))
    }
}
