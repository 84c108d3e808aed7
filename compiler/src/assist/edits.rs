//! Changes of a text: the canonical layout, and the fixes of findings.

use minic_grammar::format::format;
use minic_grammar::{Fix, Span};

/// One place of a text, and what comes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub span: Span,
    pub text: String,
}

/// The edit that lays a recipe out; `None` where it cannot be read, and an empty one where nothing changes.
pub fn layout(text: &str) -> Option<Edit> {
    Some(difference(text, &format(text).ok()?))
}

/// The edit of a fix. A recipe in the canonical layout stays in it, where the mended one can be read.
pub fn fix(text: &str, fix: &Fix) -> Option<Edit> {
    let mut mended = text.to_string();
    let range = fix.span.start..fix.span.end;
    text.get(range.clone())?;
    mended.replace_range(range, &fix.replacement);
    // Where the faults kept it from being laid out, its other lines are left as they are.
    let canonical = match format(text) {
        Ok(laid_out) => laid_out == text,
        Err(_) => false,
    };
    let laid_out = canonical.then(|| format(&mended).ok()).flatten();
    Some(difference(text, &laid_out.unwrap_or(mended)))
}

/// What changes between two texts, as one edit.
fn difference(old: &str, new: &str) -> Edit {
    let same = |(a, b): &(char, char)| a == b;
    let bytes = |pairs: (char, char)| pairs.0.len_utf8();
    let head: usize = old.chars().zip(new.chars()).take_while(same).map(bytes).sum();
    let (rest, come) = (&old[head..], &new[head..]);
    let tail: usize = rest.chars().rev().zip(come.chars().rev()).take_while(same).map(bytes).sum();
    Edit { span: Span::new(head, old.len() - tail), text: come[..come.len() - tail].to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, edit: &Edit) -> String {
        format!("{}{}{}", &text[..edit.span.start], edit.text, &text[edit.span.end..])
    }

    #[test]
    fn an_edit_holds_what_changes_and_no_more() {
        for (old, new) in
            [("abc", "abc"), ("aaa", "aa"), ("a é c", "a ü c"), ("", "x"), ("x", ""), ("ab", "ba")]
        {
            assert_eq!(applied(old, &difference(old, new)), new, "{old:?} {new:?}");
        }
        assert_eq!(difference("one two", "one 2 two"), Edit { span: Span::at(4), text: "2 ".into() });
    }

    #[test]
    fn a_recipe_is_laid_out_where_it_can_be_read() {
        let crooked = "mrecipe 1\n\nmodel  m {checkpoint=\"a\"}\n";
        let edit = layout(crooked).expect("it can be read");
        assert_eq!(applied(crooked, &edit), "mrecipe 1\n\nmodel m { checkpoint = \"a\" }\n");
        assert_eq!(layout("mrecipe 1\nmodel {"), None);
    }

    #[test]
    fn a_fix_keeps_the_layout_of_a_recipe_that_has_it() {
        let text = "mrecipe 1\n\ndata d {\n    files = [\"a\"]\n}\n";
        let at = text.find(']').map_or(0, |at| at + 1);
        let add = |at: usize| Fix {
            title: String::new(),
            span: Span::at(at),
            replacement: "; sequence = 8".into(),
        };
        let mended = applied(text, &fix(text, &add(at)).expect("a fix"));
        assert_eq!(mended, "mrecipe 1\n\ndata d {\n    files    = [\"a\"]\n    sequence = 8\n}\n");
        let crooked = text.replace("    files", "  files");
        let mended = applied(&crooked, &fix(&crooked, &add(at - 2)).expect("a fix"));
        assert!(mended.contains("  files = [\"a\"]; sequence = 8\n"), "{mended}");
        assert_eq!(fix(text, &add(1000)), None);
    }
}
