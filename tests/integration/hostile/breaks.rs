//! Ways to break a folder.

use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The middle one of the three shards.
pub const SHARD: &str = "model/model-00002-of-00003.safetensors";
pub const INDEX: &str = "model/model.safetensors.index.json";

pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).expect("a file");
}

pub fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).expect("a file");
}

/// In place of a file: a pipe that nobody writes.
pub fn pipe(folder: &Path, name: &str) {
    let _ = fs::remove_file(folder.join(name));
    let made = Command::new("mkfifo").arg(folder.join(name)).status().expect("mkfifo");
    assert!(made.success());
}

/// In place of a file: a link.
pub fn link(folder: &Path, name: &str, to: &str) {
    let _ = fs::remove_file(folder.join(name));
    symlink(to, folder.join(name)).expect("a link");
}

/// In place of a file: a folder.
pub fn directory(folder: &Path, name: &str) {
    let _ = fs::remove_file(folder.join(name));
    fs::create_dir(folder.join(name)).expect("a folder");
}

pub fn resize(folder: &Path, name: &str, by: i64) {
    let file = fs::File::options().write(true).open(folder.join(name)).expect("a file");
    let len = file.metadata().expect("a length").len();
    file.set_len(len.checked_add_signed(by).expect("a length")).expect("a new length");
}

/// A sparse file.
pub fn huge(folder: &Path, name: &str, bytes: u64) {
    fs::File::create(folder.join(name)).expect("a file").set_len(bytes).expect("a length");
}

pub fn edit(folder: &Path, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let text = fs::read(folder.join(name)).expect("a file");
    let mut value: Value = serde_json::from_slice(&text).expect("JSON");
    change(value.as_object_mut().expect("an object"));
    write(folder, name, value.to_string());
}

pub fn config(folder: &Path, key: &str, value: Value) {
    edit(folder, "model/config.json", |map| _ = map.insert(key.into(), value));
}

/// The value at a path of provenance.json.
pub fn provenance(folder: &Path, pointer: &str, value: Value) {
    edit(folder, "half/provenance.json", |map| {
        let mut whole = Value::Object(std::mem::take(map));
        *whole.pointer_mut(pointer).expect("a value of the document") = value;
        *map = whole.as_object().expect("an object").clone();
    });
}

/// A safetensors file as its header and its data.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk().expect("a header");
    rest.split_at(u64::from_le_bytes(*length) as usize)
}

pub fn set_header(folder: &Path, name: &str, header: &[u8]) {
    let bytes = fs::read(folder.join(name)).expect("a file");
    let (_, data) = parts(&bytes);
    write(folder, name, [&(header.len() as u64).to_le_bytes(), header, data].concat());
}

/// The header's text of the shard.
pub fn header(folder: &Path, change: impl FnOnce(String) -> String) {
    let bytes = fs::read(folder.join(SHARD)).expect("a file");
    let text = String::from_utf8(parts(&bytes).0.to_vec()).expect("text");
    set_header(folder, SHARD, change(text).as_bytes());
}

/// The shard's tensor `i` in the order of the data.
pub fn tensor(folder: &Path, i: usize, change: impl FnOnce(&mut Map<String, Value>)) {
    header(folder, |text| {
        let mut header: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        let mut names: Vec<String> = header.keys().filter(|k| *k != "__metadata__").cloned().collect();
        names.sort_by_key(|name| header[name]["data_offsets"][0].as_u64());
        change(header[&names[i]].as_object_mut().expect("a tensor"));
        Value::Object(header).to_string()
    });
}

/// Both ends of a tensor's range moved.
pub fn shift(tensor: &mut Map<String, Value>, begin: i64, end: i64) {
    let at = |i: usize| tensor["data_offsets"][i].as_i64().expect("a number");
    tensor.insert("data_offsets".into(), json!([at(0) + begin, at(1) + end]));
}

/// The first bytes of a file's data.
pub fn poke(folder: &Path, name: &str, bytes: &[u8]) {
    let whole = fs::read(folder.join(name)).expect("a file");
    let (header, data) = parts(&whole);
    let data = [bytes, &data[bytes.len()..]].concat();
    write(folder, name, [&whole[..8], header, &data].concat());
}

/// An index of one tensor.
pub fn index_of(folder: &Path, file: &str) {
    write(folder, INDEX, json!({ "weight_map": { "a": file } }).to_string());
}

pub fn deep(open: &str, depth: usize) -> String {
    open.repeat(depth)
}

/// A .npy file of `data` under a header of these entries.
pub fn npy(folder: &Path, name: &str, descr: &str, shape: &str, data: &[u8]) {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let start = b"\x93NUMPY\x01\x00".as_slice();
    write(folder, name, [start, &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat());
}

/// tokenizer.json with one more added token.
pub fn added_token(folder: &Path, id: u64, content: &str) {
    edit(folder, "model/tokenizer.json", |map| {
        let tokens = map["added_tokens"].as_array_mut().expect("a list");
        tokens.push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    });
}

/// Line `key` of a recipe with another value.
pub fn recipe(folder: &Path, from: &str, to: &str) {
    let text = super::RECIPE.replacen(from, to, 1);
    assert_ne!(text, super::RECIPE);
    write(folder, "recipe.mrecipe", text);
}
