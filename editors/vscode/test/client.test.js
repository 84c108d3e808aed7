// The client with a stand-in for the editor, and the real server.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const Module = require('node:module');
const os = require('node:os');
const path = require('node:path');
const { after, test } = require('node:test');

const ROOT = path.join(__dirname, '..', '..', '..');
const MINIC = process.env.MINIC || path.join(ROOT, 'target', 'debug', 'minic');

const kept = {};
const keep = (name) => (...given) => {
  kept[name] = given;
  return { dispose() {} };
};

class Plain {
  constructor(...given) {
    this.given = given;
  }
}
class Position {
  constructor(line, character) {
    Object.assign(this, { line, character });
  }
}
class Range {
  constructor(start, end) {
    Object.assign(this, { start, end });
  }
}
class Uri {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  static parse(text) {
    return new Uri(text);
  }
}
class Diagnostic {
  constructor(range, message, severity) {
    Object.assign(this, { range, message, severity });
  }
}
class WorkspaceEdit {
  constructor() {
    this.edits = new Map();
  }
  set(uri, edits) {
    this.edits.set(uri.toString(), edits);
  }
}

const published = new Map();
const errors = [];
const documents = [];
let program = MINIC;
const vscode = {
  Position, Range, Uri, Diagnostic, WorkspaceEdit,
  Location: Plain, MarkdownString: Plain, Hover: Plain, CompletionItem: Plain, CodeAction: Plain,
  DocumentSymbol: Plain, DiagnosticRelatedInformation: Plain,
  TextEdit: class {
    constructor(range, newText) {
      Object.assign(this, { range, newText });
    }
  },
  CodeActionKind: { QuickFix: 'quickfix' },
  window: {
    createOutputChannel: () => ({ appendLine() {}, dispose() {} }),
    showErrorMessage: async (message) => void errors.push(message),
  },
  workspace: {
    textDocuments: documents,
    workspaceFolders: [],
    getConfiguration: () => ({ get: () => program }),
    onDidOpenTextDocument: keep('open'),
    onDidChangeTextDocument: keep('change'),
    onDidSaveTextDocument: keep('save'),
    onDidCloseTextDocument: keep('close'),
    onDidChangeConfiguration: keep('configuration'),
  },
  languages: {
    createDiagnosticCollection: () => ({
      set: (uri, found) => published.set(uri.toString(), found),
      clear: () => published.clear(),
      dispose() {},
    }),
    registerHoverProvider: keep('hover'),
    registerCompletionItemProvider: keep('completion'),
    registerDefinitionProvider: keep('definition'),
    registerReferenceProvider: keep('references'),
    registerRenameProvider: keep('rename'),
    registerDocumentSymbolProvider: keep('symbols'),
    registerDocumentFormattingEditProvider: keep('formatting'),
    registerCodeActionsProvider: keep('actions'),
  },
  commands: { registerCommand: keep('command'), executeCommand() {} },
};

const load = Module._load;
Module._load = (name, ...rest) => (name === 'vscode' ? vscode : load(name, ...rest));
const extension = require('../extension.js');

function document(text) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'minic-'));
  const uri = Uri.parse(`file://${path.join(folder, 'recipe.mrecipe')}`);
  return { languageId: 'mrecipe', version: 1, uri, text, getText() { return this.text; } };
}

async function until(what, holds) {
  for (let tries = 0; tries < 600; tries += 1) {
    if (holds()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(`${what} never came`);
}

after(() => extension.deactivate());

test('an edited recipe is checked, explained and mended', async () => {
  await extension.activate({ subscriptions: [] });
  const recipe = document('mrecipe 1\nparam a = 1\nparam b = aa\n');
  documents.push(recipe);
  kept.open[0](recipe);
  const found = () => published.get(recipe.uri.toString()) || [];
  await until('a diagnostic', () => found().some((d) => d.code === 'E0202'));
  assert.strictEqual(found().find((d) => d.code === 'E0202').severity, 0);

  const hover = await kept.hover[1].provideHover(recipe, new Position(1, 6));
  assert.match(hover.given[0].given[0], /\*\*1\*\*/);
  const items = await kept.completion[1].provideCompletionItems(recipe, new Position(3, 0), undefined, { triggerKind: 0 });
  assert.ok(items.some((item) => item.given[0] === 'prune' && item.insertText === 'prune'));
  const where = { start: new Position(2, 10), end: new Position(2, 12) };
  const [action] = await kept.actions[1].provideCodeActions(recipe, where, {});
  const [edit] = action.edit.edits.get(recipe.uri.toString());
  assert.deepStrictEqual([action.given[0], edit.newText], ['write `a`', '']);
  const symbols = await kept.symbols[1].provideDocumentSymbols(recipe);
  assert.deepStrictEqual(symbols.map((s) => s.given[0]), ['a', 'b']);

  recipe.text = recipe.text.replace('= aa', '= a');
  recipe.version = 2;
  kept.change[0]({ document: recipe });
  await until('the fault to go', () => !found().some((d) => d.code === 'E0202'));
  const renamed = await kept.rename[1].provideRenameEdits(recipe, new Position(1, 6), 'other');
  assert.strictEqual(renamed.edits.get(recipe.uri.toString()).length, 2);
  await assert.rejects(kept.rename[1].provideRenameEdits(recipe, new Position(1, 6), 'from'), /word of the language/);
  const places = await kept.references[1].provideReferences(recipe, new Position(2, 10), { includeDeclaration: false });
  assert.strictEqual(places.length, 1);
  kept.close[0](recipe);
  await until('an empty list', () => found().length === 0);
});

test('a program that is not there is told with the setting that names it', async () => {
  program = path.join(ROOT, 'no-such-program');
  await kept.command[1]();
  await until('a message', () => errors.some((message) => message.includes('minic.path')));
});
