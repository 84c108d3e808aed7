//! What the compiler says, in the words of the protocol.

use super::position::{Encoding, Lines};
use super::uri;
use gen_lsp_types::{
    Code, CompletionItem, CompletionItemKind, CompletionItemTextEdit, Contents, Diagnostic,
    DiagnosticRelatedInformation, DiagnosticSeverity, DiagnosticTag, DocumentSymbol, Documentation, Hover,
    Location, MarkupContent, MarkupKind, Message, Range, SymbolKind, TextEdit, WorkspaceEdit,
};
use minic_compiler::assist::{self, Draft, Edit, Symbol, Word, WordKind};
use minic_compiler::check::resolved;
use minic_grammar::{Fix, Severity, Sources, Span, pages};
use std::path::Path;

/// Codes of names that serve nothing: editors show them pale.
const UNUSED: &[&str] = &["W0201", "W0202", "W0203"];

/// The files of a draft, with their addresses and lines.
pub struct Files<'a> {
    sources: &'a Sources,
    /// In the order of the sources.
    files: Vec<(String, Lines<'a>)>,
}

impl<'a> Files<'a> {
    /// `uri` is the address of the draft's own file.
    pub fn new(draft: &'a Draft, uri: &str, encoding: Encoding) -> Files<'a> {
        let sources = &draft.checked.sources;
        let own = (uri.to_string(), Lines::new(&sources.own().text, encoding));
        let used = sources.used().iter().map(|file| {
            let path = resolved(Path::new(""), &file.name);
            (uri::of_path(&path), Lines::new(&file.text, encoding))
        });
        Files { sources, files: std::iter::once(own).chain(used).collect() }
    }

    /// The lines of the draft's own file.
    pub fn own(&self) -> &Lines<'a> {
        &self.files[0].1
    }

    /// The address of the file that a span lies in, and its range there.
    pub fn locate(&self, span: Span) -> (&str, Range) {
        let (source, local) = self.sources.locate(span);
        let at = self.sources.iter().position(|file| file.base == source.base).unwrap_or(0);
        let (uri, lines) = &self.files[at];
        (uri, lines.range(local))
    }

    pub fn location(&self, span: Span) -> Location {
        let (uri, range) = self.locate(span);
        Location { uri: uri.into(), range }
    }

    /// Where the text of a file begins among the sources.
    pub fn base(&self, uri: &str) -> Option<usize> {
        let at = self.files.iter().position(|(known, _)| known == uri)?;
        self.sources.iter().nth(at).map(|file| file.base)
    }

    /// The same text at every one of these places, each once.
    pub fn change(&self, edit: &mut WorkspaceEdit, places: impl IntoIterator<Item = Span>, text: &str) {
        let changes = edit.changes.get_or_insert_default();
        for (uri, range) in places.into_iter().map(|span| self.locate(span)) {
            let edit = TextEdit { range, new_text: text.to_string() };
            let edits = changes.entry(uri.into()).or_default();
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
    }

    /// The edit of a fix, in the file that it is for.
    pub fn fix(&self, fix: &Fix) -> Option<WorkspaceEdit> {
        let (source, span) = self.sources.locate(fix.span);
        let edit = assist::fix(&source.text, &Fix { span, ..fix.clone() })?;
        let span = Span::new(edit.span.start + source.base, edit.span.end + source.base);
        let mut changes = WorkspaceEdit::default();
        self.change(&mut changes, [span], &edit.text);
        Some(changes)
    }

    pub fn diagnostic(&self, found: &minic_grammar::Diagnostic, related: bool) -> Diagnostic {
        let mut message = found.message.clone();
        if !found.label.is_empty() {
            message.push_str(&format!(": {}", found.label));
        }
        if let Some(help) = &found.help {
            message.push_str(&format!("\nhelp: {help}"));
        }
        let second = found.secondary.iter().map(|label| DiagnosticRelatedInformation {
            location: self.location(label.span),
            message: label.text.clone(),
        });
        Diagnostic {
            range: self.locate(found.span).1,
            severity: Some(match found.severity() {
                Severity::Error => DiagnosticSeverity::Error,
                Severity::Warning => DiagnosticSeverity::Warning,
            }),
            code: Some(Code::String(found.code.into())),
            source: Some("minic".into()),
            message: Message::String(message),
            tags: UNUSED.contains(&found.code).then(|| vec![DiagnosticTag::Unnecessary]),
            related_information: related.then(|| second.collect()),
            ..Diagnostic::default()
        }
    }
}

pub fn edit(edit: &Edit, lines: &Lines) -> TextEdit {
    TextEdit { range: lines.range(edit.span), new_text: edit.text.clone() }
}

fn markdown(value: String) -> MarkupContent {
    MarkupContent { kind: MarkupKind::Markdown, value }
}

/// What stands at a place, and what the findings there mean.
pub fn hover(
    shown: Option<assist::Hover>,
    found: &[&minic_grammar::Diagnostic],
    lines: &Lines,
) -> Option<Hover> {
    let span = shown.as_ref().map(|hover| hover.span).or(found.first().map(|d| d.span))?;
    let pages = found.iter().filter_map(|d| pages::find(d.code));
    let pages = pages.map(|page| {
        let first = page.text().split("\n\n").next().unwrap_or_default();
        format!("**{}** {}: {first}\n\n`minic explain {}` says more.", page.id, page.title(), page.id)
    });
    let parts: Vec<String> = shown.map(|hover| hover.text).into_iter().chain(pages).collect();
    Some(Hover {
        contents: Contents::MarkupContent(markdown(parts.join("\n\n---\n\n"))),
        range: Some(lines.range(span)),
    })
}

/// The words in their order, each in the place of what is written of it.
pub fn completion(words: Vec<Word>, span: Span, lines: &Lines) -> Vec<CompletionItem> {
    let range = lines.range(span);
    let item = |(order, word): (usize, Word)| {
        let kind = match word.kind {
            WordKind::Keyword => CompletionItemKind::Keyword,
            WordKind::Setting => CompletionItemKind::Property,
            WordKind::Function => CompletionItemKind::Function,
            WordKind::Name => CompletionItemKind::Variable,
            WordKind::Constant => CompletionItemKind::EnumMember,
        };
        let new_text = word.insert.unwrap_or_else(|| word.label.clone());
        CompletionItem {
            label: word.label,
            kind: Some(kind),
            detail: Some(word.detail).filter(|detail| !detail.is_empty()),
            documentation: (!word.doc.is_empty()).then(|| Documentation::MarkupContent(markdown(word.doc))),
            sort_text: Some(format!("{order:04}")),
            text_edit: Some(CompletionItemTextEdit::TextEdit(TextEdit { range, new_text })),
            ..CompletionItem::default()
        }
    };
    words.into_iter().enumerate().map(item).collect()
}

pub fn symbol(symbol: &Symbol, lines: &Lines) -> DocumentSymbol {
    let inner: Vec<DocumentSymbol> = symbol.inner.iter().map(|inner| self::symbol(inner, lines)).collect();
    let kind = match symbol.kind {
        assist::SymbolKind::Value => SymbolKind::Constant,
        assist::SymbolKind::Model => SymbolKind::Class,
        assist::SymbolKind::Data => SymbolKind::File,
        assist::SymbolKind::Function => SymbolKind::Function,
        assist::SymbolKind::Rules => SymbolKind::Namespace,
        assist::SymbolKind::Action => SymbolKind::Event,
    };
    let detail = Some(symbol.detail.clone()).filter(|detail| !detail.is_empty());
    let (whole, name) = (lines.range(symbol.whole), lines.range(symbol.name_span));
    let inner = (!inner.is_empty()).then_some(inner);
    DocumentSymbol::new(symbol.name.clone(), detail, kind, None, None, whole, name, inner)
}
