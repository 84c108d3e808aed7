//! Text to syntax tree. Parsing never fails: what cannot be read is absent from the tree and present as a diagnostic.
//!
//! The text is laid out first ([`layout`]), each statement goes through the pest grammar, and the pairs are made
//! into the tree here and below. Nothing outside of this module names a `Rule`.

mod blocks;
mod declarations;
mod expressions;
pub(crate) mod layout;
mod lines;
mod messages;
mod numbers;
mod strings;

pub use self::numbers::{quantity, units};

pub(crate) use self::blocks::{DECLARATION_FORMS, LINE_FORMS};
use crate::ast::{Broken, DECLARATIONS, Ident, Recipe};
use crate::diagnostic::{self, Diagnostic, Help};
use crate::forms::is_reserved;
use crate::span::{Span, Spanned};
use crate::suggest::nearest;
use pest::Parser as _;
use pest::iterators::Pair;

#[derive(pest_derive::Parser)]
#[grammar = "mrecipe.pest"]
struct Grammar;

/// The version of the language that this crate reads.
const VERSION: u64 = 1;

/// Reads a recipe. The diagnostics are sorted by place.
pub fn parse(source: &str) -> (Recipe, Vec<Diagnostic>) {
    parse_at(source, 0)
}

/// Reads a file that begins at the offset `base`, where [`crate::Sources`] put it: all places are offsets like that.
pub fn parse_at(source: &str, base: usize) -> (Recipe, Vec<Diagnostic>) {
    // Blanks are no part of any statement; a byte order mark is as long as three.
    let (mark, rest) = source.strip_prefix('\u{feff}').map_or((0, source), |rest| (3, rest));
    let moved = " ".repeat(base + mark) + rest;
    let source = if base == 0 { source } else { &moved };
    let layout = layout::scan(source);
    let mut layout_faults: Vec<usize> = layout.diagnostics.iter().map(|d| d.span.start).collect();
    layout_faults.sort_unstable();
    let mut reader = Reader {
        base: 0,
        recipe: Recipe::default(),
        layout_faults,
        diagnostics: layout.diagnostics,
        unopened: false,
    };
    reader.recipe(&layout.text, &layout.statements, base);
    diagnostic::sort(&mut reader.diagnostics);
    (reader.recipe, reader.diagnostics)
}

/// Makes the tree. Its methods return `None` where a part cannot be made, having said why.
struct Reader {
    /// Where the text that is being parsed begins in the source.
    base: usize,
    recipe: Recipe,
    diagnostics: Vec<Diagnostic>,
    /// Where the layout has reported faults, sorted: a statement around one is not reported again.
    layout_faults: Vec<usize>,
    /// The declaration before lacks its `{`.
    unopened: bool,
}

impl Reader {
    fn recipe(&mut self, text: &str, statements: &[Span], base: usize) {
        let mut statements = statements.iter().copied().peekable();
        let first = statements.peek().copied();
        if let Some(header) = first.filter(|s| self.is_header(text, *s)) {
            statements.next();
            self.header(text, header);
        } else {
            let at = first.map_or(base, |s| s.start);
            let end = at + first_word(text, at).len();
            self.report(
                Diagnostic::new("E0101", Span::new(at, end), "the header `mrecipe 1` is missing")
                    .help("begin the file with the line `mrecipe 1`")
                    .fix("add the header", Span::at(at), "mrecipe 1\n\n"),
            );
        }
        for statement in statements {
            self.statement(text, statement);
        }
    }

    /// `mrecipe`, or a misspelling of it before a number.
    fn is_header(&self, text: &str, statement: Span) -> bool {
        let word = first_word(text, statement.start);
        let rest = text.get(statement.start + word.len()..statement.end).unwrap_or_default();
        let number = rest.trim_start().starts_with(|c: char| c.is_ascii_digit());
        word == "mrecipe" || (number && nearest(word, ["mrecipe"]).is_some())
    }

    fn header(&mut self, text: &str, statement: Span) {
        let word = first_word(text, statement.start);
        let written = text.get(statement.start..statement.end).unwrap_or_default();
        let version = Grammar::parse(Rule::statement, written)
            .ok()
            .and_then(|mut pairs| pairs.next())
            .and_then(|header| header.into_inner().find(|p| p.as_rule() == Rule::version));
        let Some(version) = version else {
            let message = if word == "mrecipe" {
                "the header is `mrecipe 1`, alone on its line".to_owned()
            } else {
                format!("the header is `mrecipe 1`, not `{word} ..`")
            };
            let help = Help::instead("make the first line `mrecipe 1`", ["mrecipe 1".to_owned()]);
            self.report(Diagnostic::new("E0101", statement, message).help(help));
            return;
        };
        self.base = statement.start;
        let span = self.span(&version);
        let number = version.as_str().parse().unwrap_or(u64::MAX);
        self.recipe.version = Some(Spanned::new(number, span));
        if number != VERSION {
            let message = format!("version {} of the recipe language is not known", version.as_str());
            let help = Help::instead("this program reads `mrecipe 1`", [VERSION.to_string()]);
            self.report(Diagnostic::new("E0101", span, message).help(help));
        }
    }

    fn statement(&mut self, text: &str, statement: Span) {
        let word = first_word(text, statement.start);
        let written = text.get(statement.start..statement.end).unwrap_or_default();
        if self.unopened && belongs_to_block(word, written) {
            self.within_unopened(written, statement);
            return;
        }
        self.unopened = false;
        if !DECLARATIONS.contains(&word) {
            self.unknown_declaration(word, text, statement);
            return;
        }
        self.base = statement.start;
        let before = self.diagnostics.len();
        let made = match Grammar::parse(Rule::statement, written) {
            Ok(mut pairs) => pairs.next().and_then(|pair| self.declaration(pair)),
            Err(error) => {
                self.unreadable(&error, written, blocks::form(DECLARATION_FORMS, word));
                None
            }
        };
        match made {
            Some(declaration) => self.recipe.declarations.push(declaration),
            None => {
                self.ensure_reported(before, statement);
                let name = declared_name(text, statement);
                self.recipe.broken.push(Broken { name, span: statement });
                self.unopened =
                    !matches!(word, "use" | "param" | "metric" | "deploy") && !written.contains('{');
            }
        }
    }

    /// A line of a block whose `{` was forgotten, or its `}`: no fault of its own.
    fn within_unopened(&mut self, written: &str, statement: Span) {
        self.recipe.broken.push(Broken { name: None, span: statement });
        if written.starts_with('}') {
            let inside = |d: &Diagnostic| statement.start <= d.span.start && d.span.end <= statement.end;
            self.diagnostics.retain(|d| d.code != "E0103" || !inside(d));
            self.unopened = false;
        }
    }

    fn unknown_declaration(&mut self, word: &str, text: &str, statement: Span) {
        let name = declared_name(text, statement);
        self.recipe.broken.push(Broken { name, span: statement });
        if self.layout_reported(statement) {
            return;
        }
        if word == "mrecipe" {
            let message = "the header `mrecipe 1` stands once, at the head of the file";
            self.report(Diagnostic::new("E0102", statement, message).help("remove this line").fix(
                "remove this line",
                statement,
                "",
            ));
            return;
        }
        if word.is_empty() {
            let found = messages::found(text, statement.start);
            let message = format!("expected a declaration, found {}", found.description);
            let span = Span::new(statement.start, found.end);
            let help = match ["//", "/*", "--", "%"].iter().any(|mark| found.rest.starts_with(mark)) {
                true => "comments begin with `#`".into(),
                false => declarations_help(),
            };
            self.report(Diagnostic::new("E0104", span, message).help(help));
            return;
        }
        let span = Span::new(statement.start, statement.start + word.len());
        let rest = text.get(span.end..statement.end).unwrap_or_default().trim_start();
        let help = match also(word).or_else(|| nearest(word, DECLARATIONS.iter().copied())) {
            Some(near) => Help::meant(near),
            None if rest.starts_with('=') => {
                let declared = format!("param {word}");
                Help::instead(format!("a value is declared as `{declared} = ..`"), [declared])
            }
            None => declarations_help().into(),
        };
        let message = format!("no declaration begins with `{word}`");
        self.report(Diagnostic::new("E0104", span, message).help(help));
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// What was left out of the tree without a word is a fault of this module; say at least where.
    fn ensure_reported(&mut self, before: usize, span: Span) {
        if self.diagnostics.len() == before && !self.layout_reported(span) {
            self.report(
                Diagnostic::new("E0102", span, "this statement cannot be read").help("write it in parts"),
            );
        }
    }

    fn layout_reported(&self, span: Span) -> bool {
        let next = self.layout_faults.partition_point(|fault| *fault < span.start);
        self.layout_faults.get(next).is_some_and(|fault| *fault <= span.end)
    }

    /// The place of a pair in the source, without the blanks that pest leaves at its end.
    fn span(&self, pair: &Pair<Rule>) -> Span {
        let start = self.base + pair.as_span().start();
        let length = pair.as_str().trim_end_matches([' ', '\t', '\n']).len();
        Span::new(start, start + length)
    }

    fn ident(&self, pair: &Pair<Rule>) -> Ident {
        Spanned::new(pair.as_str().to_owned(), self.span(pair))
    }
}

fn declarations_help() -> String {
    format!(
        "declarations begin with {}",
        messages::alternatives(DECLARATIONS.iter().map(|d| format!("`{d}`")))
    )
}

/// The declaration that another language begins with this word.
fn also(word: &str) -> Option<&'static str> {
    Some(match word {
        "let" | "var" | "const" | "variable" | "set" | "def" => "param",
        "import" | "include" | "require" | "from" => "use",
        "dataset" | "source" => "data",
        "finetune" | "fine_tune" | "fit" | "pretrain" => "train",
        "eval" | "test" | "validate" | "benchmark" => "evaluate",
        "save" | "output" | "write" => "export",
        "cut" | "space" | "compress" => "prune",
        "optimize" | "sweep" | "tune" => "search",
        "constraints" | "rules" => "group",
        "checkpoint" | "teacher" => "model",
        "score" | "importance" | "criterion" => "metric",
        _ => return None,
    })
}

/// A line that would stand in a block, or the end of one.
fn belongs_to_block(word: &str, written: &str) -> bool {
    let setting = written.get(word.len()..).is_some_and(|rest| rest.trim_start().starts_with('='));
    written.starts_with('}') || (!word.is_empty() && (setting || blocks::is_line(word)))
}

/// The word that begins at `at`; empty where something else does.
fn first_word(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The name after the first word, as in `model NAME`: what a broken declaration would have declared.
fn declared_name(text: &str, statement: Span) -> Option<Ident> {
    let keyword = first_word(text, statement.start);
    if matches!(keyword, "" | "use" | "evaluate" | "deploy" | "export" | "mrecipe") {
        return None;
    }
    let after = text.get(statement.start + keyword.len()..statement.end)?;
    let blanks = after.len() - after.trim_start_matches([' ', '\t']).len();
    let start = statement.start + keyword.len() + blanks;
    let name = first_word(text, start);
    let named =
        blanks > 0 && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !is_reserved(name);
    named.then(|| Spanned::new(name.to_owned(), Span::new(start, start + name.len())))
}

#[cfg(test)]
mod tests {
    use crate::ast::{Declaration, Expr, ExprKind, PruneItem};
    use crate::span::Span;
    use crate::{parse, parse_at};

    #[test]
    fn spans_cover_what_was_written_without_the_blanks_around_it() {
        let text = "\u{feff}# é\r\nmrecipe 1\r\nparam x = f(a.b,\r\n  60  steps ) + (2  *  3)   # c\r\n\
                    prune p from m {\r\n\taxis a in {1 , 2}  by  k( s = 1 )   at  m.x \t # é\r\n}  \r\n";
        let (recipe, diagnostics) = parse(text);
        assert_eq!(diagnostics, []);
        let written = |span: Span| &text[span.start..span.end];
        let [Declaration::Param(param), Declaration::Prune(prune)] = &recipe.declarations[..] else {
            panic!("{recipe}");
        };
        assert_eq!(written(param.name.span), "x");
        assert_eq!(written(param.value.span), "f(a.b,\r\n  60  steps ) + (2  *  3)");
        let ExprKind::Binary { op, left, right } = &param.value.kind else { panic!("{recipe}") };
        assert_eq!((written(op.span), written(right.span)), ("+", "(2  *  3)"));
        let ExprKind::Call { callee, arguments } = &left.kind else { panic!("{recipe}") };
        assert_eq!(written(callee.span), "f");
        let values: Vec<&str> = arguments.iter().map(|a| written(a.value.span)).collect();
        assert_eq!(values, ["a.b", "60  steps"]);
        assert_eq!(segments(&arguments[0].value, text), ["a", "b"]);

        let [PruneItem::Axis(axis)] = &prune.items[..] else { panic!("{recipe}") };
        assert_eq!(written(axis.span), "axis a in {1 , 2}  by  k( s = 1 )   at  m.x");
        assert_eq!(written(axis.domain.span), "{1 , 2}");
        assert_eq!(axis.by.as_ref().map(|b| written(b.span)), Some("k( s = 1 )"));
        assert_eq!(axis.at.as_ref().map(|a| written(a.span)), Some("m.x"));
        assert!(written(prune.span).starts_with("prune p") && written(prune.span).ends_with('}'));
    }

    fn segments<'a>(expr: &Expr, text: &'a str) -> Vec<&'a str> {
        match &expr.kind {
            ExprKind::Path(path) => path.segments.iter().map(|s| &text[s.span.start..s.span.end]).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_file_far_behind_others_and_with_a_mark_has_its_places_there() {
        let text = "\u{feff}mrecipe 1\nparam width = 1\nparam broken =\n";
        for base in [1, 70_000] {
            let (recipe, found) = parse_at(text, base);
            let [Declaration::Param(param)] = &recipe.declarations[..] else { panic!("{recipe}") };
            let local = param.name.span.start - base..param.name.span.end - base;
            assert_eq!(&text[local], "width");
            assert!(found.len() == 1 && found[0].span.start > base + 30, "{found:?}");
            let (_, found) = parse_at("", base);
            assert_eq!(found[0].span, Span::new(base, base));
        }
    }

    #[test]
    fn a_broken_header_is_one_fault() {
        for text in [
            "",
            "   \n",
            "# only a comment",
            "mrecipe",
            "mrecipe one",
            "mrecipe 99999999999999999999999",
            "mrecipe 0",
        ] {
            let (recipe, diagnostics) = parse(text);
            let codes: Vec<&str> = diagnostics.iter().map(|d| d.code).collect();
            assert_eq!(codes, ["E0101"], "{text:?}");
            assert!(recipe.broken.is_empty() && recipe.declarations.is_empty());
        }
    }
}
