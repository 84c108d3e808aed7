//! `hf://` from recipe to export, against a hub of the test's own.

use crate::command::{Done, minic_with, repository};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
const SECRET: &str = "hf_aTokenThatNobodyMaySee";
const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "hf://stories/hybrid@v1"; dt_floor = 0.001 }
data heldout { files = ["hf://datasets/stories/text/*.jsonl"]; sequence = 32; samples = 2 }
metric magnitude(w) = l2(w)
prune half from parent { axis ffn_hidden_size = parent.ffn_hidden_size / 2 by magnitude }
evaluate half against parent on heldout { loss, kl }
export half to "half"
"#;

/// Repositories: what the API calls them, and their folders.
type Repos = [(&'static str, PathBuf); 2];

/// A hub that serves folders to who brings the token; every answer's path goes to the log.
fn serve(repos: Repos) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let asked = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &repos, &asked);
        }
    });
    (endpoint, log)
}

fn answer(mut stream: TcpStream, repos: &Repos, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = head[0].split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    log.lock().unwrap().push(path.to_string());
    let allowed = head.iter().any(|line| line.ends_with(&format!("Bearer {SECRET}")));
    let found = if allowed { find(path, repos) } else { None };
    let status = if found.is_some() { "200 OK" } else { "401 Unauthorized" };
    let body = found.unwrap_or_default();
    let name = path.rsplit('/').next().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len())?;
    write!(stream, "etag: \"{name}\"\r\n\r\n")?;
    if method == "GET" { stream.write_all(&body) } else { Ok(()) }
}

fn find(path: &str, repos: &Repos) -> Option<Vec<u8>> {
    for (repo, folder) in repos {
        if path.starts_with(&format!("/api/{repo}/revision/")) {
            let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
            let files: Vec<_> = files.map(|f| serde_json::json!({ "rfilename": f.to_str() })).collect();
            let list = serde_json::json!({ "sha": COMMIT, "siblings": files });
            return Some(list.to_string().into());
        }
        let address = format!("/{}/resolve/{COMMIT}/", repo.trim_start_matches("models/"));
        if let Some(file) = path.strip_prefix(&address) {
            return fs::read(folder.join(file)).ok();
        }
    }
    None
}

struct Place {
    folder: TempDir,
    endpoint: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("recipe.mrecipe"), RECIPE).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let row = serde_json::json!({ "text": "The sun was warm. Hana has a sled. ".repeat(20) });
        fs::write(data.join("a.jsonl"), format!("{row}\n{row}\n{{}}\n")).unwrap();
        let model = repository("examples/quickstart/model");
        let (endpoint, log) = serve([("models/stories/hybrid", model), ("datasets/stories/text", data)]);
        Place { folder, endpoint, log }
    }

    fn minic(&self, arguments: &[&str], token: &str) -> Done {
        let cache = self.folder.path().join("cache").display().to_string();
        let variables = [("HF_HOME", cache.as_str()), ("HF_ENDPOINT", &self.endpoint), ("HF_TOKEN", token)];
        let done = minic_with(self.folder.path(), arguments, &variables);
        assert!(!format!("{}{}", done.stdout, done.stderr).contains(SECRET), "{}", done.stderr);
        done
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }
}

#[test]
fn a_recipe_of_the_hub_is_run_recorded_and_run_again_offline() {
    let place = Place::new();
    // Checking and planning fetch nothing.
    assert_eq!(place.minic(&["check", "recipe.mrecipe"], SECRET).exit, 0);
    assert_eq!(place.minic(&["plan", "recipe.mrecipe"], SECRET).exit, 1);
    assert!(place.asked().is_empty());
    let offline = place.minic(&["run", "recipe.mrecipe", "--offline"], SECRET);
    assert_eq!(offline.exit, 1);
    assert!(offline.stderr.contains("`hf download stories/hybrid --revision v1`"), "{}", offline.stderr);

    let done = place.minic(&["run", "recipe.mrecipe"], SECRET);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert!(
        done.stderr.contains("1 row was left out of 3:\n  line 3: has no field `text`"),
        "{}",
        done.stderr
    );
    let provenance: serde_json::Value = serde_json::from_str(&place.read("half/provenance.json")).unwrap();
    assert_eq!(provenance["parents"][0]["checkpoint"], "hf://stories/hybrid");
    assert_eq!(provenance["parents"][0]["revision"], COMMIT);
    let data = &provenance["data"][0];
    assert_eq!(data["bad_rows"], 1);
    let file = format!("hf://datasets/stories/text@{COMMIT}/a.jsonl");
    assert!(data["files"][&file].is_string(), "{data:#}");
    let lock = place.read("half/minic.lock.toml");
    assert!(lock.contains(&format!("revision = \"{COMMIT}\"")), "{lock}");
    assert!(place.read("half/README.md").contains("base_model:\n- stories/hybrid\n"));
    for entry in fs::read_dir(place.folder.path().join(".minic/runs/recipe")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(SECRET));
    }

    // Everything is in the cache by now.
    place.asked();
    let planned = place.minic(&["plan", "recipe.mrecipe"], SECRET);
    assert_eq!(planned.exit, 0, "{}", planned.stderr);
    let again = place.minic(&["run", "recipe.mrecipe", "--offline", "--json"], SECRET);
    assert_eq!(again.json()["exports"]["export half"]["unchanged"], true, "{}", again.stderr);
    assert!(place.asked().is_empty());
    let inspected = place.minic(&["inspect", "hf://stories/hybrid@v1"], SECRET);
    assert_eq!(inspected.exit, 0, "{}", inspected.stderr);
}

#[test]
fn who_may_not_ask_and_who_cannot_reach_the_hub_is_told() {
    let place = Place::new();
    let denied = place.minic(&["run", "recipe.mrecipe"], "hf_another");
    assert_eq!(denied.exit, 1);
    assert!(denied.stderr.contains("the token that is set does not open it"), "{}", denied.stderr);
    assert!(!denied.stderr.contains("hf_another"));
    let nobody = Place { endpoint: "http://127.0.0.1:1".into(), ..Place::new() };
    let unreachable = nobody.minic(&["run", "recipe.mrecipe"], SECRET);
    assert_eq!(unreachable.exit, 3, "{}", unreachable.stderr);
    assert!(unreachable.stderr.contains("the same command resumes"), "{}", unreachable.stderr);
    assert!(!Path::new(nobody.folder.path()).join("half").exists());
    // Of one that is only looked at, nothing but its config.json is fetched.
    let inspected = place.minic(&["inspect", "hf://stories/hybrid", "--json"], SECRET);
    assert_eq!(inspected.json()["family"], "nemotron_h", "{}", inspected.stderr);
    assert!(place.asked().iter().all(|path| path.starts_with("/api/") || path.ends_with("/config.json")));
}
