//! A corpus of recipes with snapshots: what each means, or what is wrong with it. Every file is cut and maimed, too:
//! parsing ends, in bounded time, whatever it is given.
#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

use minic_grammar::{Diagnostic, Sources, ast, codes, parse, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[test]
fn good_recipes_have_a_tree_and_no_diagnostics() {
    insta::glob!("corpus/good/*.mrecipe", |path| {
        let text = read(path);
        let (recipe, diagnostics) = parse(&text);
        assert!(
            diagnostics.is_empty(),
            "{}",
            render::render(&Sources::new(name(path), &text), &diagnostics, false)
        );
        assert!(recipe.broken.is_empty());
        snapshot("good", path, &format!("{}\n----- tree\n{recipe}", source(&text)));
    });
}

#[test]
fn bad_recipes_say_what_is_wrong_and_keep_the_rest() {
    insta::glob!("corpus/bad/*.mrecipe", |path| {
        let text = read(path);
        let (recipe, diagnostics) = parse(&text);
        assert!(!diagnostics.is_empty(), "nothing is wrong with {}", path.display());
        check_form(&text, &diagnostics);
        let rendered = render::render(&Sources::new(name(path), &text), &diagnostics, false);
        let text = format!("{}\n----- diagnostics\n{rendered}----- tree\n{recipe}", source(&text));
        snapshot("bad", path, &text);
    });
}

/// Source, picture and tree belong to one snapshot, so that it can be reviewed by reading it alone.
fn snapshot(kind: &str, path: &Path, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path(format!("snapshots/{kind}"));
    settings.remove_snapshot_suffix();
    let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn source(text: &str) -> String {
    let visible = text.replace('\0', "␀").replace("\r\n", "␍\n").replace('\u{feff}', "<BOM>");
    format!("----- source\n{visible}")
}

/// Every diagnostic has a registered code, a place inside of the text, and they are sorted.
fn check_form(text: &str, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        assert!(codes::CODES.iter().any(|c| c.id == diagnostic.code), "{diagnostic:?} is not registered");
        assert!(diagnostic.help.as_ref().is_some_and(|h| !h.is_empty()), "{diagnostic:?} has no help");
        for span in diagnostic.secondary.iter().map(|l| l.span).chain([diagnostic.span]) {
            assert!(
                text.get(span.start..span.end).is_some(),
                "{diagnostic:?} is not at characters of the text"
            );
        }
    }
    assert!(diagnostics.is_sorted_by_key(|d| d.span.start));
}

#[test]
fn the_corpus_raises_every_code_of_this_crate() {
    let found: BTreeSet<&str> = corpus().iter().flat_map(|(_, text)| parse(text).1).map(|d| d.code).collect();
    for code in codes::CODES.iter().filter(|c| c.id.starts_with("E01")) {
        assert!(found.contains(code.id), "no bad recipe raises {}", code.id);
    }
}

#[test]
fn every_prefix_of_every_file_parses() {
    for (path, text) in corpus() {
        let bound = Bound::new(&path);
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let prefix = &text[..end];
            let (_, diagnostics) = parse(prefix);
            check_form(prefix, &diagnostics);
        }
        bound.check(text.len());
    }
}

#[test]
fn every_file_without_any_one_line_or_bracket_parses() {
    for (path, text) in corpus() {
        let bound = Bound::new(&path);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut runs = lines.len();
        for skipped in 0..lines.len() {
            let maimed: String =
                lines.iter().enumerate().filter(|(i, _)| *i != skipped).map(|(_, l)| *l).collect();
            check_form(&maimed, &parse(&maimed).1);
        }
        for (at, mark) in text.char_indices().filter(|(_, c)| "(){}[]\",;=".contains(*c)) {
            let maimed = format!("{}{}", &text[..at], &text[at + mark.len_utf8()..]);
            check_form(&maimed, &parse(&maimed).1);
            runs += 1;
        }
        bound.check(runs);
    }
}

#[test]
fn random_edits_parse() {
    let files = corpus();
    let mut random = Random(1);
    let words: [&str; 20] = [
        "{", "}", "(", ")", "[", "]", "\"", "#", "\n", ";", ",", "=", "..=", " by ", "model ", "é", "\0",
        "\r", "9e", "not ",
    ];
    let bound = Bound::new(Path::new("random edits"));
    for _ in 0..4000 {
        let mut text = random.choice(&files).1.clone();
        for _ in 0..=random.below(6) {
            let mut place = || text.floor_char_boundary(random.below(text.len() + 1));
            let (start, end) = (place(), place());
            // Half of the edits insert, half replace up to 40 bytes.
            let end =
                if end % 2 == 0 { start } else { text.floor_char_boundary(end.clamp(start, start + 40)) };
            text.replace_range(start..end, random.choice::<&str>(&words));
        }
        let (recipe, diagnostics) = parse(&text);
        check_form(&text, &diagnostics);
        assert!(
            recipe.broken.is_empty() || !diagnostics.is_empty(),
            "something is lost without a word:\n{text}"
        );
        render::render(&Sources::new("random", text.as_str()), &diagnostics, false);
    }
    bound.check(4000);
}

#[test]
fn what_is_unread_is_known_by_name_and_place() {
    let text = "mrecipe 1\nmodel a { checkpoint = }\nmodel b { checkpoint = \"m\" }\nprune c form a { }\n";
    let (recipe, _) = parse(text);
    assert!(recipe.is_unread("c") && !recipe.is_unread("a") && !recipe.is_unread("b"));
    let holes: Vec<bool> = recipe
        .declarations
        .iter()
        .map(|d| match d {
            ast::Declaration::Model(m) => recipe.has_hole(m.span),
            _ => false,
        })
        .collect();
    assert_eq!(holes, [true, false]);
}

/// Knuth's linear congruential generator: the same edits on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }

    fn choice<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[test]
fn one_bad_line_hides_no_other() {
    for (path, text) in corpus().into_iter().filter(|(path, _)| path.to_string_lossy().contains("good")) {
        let whole = parse(&text).0.declarations.len();
        for (start, line) in
            lines(&text).filter(|(start, _)| *start > 0 && text[..*start].contains("mrecipe 1"))
        {
            let maimed = format!("{}! ! !\n{}", &text[..start], &text[start..]);
            let (recipe, diagnostics) = parse(&maimed);
            assert!(!diagnostics.is_empty(), "{}: `! ! !` before {line:?} was accepted", path.display());
            assert!(
                recipe.declarations.len() + 1 >= whole,
                "{}: lost more than one before {line:?}",
                path.display()
            );
        }
    }
}

#[test]
fn deep_nesting_neither_overflows_nor_takes_long() {
    let bound = Bound::new(Path::new("deep nesting"));
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{", "}"), ("f(", ")"), ("{ a = ", " }"), ("[{ a = (", ")}]")]
    {
        let deep =
            format!("mrecipe 1\nparam x = {}1{}\nparam y = 2\n", open.repeat(10_000), close.repeat(10_000));
        let (recipe, diagnostics) = parse(&deep);
        assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["E0109"], "{open}");
        assert!(recipe.declarations.iter().any(declares_y), "{open}: what follows is read");
        let unclosed = format!("mrecipe 1\nparam x = {}\nparam y = 2\n", open.repeat(10_000));
        let (recipe, diagnostics) = parse(&unclosed);
        assert!(diagnostics.len() <= 2, "{open}: {}", diagnostics.len());
        assert!(recipe.declarations.iter().any(declares_y), "{open}: what follows is read");
        let closing = format!("mrecipe 1\nparam x = 1{}\n", close.repeat(10_000));
        parse(&closing);
    }
    for chain in ["- ", "not ", "1 + ", "a and ", "1 ..= ", "a < "] {
        let (recipe, diagnostics) =
            parse(&format!("mrecipe 1\nparam x = {}1\nparam y = 2\n", chain.repeat(100_000)));
        assert_eq!(diagnostics.len(), 1, "{chain}");
        assert_eq!(recipe.declarations.len(), 1, "{chain}");
    }
    bound.check(20);
}

fn declares_y(declaration: &ast::Declaration) -> bool {
    matches!(declaration, ast::Declaration::Param(p) if p.name.node == "y")
}

#[test]
fn brackets_at_the_allowed_depth_are_read() {
    for (open, close) in [("(", ")"), ("[", "]"), ("{", "}"), ("f(", ")")] {
        let text = format!("mrecipe 1\nparam x = {}1{}\n", open.repeat(64), close.repeat(64));
        assert_eq!(parse(&text).1, [], "{open}");
    }
}

/// Generous for a slow, loaded machine: it is there for what is exponential.
struct Bound {
    name: String,
    start: Instant,
}

impl Bound {
    fn new(path: &Path) -> Self {
        Bound { name: name(path), start: Instant::now() }
    }

    fn check(&self, runs: usize) {
        let allowed = Duration::from_secs(20) + Duration::from_millis(20) * runs as u32;
        assert!(
            self.start.elapsed() < allowed,
            "{} took {:?} for {runs} runs",
            self.name,
            self.start.elapsed()
        );
    }
}

fn corpus() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = Vec::new();
    for kind in ["good", "bad"] {
        for entry in fs::read_dir(folder.join(kind)).expect("the corpus is there") {
            let path = entry.expect("a readable entry").path();
            files.push((path.clone(), read(&path)));
        }
    }
    assert!(files.len() > 37, "found only {} files", files.len());
    files
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        start += line.len();
        (start - line.len(), line)
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a readable file")
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
