//! What an editor asks about a recipe while it is written: pure functions of its text and of what is known of it.
//!
//! Whatever stands at a place is read off the words before it ([`place`]), so that the answers do not depend on a
//! tree that a half-written recipe does not have: a [`Place`](place::Place) says what may stand there, and [`words`]
//! lists it. Completion offers that list; hover shows the entry that stands there. What is computed of models comes
//! from the checker ([`cards`]).

mod cards;
mod edits;
mod names;
mod outline;
mod place;
mod reference;
mod words;

pub use edits::{Edit, fix, layout};
pub use names::{Place, Refusal, rename, uses};
pub use outline::{Symbol, SymbolKind, symbols};
pub use reference::reference;
pub use words::{Word, WordKind};

use crate::check::{Checked, Environment, check_again, check_text, resolved};
use minic_grammar::Span;
use minic_grammar::ast::Use;
use std::ops::Range;
use std::path::Path;

/// A recipe as it stands in an editor, and what the checker made of it.
///
/// Offsets that are asked for lie in its own file; places in answers may lie in files that it uses, see
/// [`Checked::sources`].
pub struct Draft {
    pub checked: Checked,
}

/// What is shown of a place, as Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hover {
    pub span: Span,
    pub text: String,
}

impl Draft {
    /// `file` is where it stands: files that it uses are named from there.
    pub fn new(file: &str, text: &str, environment: &dyn Environment) -> Draft {
        Draft { checked: check_text(file, text, environment, &[]) }
    }

    /// The same after a change: what takes long and is as it was is not computed again.
    pub fn again(&self, file: &str, text: &str, environment: &dyn Environment) -> Draft {
        Draft { checked: check_again(file, text, environment, &[], &self.checked.known) }
    }

    /// Of its own file.
    pub fn text(&self) -> &str {
        &self.checked.sources.own().text
    }

    /// The word, the tap or the number around an offset; a word that ends there counts.
    pub fn word_at(&self, offset: usize) -> Option<Span> {
        let range = word_around(self.text(), offset);
        (!range.is_empty()).then(|| Span::new(range.start, range.end))
    }

    /// What may stand at an offset, of which the word before it is the beginning, and the place of that word.
    pub fn complete(&self, offset: usize) -> (Vec<Word>, Span) {
        let range = word_around(self.text(), offset);
        let span = Span::new(range.start.min(offset), offset);
        let place = place::at(self.text(), span.start);
        (words::of(self, &place, span.start), span)
    }

    pub fn hover(&self, offset: usize) -> Option<Hover> {
        let span = self.word_at(offset)?;
        let word = &self.text()[span.start..span.end];
        if let Some(text) = cards::number(word) {
            return Some(Hover { span, text });
        }
        let place = place::at(self.text(), span.start);
        if let Some(declared) = names::declared_at(&self.checked.ast, span, word) {
            return Some(Hover { span, text: cards::declaration(self, declared) });
        }
        if let Some((model, dim)) = word.split_once('.')
            && let Some(text) = cards::dimension(self, model, dim)
        {
            return Some(Hover { span, text });
        }
        let entry = words::of(self, &place, span.start).into_iter().find(|entry| entry.label == word)?;
        Some(Hover { span, text: entry.card() })
    }

    /// The place of the declaration of the name at an offset; of the path of a used file, its beginning.
    pub fn definition(&self, offset: usize) -> Option<Span> {
        let declared = uses(&self.checked.ast, offset).into_iter().find(|used| used.declares);
        declared.map(|used| used.span).or_else(|| self.used_file(offset))
    }

    fn used_file(&self, offset: usize) -> Option<Span> {
        let here = |u: &&Use| u.file.span.start <= offset && offset <= u.file.span.end;
        let written = &self.checked.ast.uses().find(here)?.file.node;
        let own = Path::new(&self.checked.sources.own().name);
        let path = resolved(own, written);
        let mut used = self.checked.sources.used().iter();
        used.find(|file| resolved(Path::new(""), &file.name) == path).map(|file| Span::at(file.base))
    }
}

/// Letters, digits, `_` and the points between them.
fn word_around(text: &str, offset: usize) -> Range<usize> {
    let offset = text.floor_char_boundary(offset);
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let before = text[..offset].trim_end_matches(part).len();
    let after = text[offset..].find(|c| !part(c)).unwrap_or(text.len() - offset);
    let word = &text[before..offset + after];
    // Of `64..=128` each end is a word by itself.
    match word.find("..") {
        Some(dots) if before + dots >= offset => before..before + dots,
        Some(_) => {
            let start = before + word.rfind("..").map_or(0, |dots| dots + 2);
            start.min(offset)..offset + after
        }
        None => before..offset + after,
    }
}
