//! How declarations and lines are written, and what their words mean: for editors and references.

use crate::parse;

/// `prune NAME from MODEL { .. }`
pub fn declaration(word: &str) -> Option<&'static str> {
    find(parse::DECLARATION_FORMS, word)
}

/// The first words of the lines of a declaration that holds lines, in the order of the documentation.
pub fn lines(declaration: &str) -> impl Iterator<Item = &'static str> {
    let blocks = parse::LINE_FORMS.iter().filter(move |(owner, _)| *owner == declaration);
    blocks.flat_map(|(_, forms)| forms.iter().map(|(word, _)| *word))
}

/// `axis NAME = VALUE [by METRIC] [at TAP]`; of two forms both, with "`, or `" between them.
pub fn line(word: &str) -> Option<&'static str> {
    parse::LINE_FORMS.iter().find_map(|(_, forms)| find(forms, word))
}

/// What a word of the language means; names of axes, metrics and the like are no words of the language.
pub fn doc(word: &str) -> Option<&'static str> {
    find(DOCS, word)
}

/// A word of the language that cannot be a name.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// Words that cannot be names.
pub const RESERVED: &[&str] = &[
    "by", "at", "on", "from", "to", "for", "against", "after", "keep", "under", "with", "and", "or", "not",
    "true", "false",
];

/// Words of clauses that may be names as well.
pub const CLAUSES: &[&str] = &[
    "in",
    "of",
    "step",
    "steps",
    "descending",
    "layers",
    "within",
    "equal",
    "shared",
    "across",
    "per",
    "multiple_of",
    "before",
    "ties",
];

fn find(table: &[(&'static str, &'static str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == word).map(|(_, text)| *text)
}

const DOCS: &[(&str, &str)] = &[
    ("use", "The params, metrics, groups and schedules of another file, with other values of its params."),
    ("param", "A knob: `--set NAME=VALUE` gives it another value of the same kind."),
    ("model", "What to start from: a Hugging Face folder, or `hf://org/name@revision`."),
    ("data", "Text to calibrate on, to train on, to evaluate on."),
    ("metric", "What makes a part important: an expression over activations `x` and weights `w`."),
    ("group", "Constraints of cuts, for the `prune` that names it after `under`."),
    (
        "prune",
        "Where to cut, and how what is kept is ranked. With several values of an axis it is a space for a `search`.",
    ),
    (
        "search",
        "The best of a space: what every candidate must meet, and by what it is ranked, from many to few.",
    ),
    ("schedule", "How to train: losses, optimizer, learning rate, and how many tokens."),
    ("distill", "A model trained to imitate another one."),
    ("train", "A model trained without a teacher."),
    ("evaluate", "Figures of a model on data, for the report."),
    ("sensitivity", "What each axis of a space does by itself to loss and speed."),
    ("deploy", "Loaders that must be able to take the model; checked before anything runs."),
    ("export", "Writes a model to a Hugging Face folder."),
    ("calibrate", "The data that the metrics see."),
    ("under", "Groups whose constraints hold here."),
    ("axis", "A dimension that is cut: to one size after `=`, to any of several after `in`."),
    ("repair", "Values that are changed after the cut, to make up for it."),
    ("protect", "Layers that are never dropped, by their numbers in the parent."),
    ("keep", "How many are kept: of the layers of a kind in a `group`, of the candidates in a `rank`."),
    ("order", "The first dimension is cut first, and the second is scored on what survives."),
    ("require", "What every candidate must meet; it follows from the sizes."),
    (
        "rank",
        "A rung: the best `keep` candidates go on. The least is the best, but of `top1`, `accuracy` and `throughput` the greatest.",
    ),
    ("break", "Of candidates as good as each other, the better one by this."),
    ("control", "Baselines of the winner's sizes, taken through the same rungs without a say in the choice."),
    ("phase", "A part of a schedule; its settings go before those above it."),
    ("by", "What ranks."),
    ("at", "Where activations are looked at."),
    ("on", "The data that is looked at."),
    ("from", "The model that it is made from."),
    ("to", "The folder that is written."),
    ("for", "Which loaders, or for how many tokens."),
    ("against", "The model that is compared with."),
    ("after", "Candidates are trained by this schedule first."),
    ("in", "One of several values, or within an interval."),
    ("of", "The space that is looked at."),
    ("step", "How far the values of a range are apart."),
    ("descending", "The greatest comes first."),
    ("within", "Members stay in their group; of ties, how near candidates are."),
    ("equal", "Each group keeps the same number."),
    ("shared", "One ranking for all: `shared across`."),
    ("across", "One ranking for all of these."),
    ("per", "A ranking for each of these."),
    ("multiple_of", "Sizes are multiples of a number."),
    ("before", "Is cut after the one that stands before this word."),
    ("layers", "Numbers of layers, from 0."),
    ("ties", "Candidates as good as each other."),
    ("fitted", "The power is searched for where the loss on the calibration data is least."),
    ("sequential", "From the first block to the last, each given the stream of the repaired student."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::DECLARATIONS;

    #[test]
    fn every_declaration_and_every_line_has_a_form_and_says_what_it_means() {
        for word in DECLARATIONS {
            assert!(declaration(word).is_some_and(|form| form.starts_with(word)), "{word}");
            assert!(doc(word).is_some(), "{word}");
        }
        let lines: Vec<&str> = ["prune", "group", "search", "schedule"].into_iter().flat_map(lines).collect();
        assert_eq!(lines.len(), 12);
        for word in lines {
            assert!(line(word).is_some_and(|form| form.starts_with(word)) && doc(word).is_some(), "{word}");
        }
        assert_eq!((line("by"), doc("hidden_size")), (None, None));
    }

    #[test]
    fn reserved_words_cannot_be_names_and_others_can() {
        for word in RESERVED {
            let (recipe, found) = parse(&format!("mrecipe 1\nparam {word} = 1\n"));
            assert!(recipe.declarations.is_empty() && !found.is_empty(), "{word}");
        }
        for word in CLAUSES.iter().chain(DECLARATIONS) {
            let (recipe, found) = parse(&format!("mrecipe 1\nparam {word} = 1\n"));
            assert!(recipe.declarations.len() == 1 && found.is_empty(), "{word}: {found:?}");
        }
    }
}
