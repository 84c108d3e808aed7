//! What is asked of the hub over HTTP: the list of a repository's files, and the files.

use super::names::{is_commit, is_inside};
use super::{HubError, HubSettings, Progress, Repo, Token, cache};
use crate::error::IoError;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

/// How often a file is asked for before it is given up; each time it goes on where it stopped.
const TRIES: usize = 5;

/// Redirects that are followed: the hub names another host for large files.
const MOST_REDIRECTS: usize = 5;

/// Bytes of a list of files.
const LONGEST_LIST: u64 = 64 << 20;

pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    cache: PathBuf,
}

/// The files of a repository at a commit.
pub struct Listed {
    pub commit: String,
    pub files: Vec<String>,
}

/// What the hub says of a file before it sends it.
struct Described {
    /// SHA-256 of a large file, Git's SHA-1 of a small one.
    etag: String,
    size: u64,
}

impl Client {
    pub fn new(settings: &HubSettings) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here: the answer that redirects says what the file is, and a token is for one host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("minic/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Client {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            cache: settings.cache.clone(),
        }
    }

    /// The commit of the repository's revision, and its files.
    pub fn list(&self, repo: &Repo) -> Result<Listed, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let kind = if repo.is_dataset { "datasets" } else { "models" };
        let url =
            format!("{}/api/{kind}/{}/revision/{}", self.endpoint, repo.id, escaped(repo.revision(), false));
        let mut response = self.ask("GET", repo, &url, 0)?.1;
        let text = response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
        let text = text.map_err(|e| network(repo, &url, &e))?;
        let strange = |what: String| HubError::Contents { repo: repo.to_string(), what };
        let info: Info = serde_json::from_slice(&text)
            .map_err(|e| strange(format!("{url} gives no list of files: {e}")))?;
        if !is_commit(&info.sha) {
            return Err(strange(format!("{url} gives no commit")));
        }
        let files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        match files.iter().find(|file| !is_inside(file)) {
            Some(file) => {
                Err(strange(format!("{url} names the file `{}`, outside of it", file.escape_debug())))
            }
            None => Ok(Listed { commit: info.sha, files }),
        }
    }

    /// Brings one file into the cache, unless it is there.
    pub fn fetch(&self, repo: &Repo, commit: &str, file: &str, progress: Progress) -> Result<(), HubError> {
        let target = cache::snapshot(&self.cache, repo, commit).join(file);
        if target.is_file() {
            return Ok(());
        }
        let kind = if repo.is_dataset { "datasets/" } else { "" };
        let url = format!("{}/{kind}{}/resolve/{commit}/{}", self.endpoint, repo.id, escaped(file, true));
        let described = self.describe(repo, &url)?;
        let blob = cache::blob(&self.cache, repo, &described.etag);
        let lock = Lock::take(&cache::lock(&self.cache, repo, &described.etag))?;
        if !blob.is_file() {
            self.download(repo, &url, &described, &blob, &|done| progress(file, done, described.size))?;
        }
        link(&blob, &target)?;
        drop(lock);
        Ok(())
    }

    fn describe(&self, repo: &Repo, url: &str) -> Result<Described, HubError> {
        let (first, response) = self.ask("HEAD", repo, url, 0)?;
        let strange =
            |what: &str| HubError::Contents { repo: repo.to_string(), what: format!("{url} {what}") };
        let header = |headers: &HeaderMap, name: &str| headers.get(name)?.to_str().ok().map(str::to_string);
        let etag = header(&first, "x-linked-etag").or_else(|| header(&first, "etag"));
        let etag = etag.ok_or_else(|| strange("is sent without an etag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
        if etag.is_empty()
            || etag.len() > 128
            || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(strange("is sent with an etag that names no file"));
        }
        let size = header(&first, "x-linked-size").or_else(|| header(response.headers(), "content-length"));
        let size = size.and_then(|s| s.parse().ok()).ok_or_else(|| strange("is sent without its size"))?;
        Ok(Described { etag, size })
    }

    /// Into `BLOB.incomplete`, from where an earlier try stopped; named `BLOB` once it is whole and right.
    fn download(
        &self,
        repo: &Repo,
        url: &str,
        described: &Described,
        blob: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        cache::create_parent(blob)?;
        let partial = blob.with_extension("incomplete");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&partial);
        let mut file = file.map_err(IoError::at(&partial, "open"))?;
        for tried in 1.. {
            let part = self.append(repo, url, described.size, (&mut file, &partial), progress);
            match part {
                Ok(()) => break,
                Err(HubError::Network { .. }) if tried < TRIES => {
                    std::thread::sleep(Duration::from_millis(100 << tried));
                }
                Err(error) => return Err(error),
            }
        }
        if !is_right(&mut file, described).map_err(IoError::at(&partial, "read"))? {
            drop(file);
            std::fs::remove_file(&partial).map_err(IoError::at(&partial, "remove"))?;
            let reason = "what came is not what the hub announced, by its digest".to_string();
            return Err(HubError::Network { repo: repo.to_string(), url: url.into(), reason });
        }
        file.sync_all().map_err(IoError::at(&partial, "write"))?;
        Ok(std::fs::rename(&partial, blob).map_err(IoError::at(blob, "write"))?)
    }

    /// The rest of a file of which some bytes are there.
    fn append(
        &self,
        repo: &Repo,
        url: &str,
        size: u64,
        (file, path): (&mut File, &Path),
        progress: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        const PIECE: usize = 1 << 20;
        let broken = |reason: String| HubError::Network { repo: repo.to_string(), url: url.into(), reason };
        let mut done = file.seek(SeekFrom::End(0)).map_err(IoError::at(path, "read"))?;
        if done > size {
            done = restart(file).map_err(IoError::at(path, "write"))?;
        }
        if done == size {
            return Ok(());
        }
        let response = self.ask("GET", repo, url, done)?.1;
        // Who knows no ranges sends it all again.
        if done > 0 && !goes_on(&response, done) {
            done = restart(file).map_err(IoError::at(path, "write"))?;
            if response.status().as_u16() == 206 {
                return Err(broken("another part came than the one that was asked for".into()));
            }
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut piece = vec![0; PIECE];
        while done < size {
            let n = match body.read(&mut piece) {
                Ok(0) => return Err(broken(format!("the connection ended after {done} of {size} bytes"))),
                Ok(n) => n,
                Err(e) => {
                    return Err(broken(format!("the connection broke after {done} of {size} bytes: {e}")));
                }
            };
            if done + n as u64 > size {
                return Err(broken(format!("more than the announced {size} bytes came")));
            }
            file.write_all(&piece[..n]).map_err(IoError::at(path, "write"))?;
            done += n as u64;
            progress(done);
        }
        Ok(())
    }

    /// The headers of the first answer, and the last one after all redirects. The token goes to the hub only.
    fn ask(
        &self,
        method: &str,
        repo: &Repo,
        url: &str,
        from: u64,
    ) -> Result<(HeaderMap, Response<Body>), HubError> {
        let (mut first, mut at) = (None, url.to_string());
        for _ in 0..=MOST_REDIRECTS {
            let mut request = ureq::http::Request::builder().method(method).uri(&at);
            if let Some(token) = self.token.as_ref().filter(|_| same_host(&at, &self.endpoint)) {
                request = request.header("authorization", token.header());
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let request = request.body(()).map_err(|_| HubError::Contents {
                repo: repo.to_string(),
                what: format!("`{}` is no address", without_query(&at).escape_debug()),
            })?;
            let response = self.agent.run(request).map_err(|e| network(repo, &at, &e))?;
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            match (status, headers.get("location").and_then(|l| l.to_str().ok())) {
                (200 | 206, _) => return Ok((first.unwrap_or(headers), response)),
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    at = resolved(&at, location);
                    first.get_or_insert(headers);
                }
                _ => return Err(self.refusal(repo, &at, status, &headers)),
            }
        }
        let reason = format!("more than {MOST_REDIRECTS} redirects");
        Err(HubError::Network { repo: repo.to_string(), url: without_query(&at).into(), reason })
    }

    fn refusal(&self, repo: &Repo, url: &str, status: u16, headers: &HeaderMap) -> HubError {
        let (repo, url) = (repo.to_string(), without_query(url).to_string());
        let said = headers.get("x-error-code").and_then(|h| h.to_str().ok()).unwrap_or_default();
        match (status, said) {
            (404, _) => {
                let hint = match &self.token {
                    None => "; a private one is shown only to those who may see it: set HF_TOKEN",
                    Some(_) => "",
                };
                HubError::NotFound { repo, url, hint }
            }
            // The hub does not say of a repository that it does not exist to who may not know.
            (401, "RepoNotFound") if self.token.is_none() => {
                let hint = "; a private one is shown only to those who may see it: set HF_TOKEN";
                HubError::NotFound { repo, url, hint }
            }
            (401 | 403, _) => {
                let help = match &self.token {
                    None => "set HF_TOKEN, or sign in with `hf auth login`",
                    Some(_) => {
                        "the token that is set does not open it; a gated repository is opened on its page"
                    }
                };
                HubError::Denied { repo, url, status, help }
            }
            _ => HubError::Network { repo, url, reason: format!("the hub answers {status}") },
        }
    }
}

/// An error of the connection. Addresses that large files are sent from carry a signature in their query.
fn network(repo: &Repo, url: &str, error: &ureq::Error) -> HubError {
    let reason = match error {
        ureq::Error::HostNotFound => "its host is not found".to_string(),
        ureq::Error::ConnectionFailed => "no connection".to_string(),
        ureq::Error::Timeout(_) => "no answer in time".to_string(),
        ureq::Error::Io(e) => format!("no connection: {e}"),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => format!("no safe connection: {error}"),
        _ => "no answer that is understood".to_string(),
    };
    HubError::Network { repo: repo.to_string(), url: without_query(url).into(), reason }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn same_host(a: &str, b: &str) -> bool {
    let parts = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        Some((uri.scheme_str()?.to_string(), uri.authority()?.as_str().to_ascii_lowercase()))
    };
    parts(a).is_some_and(|a| Some(a) == parts(b))
}

/// Where a redirect leads: an address, or a path on the same host.
fn resolved(url: &str, location: &str) -> String {
    if location.contains("://") || !location.starts_with('/') {
        return location.to_string();
    }
    let scheme = url.find("://").map_or(0, |i| i + 3);
    let host = url[scheme..].find('/').map_or(url.len(), |i| scheme + i);
    format!("{}{location}", &url[..host])
}

/// Percent-encoded, as a path or as one segment of one.
fn escaped(text: &str, is_path: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if is_path => out.push('/'),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// The answer begins at the byte that was asked for.
fn goes_on(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|r| r.to_str().ok());
    response.status().as_u16() == 206
        && range.is_some_and(|range| range.strip_prefix(&format!("bytes {from}-")).is_some())
}

fn restart(file: &mut File) -> io::Result<u64> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))
}

/// Whether a file has the digest that its etag is: SHA-256, or SHA-1 as Git computes it. Mirrors of the hub
/// may have other etags, of which nothing is known.
fn is_right(file: &mut File, described: &Described) -> io::Result<bool> {
    let mut context = match described.etag.len() {
        64 => Context::new(&SHA256),
        40 => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", described.size).as_bytes());
            context
        }
        _ => return Ok(true),
    };
    if !described.etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => context.update(&piece[..n]),
        }
    }
    let digest: String = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Ok(digest.eq_ignore_ascii_case(&described.etag))
}

/// Held while a blob is fetched, so that two programs do not write the same file.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Lock, IoError> {
        cache::create_parent(path)?;
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(IoError::at(path, "open"))?;
        match file.lock() {
            // A file system without locks: whoever is second finds the file whole, or writes the same.
            Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(IoError::at(path, "lock")(e)),
            _ => Ok(Lock { _file: file }),
        }
    }
}

/// `snapshots/COMMIT/FILE` -> `../../blobs/DIGEST`; a copy where links cannot be made.
fn link(blob: &Path, target: &Path) -> Result<(), IoError> {
    cache::create_parent(target)?;
    let name = blob.file_name().unwrap_or_default();
    let repo = blob.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    let deep = target.strip_prefix(repo).map_or(0, |inside| inside.components().count() - 1);
    let to: PathBuf = std::iter::repeat_n("..", deep).collect::<PathBuf>().join("blobs").join(name);
    let partial = target.with_extension(format!("{}.incomplete", std::process::id()));
    // Left over by a run that was killed.
    let _ = std::fs::remove_file(&partial);
    symlink(&to, blob, &partial).map_err(IoError::at(target, "link"))?;
    std::fs::rename(&partial, target).map_err(IoError::at(target, "link"))
}

#[cfg(unix)]
fn symlink(to: &Path, _: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    std::fs::copy(blob, link).map(|_| ())
}
