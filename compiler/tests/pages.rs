//! The pages about diagnostic codes tell the truth: the first recipe of each draws its code, the second draws nothing.
#![allow(clippy::disallowed_methods, reason = "the world of the corpus reads files")]

#[path = "corpus/environment.rs"]
mod environment;

use environment::checked;
use minic_compiler::check::Checked;
use minic_grammar::pages::PAGES;
use minic_grammar::render;
use std::collections::BTreeSet;

#[test]
fn the_first_recipe_of_a_page_draws_its_code_and_no_other_error() {
    for page in PAGES {
        let Checked { sources, found, .. } = checked(page.id, page.failing());
        let drawn = render::render(&sources, &found, false);
        let codes: BTreeSet<&str> = found.iter().map(|d| d.code).collect();
        let errors: BTreeSet<&str> = codes.iter().copied().filter(|c| c.starts_with('E')).collect();
        let wanted = BTreeSet::from_iter(Some(page.id).filter(|id| id.starts_with('E')));
        assert!(codes.contains(page.id), "{} is not drawn:\n{drawn}", page.id);
        assert_eq!(errors, wanted, "{}", page.id);
    }
}

#[test]
fn the_second_recipe_of_a_page_draws_nothing() {
    let mut drawn = String::new();
    for page in PAGES {
        let Checked { sources, hir, found, .. } = checked(page.id, page.mended());
        drawn += &render::render(&sources, &found, false);
        assert!(hir.is_some() || !found.is_empty(), "{}", page.id);
    }
    assert!(drawn.is_empty(), "{drawn}");
}
