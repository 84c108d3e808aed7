//! config.json: read leniently, written back in the spelling of its source.
//!
//! Infinity has three spellings in the wild: the bare token `Infinity` (Python's json, not JSON), the object
//! `{"__float__": "Infinity"}` (transformers 5) and a large number. The bare token is read as the object, and
//! remembered, so that it is written as it was found.

use crate::families::ConfigError;
use crate::model::DType;
use serde_json::{Map, Value, json};

/// Key under which [`parse`] remembers that the source spelled infinities as bare tokens; never written.
const BARE: &str = "\u{0}bare_infinity";

const BARE_TOKENS: &[&str] = &["-Infinity", "Infinity", "NaN"];

/// An object from the text of a config.json.
pub fn parse(text: &str) -> Result<Map<String, Value>, ConfigError> {
    let (json, bare) = quote_bare_tokens(text);
    let fail = |message: String| ConfigError { key: "config.json".into(), message, help: None };
    match serde_json::from_str(&json).map_err(|e| fail(format!("is not JSON: {e}")))? {
        Value::Object(mut map) => {
            if bare {
                map.insert(BARE.into(), Value::Bool(true));
            }
            Ok(map)
        }
        _ => Err(fail("is not an object".into())),
    }
}

/// The text of a config, two spaces of indentation, keys in the order of the map.
pub fn to_text(config: &Map<String, Value>) -> String {
    let bare = config.contains_key(BARE);
    let map: Map<String, Value> =
        config.iter().filter(|(k, _)| *k != BARE).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut text = serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
    if bare {
        for token in BARE_TOKENS {
            text = replace_objects(&text, token);
        }
    }
    text.push('\n');
    text
}

/// Sets the dtype under the key that is there, or under the one that every loader reads.
pub fn set_dtype(config: &mut Map<String, Value>, dtype: DType) {
    let key = ["dtype", "torch_dtype"].into_iter().find(|k| config.contains_key(*k)).unwrap_or("torch_dtype");
    config.insert(key.into(), Value::from(dtype.torch_name()));
}

/// Infinity in the spelling of transformers 5; [`to_text`] turns it into the bare token where the source used it.
pub fn infinity() -> Value {
    json!({ "__float__": "Infinity" })
}

/// A number, in any spelling of infinity.
pub fn number(value: &Value) -> Option<f64> {
    let named = value.get("__float__").or(Some(value)).and_then(Value::as_str);
    match named {
        Some("Infinity" | "inf") => Some(f64::INFINITY),
        Some("-Infinity" | "-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

/// Bare tokens outside strings become objects.
fn quote_bare_tokens(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped, mut bare) = (false, false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some(token) = BARE_TOKENS.iter().find(|t| rest.starts_with(**t)) {
            out.push_str(&format!("{{\"__float__\": \"{token}\"}}"));
            rest = &rest[token.len()..];
            bare = true;
            continue;
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (out, bare)
}

/// `{ "__float__": "Infinity" }`, however it is laid out, becomes `Infinity`.
fn replace_objects(text: &str, token: &str) -> String {
    let key = "\"__float__\"";
    let quoted = format!("\"{token}\"");
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (Some(open), Some(close)) = (rest[..at].rfind('{'), rest[at..].find('}')) else { break };
        let object = &rest[open..at + close + 1];
        out.push_str(&rest[..open]);
        out.push_str(if object.contains(&quoted) { token } else { object });
        rest = &rest[at + close + 1..];
    }
    out.push_str(rest);
    out
}

/// Typed access to a config, with errors that name the key.
pub struct Reader<'a> {
    pub map: &'a Map<String, Value>,
}

/// No dimension of a real model comes near; beyond it sizes could overflow.
const LARGEST: u64 = 1 << 32;

impl<'a> Reader<'a> {
    pub fn fail<T>(&self, key: &str, message: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError { key: key.into(), message: message.into(), help: None })
    }

    /// The value under the first of `keys` that is there and not null.
    pub fn get(&self, keys: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        keys.iter().find_map(|k| self.map.get(*k).filter(|v| !v.is_null()).map(|v| (*k, v)))
    }

    /// A positive size under any of its spellings.
    pub fn size(&self, keys: &[&'static str], default: Option<usize>) -> Result<usize, ConfigError> {
        match (self.get(keys), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => self.fail(keys[0], "is missing"),
            (Some((key, value)), _) => match value.as_u64() {
                Some(n) if (1..LARGEST).contains(&n) => Ok(n as usize),
                Some(n) => self.fail(key, format!("is {n}; a size lies in 1..{LARGEST}")),
                None => self.fail(key, format!("is {value}, not a whole number")),
            },
        }
    }

    pub fn float(&self, keys: &[&'static str], default: f64) -> Result<f64, ConfigError> {
        match self.get(keys) {
            None => Ok(default),
            Some((key, value)) => match number(value) {
                Some(x) => Ok(x),
                None => self.fail(key, format!("is {value}, not a number")),
            },
        }
    }

    pub fn bool(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(&[key]) {
            None => Ok(default),
            Some((_, value)) => match value.as_bool() {
                Some(b) => Ok(b),
                None => self.fail(key, format!("is {value}, not a boolean")),
            },
        }
    }

    pub fn string(&self, key: &'static str, default: &'a str) -> Result<&'a str, ConfigError> {
        match self.get(&[key]) {
            None => Ok(default),
            Some((_, value)) => match value.as_str() {
                Some(s) => Ok(s),
                None => self.fail(key, format!("is {value}, not a string")),
            },
        }
    }

    /// `time_step_limit`: two numbers in order.
    pub fn limits(&self, keys: &[&'static str]) -> Result<Option<(f64, f64)>, ConfigError> {
        let Some((key, value)) = self.get(keys) else { return Ok(None) };
        let pair = value.as_array().map(|a| a.iter().map(number).collect::<Vec<_>>());
        match pair.as_deref() {
            Some([Some(lo), Some(hi)]) if lo.is_finite() && lo <= hi => Ok(Some((*lo, *hi))),
            _ => self
                .fail(key, format!("is {value}, not a pair of numbers in order, the first of them finite")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_written_as_it_was_found() {
        for text in [
            "{\n  \"name\": \"Infinity \\\" NaN\",\n  \"time_step_limit\": [\n    0.0,\n    Infinity\n  ]\n}\n",
            "{\n  \"time_step_limit\": [\n    0.0,\n    {\n      \"__float__\": \"Infinity\"\n    }\n  ]\n}\n",
        ] {
            assert_eq!(to_text(&parse(text).unwrap()), text);
        }
    }

    #[test]
    fn limits_read_every_spelling() {
        for spelling in ["Infinity", "{\"__float__\": \"Infinity\"}", "\"Infinity\""] {
            let map = parse(&format!("{{\"l\": [0.5, {spelling}]}}")).unwrap();
            let reader = Reader { map: &map };
            assert_eq!(reader.limits(&["l"]).unwrap(), Some((0.5, f64::INFINITY)));
        }
    }

    #[test]
    fn bad_values_name_their_key() {
        let map = parse(r#"{"a": 0, "b": -1, "c": "x", "d": 99999999999, "e": [1]}"#).unwrap();
        let reader = Reader { map: &map };
        for key in ["a", "b", "c", "d"] {
            assert_eq!(reader.size(&[key], None).unwrap_err().key, key);
        }
        assert!(reader.limits(&["e"]).is_err());
        assert!(parse("[1]").is_err() && parse("{").is_err());
    }
}
