//! What an artifact is made from: its meaning, and why it is not the one that is there.

use serde_json::{Map, Value};
use std::fmt;

/// The key of an artifact. Only `fields` enter its digest: the normal form of what is computed, digests of
/// what it is computed from, versions of the operations, the kind of the device. `origins` say how the inputs
/// behind those digests came about, so that a miss can name a cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// What it is, for people: `activation at mamba.x of parent on calibration`.
    pub subject: String,
    /// What it takes the place of when its fields change: `mamba.x of parent on calibration`.
    pub place: String,
    pub fields: Map<String, Value>,
    pub origins: Map<String, Value>,
}

impl Key {
    /// `kind` is the first field: keys of different kinds are never compared.
    pub fn new(kind: &str, place: impl Into<String>) -> Key {
        let (place, fields) = (place.into(), Map::from_iter([("kind".to_string(), Value::from(kind))]));
        Key { subject: place.clone(), place, fields, origins: Map::new() }
    }

    pub fn called(mut self, subject: impl Into<String>) -> Key {
        self.subject = subject.into();
        self
    }

    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Key {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// A field that is a digest, and what the digest is of.
    pub fn input(self, name: &str, digest: &str, origin: Value) -> Key {
        let mut key = self.field(name, digest);
        key.origins.insert(name.into(), origin);
        key
    }

    /// What the artifact is made from, with inputs as they came about in place of their digests.
    pub fn origin(&self) -> Value {
        let mut origin = self.fields.clone();
        origin.shift_remove("kind");
        origin.extend(self.origins.clone());
        Value::Object(origin)
    }

    pub fn kind(&self) -> &str {
        self.fields.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// BLAKE3, hexadecimal.
    pub fn digest(&self) -> String {
        digest_of(&Value::Object(self.fields.clone()))
    }

    /// The first field in which this key differs from an object's, down to its cause.
    pub(super) fn difference(
        &self,
        subject: &str,
        fields: &Map<String, Value>,
        origins: &Map<String, Value>,
    ) -> Option<Difference> {
        let names = self.fields.keys().chain(fields.keys().filter(|n| !self.fields.contains_key(*n)));
        let name = names.into_iter().find(|name| self.fields.get(*name) != fields.get(*name))?;
        let (before, now) = (fields.get(name), self.fields.get(name));
        let cause = origins.get(name).zip(self.origins.get(name)).and_then(|(a, b)| first(name, a, b));
        let (field, before, now) = cause
            .or_else(|| first(name, before?, now?))
            .unwrap_or_else(|| (name.clone(), text(before), text(now)));
        Some(Difference { than: subject.to_string(), field, before, now })
    }

    /// Fields in common with an object's.
    pub(super) fn alike(&self, fields: &Map<String, Value>) -> usize {
        self.fields.iter().filter(|(name, value)| fields.get(*name) == Some(value)).count()
    }
}

/// BLAKE3 of a document's JSON, hexadecimal.
pub fn digest_of(document: &Value) -> String {
    blake3::hash(document.to_string().as_bytes()).to_hex().to_string()
}

/// Why an artifact is not there, though one like it is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The subject of the one that is there.
    pub than: String,
    /// `samples.seed`, `model.files.model.safetensors`
    pub field: String,
    pub before: String,
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.before, self.now)
    }
}

/// The first difference of two documents, at its depth.
fn first(path: &str, before: &Value, now: &Value) -> Option<(String, String, String)> {
    if before == now {
        return None;
    }
    if let (Value::Object(a), Value::Object(b)) = (before, now) {
        let names = b.keys().chain(a.keys().filter(|n| !b.contains_key(*n)));
        let name = names.into_iter().find(|n| a.get(*n) != b.get(*n))?;
        let path = format!("{path}.{name}");
        return match (a.get(name), b.get(name)) {
            (Some(before), Some(now)) => first(&path, before, now),
            (before, now) => Some((path, text(before), text(now))),
        };
    }
    Some((path.to_string(), text(Some(before)), text(Some(now))))
}

/// A value for people: digests by their beginning, nothing that fills a screen.
fn text(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        None | Some(Value::Null) => return "none".into(),
        Some(Value::String(text)) if is_digest(text) => text[..12].to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("..".chars()).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
