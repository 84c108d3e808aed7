//! Recipes of the corpus through the parser and the checker. A snapshot holds the source and what came of it:
//! the diagnostics as they are drawn, and for good recipes the checked recipe.
//!
//! A comment `# --set NAME=VALUE` at the head of a file is an override, `# faults: 3` at its end says how many mistakes
//! it has where it has several.
#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

#[path = "corpus/environment.rs"]
mod environment;

use environment::{checked, corpus};
use minic_compiler::check::Checked;
use minic_grammar::codes::CODES;
use minic_grammar::{Diagnostic, Severity, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
        let recipe = checked(&name, &source);
        let alone = recipe.standalone();
        let Checked { sources, hir, found, .. } = recipe;
        let drawn = render::render(&sources, &found, false);
        assert!(!failed(&found), "{name} has errors:\n{drawn}");
        let hir = hir.expect("a recipe without errors is lowered");
        assert_eq!(alone == source, sources.used().is_empty(), "{name}");
        let again = checked(&name, &alone).hir.map(|hir| hir.to_string());
        assert_eq!(again, Some(hir.to_string()), "{name} as one file:\n{alone}");
        snapshot("good", format!("{source}\n----- found -----\n{drawn}\n----- hir -----\n{hir}"));
    });
}

#[test]
fn bad_recipes_say_what_is_wrong() {
    insta::glob!("corpus/bad/*.mrecipe", |path| {
        let (name, source) = source_of(path);
        let Checked { sources, hir, found, .. } = checked(&name, &source);
        assert!(!found.is_empty(), "{name} has no fault");
        let unknown = found.iter().any(|d| d.code == "W0404");
        assert_eq!(
            hir.is_none(),
            failed(&found) || unknown,
            "{name}: a recipe is lowered if it has no error"
        );
        for diagnostic in &found {
            assert!(diagnostic.help.is_some(), "{name}: {} has no help line", diagnostic.code);
            let commands = |c: char| c.is_control() && c != '\n';
            assert!(!diagnostic.help.as_ref().is_some_and(|help| help.contains(commands)), "{name}");
            assert!(
                diagnostic.span.end <= sources.at(diagnostic.span.start).end(),
                "{name}: {} lies outside",
                diagnostic.code
            );
        }
        let drawn = render::render(&sources, &found, false);
        snapshot("bad", format!("{source}\n----- found -----\n{drawn}"));
    });
}

/// One mistake is one message: a recipe with more of them says so in its last line, `# faults: 3`.
#[test]
fn bad_recipes_have_no_more_messages_than_mistakes() {
    for (name, source) in bad_recipes() {
        let stated = source.lines().find_map(|line| line.strip_prefix("# faults: "));
        let mistakes = stated.map_or(1, |n| n.parse().expect("a number of faults"));
        let Checked { sources, found, .. } = checked(&name, &source);
        assert_eq!(found.len(), mistakes, "{}", render::render(&sources, &found, false));
    }
}

#[test]
fn messages_that_are_known_to_be_poor_are_messages_of_the_corpus() {
    let list = fs::read_to_string(corpus().join("poor.md")).expect("the list");
    let rows: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    for row in &rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_end_matches('`');
        assert!(corpus().join("bad").join(name).exists(), "poor.md names {name}");
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.trim().is_empty()), "{row}");
    }
    assert!(!rows.is_empty(), "an empty list is better removed");
}

/// The share of messages whose help line names the fix: a value, a name or a piece of syntax in backticks, or a number.
/// Of the second share are those that can be typed as they stand, without a word in capitals for what is to be put in.
#[test]
#[allow(clippy::print_stdout, reason = "the shares are figures to quote: `-- --nocapture` shows them")]
fn nearly_all_messages_name_the_fix() {
    let (mut all, mut named, mut typed) = (0, 0, 0);
    let mut silent = Vec::new();
    let helps = every_bad_source().into_iter().flat_map(|(name, source)| {
        let found = checked(&name, &source).found.into_iter();
        found.map(move |d| (format!("{name}: {}", d.message), d.help.unwrap_or_default()))
    });
    for (message, help) in helps {
        let quoted: Vec<&str> = help.split('`').skip(1).step_by(2).collect();
        let number = help.chars().any(|c| c.is_ascii_digit());
        let capitals = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
        let blank = |piece: &&str| piece.split(|c: char| !c.is_ascii_alphabetic()).any(capitals);
        all += 1;
        if quoted.is_empty() && !number {
            silent.push(format!("{message} = {help}"));
            continue;
        }
        named += 1;
        typed += u32::from(quoted.is_empty() || quoted.iter().any(|piece| !blank(piece)));
    }
    let share = |n: u32| f64::from(n) / f64::from(all) * 100.0;
    println!(
        "{all} messages: {named} name the fix ({:.1}%), {typed} as it can be typed ({:.1}%)",
        share(named),
        share(typed)
    );
    println!("without: {silent:#?}");
    assert!(share(named) >= NAMED && share(typed) >= TYPED, "{} and {} of {all}", share(named), share(typed));
}

/// Per cent, below which the shares must not fall.
const NAMED: f64 = 97.0;
const TYPED: f64 = 84.0;

fn bad_recipes() -> Vec<(String, String)> {
    recipes_of(&corpus().join("bad"), "")
}

/// Those of the checker, of the loaders' rules, and of the parser.
fn every_bad_source() -> Vec<(String, String)> {
    let deploy = recipes_of(&corpus().join("deploy"), ".fail");
    let parser = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grammar/tests/corpus/bad");
    [bad_recipes(), deploy, recipes_of(&parser, "")].concat()
}

fn recipes_of(folder: &Path, kind: &str) -> Vec<(String, String)> {
    let entries =
        fs::read_dir(folder).expect("a folder of recipes").map(|entry| entry.expect("an entry").path());
    let mut sources: Vec<(String, String)> = entries
        .map(|path| source_of(&path))
        .filter(|(name, _)| name.contains(&format!("{kind}.mrecipe")))
        .collect();
    sources.sort();
    sources
}

/// Codes of the checker, by their first three characters.
const OURS: &[&str] =
    &["E02", "E03", "E04", "E05", "E06", "E07", "E08", "E09", "W02", "W04", "W06", "W07", "W08", "W09"];

#[test]
fn every_code_is_registered_and_raised_by_the_corpus() {
    let registered: BTreeSet<&str> = CODES.iter().map(|c| c.id).collect();
    let mut raised = BTreeSet::new();
    for entry in fs::read_dir(corpus().join("bad")).expect("the corpus") {
        let (name, source) = source_of(&entry.expect("an entry").path());
        for diagnostic in checked(&name, &source).found {
            assert!(registered.contains(diagnostic.code), "{name}: {} is not registered", diagnostic.code);
            raised.insert(diagnostic.code);
        }
    }
    let ours = |code: &&str| OURS.iter().any(|prefix| code.starts_with(prefix));
    let silent: Vec<&str> = registered.into_iter().filter(ours).filter(|c| !raised.contains(c)).collect();
    assert!(silent.is_empty(), "no recipe of the corpus raises {silent:?}");
}

/// Of the recipes of both crates: the finding of a fix is gone once it is applied, and nothing is less readable.
#[test]
fn every_fix_mends_what_it_is_for() {
    let parsers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grammar/tests/corpus/bad");
    let mut tried = 0;
    let mut wrong = Vec::new();
    for folder in [corpus().join("bad"), parsers] {
        for entry in fs::read_dir(folder).expect("the corpus") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|e| e != "mrecipe") {
                continue;
            }
            let (name, source) = source_of(&path);
            let found = checked(&name, &source).found;
            for diagnostic in &found {
                for fix in diagnostic.fixes.iter().filter(|fix| fix.span.end <= source.len()) {
                    let mut mended = source.clone();
                    mended.replace_range(fix.span.start..fix.span.end, &fix.replacement);
                    let Checked { sources, found: left, .. } = checked(&name, &mended);
                    // A statement is read up to its first fault: behind it, the next one comes to light.
                    let further = |d: &Diagnostic, length: usize| {
                        d.code == "E0102" && d.span.start + source.len() > diagnostic.span.end + length
                    };
                    let same = |all: &[Diagnostic], length: usize| {
                        all.iter()
                            .filter(|d| d.code == diagnostic.code && d.message == diagnostic.message)
                            .filter(|d| !further(d, length))
                            .count()
                    };
                    let unread =
                        |all: &[Diagnostic]| all.iter().filter(|d| d.code.starts_with("E01")).count();
                    if same(&left, mended.len()) >= same(&found, source.len())
                        || unread(&left) > unread(&found)
                    {
                        wrong.push(format!(
                            "{name}: {} {:?}: {} {:?}\n{}",
                            diagnostic.code,
                            diagnostic.message,
                            fix.title,
                            &source[fix.span.start..fix.span.end],
                            render::render(&sources, &left, false)
                        ));
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n=====\n"));
    assert!(tried > 100, "{tried} fixes");
}

/// Every line lost in turn, every number a zero, every name another one: whatever is written, the checker
/// answers, and a recipe without errors is lowered.
#[test]
fn damaged_recipes_never_panic() {
    let mut checked_recipes = 0;
    for folder in ["good", "bad"] {
        for entry in fs::read_dir(corpus().join(folder)).expect("the corpus") {
            let (name, source) = source_of(&entry.expect("an entry").path());
            if name.starts_with("nemotron-h-4b") || name == "too-many-points.mrecipe" {
                continue;
            }
            let lines: Vec<&str> = source.lines().collect();
            for damaged in 0..lines.len() {
                for replacement in damages(lines[damaged]) {
                    let mut lines = lines.clone();
                    lines[damaged] = &replacement;
                    let Checked { hir, found, .. } = checked(&name, &lines.join("\n"));
                    let unknown = found.iter().any(|d| d.code == "W0404");
                    assert_eq!(hir.is_none(), failed(&found) || unknown, "{name}: {replacement:?}");
                    checked_recipes += 1;
                }
            }
        }
    }
    assert!(checked_recipes > 5000, "{checked_recipes}");
}

fn damages(line: &str) -> Vec<String> {
    if line.starts_with("# --set") {
        return Vec::new();
    }
    let zeros = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let nines = line.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let renamed = line.replace("parent", "half").replace("activation", "text");
    vec![String::new(), zeros, nines, renamed, line.replace('=', "in"), line.replace("by ", "at ")]
}
