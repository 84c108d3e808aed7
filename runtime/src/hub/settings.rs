//! Where the cache is, whom to ask, and who asks: the hub's own environment variables.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// What lets a user in. It shows in no message and no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` where nothing is there; what is no header's value is no token.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        legal.then(|| Token(text.to_string()))
    }

    #[cfg(feature = "hub")]
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Of repositories.
    pub cache: PathBuf,
    /// `https://huggingface.co`
    pub endpoint: String,
    pub token: Option<Token>,
    /// Nothing is fetched.
    pub offline: bool,
}

const ENDPOINT: &str = "https://huggingface.co";

impl HubSettings {
    /// Of the environment: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH,
    /// HF_HUB_OFFLINE.
    pub fn from_env() -> HubSettings {
        HubSettings::from(&|name| env::var_os(name).and_then(|v| v.into_string().ok()))
    }

    /// Of variables that are looked up by name.
    pub fn from(variable: &dyn Fn(&str) -> Option<String>) -> HubSettings {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        let folder = |name: &str| set(name).map(|v| expanded(&v, set("HOME").as_deref()));
        let user_cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        let home = folder("HF_HOME").unwrap_or_else(|| user_cache.unwrap_or_default().join("huggingface"));
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
        let token = token.as_deref().and_then(Token::new).or_else(|| kept(&token_file));
        let endpoint = set("HF_ENDPOINT").unwrap_or(ENDPOINT.into()).trim_end_matches('/').to_string();
        let yes = |v: String| matches!(v.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true");
        let offline = set("HF_HUB_OFFLINE").is_some_and(yes);
        HubSettings { cache: cache.unwrap_or_else(|| home.join("hub")), endpoint, token, offline }
    }
}

fn expanded(path: &str, home: Option<&str>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// The token that the hub's own program keeps. One that cannot be read is as good as none: public files need
/// none, and the hub says where one is needed.
fn kept(file: &Path) -> Option<Token> {
    const LONGEST: u64 = 4096;
    let bytes = crate::input::read(file, LONGEST).ok()?;
    Token::new(std::str::from_utf8(&bytes).ok()?)
}
