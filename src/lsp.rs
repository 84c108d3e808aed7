//! `minic lsp`: the language server protocol on standard input and output.
//!
//! What there is to say about a recipe is said by `minic_compiler::assist`; here are messages, documents and places.
//! One thread reads messages; another one answers them in their order. A document is checked when nothing has come
//! for a moment, or when a request needs it.

mod answers;
mod convert;
mod position;
mod uri;
mod wire;
mod world;

use crate::output::{Exit, Failure};
use convert::Files;
use gen_lsp_types::{
    Diagnostic, DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    InitializeParams, PositionEncodingKind, PublishDiagnosticsParams, TextDocumentContentChangeEvent, Uri,
    WorkspaceFolders,
};
use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use minic_compiler::assist::Draft;
use minic_compiler::check::resolved;
use minic_runtime::guard::guarded;
use position::{Encoding, Lines};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use wire::Incoming;
use world::{Open, Remembered};

/// How long nothing must have come before a changed document is checked.
const QUIET: Duration = Duration::from_millis(10);
/// After this long it is checked in any case.
const LATEST: Duration = Duration::from_millis(200);
/// How often the files that recipes name are looked at again.
const LOOK: Duration = Duration::from_secs(2);
/// The code of a used file that is not there: one that is opened may be it.
const ABSENT: &str = "E0210";

#[derive(clap::Args)]
pub struct Args {
    /// Speak on standard input and output: the one way there is, for editors that name it
    #[arg(long)]
    stdio: bool,
}

pub fn run(_args: &Args) -> Result<Exit, Failure> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || wire::read_all(io::stdin().lock(), &send));
    let mut server = Server::new(io::stdout().lock(), receive);
    match server.serve() {
        Ok(true) => Ok(Exit::Done),
        Ok(false) => Err(Failure::new(Exit::Input, "the editor left without a word")),
        Err(error) => Err(Failure::new(Exit::Input, format!("the editor does not listen: {error}"))),
    }
}

/// What a request is refused with.
pub struct Refused {
    code: ErrorCode,
    message: String,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }
}

/// A recipe that is open in the editor.
struct Document {
    version: i32,
    /// As files that it uses are named from it: a path, or the address of what has none.
    file: PathBuf,
    text: String,
    world: Remembered,
    /// Absent where the text has changed since.
    draft: Option<Rc<Draft>>,
    /// The one before that.
    last: Option<Rc<Draft>>,
    /// What was found last, by the address of the file: its own and those that it uses.
    found: BTreeMap<String, Vec<Diagnostic>>,
    /// Since when its diagnostics are not what they should be, and when it changed last.
    stale: Option<(Instant, Instant)>,
}

impl Document {
    /// Something that it depends on is not what it was.
    fn change(&mut self) {
        let now = Instant::now();
        self.draft = None;
        self.stale = Some((self.stale.map_or(now, |(since, _)| since), now));
    }

    /// The draft as it stands, checked if it was not.
    fn draft(&mut self) -> Result<Rc<Draft>, Refused> {
        if self.draft.is_none() {
            self.world.refresh();
            let (file, text, world) = (self.file.to_string_lossy(), &self.text, &self.world);
            let checked = guarded(|| match &self.last {
                Some(last) => last.again(&file, text, world),
                None => Draft::new(&file, text, world),
            });
            let bug =
                |why| Refused::new(ErrorCode::InternalError, format!("bug: the checker gave up: {why}"));
            self.draft = Some(Rc::new(checked.map_err(bug)?));
            self.last.clone_from(&self.draft);
        }
        self.draft.clone().ok_or_else(|| Refused::new(ErrorCode::InternalError, "bug: no draft"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Serving,
    ShutDown,
}

struct Server<W> {
    output: W,
    receive: Receiver<Incoming>,
    queue: VecDeque<Incoming>,
    stage: Stage,
    encoding: Encoding,
    /// The editor shows second places of diagnostics.
    related: bool,
    /// Of recipes that have no file: the folder that the editor has open.
    folder: PathBuf,
    documents: BTreeMap<String, Document>,
    open: Open,
    /// When what is on disk was looked at last.
    looked: Instant,
}

impl<W: Write> Server<W> {
    fn new(output: W, receive: Receiver<Incoming>) -> Server<W> {
        Server {
            output,
            receive,
            queue: VecDeque::new(),
            stage: Stage::Waiting,
            encoding: Encoding::Utf16,
            related: false,
            folder: PathBuf::from("."),
            documents: BTreeMap::new(),
            open: Open::default(),
            looked: Instant::now(),
        }
    }

    /// Until the editor leaves; whether it did so in good order.
    fn serve(&mut self) -> io::Result<bool> {
        loop {
            self.check_what_waited()?;
            let Some(incoming) = self.next() else { return Ok(self.stage == Stage::ShutDown) };
            match incoming {
                Some(Incoming::Message(Message::Request(request))) => self.request(request)?,
                Some(Incoming::Message(Message::Notification(note))) if note.method == "exit" => {
                    return Ok(self.stage == Stage::ShutDown);
                }
                Some(Incoming::Message(Message::Notification(note))) => self.notification(note)?,
                Some(Incoming::Message(Message::Response(_))) => {}
                Some(Incoming::Broken { id, why }) => wire::refuse(&mut self.output, &id, &why)?,
                None => self.look_around(),
            }
        }
    }

    /// The next message; `Some(None)` where none came for a while, `None` where none will.
    fn next(&mut self) -> Option<Option<Incoming>> {
        self.queue.extend(self.receive.try_iter());
        if let Some(first) = self.queue.pop_front() {
            return Some(Some(first));
        }
        let changed = self.documents.values().any(|document| document.stale.is_some());
        match self.receive.recv_timeout(if changed { QUIET } else { LOOK }) {
            Ok(incoming) => Some(Some(incoming)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Publishes what is wrong with documents that have not changed for a moment, or that have waited for long.
    fn check_what_waited(&mut self) -> io::Result<()> {
        let due = |document: &Document| {
            let due =
                |(since, last): (Instant, Instant)| last.elapsed() >= QUIET || since.elapsed() >= LATEST;
            document.stale.is_some_and(due)
        };
        let due: Vec<String> =
            self.documents.iter().filter(|(_, d)| due(d)).map(|(uri, _)| uri.clone()).collect();
        due.iter().try_for_each(|uri| self.publish(uri))
    }

    /// A config.json may have changed on disk.
    fn look_around(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        for document in self.documents.values_mut().filter(|document| document.stale.is_none()) {
            if document.world.has_changed() {
                document.change();
            }
        }
    }

    fn publish(&mut self, uri: &str) -> io::Result<()> {
        let Some(document) = self.documents.get_mut(uri) else { return Ok(()) };
        document.stale = None;
        let draft = match document.draft() {
            Ok(draft) => draft,
            Err(refused) => return self.log(&refused.message),
        };
        let files = Files::new(&draft, uri, self.encoding);
        let mut found: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::from([(uri.to_string(), Vec::new())]);
        for diagnostic in &draft.checked.found {
            let (file, _) = files.locate(diagnostic.span);
            found.entry(file.to_string()).or_default().push(files.diagnostic(diagnostic, self.related));
        }
        let before = std::mem::replace(&mut document.found, found);
        let mut touched: Vec<String> = before.into_keys().chain(document.found.keys().cloned()).collect();
        touched.sort();
        touched.dedup();
        touched.iter().try_for_each(|file| self.publish_file(file))
    }

    /// What all open recipes say about one file.
    fn publish_file(&mut self, uri: &str) -> io::Result<()> {
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for found in self.documents.values().filter_map(|document| document.found.get(uri)) {
            for diagnostic in found.iter().filter(|d| !diagnostics.contains(d)).cloned().collect::<Vec<_>>() {
                diagnostics.push(diagnostic);
            }
        }
        let version = self.documents.get(uri).map(|document| document.version);
        let params = PublishDiagnosticsParams { uri: uri.into(), version, diagnostics };
        self.notify("textDocument/publishDiagnostics", params)
    }

    fn notify(&mut self, method: &str, params: impl serde::Serialize) -> io::Result<()> {
        wire::write(&mut self.output, Notification::new(method.to_string(), params).into())
    }

    fn log(&mut self, message: &str) -> io::Result<()> {
        self.notify("window/logMessage", serde_json::json!({ "type": 1, "message": message }))
    }

    fn request(&mut self, request: Request) -> io::Result<()> {
        let Request { id, method, params } = request;
        let cancelled = self.is_cancelled(&id);
        let answer = match self.stage {
            Stage::Waiting if method != "initialize" => {
                Err(Refused::new(ErrorCode::ServerNotInitialized, "`initialize` comes first"))
            }
            Stage::ShutDown => Err(Refused::new(ErrorCode::InvalidRequest, "the server was shut down")),
            _ if cancelled => Err(Refused::new(ErrorCode::RequestCanceled, "cancelled")),
            _ => guarded(|| self.answer(&method, params)).unwrap_or_else(|why| {
                Err(Refused::new(ErrorCode::InternalError, format!("bug: `{method}` gave up: {why}")))
            }),
        };
        let response = match answer {
            Ok(value) => Response::new_ok(id, value),
            Err(Refused { code, message }) => Response::new_err(id, code as i32, message),
        };
        wire::write(&mut self.output, response.into())
    }

    /// The editor has taken the request back while it waited.
    fn is_cancelled(&mut self, id: &RequestId) -> bool {
        #[derive(Deserialize)]
        struct Cancelled {
            id: RequestId,
        }
        self.queue.extend(self.receive.try_iter());
        self.queue.iter().any(|incoming| match incoming {
            Incoming::Message(Message::Notification(note)) if note.method == "$/cancelRequest" => {
                Cancelled::deserialize(&note.params).is_ok_and(|cancelled| cancelled.id == *id)
            }
            _ => false,
        })
    }

    fn initialize(&mut self, params: InitializeParams) -> Value {
        let capabilities = params.capabilities;
        let offered = capabilities.general.and_then(|general| general.position_encodings).unwrap_or_default();
        if offered.contains(&PositionEncodingKind::UTF8) {
            self.encoding = Encoding::Utf8;
        }
        let diagnostics = capabilities.text_document.and_then(|text| text.publish_diagnostics);
        self.related =
            diagnostics.is_some_and(|d| d.diagnostics_capabilities.related_information == Some(true));
        let folders = params.workspace_folders_initialize_params.workspace_folders;
        let root = match folders {
            Some(WorkspaceFolders::WorkspaceFolderList(folders)) => folders.into_iter().next(),
            _ => None,
        };
        if let Some(folder) = root.and_then(|folder| uri::to_path(folder.uri.as_ref())) {
            self.folder = folder;
        }
        self.stage = Stage::Serving;
        answers::capabilities(self.encoding)
    }

    fn notification(&mut self, note: Notification) -> io::Result<()> {
        if self.stage != Stage::Serving {
            return Ok(());
        }
        let Notification { method, params } = note;
        let read = match method.as_str() {
            "textDocument/didOpen" => read(params).map(|params| self.open(params)),
            "textDocument/didChange" => read(params).map(|params| self.change(params)),
            "textDocument/didClose" => match read(params) {
                Ok(params) => return self.close(&params),
                Err(refused) => Err(refused),
            },
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => {
                self.forget();
                Ok(())
            }
            _ => Ok(()),
        };
        match read {
            Ok(()) => Ok(()),
            Err(refused) => self.log(&format!("{method}: {}", refused.message)),
        }
    }

    fn open(&mut self, params: DidOpenTextDocumentParams) {
        let opened = params.text_document;
        let uri = opened.uri.to_string();
        let file = uri::to_path(&uri).unwrap_or_else(|| self.folder.join(uri.replace('/', "_")));
        let folder = file.parent().unwrap_or(&self.folder).to_path_buf();
        let world = Remembered::new(folder, Rc::clone(&self.open));
        let document = Document {
            version: opened.version,
            file,
            text: opened.text,
            world,
            draft: None,
            last: None,
            found: BTreeMap::new(),
            stale: None,
        };
        self.documents.insert(uri.clone(), document);
        self.changed(&uri);
    }

    fn change(&mut self, params: DidChangeTextDocumentParams) {
        let encoding = self.encoding;
        let changed = params.text_document;
        let uri = changed.text_document_identifier.uri.to_string();
        let Some(document) = self.documents.get_mut(&uri) else { return };
        for change in params.content_changes {
            match change {
                TextDocumentContentChangeEvent::TextDocumentContentChangePartial(part) => {
                    let span = Lines::new(&document.text, encoding).span(part.range);
                    document.text.replace_range(span.start..span.end, &part.text);
                }
                TextDocumentContentChangeEvent::TextDocumentContentChangeWholeDocument(whole) => {
                    document.text = whole.text;
                }
            }
        }
        document.version = changed.version;
        self.changed(&uri);
    }

    /// The text of a document is another one: it is checked again, and so are those that use it.
    fn changed(&mut self, uri: &str) {
        let Some(document) = self.documents.get_mut(uri) else { return };
        document.change();
        self.open.borrow_mut().insert(document.file.clone(), document.text.clone());
        let file = document.file.clone();
        self.users_of(&file);
    }

    /// The recipes that use a file, or wanted to.
    fn users_of(&mut self, file: &Path) {
        for user in self.documents.values_mut().filter(|user| user.file != file) {
            let uses = user.draft.as_ref().is_some_and(|draft| {
                let used = draft.checked.sources.used().iter();
                let wanted = draft.checked.found.iter().any(|d| d.code == ABSENT);
                wanted || used.into_iter().any(|used| resolved(Path::new(""), &used.name) == file)
            });
            if uses {
                user.change();
            }
        }
    }

    /// What was said of it is taken back, but for what recipes that use it say.
    fn close(&mut self, params: &DidCloseTextDocumentParams) -> io::Result<()> {
        let uri = params.text_document.uri.as_ref();
        let Some(closed) = self.documents.remove(uri) else { return Ok(()) };
        self.open.borrow_mut().remove(&closed.file);
        self.users_of(&closed.file);
        closed.found.keys().try_for_each(|file| self.publish_file(file))
    }

    /// What documents were told of the disk may have changed.
    fn forget(&mut self) {
        for document in self.documents.values_mut() {
            document.world.forget();
            document.change();
        }
    }

    /// The document that a request is about, checked.
    fn draft(&mut self, uri: &Uri) -> Result<Rc<Draft>, Refused> {
        let absent = || Refused::new(ErrorCode::InvalidParams, format!("`{uri}` is not open"));
        self.documents.get_mut(uri.as_ref()).ok_or_else(absent)?.draft()
    }
}

fn read<P: DeserializeOwned>(params: Value) -> Result<P, Refused> {
    serde_json::from_value(params).map_err(|error| Refused::new(ErrorCode::InvalidParams, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_that_is_taken_back_while_it_waits_gets_no_result() {
        let (send, receive) = mpsc::channel();
        let asked = |id: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": { "capabilities": {} } });
        let back = json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": "second" } });
        for message in [asked("first"), asked("second"), back] {
            send.send(wire::read_message(message.to_string().as_bytes())).expect("a receiver");
        }
        drop(send);
        let mut output = Vec::new();
        assert!(!Server::new(&mut output, receive).serve().expect("it writes"), "nobody said good-bye");
        let told = String::from_utf8(output).expect("UTF-8");
        let answers: Vec<&str> =
            told.split("Content-Length").filter(|part| part.contains("\"id\"")).collect();
        assert!(answers[0].contains("first") && answers[0].contains("\"result\""), "{told}");
        assert!(answers[1].contains("second") && answers[1].contains("-32800"), "{told}");
        assert_eq!(answers.len(), 2, "{told}");
    }
}
