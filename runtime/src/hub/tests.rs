use super::*;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";
const SECRET: &str = "hf_verySecretIndeed";

/// What was asked of a server, a line each: `GET /path range=bytes=3- auth`.
type Asked = Arc<Mutex<Vec<String>>>;

#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

struct Request {
    method: String,
    path: String,
    from: usize,
    authorized: bool,
}

/// A server on a port of its own that answers as `reply` says, for as long as the test runs.
fn serve(reply: impl Fn(&Request) -> Reply + Send + 'static) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let log = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &reply, &log);
        }
    });
    (address, asked)
}

fn answer(mut stream: TcpStream, reply: &impl Fn(&Request) -> Reply, log: &Asked) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut request = Request { method: method.into(), path: path.into(), from: 0, authorized: false };
    let mut range = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim();
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                range = format!(" range={value}");
                request.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            }
            "authorization" => request.authorized = value == format!("Bearer {SECRET}"),
            _ => {}
        }
    }
    let auth = if request.authorized { " auth" } else { "" };
    log.lock().unwrap().push(format!("{} {}{range}{auth}", request.method, request.path));
    let reply = reply(&request);
    let mut head = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", reply.status);
    head += &format!("content-length: {}\r\n", reply.body.len());
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(usize::MAX).min(reply.body.len())])?;
    }
    stream.flush()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn git(content: &[u8]) -> String {
    let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn sha256(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

const FILES: &[(&str, &[u8])] = &[
    ("config.json", b"{\"model_type\": \"nemotron_h\"}"),
    ("model.safetensors", b"the weights, which are large files and lie on another host"),
    ("pytorch_model.bin", b"the same again"),
    ("tokenizer.json", b"{}"),
    ("folder/other.json", b"{}"),
];

fn content(file: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == file).map(|(_, content)| *content)
}

fn list() -> Reply {
    let siblings: Vec<String> = FILES.iter().map(|(f, _)| format!(r#"{{"rfilename": "{f}"}}"#)).collect();
    let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", "));
    Reply { body: body.into(), ..Reply::new(200) }
}

/// The part of a file that is asked for.
fn part(request: &Request, content: &[u8]) -> Reply {
    let reply = Reply { body: content[request.from.min(content.len())..].into(), ..Reply::new(200) };
    if request.from == 0 {
        return reply;
    }
    let range = format!("bytes {}-{}/{}", request.from, content.len() - 1, content.len());
    Reply { status: 206, ..reply }.header("content-range", range)
}

/// What the hub does: small files at once, large ones from `elsewhere`.
fn hub_reply(request: &Request, elsewhere: &str) -> Reply {
    if request.path.starts_with("/api/") {
        return list();
    }
    let Some((_, file)) = request.path.split_once(&format!("/resolve/{COMMIT}/")) else {
        return Reply::new(404);
    };
    match content(file) {
        None => Reply::new(404),
        Some(content) if file.ends_with(".safetensors") => Reply::new(302)
            .header("location", format!("{elsewhere}/cdn/{file}?signature=signed"))
            .header("x-linked-etag", format!("\"{}\"", sha256(content)))
            .header("x-linked-size", content.len().to_string()),
        Some(content) => part(request, content).header("etag", format!("\"{}\"", git(content))),
    }
}

/// The other host: no file of it is for who brings a token along.
fn cdn_reply(request: &Request) -> Reply {
    let file = request.path.trim_start_matches("/cdn/").split('?').next().unwrap();
    match content(file) {
        Some(content) if !request.authorized => part(request, content),
        _ => Reply::new(400),
    }
}

struct Place {
    cache: tempfile::TempDir,
    endpoint: String,
}

impl Place {
    fn new(endpoint: &str) -> Place {
        Place { cache: tempfile::tempdir().unwrap(), endpoint: endpoint.into() }
    }

    fn hub(&self) -> Hub {
        self.hub_with(Some(SECRET), false)
    }

    fn hub_with(&self, token: Option<&str>, offline: bool) -> Hub {
        let token = token.and_then(Token::new);
        let cache = self.cache.path().to_path_buf();
        Hub::new(HubSettings { cache, endpoint: self.endpoint.clone(), token, offline })
    }

    fn partials(&self) -> Vec<PathBuf> {
        let pattern = format!("{}/**/*incomplete*", self.cache.path().display());
        glob::glob(&pattern).unwrap().map(Result::unwrap).collect()
    }
}

fn remote(text: &str) -> Remote {
    Remote::parse(text).unwrap().unwrap()
}

fn quiet(_: &str, _: u64, _: u64) {}

fn checkpoint(hub: &Hub, name: &str) -> Result<Snapshot, HubError> {
    hub.checkpoint(&remote(name), &quiet)
}

#[test]
fn a_checkpoint_is_fetched_once_and_found_again_without_the_hub() {
    let (cdn, cdn_asked) = serve(cdn_reply);
    let (endpoint, asked) = serve(move |request| hub_reply(request, &cdn));
    let place = Place::new(&endpoint);
    let snapshot = checkpoint(&place.hub(), "hf://org/name").unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(std::fs::read(snapshot.folder.join(file)).unwrap(), content(file).unwrap(), "{file}");
    }
    assert!(!snapshot.folder.join("pytorch_model.bin").exists() && !snapshot.folder.join("folder").exists());
    // The layout of the hub's own programs: links to blobs that are named by their digests.
    let repo = place.cache.path().join("models--org--name");
    let link = std::fs::read_link(snapshot.folder.join("config.json")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(git(content("config.json").unwrap())));
    assert!(repo.join("blobs").join(sha256(content("model.safetensors").unwrap())).is_file());
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(place.partials().is_empty());
    assert_eq!(origin(&snapshot.folder).unwrap().repo, "hf://org/name");
    // The token went to the hub, and nowhere else.
    assert!(asked.lock().unwrap().iter().all(|line| line.ends_with(" auth")), "{asked:?}");
    assert!(cdn_asked.lock().unwrap().iter().all(|line| !line.ends_with(" auth")), "{cdn_asked:?}");
    // Again: the list is asked for, no file is.
    asked.lock().unwrap().clear();
    assert_eq!(checkpoint(&place.hub(), "hf://org/name").unwrap(), snapshot);
    assert_eq!(*asked.lock().unwrap(), ["GET /api/models/org/name/revision/main auth"]);
    // A commit never moves, and offline nothing is asked.
    asked.lock().unwrap().clear();
    assert_eq!(checkpoint(&place.hub(), &format!("hf://org/name@{COMMIT}")).unwrap(), snapshot);
    assert_eq!(checkpoint(&place.hub_with(None, true), "hf://org/name").unwrap(), snapshot);
    assert!(asked.lock().unwrap().is_empty());
}

/// Every connection breaks after seven bytes: each try goes on where the last one stopped.
#[test]
fn a_broken_download_resumes_where_it_stopped() {
    let (endpoint, asked) = serve(|request| {
        let reply = hub_reply(request, "");
        match request.path.starts_with("/cdn/") {
            true => Reply { cut: Some(7), ..cdn_open(request) },
            false => reply,
        }
    });
    let place = Place::new(&endpoint);
    let error = checkpoint(&place.hub(), "hf://org/name").unwrap_err();
    assert_eq!(error.kind(), Kind::World);
    assert!(error.to_string().contains("35 of 58 bytes"), "{error}");
    assert!(error.to_string().ends_with("and the same command resumes"), "{error}");
    let blobs = place.cache.path().join("models--org--name/blobs");
    let whole = blobs.join(sha256(content("model.safetensors").unwrap()));
    assert!(!whole.exists());
    assert_eq!(place.partials().len(), 1);
    let snapshot = checkpoint(&place.hub(), "hf://org/name").unwrap();
    assert!(whole.is_file() && place.partials().is_empty());
    let weights = std::fs::read(snapshot.folder.join("model.safetensors")).unwrap();
    assert_eq!(weights, content("model.safetensors").unwrap());
    let ranges: Vec<String> =
        asked.lock().unwrap().iter().filter(|l| l.contains("GET /cdn/")).cloned().collect();
    assert_eq!(ranges.len(), 9, "{ranges:?}");
    assert!(ranges[5].contains("range=bytes=35-"), "{ranges:?}");
}

/// On the same host the token may be sent along.
fn cdn_open(request: &Request) -> Reply {
    let file = request.path.trim_start_matches("/cdn/").split('?').next().unwrap();
    content(file).map_or(Reply::new(404), |content| part(request, content))
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let (endpoint, _) = serve(|request| match request.path.starts_with("/cdn/") {
        true => Reply { body: content("model.safetensors").unwrap().into(), ..Reply::new(200) },
        false => hub_reply(request, ""),
    });
    let place = Place::new(&endpoint);
    let blobs = place.cache.path().join("models--org--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let digest = sha256(content("model.safetensors").unwrap());
    std::fs::write(blobs.join(format!("{digest}.incomplete")), b"the wei").unwrap();
    let snapshot = checkpoint(&place.hub(), "hf://org/name").unwrap();
    let weights = std::fs::read(snapshot.folder.join("model.safetensors")).unwrap();
    assert_eq!(weights, content("model.safetensors").unwrap());
}

#[test]
fn bytes_of_another_file_are_not_taken() {
    let (endpoint, _) = serve(|request| match request.path.starts_with("/cdn/") {
        true => Reply { body: vec![b'x'; 58], ..Reply::new(200) },
        false => hub_reply(request, ""),
    });
    let place = Place::new(&endpoint);
    let error = checkpoint(&place.hub(), "hf://org/name").unwrap_err();
    assert!(error.to_string().contains("what came is not what the hub announced"), "{error}");
    assert_eq!(error.kind(), Kind::World);
    assert!(place.partials().is_empty(), "it is not gone on with");
}

#[test]
fn what_the_hub_refuses_is_told() {
    let refusing = |status: u16, code: &'static str| {
        serve(move |_| Reply::new(status).header("x-error-code", code).header("www-authenticate", SECRET)).0
    };
    let cases = [
        (404, "", Some(SECRET), Kind::Input, "the hub knows no such repository, revision or file"),
        (401, "RepoNotFound", None, Kind::Input, "set HF_TOKEN"),
        (401, "", Some(SECRET), Kind::Input, "the token that is set does not open it"),
        (403, "GatedRepo", None, Kind::Input, "sign in with `hf auth login`"),
        (500, "", Some(SECRET), Kind::World, "the hub answers 500"),
        (429, "", None, Kind::World, "the same command resumes"),
    ];
    for (status, code, token, kind, expected) in cases {
        let place = Place::new(&refusing(status, code));
        let hub = place.hub_with(token, false);
        let error = checkpoint(&hub, "hf://org/name@v1").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with("hf://org/name@v1: "), "{error}");
        assert!(error.to_string().contains(expected), "{status}: {error}");
        assert!(!format!("{error} {error:?} {:?}", hub.settings()).contains(SECRET), "{error:?}");
    }
}

#[test]
fn strange_answers_are_told() {
    let body = |body: &str| {
        let body = body.replace("COMMIT", COMMIT);
        serve(move |_| Reply { body: body.clone().into(), ..Reply::new(200) }).0
    };
    let cases = [
        ("<html>", "gives no list of files: "),
        (r#"{"sha": "../../etc", "siblings": []}"#, "gives no commit"),
        (r#"{"sha": "COMMIT", "siblings": []}"#, "no file of it at"),
        (
            r#"{"sha": "COMMIT", "siblings": [{"rfilename": "../../x.json"}]}"#,
            "names the file `../../x.json`",
        ),
        (r#"{"sha": "COMMIT", "siblings": [{"rfilename": "/etc/x.json"}]}"#, "names the file `/etc/x.json`"),
        (r#"{"sha": "COMMIT", "siblings": [{"rfilename": "config.json"}]}"#, "is sent without an etag"),
    ];
    for (text, expected) in cases {
        let place = Place::new(&body(text));
        let error = checkpoint(&place.hub(), "hf://org/name").unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert_eq!(error.kind(), Kind::Input);
    }
    let circle = serve(|_| Reply::new(302).header("location", "/again")).0;
    let error = checkpoint(&Place::new(&circle).hub(), "hf://org/name").unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
}

/// The port of a server that is gone.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn without_a_network_the_cache_is_taken_or_the_failure_is_the_worlds() {
    let place = Place::new(&nobody());
    let error = checkpoint(&place.hub(), "hf://org/name").unwrap_err();
    assert_eq!(error.kind().exit_code(), 3);
    assert!(error.to_string().contains("no connection"), "{error}");
    assert!(error.to_string().ends_with("the same command resumes"), "{error}");
    write_snapshot(place.cache.path(), OTHER, &["config.json", "model.safetensors"]);
    let hub = place.hub();
    assert_eq!(checkpoint(&hub, "hf://org/name").unwrap().commit, OTHER);
    let notes = hub.notes();
    assert!(notes.len() == 1 && notes[0].contains(OTHER), "{notes:?}");
}

/// As another program of the hub leaves it.
fn write_snapshot(cache: &Path, commit: &str, files: &[&str]) {
    let repo = cache.join("models--org--name");
    let snapshot = repo.join("snapshots").join(commit);
    for folder in [&snapshot, &repo.join("blobs"), &repo.join("refs")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    for file in files {
        let blob = repo.join("blobs").join(git(file.as_bytes()));
        std::fs::write(&blob, content(file).unwrap_or(b"{}")).unwrap();
        let link = Path::new("../../blobs").join(blob.file_name().unwrap());
        std::os::unix::fs::symlink(link, snapshot.join(file)).unwrap();
    }
}

#[test]
fn offline_what_is_missing_is_named_with_the_command_that_fetches_it() {
    let place = Place::new(&nobody());
    let error = |name: &str| {
        let error = checkpoint(&place.hub_with(None, true), name).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        error.to_string().replace(&place.cache.path().display().to_string(), "CACHE")
    };
    assert_eq!(
        error("hf://org/name@v2"),
        "hf://org/name@v2: revision v2 is not in the cache CACHE and nothing is fetched offline; fetch it with `hf download org/name --revision v2`"
    );
    write_snapshot(place.cache.path(), COMMIT, &["config.json"]);
    assert!(error("hf://org/name").contains("`model.safetensors` is not in the cache"));
    write_snapshot(place.cache.path(), OTHER, &["config.json", "model.safetensors.index.json"]);
    let index = place.cache.path().join("models--org--name/snapshots").join(OTHER).join(INDEX_FILE);
    std::fs::write(&index, r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#).unwrap();
    assert!(error("hf://org/name").contains("`model-00001-of-00002.safetensors` is not in the cache"));
}

#[test]
fn files_of_a_data_set_are_fetched_by_pattern() {
    let (endpoint, asked) = serve(|request| hub_reply(request, ""));
    let place = Place::new(&endpoint);
    let data = remote("hf://datasets/org/name@v1/*.json");
    let snapshot = place.hub().data(&data, &quiet).unwrap();
    assert!(snapshot.folder.ends_with(Path::new("datasets--org--name/snapshots").join(COMMIT)));
    assert!(
        snapshot.folder.join("config.json").is_file() && snapshot.folder.join("tokenizer.json").is_file()
    );
    assert!(!snapshot.folder.join("folder/other.json").exists());
    assert!(asked.lock().unwrap()[0].starts_with("GET /api/datasets/org/name/revision/v1"));
    let pattern = snapshot.pattern(&data).unwrap();
    assert_eq!(crate::data::matching(Path::new(""), &pattern).unwrap().len(), 2);
    let file = snapshot.folder.join("config.json");
    assert_eq!(spelled(&file), format!("hf://datasets/org/name@{COMMIT}/config.json"));
    let nested = remote("hf://datasets/org/name/folder/other.json");
    let snapshot = place.hub().data(&nested, &quiet).unwrap();
    let link = std::fs::read_link(snapshot.folder.join("folder/other.json")).unwrap();
    assert!(link.starts_with("../../../blobs"), "{link:?}");
    assert_eq!(std::fs::read(snapshot.folder.join("folder/other.json")).unwrap(), b"{}");
    assert!(place.hub().data(&remote("hf://datasets/org/name/none.txt"), &quiet).is_err());
}

/// A branch that moves while minic runs is the same commit throughout.
#[test]
fn a_revision_is_settled_once() {
    let moved = Arc::new(Mutex::new(0));
    let (endpoint, asked) = serve(move |request| {
        let mut times = moved.lock().unwrap();
        *times += 1;
        let reply = hub_reply(request, "");
        if *times == 1 || request.path.contains(COMMIT) { reply } else { Reply::new(500) }
    });
    let place = Place::new(&endpoint);
    let hub = place.hub();
    let first = hub.config(&remote("hf://org/name")).unwrap();
    assert!(!first.folder.join("tokenizer.json").exists());
    let data = hub.obtain(
        &remote("hf://org/name"),
        &|_| vec!["tokenizer.json".into()],
        &|folder| missing_one(folder, "tokenizer.json"),
        &quiet,
    );
    assert_eq!(data.unwrap().commit, COMMIT);
    assert!(asked.lock().unwrap().iter().any(|line| line.contains(&format!("revision/{COMMIT}"))));
}

#[test]
fn names_are_taken_apart() {
    let parsed = |text: &str| Remote::parse(text).unwrap().ok();
    assert!(Remote::parse("models/tiny").is_none());
    let model = remote("hf://org/na.me-1@v1.0");
    assert_eq!((model.repo.id.as_str(), model.repo.revision()), ("org/na.me-1", "v1.0"));
    assert_eq!(remote("hf://org/name").repo.revision(), "main");
    assert_eq!(remote("hf://org/name@refs/pr/1").repo.revision(), "refs/pr/1");
    let data = remote("hf://datasets/org/name@refs/convert/parquet/default/train/0.parquet");
    assert_eq!(data.repo.revision(), "refs/convert/parquet");
    assert_eq!(data.path.as_deref(), Some("default/train/0.parquet"));
    assert_eq!(
        data.download_command(),
        "hf download org/name --repo-type dataset --revision refs/convert/parquet --include 'default/train/0.parquet'"
    );
    for wrong in [
        "hf://",
        "hf://name",
        "hf://org/",
        "hf://../name",
        "hf://org/na me",
        "hf://org/name/file",
        "hf://org/name@",
        "hf://org/name@../../x",
        "hf://datasets/org/name",
        "hf://datasets/org/name/",
        "hf://datasets/org/name/../x",
        "hf://datasets/org/name@refs/pr/1",
    ] {
        assert!(parsed(wrong).is_none(), "{wrong}");
    }
    assert!(origin(Path::new("/cache/models--org--name/snapshots/main")).is_none());
    assert!(origin(Path::new("/data/snapshots/x")).is_none());
}

#[test]
fn the_environment_says_where_and_who() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    std::fs::write(folder.path().join("token"), "hf_fromFile\n").unwrap();
    let settings = |variables: &[(&str, &str)]| {
        let find = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.replace("HOME", &home))
        };
        HubSettings::from(&find)
    };
    let cache =
        |variables: &[(&str, &str)]| settings(variables).cache.display().to_string().replace(&home, "HOME");
    assert_eq!(cache(&[("HOME", "HOME")]), "HOME/.cache/huggingface/hub");
    assert_eq!(cache(&[("HOME", "HOME"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HOME", "HOME"), ("HF_HOME", "~/hf")]), "HOME/hf/hub");
    assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")]), "/cache");
    assert_eq!(settings(&[("HF_HOME", "HOME")]).token, Token::new("hf_fromFile"));
    assert_eq!(settings(&[("HF_HOME", "HOME"), ("HF_TOKEN", " hf_x ")]).token, Token::new("hf_x"));
    assert_eq!(settings(&[("HF_HOME", "/none")]).token, None);
    assert!(settings(&[("HF_HUB_OFFLINE", "1")]).offline);
    assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
    assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    assert_eq!(Token::new("two\nlines"), None);
    assert_eq!(format!("{:?}", Token::new(SECRET)), "Some(Token(..))");
}
