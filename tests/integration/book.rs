//! The book in `docs/`: every chapter is listed, every link leads somewhere, and every block of code is run.
//!
//! The blocks of a chapter are taken in their order, in a folder of their own that has the quickstart, the shipped recipes and,
//! in `shapes/`, published configurations:
//!
//! | block | what is done |
//! |---|---|
//! | ```` ```mrecipe ```` | a whole recipe is checked, a part of one is parsed; with `file=PATH` it is written there, too, and with `errors` it has some |
//! | ```` ```sh ```` | run by bash, or where it calls other programs than minic and the shell's own, parsed; `exits=N` is the exit code that is meant, `exits=0/3` what depends on the machine |
//! | ```` ```text ```` | behind a block that was run: these lines are printed, in this order, others between them; `..` stands for any rest of a line |
//! | ```` ```toml ````, ```` ```json ```` | `json` is parsed; the others, with `file=PATH`, are written there for the commands that follow |

use crate::command::{copy, repository};
use minic_compiler::check::{Environment, check_text};
use minic_grammar::{Diagnostic, Severity, parse, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BOOK: &str = "docs";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The targets of the links of a text, outside of fenced blocks.
fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    let ends = prose.flat_map(|part| part.split("](").skip(1));
    ends.filter_map(|rest| rest.split(')').next()).map(String::from).collect()
}

/// The chapters, as `docs/SUMMARY.md` lists them.
pub fn chapters() -> Vec<String> {
    let summary = read(&repository(BOOK).join("SUMMARY.md"));
    links(&summary).into_iter().map(|chapter| format!("{BOOK}/{chapter}")).collect()
}

fn markdown(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            markdown(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "md") && !entry.ends_with("SUMMARY.md") {
            found.insert(entry);
        }
    }
}

#[test]
fn every_page_is_a_chapter_and_every_chapter_is_there_once() {
    let listed: Vec<PathBuf> = chapters().iter().map(|chapter| repository(chapter)).collect();
    let once: BTreeSet<PathBuf> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a chapter stands twice");
    let mut pages = BTreeSet::new();
    markdown(&repository(BOOK), &mut pages);
    assert_eq!(once, pages);
}

/// `## Ten minutes` is `#ten-minutes`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_the_book_and_of_the_readme_leads_to_a_page_and_a_heading() {
    let mut followed = 0;
    for page in chapters().iter().map(String::as_str).chain(["README.md"]) {
        let page = repository(page);
        for link in links(&read(&page)).iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            assert!(target.exists(), "{} links to {link}", page.display());
            let there = || read(&target).lines().filter(|l| l.starts_with('#')).any(|l| anchor(l) == heading);
            assert!(heading.is_empty() || there(), "{} links to {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

struct Block {
    line: usize,
    language: String,
    attributes: Vec<String>,
    text: String,
}

impl Block {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='))
    }

    fn is(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|a| a == attribute)
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let mut words = info.split(',').map(String::from);
                let language = words.next().unwrap_or_default();
                open = Some(Block {
                    line: number + 1,
                    language,
                    attributes: words.collect(),
                    text: String::new(),
                });
            }
            (Some(_), _) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// The files of a scratch folder; no checkpoint is looked into for what a page only shows.
struct Scratch<'a>(&'a Path, bool);

impl Environment for Scratch<'_> {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        let path = self.0.join(checkpoint).join("config.json");
        Ok(fs::read_to_string(path).ok().filter(|_| self.1))
    }

    fn module(&self, path: &str) -> Result<Option<String>, String> {
        Ok(fs::read_to_string(self.0.join(path)).ok())
    }
}

fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["examples/quickstart", "recipes", "compiler/tests/configs"] {
        copy(&repository(part), &folder.path().join(part));
    }
    for config in fs::read_dir(repository("compiler/tests/configs")).expect("configurations") {
        let config = config.expect("a configuration").path();
        let shape = folder.path().join("shapes").join(config.file_stem().expect("a name"));
        fs::create_dir_all(&shape).expect("a folder");
        fs::copy(&config, shape.join("config.json")).expect("a copy");
    }
    folder
}

/// A page's recipe, or a part of one.
fn check_recipe(place: &str, block: &Block, folder: &Path) {
    let text = &block.text;
    if let Some(path) = text.trim().strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}")) {
        let path = repository(BOOK).join("recipes").join(path);
        assert!(path.exists(), "{place} includes {}", path.display());
        return;
    }
    let file = block.attribute("file").map(|file| folder.join(file));
    if let Some(file) = &file {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a recipe");
    }
    let (sources, found): (_, Vec<Diagnostic>) = match text.starts_with("mrecipe 1\n") {
        true => {
            let base = file.as_ref().and_then(|f| f.parent()).unwrap_or(folder);
            let checked = check_text(place, text, &Scratch(base, file.is_some()), &[]);
            (checked.sources, checked.found)
        }
        false => {
            let text = format!("mrecipe 1\n{text}");
            let found = parse(&text).1;
            (minic_grammar::Sources::new(place, text), found)
        }
    };
    let errors: Vec<Diagnostic> = found.into_iter().filter(|d| d.severity() == Severity::Error).collect();
    assert_eq!(
        !errors.is_empty(),
        block.is("errors"),
        "{place}\n{}",
        render::render(&sources, &errors, false)
    );
}

/// Programs that a block may call to be run.
const AT_HAND: &[&str] = &["minic", "cat", "cp", "ls", "mkdir", "echo", "head", "for", "do", "done"];

fn is_at_hand(script: &str) -> bool {
    let lines = script.lines().filter(|l| !l.trim_start().starts_with('#'));
    let statements = lines.flat_map(|line| line.split(';'));
    statements.filter_map(|statement| statement.split_whitespace().next()).all(|word| AT_HAND.contains(&word))
}

fn bash(folder: &Path, options: &[&str], script: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_minic")).parent().expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("bash")
        .args(options)
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", folder.join("no-cache"))
        .env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"))
        .env("XDG_CONFIG_HOME", folder.join("no-config"))
        .env("XDG_STATE_HOME", folder.join("no-state"))
        .env("NO_COLOR", "1")
        .output()
        .expect("bash starts")
}

/// The same words; figures may differ in their last digits between machines.
fn is_alike(wanted: &str, printed: &str) -> bool {
    let mut printed = printed.split_whitespace();
    for word in wanted.split_whitespace() {
        let Some(other) = printed.next() else { return word == ".." };
        let close = |(a, b): (f64, f64)| (a - b).abs() <= 0.01 * a.abs();
        let figures = word.parse().ok().zip(other.parse().ok());
        match word {
            ".." => return true,
            _ if word == other || figures.is_some_and(close) => {}
            _ => return false,
        }
    }
    printed.next().is_none()
}

fn assert_printed(place: &str, wanted: &str, printed: &str) {
    let mut lines = printed.lines();
    for line in wanted.lines().filter(|l| !l.trim().is_empty() && l.trim() != "..") {
        assert!(lines.any(|l| is_alike(line, l)), "{place}: {line:?} is not, in its order, in\n{printed}");
    }
}

/// Runs the blocks of a chapter; gives how many were run.
fn run(chapter: &str) -> usize {
    let folder = scratch();
    let mut printed: Option<String> = None;
    let mut done = 0;
    for block in blocks(&read(&repository(chapter))) {
        let place = format!("{chapter}:{}", block.line);
        let before = printed.take();
        match block.language.as_str() {
            "mrecipe" => check_recipe(&place, &block, folder.path()),
            "sh" if is_at_hand(&block.text) => {
                let output = bash(folder.path(), &["-e", "-u", "-o", "pipefail"], &block.text);
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                let wanted = block.attribute("exits").unwrap_or("0");
                let exit = output.status.code().map_or("a signal".into(), |code| code.to_string());
                assert!(wanted.split('/').any(|code| code == exit), "{place}: exit {exit}\n{text}");
                printed = Some(text.into_owned());
                done += 1;
            }
            "sh" => {
                let output = bash(folder.path(), &["-n"], &block.text);
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
            }
            "text" => {
                if let Some(printed) = before {
                    assert_printed(&place, &block.text, &printed);
                }
            }
            "json" => drop(serde_json::from_str::<serde_json::Value>(&block.text).expect(&place)),
            // Without a name, editors and clusters read it, and not minic; `docs.rs` looks at the commands of clusters.
            "toml" | "yaml" | "lua" => {
                if let Some(file) = block.attribute("file") {
                    fs::write(folder.path().join(file), &block.text).expect("a file");
                }
            }
            language => panic!("{place}: nothing runs `{language}`"),
        }
    }
    done
}

#[test]
fn the_blocks_of_the_tutorial_are_run() {
    assert_eq!(run("docs/tutorial.md"), 7);
}

#[test]
fn the_blocks_of_all_other_chapters_are_run() {
    let others = chapters().into_iter().filter(|c| c != "docs/tutorial.md");
    let done: usize = others.map(|chapter| run(&chapter)).sum();
    assert!(done >= 14, "{done}");
}
