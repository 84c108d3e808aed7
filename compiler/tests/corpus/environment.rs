//! The world that the recipes of the corpus, and those of the pages about codes, see.

use minic_compiler::check::{Checked, DataFacts, Environment, Override, check_text};
use std::fs;
use std::path::{Path, PathBuf};

pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Checkpoints are folders of the corpus. Files called `few-*` are small, ones called `missing-*` are not there.
pub struct Corpus;

impl Environment for Corpus {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        if checkpoint.contains("unreadable") {
            return Err("is not UTF-8".into());
        }
        let path = corpus().join(checkpoint).join("config.json");
        if path.exists() { fs::read_to_string(path).map(Some).map_err(|e| e.to_string()) } else { Ok(None) }
    }

    fn module(&self, path: &str) -> Result<Option<String>, String> {
        let path = corpus().join("modules").join(path);
        if path.exists() { fs::read_to_string(path).map(Some).map_err(|e| e.to_string()) } else { Ok(None) }
    }

    fn is_weightless(&self, checkpoint: &str) -> bool {
        checkpoint.ends_with("-shape")
    }

    fn data(&self, files: &[String]) -> Option<DataFacts> {
        let named = |prefix: &'static str| files.iter().filter(move |f| f.contains(prefix));
        let few = named("few-").count() as u64;
        let unmatched = named("missing-").cloned().collect();
        Some(DataFacts { unmatched, most_tokens: (few > 0).then_some(few * 10_000) })
    }

    fn occupied(&self, folder: &str) -> Option<String> {
        (folder == "out/taken").then(|| "holds the notes of another project".into())
    }
}

/// A comment `# --set NAME=VALUE` at the head of a recipe is an override.
pub fn checked(name: &str, source: &str) -> Checked {
    let overrides: Vec<Override> = source
        .lines()
        .filter_map(|line| line.strip_prefix("# --set "))
        .map(|text| Override::parse(text).expect("NAME=VALUE"))
        .collect();
    check_text(name, source, &Corpus, &overrides)
}
