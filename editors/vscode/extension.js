// The client of `minic lsp`: plain JavaScript without dependencies, so that this folder is the extension.
'use strict';

const vscode = require('vscode');
const { Server } = require('./server');

const SELECTOR = { language: 'mrecipe' };
const SYNCED = (document) => document.languageId === 'mrecipe';

let server;
let diagnostics;
let log;

function activate(context) {
  log = vscode.window.createOutputChannel('minic');
  diagnostics = vscode.languages.createDiagnosticCollection('minic');
  const { workspace, languages, commands } = vscode;
  context.subscriptions.push(
    log,
    diagnostics,
    commands.registerCommand('minic.restart', restart),
    workspace.onDidOpenTextDocument(open),
    workspace.onDidChangeTextDocument((event) => change(event.document)),
    workspace.onDidSaveTextDocument((document) => tell('textDocument/didSave', document, {})),
    workspace.onDidCloseTextDocument((document) => tell('textDocument/didClose', document, {})),
    workspace.onDidChangeConfiguration((event) => event.affectsConfiguration('minic.path') && restart()),
    languages.registerHoverProvider(SELECTOR, { provideHover }),
    languages.registerCompletionItemProvider(SELECTOR, { provideCompletionItems }, ' ', '.', '(', '=', '{', '['),
    languages.registerDefinitionProvider(SELECTOR, { provideDefinition }),
    languages.registerReferenceProvider(SELECTOR, { provideReferences }),
    languages.registerRenameProvider(SELECTOR, { prepareRename, provideRenameEdits }),
    languages.registerDocumentSymbolProvider(SELECTOR, { provideDocumentSymbols }),
    languages.registerDocumentFormattingEditProvider(SELECTOR, { provideDocumentFormattingEdits }),
    languages.registerCodeActionsProvider(SELECTOR, { provideCodeActions }, {
      providedCodeActionKinds: [vscode.CodeActionKind.QuickFix],
    }),
    { dispose: () => server && server.stop() },
  );
  return start();
}

function deactivate() {
  return server && server.stop();
}

async function start() {
  const program = vscode.workspace.getConfiguration('minic').get('path') || 'minic';
  const folders = (vscode.workspace.workspaceFolders || []).map(({ uri, name }) => ({ uri: uri.toString(), name }));
  const mine = new Server(program, { publish, log: (text) => log.appendLine(text), ended });
  server = mine;
  await mine.start({
    processId: process.pid,
    workspaceFolders: folders,
    capabilities: {
      general: { positionEncodings: ['utf-16'] },
      textDocument: { publishDiagnostics: { relatedInformation: true, versionSupport: true } },
    },
  });
  vscode.workspace.textDocuments.forEach(open);
}

async function restart() {
  const before = server;
  server = undefined;
  diagnostics.clear();
  if (before) await before.stop();
  await start();
}

function ended(why) {
  server = undefined;
  log.appendLine(why);
  const again = 'Restart';
  const settings = 'Settings';
  vscode.window.showErrorMessage(`minic: ${why}`, again, settings).then((chosen) => {
    if (chosen === again) restart();
    if (chosen === settings) vscode.commands.executeCommand('workbench.action.openSettings', 'minic.path');
  });
}

// Documents.

function open(document) {
  if (!server || !SYNCED(document)) return;
  const { uri, languageId, version } = document;
  server.tell('textDocument/didOpen', {
    textDocument: { uri: uri.toString(), languageId, version, text: document.getText() },
  });
}

function change(document) {
  if (!server || !SYNCED(document)) return;
  server.tell('textDocument/didChange', {
    textDocument: { uri: document.uri.toString(), version: document.version },
    contentChanges: [{ text: document.getText() }],
  });
}

function tell(method, document, more) {
  if (!server || !SYNCED(document)) return;
  server.tell(method, { textDocument: { uri: document.uri.toString() }, ...more });
}

function publish({ uri, version, diagnostics: found }) {
  const address = vscode.Uri.parse(uri);
  const document = vscode.workspace.textDocuments.find((d) => d.uri.toString() === address.toString());
  // What is said of an older text is about to be said again.
  if (document && version !== undefined && version < document.version) return;
  diagnostics.set(address, found.map(diagnostic));
}

// From the protocol.

const position = ({ line, character }) => new vscode.Position(line, character);
const range = ({ start, end }) => new vscode.Range(position(start), position(end));
const location = ({ uri, range: place }) => new vscode.Location(vscode.Uri.parse(uri), range(place));

function diagnostic(found) {
  // 1 is an error in the protocol, and 0 in the editor.
  const out = new vscode.Diagnostic(range(found.range), found.message, (found.severity || 1) - 1);
  out.code = found.code;
  out.source = found.source;
  out.tags = found.tags;
  out.relatedInformation = (found.relatedInformation || []).map(
    (other) => new vscode.DiagnosticRelatedInformation(location(other.location), other.message),
  );
  return out;
}

function markdown({ value }) {
  return new vscode.MarkdownString(value);
}

function workspaceEdit({ changes }) {
  const out = new vscode.WorkspaceEdit();
  for (const [uri, edits] of Object.entries(changes || {})) {
    out.set(vscode.Uri.parse(uri), edits.map(textEdit));
  }
  return out;
}

const textEdit = (edit) => new vscode.TextEdit(range(edit.range), edit.newText);

function symbol(found) {
  const out = new vscode.DocumentSymbol(
    found.name, found.detail || '', found.kind - 1, range(found.range), range(found.selectionRange),
  );
  out.children = (found.children || []).map(symbol);
  return out;
}

// Requests.

function at(document, { line, character }) {
  return { textDocument: { uri: document.uri.toString() }, position: { line, character } };
}

async function ask(method, params, token) {
  return server ? server.ask(method, params, token) : null;
}

async function provideHover(document, where, token) {
  const found = await ask('textDocument/hover', at(document, where), token);
  return found && new vscode.Hover(markdown(found.contents), found.range && range(found.range));
}

async function provideCompletionItems(document, where, token, context) {
  // In the protocol the kinds of a trigger are counted from 1.
  const trigger = { triggerKind: context.triggerKind + 1, triggerCharacter: context.triggerCharacter };
  const items = await ask('textDocument/completion', { ...at(document, where), context: trigger }, token);
  return (items || []).map((item) => {
    const out = new vscode.CompletionItem(item.label, item.kind - 1);
    out.detail = item.detail;
    out.documentation = item.documentation && markdown(item.documentation);
    out.sortText = item.sortText;
    out.range = range(item.textEdit.range);
    out.insertText = item.textEdit.newText;
    return out;
  });
}

async function provideDefinition(document, where, token) {
  const found = await ask('textDocument/definition', at(document, where), token);
  return found && location(found);
}

async function provideReferences(document, where, context, token) {
  const params = { ...at(document, where), context: { includeDeclaration: context.includeDeclaration } };
  return ((await ask('textDocument/references', params, token)) || []).map(location);
}

async function prepareRename(document, where, token) {
  const found = await ask('textDocument/prepareRename', at(document, where), token);
  if (!found) throw new Error('no name that the recipe declares stands here');
  return { range: range(found.range), placeholder: found.placeholder };
}

async function provideRenameEdits(document, where, newName, token) {
  return workspaceEdit(await ask('textDocument/rename', { ...at(document, where), newName }, token) || {});
}

async function provideDocumentSymbols(document, token) {
  const params = { textDocument: { uri: document.uri.toString() } };
  return ((await ask('textDocument/documentSymbol', params, token)) || []).map(symbol);
}

async function provideDocumentFormattingEdits(document, options, token) {
  const params = { textDocument: { uri: document.uri.toString() }, options: { tabSize: 4, insertSpaces: true } };
  return ((await ask('textDocument/formatting', params, token)) || []).map(textEdit);
}

async function provideCodeActions(document, where, context, token) {
  const params = {
    textDocument: { uri: document.uri.toString() },
    range: { start: where.start, end: where.end },
    context: { diagnostics: [] },
  };
  return ((await ask('textDocument/codeAction', params, token)) || []).map((action) => {
    const out = new vscode.CodeAction(action.title, vscode.CodeActionKind.QuickFix);
    out.edit = workspaceEdit(action.edit);
    out.isPreferred = action.isPreferred;
    out.diagnostics = action.diagnostics.map(diagnostic);
    return out;
  });
}

module.exports = { activate, deactivate };
