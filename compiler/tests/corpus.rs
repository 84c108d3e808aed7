//! Recipes of the corpus through the parser and the checker. A snapshot holds the source and what came of it:
//! the diagnostics as they are drawn, and for good recipes the checked recipe.
//!
//! A comment `# --set NAME=VALUE` at the head of a file is an override.

use minic_compiler::check::{DataFacts, Environment, Override, check};
use minic_compiler::hir;
use minic_grammar::{Diagnostic, Severity, parse, render};
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Checkpoints are folders of the corpus. Files called `few-*` are small, ones called `missing-*` are not there.
struct Corpus;

impl Environment for Corpus {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        if checkpoint.contains("unreadable") {
            return Err("is not UTF-8".into());
        }
        let path = corpus().join(checkpoint).join("config.json");
        if path.exists() { fs::read_to_string(path).map(Some).map_err(|e| e.to_string()) } else { Ok(None) }
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

fn checked(source: &str) -> (Option<hir::Recipe>, Vec<Diagnostic>) {
    let (recipe, mut found) = parse(source);
    let overrides: Vec<Override> = source
        .lines()
        .filter_map(|line| line.strip_prefix("# --set "))
        .map(|text| Override::parse(text).expect("NAME=VALUE"))
        .collect();
    let (hir, more) = check(&recipe, &Corpus, &overrides);
    found.extend(more);
    (hir, found)
}

fn source_of(path: &Path) -> (String, String) {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    (name, fs::read_to_string(path).expect("a recipe of the corpus"))
}

fn failed(found: &[Diagnostic]) -> bool {
    found.iter().any(|d| d.severity() == Severity::Error)
}

fn snapshot(kind: &str, text: String) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(kind, text);
    });
}

#[test]
fn good_recipes_check() {
    insta::glob!("corpus/good/*.mrecipe", |path| {
        let (name, source) = source_of(path);
        let (hir, found) = checked(&source);
        let drawn = render::render(&name, &source, &found, false);
        assert!(!failed(&found), "{name} has errors:\n{drawn}");
        let hir = hir.expect("a recipe without errors is lowered");
        snapshot("good", format!("{source}\n----- found -----\n{drawn}\n----- hir -----\n{hir}"));
    });
}
