//! Names of a recipe: where each is declared and used, and giving it another one.

use crate::check::names::{Kind, declared, references};
use crate::check::score::builtins;
use minic_grammar::ast::{Declaration, Ident, Recipe};
use minic_grammar::{Span, forms};

/// A place at which a declared name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub span: Span,
    /// It is the declaration.
    pub declares: bool,
}

/// Why a name cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// The first declaration of a name holds.
fn find<'a>(recipe: &'a Recipe, name: &str) -> Option<(Kind, &'a Ident)> {
    recipe.declarations.iter().filter_map(declared).find(|(_, ident)| ident.node == name)
}

/// The declared name that stands at a place, if one does.
pub(super) fn declared_at<'a>(recipe: &'a Recipe, word: Span, text: &str) -> Option<&'a Ident> {
    let (_, ident) = find(recipe, text)?;
    uses(recipe, word.start).iter().any(|used| used.span.start == word.start).then_some(ident)
}

/// Every place of the name that stands at an offset, its declaration first; none where no declared name stands.
pub fn uses(recipe: &Recipe, offset: usize) -> Vec<Place> {
    let at = |ident: &&Ident| ident.span.start <= offset && offset <= ident.span.end;
    let names = recipe.declarations.iter().filter_map(declared).map(|(_, ident)| ident);
    let here = names.chain(referred(recipe)).find(at);
    let Some((_, ident)) = here.and_then(|ident| find(recipe, &ident.node)) else { return Vec::new() };
    let others = referred(recipe).filter(|other| other.node == ident.node);
    let declaration = Place { span: ident.span, declares: true };
    std::iter::once(declaration)
        .chain(others.map(|other| Place { span: other.span, declares: false }))
        .collect()
}

/// Also the params of used files that a `use` gives other values.
fn referred(recipe: &Recipe) -> impl Iterator<Item = &Ident> {
    let given = recipe.uses().flat_map(|line| line.settings.iter().map(|setting| &setting.key));
    recipe.declarations.iter().flat_map(references).chain(given)
}

/// The places of the name at an offset, if `to` may stand in all of them.
pub fn rename(recipe: &Recipe, offset: usize, to: &str) -> Result<Vec<Span>, Refusal> {
    if !recipe.broken.is_empty() {
        // Names in what cannot be read would be left behind.
        return Err(Refusal("a statement of the recipe cannot be read: mend it first".into()));
    }
    let places = uses(recipe, offset);
    let Some(declaration) = places.first() else {
        return Err(Refusal("no name that the recipe declares stands here".into()));
    };
    let mut letters = to.chars();
    let begins = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let rule = "names are made of ASCII letters, digits and `_`, and do not begin with a digit";
        return Err(Refusal(format!("`{to}` is no name: {rule}")));
    }
    if forms::is_reserved(to) {
        return Err(Refusal(format!("`{to}` is a word of the language and cannot be a name")));
    }
    if let Some((kind, other)) = find(recipe, to)
        && other.span != declaration.span
    {
        return Err(Refusal(format!("`{to}` is declared already, as {}", kind.noun())));
    }
    hidden(recipe, declaration.span, to)?;
    Ok(places.iter().map(|used| used.span).collect())
}

/// A name that would mean something else where it is used.
fn hidden(recipe: &Recipe, declaration: Span, to: &str) -> Result<(), Refusal> {
    let kind = recipe.declarations.iter().filter_map(declared).find(|(_, ident)| ident.span == declaration);
    let Some((kind, ident)) = kind else { return Ok(()) };
    if kind == Kind::Metric && builtins().contains(&to) {
        return Err(Refusal(format!("`by` finds the built-in ranking `{to}` first")));
    }
    let captured = recipe.declarations.iter().any(|declaration| match declaration {
        Declaration::Metric(metric) => {
            let reads = references(declaration).iter().any(|read| read.node == ident.node);
            reads && metric.parameters.iter().any(|parameter| parameter.node == to)
        }
        _ => false,
    });
    if captured {
        return Err(Refusal(format!("a metric that reads `{}` has a parameter `{to}`", ident.node)));
    }
    Ok(())
}
