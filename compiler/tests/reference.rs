//! `docs/reference.md` is what the grammar and the registries say of themselves.
#![allow(clippy::disallowed_methods, reason = "the page is read and written here")]

use minic_compiler::assist::reference;
use std::fs;
use std::path::Path;

#[test]
fn the_page_about_the_words_is_what_the_compiler_knows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let page = reference();
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        fs::write(&path, &page).expect("the page is written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference.md is out of date: `INSTA_UPDATE=always cargo test -p minic-compiler --test reference` writes it \
         again; then read it"
    );
}
