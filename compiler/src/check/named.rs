//! Words of the language that are no declared names: settings, quantities, rates, controls, with what they mean.

use super::arguments::Argument;

/// A word that recipes may write in some place.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub name: &'static str,
    /// Of a call; empty where the word takes none.
    pub arguments: &'static [Argument],
    pub doc: &'static str,
}

pub(super) const fn word(name: &'static str, doc: &'static str) -> Named {
    Named { name, arguments: &[], doc }
}

pub(super) const fn call(name: &'static str, arguments: &'static [Argument], doc: &'static str) -> Named {
    Named { name, arguments, doc }
}

pub(super) fn find(words: &'static [Named], name: &str) -> Option<&'static Named> {
    words.iter().find(|word| word.name == name)
}

pub(super) fn names(words: &[Named]) -> Vec<&'static str> {
    words.iter().map(|word| word.name).collect()
}
