//! Every rule of every loader has two recipes in `corpus/deploy`: `TARGET-RULE.pass.mrecipe` draws nothing, and
//! `TARGET-RULE.fail.mrecipe` draws the rule, and no error besides.
#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

#[path = "corpus/environment.rs"]
mod environment;

use environment::{checked, corpus};
use minic_compiler::check::Checked;
use minic_compiler::targets::{Rule, TARGETS};
use minic_grammar::{Severity, render};
use std::collections::BTreeSet;
use std::fs;

fn rules() -> impl Iterator<Item = (String, &'static Rule)> {
    TARGETS.iter().flat_map(|t| t.rules.iter().map(move |rule| (format!("{}-{}", t.name, rule.name), rule)))
}

fn source(file: &str) -> String {
    let path = corpus().join("deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_passing_recipe_of_every_rule_draws_nothing() {
    for (name, _) in rules() {
        let text = source(&format!("{name}.pass.mrecipe"));
        let Checked { sources, hir, found, .. } = checked(&name, &text);
        assert!(hir.is_some() && found.is_empty(), "{}", render::render(&sources, &found, false));
    }
}

#[test]
fn the_failing_recipe_of_every_rule_draws_it_and_no_other_error() {
    for (name, rule) in rules() {
        let file = format!("{name}.fail.mrecipe");
        let text = source(&file);
        let Checked { sources, found, .. } = checked(&file, &text);
        let drawn = render::render(&sources, &found, false);
        let own = format!("rule `{}`: {}", rule.name, rule.origin.url);
        let (ours, others): (Vec<_>, Vec<_>) =
            found.iter().partition(|d| d.help.as_ref().is_some_and(|help| help.ends_with(&own)));
        assert_eq!(ours.len(), 1, "{drawn}");
        assert_eq!(ours[0].code, if rule.refuses { "E0902" } else { "W0901" }, "{drawn}");
        assert!(ours[0].message.ends_with(&format!("{} ({})", rule.asks, rule.origin.name)), "{drawn}");
        assert!(others.iter().all(|d| d.severity() == Severity::Warning), "{drawn}");
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("deploy@{name}"), format!("{text}\n----- found -----\n{drawn}"));
        });
    }
}

#[test]
fn no_recipe_stands_beside_the_rules() {
    let kinds = |name: String| [format!("{name}.fail.mrecipe"), format!("{name}.pass.mrecipe")];
    let wanted: BTreeSet<String> = rules().flat_map(|(name, _)| kinds(name)).collect();
    let entries = fs::read_dir(corpus().join("deploy")).expect("the corpus");
    let there = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(wanted, there);
}

#[test]
fn every_rule_says_where_it_comes_from() {
    let mut seen = BTreeSet::new();
    for (name, rule) in rules() {
        assert!(seen.insert(name.clone()), "{name} is there twice");
        assert!(rule.origin.url.starts_with("https://") && !rule.origin.name.is_empty(), "{name}");
        assert!(!rule.asks.ends_with('.') && !rule.otherwise.is_empty(), "{name}");
    }
    assert!(seen.len() > 20, "{seen:?}");
}
