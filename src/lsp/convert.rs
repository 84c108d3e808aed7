//! What the compiler says, in the words of the protocol.

use super::position::Lines;
use gen_lsp_types::{
    Code, CompletionItem, CompletionItemKind, CompletionItemTextEdit, Contents, Diagnostic,
    DiagnosticRelatedInformation, DiagnosticSeverity, DiagnosticTag, DocumentSymbol, Documentation, Hover,
    Location, MarkupContent, MarkupKind, Message, SymbolKind, TextEdit,
};
use minic_compiler::assist::{self, Edit, Symbol, Word, WordKind};
use minic_grammar::{Severity, Span, pages};

/// Codes of names that serve nothing: editors show them pale.
const UNUSED: &[&str] = &["W0201", "W0202", "W0203"];

pub fn diagnostic(found: &minic_grammar::Diagnostic, lines: &Lines, uri: &str, related: bool) -> Diagnostic {
    let mut message = found.message.clone();
    if !found.label.is_empty() {
        message.push_str(&format!(": {}", found.label));
    }
    if let Some(help) = &found.help {
        message.push_str(&format!("\nhelp: {help}"));
    }
    let second = found.secondary.iter().map(|label| DiagnosticRelatedInformation {
        location: Location { uri: uri.into(), range: lines.range(label.span) },
        message: label.text.clone(),
    });
    Diagnostic {
        range: lines.range(found.span),
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
