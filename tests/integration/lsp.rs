//! `minic lsp`, as an editor speaks to it.

use crate::command::{FIXED_4B, folder, repository};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Longer than any answer takes, also where many tests run.
const PATIENCE: Duration = Duration::from_secs(60);

struct Editor {
    server: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    /// What came while something else was waited for.
    kept: Vec<Value>,
    next: i64,
}

impl Drop for Editor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn read_message(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((_, value)) => length = value.parse().ok()?,
            None => break,
        }
    }
    let mut bytes = vec![0; length];
    output.read_exact(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl Editor {
    /// A server that has not heard anything yet.
    fn start(folder: &Path) -> Editor {
        let mut server = Command::new(env!("CARGO_BIN_EXE_minic"))
            .args(["lsp", "--stdio"])
            .current_dir(folder)
            .env("HF_HOME", folder.join("no-cache"))
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("minic starts");
        let input = server.stdin.take().expect("an input");
        let mut output = BufReader::new(server.stdout.take().expect("an output"));
        let (send, messages) = mpsc::channel();
        std::thread::spawn(move || {
            while let Some(message) = read_message(&mut output) {
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        Editor { server, input, messages, kept: Vec::new(), next: 0 }
    }

    /// A server that knows what the editor can do.
    fn new(folder: &Path, encodings: &[&str]) -> Editor {
        let mut editor = Editor::start(folder);
        let answer = editor.ask(
            "initialize",
            json!({
                "processId": null,
                "rootUri": null,
                "capabilities": {
                    "general": { "positionEncodings": encodings },
                    "textDocument": { "publishDiagnostics": { "relatedInformation": true } },
                },
            }),
        );
        let chosen = if encodings.contains(&"utf-8") { "utf-8" } else { "utf-16" };
        assert_eq!(answer["capabilities"]["positionEncoding"], chosen);
        editor.tell("initialized", json!({}));
        editor
    }

    fn send(&mut self, text: &str) {
        write!(self.input, "Content-Length: {}\r\n\r\n{text}", text.len()).expect("the server listens");
        self.input.flush().expect("the server listens");
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string());
    }

    fn request(&mut self, method: &str, params: Value) -> i64 {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string());
        id
    }

    /// The first message that is wanted, also of those that came before.
    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let Ok(message) = self.messages.recv_timeout(PATIENCE) else { break };
            if wanted(&message) {
                return message;
            }
            self.kept.push(message);
        }
        panic!("{what} never came; {:?} did", self.kept);
    }

    fn response(&mut self, id: i64) -> Value {
        self.wait("an answer", |message| message["id"] == id)
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        let response = self.response(id);
        assert_eq!(response.get("error"), None, "{method}");
        response["result"].clone()
    }

    /// The code and the message of the error that a request is refused with.
    fn refused(&mut self, method: &str, params: Value) -> (i64, String) {
        let id = self.request(method, params);
        let error = self.response(id)["error"].clone();
        (error["code"].as_i64().expect("a code"), error["message"].as_str().expect("a message").to_string())
    }

    fn open(&mut self, uri: &str, text: &str) {
        let document = json!({ "uri": uri, "languageId": "mrecipe", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// The whole text is replaced.
    fn change(&mut self, uri: &str, version: i32, text: &str) {
        let params = json!({
            "textDocument": { "uri": uri, "version": version },
            "contentChanges": [{ "text": text }],
        });
        self.tell("textDocument/didChange", params);
    }

    /// The diagnostics of a version of a file.
    fn diagnostics(&mut self, uri: &str, version: Option<i32>) -> Vec<Value> {
        let message = self.wait("diagnostics", |message| {
            let params = &message["params"];
            message["method"] == "textDocument/publishDiagnostics"
                && params["uri"] == uri
                && params.get("version").and_then(Value::as_i64) == version.map(i64::from)
        });
        message["params"]["diagnostics"].as_array().expect("a list").clone()
    }

    fn at(uri: &str, (line, character): (u32, u32)) -> Value {
        json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } })
    }
}

fn uri(folder: &Path, file: &str) -> String {
    format!("file://{}", folder.join(file).display())
}

/// Line and column, in UTF-16, of the first letter of `word` in `text`, and so many letters on.
fn place(text: &str, word: &str, more: u32) -> (u32, u32) {
    let at = text.find(word).unwrap_or_else(|| panic!("{word:?} is not in the text"));
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let column = text[line..at].encode_utf16().count() as u32;
    (text[..at].matches('\n').count() as u32, column + more)
}

fn codes(diagnostics: &[Value]) -> Vec<&str> {
    diagnostics.iter().filter_map(|d| d["code"].as_str()).collect()
}

/// A text with the edits of a workspace made in it, of which all are of one file.
fn edited(text: &str, edits: &Value) -> String {
    let mut edits: Vec<&Value> = edits.as_array().expect("edits").iter().collect();
    edits.sort_by_key(|e| (e["range"]["start"]["line"].as_u64(), e["range"]["start"]["character"].as_u64()));
    let offset = |position: &Value| {
        let (line, column) = (position["line"].as_u64().unwrap(), position["character"].as_u64().unwrap());
        let start: usize = text.split_inclusive('\n').take(line as usize).map(str::len).sum();
        let mut units = 0;
        let within = text[start..].char_indices().find(|(_, c)| {
            let here = units == column;
            units += c.len_utf16() as u64;
            here
        });
        start + within.map_or(text.len() - start, |(at, _)| at)
    };
    let mut out = text.to_string();
    for edit in edits.iter().rev() {
        let (from, to) = (offset(&edit["range"]["start"]), offset(&edit["range"]["end"]));
        out.replace_range(from..to, edit["newText"].as_str().expect("a text"));
    }
    out
}

#[test]
fn diagnostics_follow_what_is_typed() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    // It is nowhere on disk as it is in the editor.
    let uri = uri(folder.path(), "recipe.mrecipe");
    editor.open(
        &uri,
        "mrecipe 1\nmodel parent { checkpoint = \"8b\"; dt_floor = 0 }\nexport nobody to \"out\"\n",
    );
    let found = editor.diagnostics(&uri, Some(1));
    assert_eq!(codes(&found), ["E0202"], "{found:?}");
    assert_eq!(found[0]["severity"], 1);
    assert_eq!(found[0]["range"]["start"], json!({ "line": 2, "character": 7 }));
    assert!(found[0]["message"].as_str().unwrap().contains("no model is called `nobody`"));
    // A part of the text is replaced.
    let range = json!({ "start": { "line": 2, "character": 7 }, "end": { "line": 2, "character": 13 } });
    editor.tell(
        "textDocument/didChange",
        json!({
            "textDocument": { "uri": uri, "version": 2 },
            "contentChanges": [{ "range": range, "text": "par" }, { "range": { "start": { "line": 2, "character": 10 },
                "end": { "line": 2, "character": 10 } }, "text": "ent" }],
        }),
    );
    assert_eq!(codes(&editor.diagnostics(&uri, Some(2))), ["W0405"], "weights are missing, and nothing else");
    // Of many changes in a row the last one counts.
    for version in 3..40 {
        editor.change(&uri, version, &format!("mrecipe 1\nparam x = {version}\n"));
    }
    let found = editor.diagnostics(&uri, Some(39));
    assert_eq!((codes(&found), &found[0]["tags"]), (vec!["W0201"], &json!([1])), "unused names are pale");
    editor.change(&uri, 40, "mrecipe 1\nparam x = 1\nparam x = 2\n");
    let found = editor.diagnostics(&uri, Some(40));
    let twice = found.iter().find(|d| d["code"] == "E0201").expect("declared twice");
    let second = &twice["relatedInformation"][0];
    assert_eq!(second["location"]["range"]["start"], json!({ "line": 1, "character": 6 }));
    assert!(second["message"].as_str().unwrap().contains("first declared here"));
    editor.tell("textDocument/didClose", json!({ "textDocument": { "uri": uri } }));
    assert_eq!(editor.diagnostics(&uri, None), Vec::<Value>::new(), "a closed document has none");
}

#[test]
fn answers_are_about_the_text_in_the_editor() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &["utf-16"]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    // Characters of one and of two units of UTF-16 stand before what is asked for.
    let text = FIXED_4B
        .replace("mrecipe 1\n", "mrecipe 1\nparam a\u{20}= 1; # é \u{1F600}\n")
        .replace("= 1; #", "= 1  #");
    editor.open(&uri, &text);
    let name = place(&text, "prune ", 6);
    let hover = editor.ask("textDocument/hover", Editor::at(&uri, name));
    let shown = hover["contents"]["value"].as_str().expect("a text");
    assert!(shown.contains("| parameters |") && shown.contains("| ffn_hidden_size |"), "{shown}");
    assert_eq!(hover["contents"]["kind"], "markdown");
    let uses = editor.ask(
        "textDocument/references",
        json!({ "textDocument": { "uri": uri }, "position": { "line": name.0, "character": name.1 },
            "context": { "includeDeclaration": true } }),
    );
    assert!(uses.as_array().unwrap().len() >= 2, "{uses}");
    for used in uses.as_array().unwrap() {
        let at = (
            used["range"]["start"]["line"].as_u64().unwrap() as u32,
            used["range"]["start"]["character"].as_u64().unwrap() as u32,
        );
        let definition = editor.ask("textDocument/definition", Editor::at(&uri, at));
        assert_eq!(definition["range"]["start"], json!({ "line": name.0, "character": name.1 }));
        assert_eq!(definition["uri"], json!(uri));
    }
    let symbols = editor.ask("textDocument/documentSymbol", json!({ "textDocument": { "uri": uri } }));
    assert!(symbols.as_array().unwrap().iter().any(|s| s["name"] == "parent"), "{symbols}");
}

#[test]
fn words_are_offered_in_the_place_of_what_is_typed() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    let text = "mrecipe 1\nmodel parent { checkpoint = \"8b\"; dt_floor = 0 }\n# \u{1F600}\nprune p from parent { axis num";
    editor.open(&uri, text);
    let items = editor.ask("textDocument/completion", Editor::at(&uri, (3, 30)));
    let items = items.as_array().expect("a list");
    let layers = items.iter().find(|i| i["label"] == "num_layers").expect("an axis");
    assert_eq!(layers["detail"], "52 in parent");
    assert_eq!(
        layers["textEdit"]["range"],
        json!({ "start": { "line": 3, "character": 27 }, "end": { "line": 3, "character": 30 } })
    );
    assert!(layers["documentation"]["value"].is_string());
    let mut indenting = Editor::at(&uri, (2, 0));
    indenting["context"] = json!({ "triggerKind": 2, "triggerCharacter": " " });
    assert_eq!(editor.ask("textDocument/completion", indenting), Value::Null);
}

#[test]
fn a_name_is_changed_everywhere_and_not_into_what_it_cannot_be() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    let text = "mrecipe 1\n# \u{1F600}\nmodel parent { checkpoint = \"8b\"; dt_floor = 0 }\nexport parent to \"out\"\n";
    editor.open(&uri, text);
    let at = place(text, "parent {", 2);
    let ready = editor.ask("textDocument/prepareRename", Editor::at(&uri, at));
    assert_eq!(ready["placeholder"], "parent");
    assert_eq!(editor.ask("textDocument/prepareRename", Editor::at(&uri, (0, 0))), Value::Null);
    let mut params = Editor::at(&uri, at);
    params["newName"] = json!("mother");
    let changes = editor.ask("textDocument/rename", params.clone());
    let after = edited(text, &changes["changes"][&uri]);
    assert_eq!(after, text.replace("parent", "mother"));
    for bad in ["from", "9x", "a b", ""] {
        params["newName"] = json!(bad);
        let (code, message) = editor.refused("textDocument/rename", params.clone());
        assert_eq!(code, -32803, "{message}");
        assert!(message.contains(&format!("`{bad}`")), "{message}");
    }
}

#[test]
fn findings_are_mended_and_recipes_laid_out() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    let text = "mrecipe 1\n\nmodel  parent { chekpoint = \"8b\" }\n";
    editor.open(&uri, text);
    let whole = json!({ "start": { "line": 0, "character": 0 }, "end": { "line": 3, "character": 0 } });
    let params = json!({ "textDocument": { "uri": uri }, "range": whole, "context": { "diagnostics": [] } });
    let actions = editor.ask("textDocument/codeAction", params.clone());
    let fix = actions.as_array().unwrap().iter().find(|a| a["title"] == "write `checkpoint`").expect("a fix");
    assert_eq!((&fix["kind"], &fix["isPreferred"]), (&json!("quickfix"), &json!(true)));
    assert_eq!(fix["diagnostics"][0]["code"], "E0205");
    let mended = edited(text, &fix["edit"]["changes"][&uri]);
    assert_eq!(mended, text.replace("chekpoint", "checkpoint"));
    let mut others = params;
    others["context"]["only"] = json!(["refactor"]);
    assert_eq!(editor.ask("textDocument/codeAction", others), json!([]));
    let options = json!({ "tabSize": 4, "insertSpaces": true });
    let edits =
        editor.ask("textDocument/formatting", json!({ "textDocument": { "uri": uri }, "options": options }));
    assert_eq!(edited(text, &edits), text.replace("model  parent", "model parent"));
    editor.change(&uri, 2, "mrecipe 1\nmodel {");
    let edits =
        editor.ask("textDocument/formatting", json!({ "textDocument": { "uri": uri }, "options": options }));
    assert_eq!(edits, json!([]), "what cannot be read is left alone");
}

#[test]
fn columns_are_counted_as_the_editor_wants() {
    let folder = folder(FIXED_4B);
    for (encodings, column) in [(&["utf-16"][..], 19), (&["utf-8", "utf-16"][..], 21)] {
        let mut editor = Editor::new(folder.path(), encodings);
        let uri = uri(folder.path(), "recipe.mrecipe");
        editor.open(&uri, "mrecipe 1\nparam a = [\"\u{1F600}\", wrong]\n");
        let found = editor.diagnostics(&uri, Some(1));
        let fault = found.iter().find(|d| d["code"] == "E0202").expect("an unknown name");
        assert_eq!(fault["range"]["start"]["character"], column - 2, "{encodings:?}");
    }
}

#[test]
fn what_is_wrong_is_answered_and_ends_nothing() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::start(folder.path());
    assert_eq!(editor.refused("textDocument/hover", json!({})).0, -32002, "before initialize");
    editor.ask("initialize", json!({ "capabilities": {} }));
    editor.tell("initialized", json!({}));
    editor.send("{ this is no json");
    assert_eq!(editor.wait("an error", |m| m["error"]["code"] == -32700)["id"], Value::Null);
    editor.send(r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#);
    editor.wait("an error", |m| m["error"]["code"] == -32600 && m["id"] == 1.5);
    assert_eq!(editor.refused("textDocument/typeHierarchy", json!({})).0, -32601);
    assert_eq!(editor.refused("textDocument/hover", json!({ "position": 7 })).0, -32602);
    let nowhere = Editor::at("file:///nowhere.mrecipe", (0, 0));
    assert!(editor.refused("textDocument/hover", nowhere).1.contains("is not open"));
    editor.tell("textDocument/didOpen", json!([1, 2]));
    editor.tell(
        "textDocument/didChange",
        json!({ "textDocument": { "uri": "untitled:1", "version": 1 }, "contentChanges": [] }),
    );
    editor.tell("$/unknown", Value::Null);
    // Places that are not in the text, and a recipe that is not on disk.
    editor.open("untitled:Untitled-1", "mrecipe 1\nmodel m { checkpoint = \"8b\" }\n");
    for position in [(9999, 0), (0, 9999), (u32::MAX, u32::MAX)] {
        editor.ask("textDocument/hover", Editor::at("untitled:Untitled-1", position));
        editor.ask("textDocument/completion", Editor::at("untitled:Untitled-1", position));
    }
    let range = json!({ "start": { "line": 50, "character": 9 }, "end": { "line": 0, "character": 1 } });
    editor.tell(
        "textDocument/didChange",
        json!({ "textDocument": { "uri": "untitled:Untitled-1", "version": 2 }, "contentChanges": [{ "range": range, "text": "é" }] }),
    );
    editor.diagnostics("untitled:Untitled-1", Some(2));
    assert_eq!(editor.ask("shutdown", Value::Null), Value::Null);
    assert_eq!(editor.refused("textDocument/hover", json!({})).0, -32600, "after shutdown");
    editor.tell("exit", Value::Null);
    assert_eq!(editor.server.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_editor_that_leaves_without_a_word_ends_the_server() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    editor.tell("exit", Value::Null);
    assert_eq!(editor.server.wait().expect("it ends").code(), Some(1));
}

#[test]
fn a_config_that_changes_on_disk_is_seen() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    editor.open(
        &uri,
        "mrecipe 1\nmodel parent { checkpoint = \"later\"; dt_floor = 0 }\nexport parent to \"out\"\n",
    );
    assert_eq!(codes(&editor.diagnostics(&uri, Some(1))), ["W0401"]);
    fs::create_dir(folder.path().join("later")).expect("a folder");
    fs::copy(folder.path().join("8b/config.json"), folder.path().join("later/config.json")).expect("a copy");
    let found = editor.wait("diagnostics of the new config", |m| {
        m["method"] == "textDocument/publishDiagnostics"
            && !m["params"]["diagnostics"].to_string().contains("W0401")
    });
    assert!(!codes(found["params"]["diagnostics"].as_array().unwrap()).contains(&"E0401"));
}

#[test]
fn used_files_are_those_of_the_editor() {
    let folder = folder(FIXED_4B);
    let common = "mrecipe 1\n\nparam peak = 0.001\n\nmetric size(x) = l2(x, over = tokens)\n";
    fs::write(folder.path().join("common.mrecipe"), common).expect("a file");
    let mut editor = Editor::new(folder.path(), &[]);
    let (recipe, used) = (uri(folder.path(), "recipe.mrecipe"), uri(folder.path(), "common.mrecipe"));
    let text = "mrecipe 1\nuse \"common.mrecipe\"\nmodel parent { checkpoint = \"8b\"; dt_floor = 0 }\n\
                data text { files = [\"data.txt\"]; sequence = 64; samples = 8 }\n\
                prune half from parent { calibrate on text; axis ffn_hidden_size = 10752 by size }\n\
                export half to \"out\"\nparam twice = peak * 2\n";
    editor.open(&recipe, text);
    let found = editor.diagnostics(&recipe, Some(1));
    assert!(!codes(&found).contains(&"E0202"), "{found:?}");
    let definition = editor.ask("textDocument/definition", Editor::at(&recipe, place(text, "size }", 1)));
    assert_eq!((&definition["uri"], &definition["range"]["start"]["line"]), (&json!(used), &json!(4)));
    // A fault of the used file is shown there, and only as long as it is there.
    editor.open(&used, &common.replace("0.001", "0.001 +"));
    assert_eq!(codes(&editor.diagnostics(&used, Some(1))), ["E0102"]);
    let at = place(common, "size", 1);
    editor.change(&used, 2, common);
    let mut params = Editor::at(&used, at);
    params["newName"] = json!("norm");
    let changes = editor.ask("textDocument/rename", params)["changes"].clone();
    assert_eq!(edited(common, &changes[&used]), common.replace("size", "norm"));
    assert_eq!(edited(text, &changes[&recipe]), text.replace("by size", "by norm"), "and where it is used");
    // The recipe sees what the editor holds, not what is on disk.
    editor.change(&used, 3, &common.replace("size", "norm"));
    let found = editor.wait("diagnostics of the recipe", |m| {
        m["params"]["uri"] == json!(recipe) && m["params"]["diagnostics"].to_string().contains("E0202")
    });
    assert!(found["params"]["diagnostics"].to_string().contains("no metric is called `size`"));
}

/// The extension for VS Code with a stand-in for the editor; needs Node.js, and is left out where there is none.
#[test]
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn the_client_for_vs_code_speaks_to_the_server() {
    if Command::new("node").arg("--version").output().is_err() {
        assert!(std::env::var_os("MINIC_REQUIRE_BROWSER").is_none(), "node is wanted, and not there");
        println!("skipped: the client for VS Code is tested by node, which is not there");
        return;
    }
    let tests = repository("editors/vscode/test/client.test.js");
    let done = Command::new("node")
        .arg("--test")
        .arg(tests)
        .env("MINIC", env!("CARGO_BIN_EXE_minic"))
        .output()
        .expect("node starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// Whatever stands under the cursor: an answer, and the server lives.
#[test]
fn every_place_of_a_recipe_can_be_asked_about() {
    let folder = folder(FIXED_4B);
    let mut editor = Editor::new(folder.path(), &[]);
    let uri = uri(folder.path(), "recipe.mrecipe");
    editor.open(&uri, FIXED_4B);
    for (line, text) in FIXED_4B.lines().enumerate() {
        for column in (0..=text.len() as u32).step_by(3) {
            for method in ["hover", "completion", "definition"] {
                editor.ask(&format!("textDocument/{method}"), Editor::at(&uri, (line as u32, column)));
            }
        }
    }
}
