use super::*;
use crate::safetensors::{Entry, Writer};
use crate::testing;
use serde_json::{Value, json};
use std::fs;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn check_values(checkpoint: &Checkpoint, dtype: DType) {
    let entries = testing::entries(checkpoint.desc(), dtype);
    assert_eq!(checkpoint.main_dtype(), Some(dtype));
    for entry in &entries {
        assert_eq!(checkpoint.shape(&entry.name).unwrap(), entry.shape);
        assert_eq!(checkpoint.dtype(&entry.name).unwrap(), dtype);
        assert_eq!(checkpoint.read_f32(&entry.name).unwrap(), testing::values(entry));
        assert_eq!(checkpoint.first_non_finite(&entry.name).unwrap(), None);
    }
}

#[test]
fn every_dtype_is_read_whole_and_in_shards() {
    for dtype in DType::ALL.iter().copied() {
        let whole = folder();
        testing::write_checkpoint(whole.path(), &testing::config(), dtype);
        check_values(&Checkpoint::open(whole.path()).unwrap(), dtype);
        let sharded = folder();
        testing::write_sharded(sharded.path(), &testing::config(), dtype, 4);
        let checkpoint = Checkpoint::open(sharded.path()).unwrap();
        check_values(&checkpoint, dtype);
        assert!(checkpoint.digests().unwrap().files.len() > 4);
    }
}

#[test]
fn rows_and_bytes_are_those_of_the_tensor() {
    let dir = folder();
    testing::write_checkpoint(dir.path(), &testing::config(), DType::BF16);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let name = "backbone.embeddings.weight";
    let (mut all, mut some) = (Vec::new(), Vec::new());
    checkpoint.read_bytes(name, &mut all).unwrap();
    checkpoint.read_rows(name, 3..5, &mut some).unwrap();
    assert_eq!(some, all[3 * 24..5 * 24]);
    let unknown = checkpoint.read_f32("backbone.nothing").unwrap_err();
    assert!(unknown.to_string().ends_with("no weight is named `backbone.nothing`"));
}

#[test]
fn a_tensor_of_several_pieces_is_read_whole() {
    let dir = folder();
    let mut config = testing::config();
    config["vocab_size"] = json!(100_001);
    testing::write_checkpoint(dir.path(), &config, DType::F32);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let name = "backbone.embeddings.weight";
    assert!(pieces(checkpoint.tensor(name).unwrap()).count() > 1);
    check_values(&checkpoint, DType::F32);
}

#[test]
fn both_prefixes_the_old_embedding_and_extra_heads_are_read() {
    let dir = folder();
    let config = testing::config();
    testing::write_config(dir.path(), &config);
    let mut entries = testing::entries(&testing::desc(&config), DType::F32);
    for entry in &mut entries {
        entry.name = entry.name.replace("backbone.", "model.").replace("embeddings.", "embedding.");
    }
    entries.push(Entry { name: "mtp.layers.0.norm.weight".into(), dtype: DType::F32, shape: vec![3] });
    testing::write_file(&dir.path().join(WEIGHTS_FILE), &entries);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.desc().prefix, "model.");
    assert_eq!(checkpoint.read_f32("model.embeddings.weight").unwrap(), testing::values(&entries[0]));
    assert_eq!(checkpoint.notes(), ["1 tensors `mtp.*` (multi-token prediction) are not loaded"]);
}

#[test]
fn the_head_of_a_tied_model_is_left_aside() {
    let config = json!({
        "model_type": "mamba2", "vocab_size": 50, "hidden_size": 8, "num_heads": 4, "head_dim": 4,
        "n_groups": 2, "state_size": 3, "num_hidden_layers": 2, "expand": 2, "tie_word_embeddings": true
    });
    let dir = folder();
    testing::write_config(dir.path(), &config);
    let mut entries = testing::entries(&testing::desc(&config), DType::F32);
    assert!(entries.iter().all(|e| e.name != "lm_head.weight"));
    entries.push(Entry { name: "lm_head.weight".into(), dtype: DType::F32, shape: vec![50, 8] });
    testing::write_file(&dir.path().join(WEIGHTS_FILE), &entries);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(
        checkpoint.notes(),
        ["`lm_head.weight` is not loaded: config.json ties the head to the embedding"]
    );
}

#[test]
fn a_nan_is_found_where_it_is() {
    let dir = folder();
    let config = testing::config();
    testing::write_config(dir.path(), &config);
    let entries = testing::entries(&testing::desc(&config), DType::BF16);
    let mut writer = Writer::create(&dir.path().join(WEIGHTS_FILE), &entries).unwrap();
    for (i, entry) in entries.iter().enumerate() {
        let mut values = testing::values(entry);
        if i == 3 {
            values[5] = f32::NEG_INFINITY;
        }
        let mut bytes = Vec::new();
        convert::encode(DType::BF16, &values, &mut bytes);
        writer.write(&bytes).unwrap();
    }
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.first_non_finite(&entries[3].name).unwrap(), Some((5, f32::NEG_INFINITY)));
    assert_eq!(checkpoint.first_non_finite(&entries[2].name).unwrap(), None);
}

#[test]
fn digests_are_of_content_and_name() {
    let (a, b) = (folder(), folder());
    for dir in [&a, &b] {
        testing::write_checkpoint(dir.path(), &testing::config(), DType::BF16);
    }
    let digests = |dir: &tempfile::TempDir| Checkpoint::open(dir.path()).unwrap().digests().unwrap();
    let before = digests(&a);
    assert_eq!(before, digests(&b));
    assert_eq!(before.files.keys().collect::<Vec<_>>(), [CONFIG_FILE, WEIGHTS_FILE]);
    let config = fs::read(a.path().join(CONFIG_FILE)).unwrap();
    assert_eq!(before.files[CONFIG_FILE], blake3::hash(&config).to_hex().as_str());
    let mut config = testing::config();
    config["note"] = json!("other");
    testing::write_config(b.path(), &config);
    assert_ne!(before.all, digests(&b).all);
}

#[test]
fn a_folder_that_changes_after_opening_is_told() {
    type Change = fn(&Path);
    let cases: &[(&str, Change)] = &[
        (SHARD_2, |d| grow(d, SHARD_2)),
        (SHARD_2, |d| remove(d, SHARD_2)),
        (CONFIG_FILE, |d| remove(d, CONFIG_FILE)),
        (CONFIG_FILE, |d| config(d, "note", json!(1))),
    ];
    for (file, change) in cases {
        let dir = folder();
        testing::write_sharded(dir.path(), &testing::config(), DType::F32, 6);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        checkpoint.unchanged().unwrap();
        change(dir.path());
        let error = checkpoint.unchanged().unwrap_err();
        assert_eq!(error.kind(), Kind::World, "{error}");
        assert!(error.to_string().contains(&format!("{file}: changed while it was read")), "{error}");
    }
}

/// A good folder in shards of six tensors, then one thing broken, and what the message has to say.
#[test]
fn broken_folders_are_refused_with_the_reason() {
    type Break = fn(&Path);
    let cases: &[(&str, Break, &[&str])] = &[
        ("no config", |d| remove(d, CONFIG_FILE), &["config.json: cannot read: "]),
        ("config cut short", |d| write(d, CONFIG_FILE, "{\"model_type\":"), &["config.json: is not JSON"]),
        ("config a list", |d| write(d, CONFIG_FILE, "[]"), &["config.json: is not an object"]),
        ("config not text", |d| fs::write(d.join(CONFIG_FILE), [0xff]).unwrap(), &["is not UTF-8"]),
        ("another family", |d| config(d, "model_type", json!("llama")), &["model_type", "`llama`"]),
        ("no family", |d| config(d, "model_type", json!(null)), &["model_type: is missing"]),
        (
            "experts",
            |d| config(d, "hybrid_override_pattern", json!("ME*")),
            &["layer 1", "mixture of experts"],
        ),
        ("a size of zero", |d| config(d, "hidden_size", json!(0)), &["hidden_size: is 0"]),
        ("absurd sizes", absurd, &["config.json: sizes: give a model of up to 5e30 parameters"]),
        ("a broken group", |d| config(d, "mamba_num_heads", json!(3)), &["config.json: mamba_num_heads"]),
        (
            "no index",
            |d| remove(d, INDEX_FILE),
            &["neither model.safetensors nor model.safetensors.index.json"],
        ),
        (
            "index cut short",
            |d| write(d, INDEX_FILE, "{\"weight_map\":"),
            &["is not an index of shards: EOF"],
        ),
        ("index without map", |d| write(d, INDEX_FILE, "{}"), &["missing field `weight_map`"]),
        (
            "index of numbers",
            |d| write(d, INDEX_FILE, r#"{"weight_map": {"a": 1}}"#),
            &["is not an index of shards"],
        ),
        (
            "a name twice",
            |d| write(d, INDEX_FILE, r#"{"weight_map": {"a": "x", "a": "x"}}"#),
            &["index.json", "tensor `a` appears twice"],
        ),
        (
            "outside",
            |d| shard_name(d, "../model-00001-of-00004.safetensors"),
            &["not a plain name in this folder"],
        ),
        ("absolute", |d| shard_name(d, "/etc/passwd"), &["`/etc/passwd`, which is not a plain name"]),
        ("in a folder", |d| shard_name(d, "a/b.safetensors"), &["not a plain name in this folder"]),
        ("no name", |d| shard_name(d, ""), &["names the file ``, which is not a plain name"]),
        (
            "no shard",
            |d| remove(d, SHARD_2),
            &["names the file `model-00002-of-00004.safetensors`, which is not there"],
        ),
        (
            "shard a folder",
            |d| {
                remove(d, SHARD_2);
                fs::create_dir(d.join(SHARD_2)).unwrap()
            },
            &["model-00002-of-00004.safetensors: cannot open: it is a folder"],
        ),
        ("shard cut short", |d| cut(d, SHARD_2, 700), &["model-00002-of-00004.safetensors: tensor `"]),
        ("shard of another size", |d| grow(d, SHARD_2), &["something appended"]),
        (
            "not in the index",
            |d| {
                index(d, |map, _| {
                    map.remove(DT_BIAS);
                })
            },
            &["tensor `backbone.layers.0.mixer.dt_bias` of `model-0000", "is not in the index"],
        ),
        (
            "in no shard",
            |d| {
                index(d, |map, _| {
                    map.insert("more".into(), json!(SHARD_2));
                })
            },
            &["tensor `more` is not in `model-00002-of-00004.safetensors`"],
        ),
        (
            "in another shard",
            |d| {
                index(d, |map, _| {
                    map.insert("lm_head.weight".into(), json!("model-00004-of-00004.safetensors"));
                })
            },
            &[
                "tensor `lm_head.weight` is in `model-0000",
                "the index says `model-00004-of-00004.safetensors`",
            ],
        ),
        (
            "a wrong total",
            |d| {
                index(d, |_, meta| {
                    meta.insert("total_size".into(), json!(5));
                })
            },
            &["total_size is 5, but the shards hold"],
        ),
        (
            "a missing layer",
            |d| config(d, "hybrid_override_pattern", json!("M-*-")),
            &["`backbone.layers.3.norm.weight` [12] is missing"],
        ),
        (
            "a layer too many",
            |d| config(d, "hybrid_override_pattern", json!("M-")),
            &["`backbone.layers.2.mixer.k_proj.weight` [6, 12] in model-0000", "belongs to no weight"],
        ),
        (
            "another size",
            |d| config(d, "intermediate_size", json!(24)),
            &[
                "`backbone.layers.1.mixer.up_proj.weight` in model-0000",
                "has shape [20, 12], config.json implies [24, 12]",
            ],
        ),
        ("many differences", |d| config(d, "hidden_size", json!(16)), &["\n  and ", " more"]),
        ("whole numbers", |d| retype(d, "I32"), &["is I32; weights are read in F32, BF16 and F16"]),
    ];
    for (name, break_it, expected) in cases {
        let dir = folder();
        testing::write_sharded(dir.path(), &testing::config(), DType::F32, 6);
        assert!(Checkpoint::open(dir.path()).is_ok());
        break_it(dir.path());
        let error = Checkpoint::open(dir.path()).expect_err(name);
        assert_eq!(error.kind(), Kind::Input, "{name}: {error}");
        let message = error.to_string();
        assert!(message.contains(&dir.path().display().to_string()), "{name}: {message}");
        for part in *expected {
            assert!(message.contains(part), "{name}: {message}\nlacks: {part}");
        }
    }
}

#[test]
fn at_most_eight_differences_are_listed() {
    let dir = folder();
    testing::write_sharded(dir.path(), &testing::config(), DType::F32, 6);
    config(dir.path(), "hidden_size", json!(16));
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 10, "{message}");
}

#[test]
fn a_single_file_is_preferred_to_shards_as_transformers_does() {
    let dir = folder();
    testing::write_sharded(dir.path(), &testing::config(), DType::F32, 6);
    testing::write_checkpoint(dir.path(), &testing::config(), DType::BF16);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().main_dtype(), Some(DType::BF16));
}

const SHARD_2: &str = "model-00002-of-00004.safetensors";
const DT_BIAS: &str = "backbone.layers.0.mixer.dt_bias";

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn config(dir: &Path, key: &str, value: Value) {
    let mut config = testing::config();
    config[key] = value;
    testing::write_config(dir, &config);
}

/// Sizes whose products overflow.
fn absurd(dir: &Path) {
    let mut config = testing::config();
    for key in
        ["hidden_size", "mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "vocab_size"]
    {
        config[key] = json!((1u64 << 32) - 1);
    }
    testing::write_config(dir, &config);
}

fn cut(dir: &Path, name: &str, len: u64) {
    fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap().set_len(len).unwrap();
}

fn grow(dir: &Path, name: &str) {
    let len = fs::metadata(dir.join(name)).unwrap().len();
    cut(dir, name, len + 4);
}

fn index(dir: &Path, edit: fn(&mut serde_json::Map<String, Value>, &mut serde_json::Map<String, Value>)) {
    let path = dir.join(INDEX_FILE);
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut metadata = index["metadata"].as_object().unwrap().clone();
    edit(index["weight_map"].as_object_mut().unwrap(), &mut metadata);
    index["metadata"] = Value::Object(metadata);
    fs::write(path, index.to_string()).unwrap();
}

fn shard_name(dir: &Path, name: &str) {
    write(dir, INDEX_FILE, &json!({ "weight_map": { "a": name } }).to_string());
}

/// The first tensor of the second shard under another dtype of the same width.
fn retype(dir: &Path, dtype: &str) {
    let bytes = fs::read(dir.join(SHARD_2)).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + len]).unwrap().replacen("F32", dtype, 1);
    let data = [header.as_bytes(), &bytes[8 + len..]].concat();
    fs::write(dir.join(SHARD_2), [&bytes[..8], &data].concat()).unwrap();
}
