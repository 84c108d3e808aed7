//! The requests that are answered.

use super::convert::{self, Files};
use super::position::{Encoding, Lines};
use super::{Refused, Server, Stage, read};
use gen_lsp_types::{
    CodeAction, CodeActionKind, CodeActionParams, CompletionParams, DefinitionParams,
    DocumentFormattingParams, DocumentSymbolParams, HoverParams, Location, PrepareRenameParams,
    PrepareRenamePlaceholder, ReferenceParams, RenameParams, TextDocumentPositionParams, WorkspaceEdit,
};
use lsp_server::ErrorCode;
use minic_compiler::assist::{self, Draft};
use minic_grammar::{Diagnostic, Span};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;
use std::rc::Rc;

/// What the server can do.
pub fn capabilities(encoding: Encoding) -> Value {
    let encoding = match encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Utf16 => "utf-16",
    };
    json!({
        "capabilities": {
            "positionEncoding": encoding,
            "textDocumentSync": { "openClose": true, "change": 2, "save": true },
            "completionProvider": { "triggerCharacters": [" ", ".", "(", "=", "{", "["] },
            "hoverProvider": true,
            "definitionProvider": true,
            "referencesProvider": true,
            "renameProvider": { "prepareProvider": true },
            "documentSymbolProvider": true,
            "documentFormattingProvider": true,
            "codeActionProvider": { "codeActionKinds": ["quickfix"] },
        },
        "serverInfo": { "name": "minic", "version": env!("CARGO_PKG_VERSION") },
    })
}

impl<W: Write> Server<W> {
    pub(super) fn answer(&mut self, method: &str, params: Value) -> Result<Value, Refused> {
        match method {
            "initialize" if self.stage == Stage::Waiting => Ok(self.initialize(read(params)?)),
            "shutdown" => {
                self.stage = Stage::ShutDown;
                Ok(Value::Null)
            }
            "textDocument/completion" => self.completion(read(params)?),
            "textDocument/hover" => self.hover(read(params)?),
            "textDocument/definition" => self.definition(read(params)?),
            "textDocument/references" => self.references(read(params)?),
            "textDocument/prepareRename" => self.prepare_rename(read(params)?),
            "textDocument/rename" => self.rename(read(params)?),
            "textDocument/documentSymbol" => self.symbols(read(params)?),
            "textDocument/formatting" => self.formatting(read(params)?),
            "textDocument/codeAction" => self.actions(read(params)?),
            _ => Err(Refused::new(ErrorCode::MethodNotFound, format!("there is no `{method}` here"))),
        }
    }

    /// The document at a position, and the byte there.
    fn place(&mut self, at: &TextDocumentPositionParams) -> Result<(Rc<Draft>, usize), Refused> {
        let draft = self.draft(&at.text_document.uri)?;
        let offset = Lines::new(draft.text(), self.encoding).offset(at.position);
        Ok((draft, offset))
    }

    fn completion(&mut self, params: CompletionParams) -> Result<Value, Refused> {
        let (draft, offset) = self.place(&params.text_document_position_params)?;
        let trigger = params.context.and_then(|context| context.trigger_character);
        let line = draft.text()[..offset].rsplit('\n').next().unwrap_or_default();
        // A blank at the beginning of a line is there to indent it.
        if trigger.as_deref() == Some(" ") && line.trim().is_empty() {
            return Ok(Value::Null);
        }
        let (words, span) = draft.complete(offset);
        answer(convert::completion(words, span, &Lines::new(draft.text(), self.encoding)))
    }

    fn hover(&mut self, params: HoverParams) -> Result<Value, Refused> {
        let (draft, offset) = self.place(&params.text_document_position_params)?;
        let here = |d: &&Diagnostic| d.span.start <= offset && offset <= d.span.end;
        let found: Vec<&Diagnostic> = draft.checked.found.iter().filter(here).collect();
        answer(convert::hover(draft.hover(offset), &found, &Lines::new(draft.text(), self.encoding)))
    }

    fn definition(&mut self, params: DefinitionParams) -> Result<Value, Refused> {
        let at = params.text_document_position_params;
        let (draft, offset) = self.place(&at)?;
        let files = Files::new(&draft, at.text_document.uri.as_ref(), self.encoding);
        answer(draft.definition(offset).map(|span| files.location(span)))
    }

    fn references(&mut self, params: ReferenceParams) -> Result<Value, Refused> {
        let mut locations: Vec<Location> = Vec::new();
        for (uri, draft, offset) in self.everywhere(&params.text_document_position_params)? {
            let files = Files::new(&draft, &uri, self.encoding);
            let uses = assist::uses(&draft.checked.ast, offset).into_iter();
            let wanted = uses.filter(|used| params.context.include_declaration || !used.declares);
            for location in wanted.map(|used| files.location(used.span)) {
                if !locations.contains(&location) {
                    locations.push(location);
                }
            }
        }
        answer(locations)
    }

    /// The document at a position and the offset there; and of every other open one that knows the same declaration,
    /// as it uses the file that holds it, the place of that.
    fn everywhere(
        &mut self,
        at: &TextDocumentPositionParams,
    ) -> Result<Vec<(String, Rc<Draft>, usize)>, Refused> {
        let (draft, offset) = self.place(at)?;
        let uri = at.text_document.uri.to_string();
        let declared = assist::uses(&draft.checked.ast, offset).into_iter().find(|used| used.declares);
        let declared = declared.map(|used| {
            let files = Files::new(&draft, &uri, self.encoding);
            (files.locate(used.span).0.to_string(), draft.checked.sources.locate(used.span).1.start)
        });
        let mut all = vec![(uri.clone(), draft, offset)];
        let others: Vec<String> = self.documents.keys().filter(|other| **other != uri).cloned().collect();
        for other in others {
            let draft = self.draft(&other.as_str().into())?;
            let found = declared.as_ref().and_then(|(uri, start)| {
                let base = Files::new(&draft, &other, self.encoding).base(uri)?;
                Some(base + start)
            });
            all.extend(found.map(|offset| (other, draft, offset)));
        }
        Ok(all)
    }

    fn prepare_rename(&mut self, params: PrepareRenameParams) -> Result<Value, Refused> {
        let (draft, offset) = self.place(&params.text_document_position_params)?;
        let here = |span: &Span| span.start <= offset && offset <= span.end;
        let uses = assist::uses(&draft.checked.ast, offset);
        let span = uses.iter().map(|used| used.span).find(here);
        let lines = Lines::new(draft.text(), self.encoding);
        answer(span.map(|span| PrepareRenamePlaceholder {
            range: lines.range(span),
            placeholder: draft.text()[span.start..span.end].to_string(),
        }))
    }

    fn rename(&mut self, params: RenameParams) -> Result<Value, Refused> {
        let mut changes = WorkspaceEdit::default();
        for (uri, draft, offset) in self.everywhere(&params.text_document_position_params)? {
            let places = assist::rename(&draft.checked.ast, offset, &params.new_name)
                .map_err(|refusal| Refused::new(ErrorCode::RequestFailed, refusal.0))?;
            Files::new(&draft, &uri, self.encoding).change(&mut changes, places, &params.new_name);
        }
        answer(changes)
    }

    fn symbols(&mut self, params: DocumentSymbolParams) -> Result<Value, Refused> {
        let draft = self.draft(&params.text_document.uri)?;
        let lines = Lines::new(draft.text(), self.encoding);
        answer(
            assist::symbols(&draft).iter().map(|symbol| convert::symbol(symbol, &lines)).collect::<Vec<_>>(),
        )
    }

    /// No edits where the recipe cannot be read: its diagnostics say why.
    fn formatting(&mut self, params: DocumentFormattingParams) -> Result<Value, Refused> {
        let draft = self.draft(&params.text_document.uri)?;
        let lines = Lines::new(draft.text(), self.encoding);
        let edit = assist::layout(draft.text()).filter(|edit| !edit.text.is_empty() || !edit.span.is_empty());
        answer(edit.map(|edit| convert::edit(&edit, &lines)).into_iter().collect::<Vec<_>>())
    }

    /// The fixes of the findings in a range.
    fn actions(&mut self, params: CodeActionParams) -> Result<Value, Refused> {
        let uri = params.text_document.uri;
        let draft = self.draft(&uri)?;
        let quick =
            |kind: &CodeActionKind| *kind == CodeActionKind::QuickFix || *kind == CodeActionKind::Empty;
        if params.context.only.is_some_and(|only| !only.iter().any(quick)) {
            return answer(Vec::<CodeAction>::new());
        }
        let files = Files::new(&draft, uri.as_ref(), self.encoding);
        let range = files.own().span(params.range);
        let here = |d: &&Diagnostic| d.span.start <= range.end && range.start <= d.span.end;
        let mut actions = Vec::new();
        for found in draft.checked.found.iter().filter(here) {
            let fixes = found.fixes.iter().filter_map(|fix| Some((fix, files.fix(fix)?)));
            actions.extend(fixes.map(|(fix, edit)| CodeAction {
                title: fix.title.clone(),
                kind: Some(CodeActionKind::QuickFix),
                diagnostics: Some(vec![files.diagnostic(found, self.related)]),
                is_preferred: (found.fixes.len() == 1).then_some(true),
                edit: Some(edit),
                ..CodeAction::default()
            }));
        }
        answer(actions)
    }
}

fn answer(value: impl Serialize) -> Result<Value, Refused> {
    serde_json::to_value(value).map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))
}
