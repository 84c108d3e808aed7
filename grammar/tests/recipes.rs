//! The shipped recipes parse.

use minic_grammar::{ast, parse, render};
use std::fs;
use std::path::Path;

#[test]
fn shipped_recipes_parse_without_a_word() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("the recipes folder is there") {
        let path = entry.expect("a readable entry").path();
        let text = fs::read_to_string(&path).expect("a readable recipe");
        let (recipe, diagnostics) = parse(&text);
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(diagnostics.is_empty(), "{}", render::render(&name, &text, &diagnostics, false));
        assert!(recipe.declarations.iter().any(|d| matches!(d, ast::Declaration::Export(_))), "{name}");
        names.push(name);
    }
    assert!(names.len() >= 5, "found only {names:?}");
}
