//! What was tried.

use super::breaks::*;
use super::{Base, Row, Section};
use serde_json::{Value, json};
use std::path::Path;

const INSPECT: &str = "inspect model";
const RUN: &str = "run recipe.mrecipe";
const CHECK: &str = "check recipe.mrecipe";
const EVAL: &str = "eval model --data data.txt --sequence 64";
const LOGITS: &str = "logits model --tokens tokens.json --output l.safetensors";
const DECODE: &str = "logits model --tokens tokens.json --output l.safetensors --decode 9";
const VERIFY: &str = "verify half";

const SHARD_FILE: &str = "model-00002-of-00003.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

type Prepare = fn(&Path);

/// One that breaks a folder of shards and is seen by `minic inspect`.
const fn shards(tried: &'static str, names: &'static str, prepare: Prepare) -> Row {
    Row { tried, base: Base::Sharded, prepare, command: INSPECT, exit: 1, names }
}

const fn row(
    base: Base,
    tried: &'static str,
    command: &'static str,
    exit: i32,
    names: &'static str,
    prepare: Prepare,
) -> Row {
    Row { tried, base, prepare, command, exit, names }
}

const fn weights(tried: &'static str, prepare: Prepare) -> Row {
    shards(tried, SHARD_FILE, prepare)
}

const fn index(tried: &'static str, prepare: Prepare) -> Row {
    shards(tried, INDEX_FILE, prepare)
}

const fn config_json(tried: &'static str, prepare: Prepare) -> Row {
    shards(tried, "config.json", prepare)
}

const fn text(tried: &'static str, names: &'static str, prepare: Prepare) -> Row {
    row(Base::Text, tried, EVAL, 1, names, prepare)
}

const fn recipe_file(tried: &'static str, prepare: Prepare) -> Row {
    row(Base::Sharded, tried, CHECK, 1, "recipe.mrecipe", prepare)
}

const fn tokens(tried: &'static str, prepare: Prepare) -> Row {
    row(Base::Sharded, tried, LOGITS, 1, "tokens.json", prepare)
}

const fn exported(tried: &'static str, exit: i32, names: &'static str, prepare: Prepare) -> Row {
    row(Base::Exported, tried, VERIFY, exit, names, prepare)
}

pub const ROWS: &[Section] = &[
    Section { title: "Weights", rows: WEIGHTS },
    Section { title: "Values of weights", rows: VALUES },
    Section { title: "The index of shards", rows: INDEXES },
    Section { title: "Links, pipes, folders, permissions", rows: NAMES },
    Section { title: "config.json", rows: CONFIGS },
    Section { title: "Tokenizers", rows: TOKENIZERS },
    Section { title: "Data", rows: DATA },
    Section { title: "Trainings", rows: TRAININGS },
    Section { title: "Recipes and the command line", rows: RECIPES },
    Section { title: "Token ids of `logits`", rows: TOKENS },
    Section { title: "Exported folders", rows: EXPORTS },
];

const WEIGHTS: &[Row] = &[
    weights("an empty file", |d| write(d, SHARD, "")),
    weights("seven bytes", |d| write(d, SHARD, "1234567")),
    weights("a file of zeros", |d| write(d, SHARD, [0; 4096])),
    weights("a pickle under the name of a safetensors file", |d| {
        write(d, SHARD, b"PK\x03\x04\0\0\x08\x08data.pkl")
    }),
    weights("a header of 2^64 - 1 bytes", |d| write(d, SHARD, [0xff; 64])),
    weights("a header of 101 MB", |d| {
        huge(d, SHARD, 102_000_000);
        let file = std::fs::File::options().write(true).open(d.join(SHARD)).expect("a file");
        std::os::unix::fs::FileExt::write_at(&file, &101_000_000_u64.to_le_bytes(), 0).expect("a length");
    }),
    weights("a header one byte longer than the file", |d| {
        write(d, SHARD, [3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'])
    }),
    weights("a header cut short", |d| set_header(d, SHARD, b"{\"a\":{\"dtype\":\"F32\",")),
    weights("a header that is a list", |d| set_header(d, SHARD, b"[]")),
    weights("a header that is not UTF-8", |d| set_header(d, SHARD, b"{\"\xff\":1}")),
    weights("a header of 90 MB of brackets", |d| {
        set_header(d, SHARD, format!("{{\"a\":{}", deep("[", 90_000_000)).as_bytes())
    }),
    weights("a header of 1.5 million entries", |d| {
        let entry = |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},");
        let header: String = (0..1_500_000).map(entry).collect();
        set_header(d, SHARD, format!("{{{}", header.trim_end_matches(',')).as_bytes());
        header_end(d);
    }),
    weights("an entry twice", |d| {
        header(d, |h| h.replacen("backbone.layers.2.mixer.q_proj", "backbone.layers.2.mixer.v_proj", 1))
    }),
    weights("a field of an entry twice", |d| {
        header(d, |h| h.replacen("\"shape\"", "\"shape\":[1],\"shape\"", 1))
    }),
    weights("an entry without a shape", |d| header(d, |h| h.replacen("\"shape\"", "\"size\"", 1))),
    weights("an entry that is a number", |d| set_header(d, SHARD, b"{\"a\":7}")),
    weights("two entries that overlap", |d| tensor(d, 1, |t| shift(t, -4, -4))),
    weights("two entries of the same bytes", |d| {
        header(d, |h| {
            let at = h.find("\"backbone.layers.0.norm.weight\"").expect("a tensor");
            format!(
                "{}\"copy\":{{\"dtype\":\"F32\",\"shape\":[16,24],\"data_offsets\":[0,1536]}},{}",
                &h[..at],
                &h[at..]
            )
        })
    }),
    weights("a hole between two entries", |d| {
        tensor(d, 1, |t| {
            shift(t, 4, 0);
            t.insert("shape".into(), json!([15]));
        })
    }),
    weights("a range that leaves the file", |d| tensor(d, 0, |t| shift(t, 0, 1 << 40))),
    weights("a range that ends before it begins", |d| tensor(d, 1, |t| shift(t, 100, 0))),
    weights("a negative offset", |d| tensor(d, 0, |t| shift(t, -8, 0))),
    weights("an offset of 1e30", |d| header(d, |h| h.replacen("1536]", "1e30]", 1))),
    weights("a shape of more elements than bytes", |d| {
        tensor(d, 0, |t| _ = t.insert("shape".into(), json!([16, 25])))
    }),
    weights("a negative size", |d| tensor(d, 0, |t| _ = t.insert("shape".into(), json!([-16, -24])))),
    weights("sizes whose product overflows", |d| {
        tensor(d, 0, |t| _ = t.insert("shape".into(), json!([1u64 << 33, 1u64 << 33])))
    }),
    weights("an overflow behind a zero", |d| {
        tensor(d, 0, |t| _ = t.insert("shape".into(), json!([0, u64::MAX, u64::MAX])))
    }),
    weights("a million dimensions", |d| {
        tensor(d, 0, |t| _ = t.insert("shape".into(), Value::Array(vec![json!(1); 1_000_000])))
    }),
    weights("an unknown dtype", |d| tensor(d, 0, |t| _ = t.insert("dtype".into(), json!("F31")))),
    weights("a dtype of a thousand letters and a terminal's commands", |d| {
        tensor(d, 0, |t| _ = t.insert("dtype".into(), json!("\u{1b}[2J".repeat(250))))
    }),
    weights("whole numbers for weights", |d| tensor(d, 0, |t| _ = t.insert("dtype".into(), json!("I32")))),
    weights("f64 weights", |d| {
        tensor(d, 0, |t| {
            t.insert("dtype".into(), json!("F64"));
            t.insert("shape".into(), json!([16, 12]));
        })
    }),
    weights("a shard cut short", |d| resize(d, SHARD, -100)),
    weights("a shard with something appended", |d| resize(d, SHARD, 100)),
    shards("a tensor under another name", "backbone.layers.1.norm.weight", |d| {
        rename(d, "backbone.layers.1.norm.weight", "backbone.layers.1.norm.\u{1b}[31mweight")
    }),
    shards("a tensor of another shape", "backbone.layers.0.norm.weight", |d| {
        tensor(d, 1, |t| _ = t.insert("shape".into(), json!([4, 4])))
    }),
    row(Base::Text, "the only file cut short", INSPECT, 1, "model.safetensors", |d| {
        resize(d, "model/model.safetensors", -1)
    }),
];

/// Closes the object of [`WEIGHTS`]'s long header.
fn header_end(folder: &Path) {
    header(folder, |text| text + "}");
}

/// In the shard and in the index.
fn rename(folder: &Path, from: &str, to: &str) {
    let quoted = |name: &str| Value::from(name).to_string();
    header(folder, |text| text.replace(&quoted(from), &quoted(to)));
    edit(folder, INDEX, |map| {
        let map = map["weight_map"].as_object_mut().expect("a map");
        let file = map.remove(from).expect("a tensor");
        map.insert(to.into(), file);
    });
}

const VALUES: &[Row] = &[
    row(Base::Sharded, "a NaN in a weight that is cut", RUN, 1, SHARD_FILE, |d| poke_weight(d, f32::NAN)),
    row(Base::Sharded, "an infinity in a weight that is cut", RUN, 1, SHARD_FILE, |d| {
        poke_weight(d, f32::INFINITY)
    }),
    row(Base::Sharded, "a NaN in a weight that is kept", RUN, 1, SHARD_FILE, |d| {
        prune_sharded(d);
        poke(d, SHARD, &f32::NAN.to_le_bytes());
    }),
    row(Base::Text, "weights of NaN, evaluated", EVAL, 1, "model.safetensors", |d| {
        poke(d, "model/model.safetensors", &[0xff; 600_000]);
    }),
];

/// A model that is taught by its copy.
const TRAINING: &str = r#"mrecipe 1
model own { checkpoint = "model"; dt_floor = 0.001 }
model copy { checkpoint = "teacher"; dt_floor = 0.001 }
data text { files = ["data.txt"]; sequence = 16 }
schedule recover {
    loss = forward_kl() + cross_entropy(); optimizer = adamw(); rate = constant(peak = 1e-3)
    batch = 2; tokens = 96
}
distill student from own { teacher = copy; data = text; schedule = recover }
export student to "student"
"#;

const fn training(tried: &'static str, exit: i32, names: &'static str, prepare: Prepare) -> Row {
    row(Base::Text, tried, RUN, exit, names, prepare)
}

fn training_with(folder: &Path, from: &str, to: &str) {
    crate::command::copy(&folder.join("model"), &folder.join("teacher"));
    assert!(TRAINING.contains(from));
    write(folder, "recipe.mrecipe", TRAINING.replacen(from, to, 1));
}

const TRAININGS: &[Row] = &[
    training("more windows than the text has", 1, "`text`", |d| {
        training_with(d, "tokens = 96", "tokens = 800");
    }),
    training("more tokens than the text has bytes", 1, "recipe.mrecipe", |d| {
        training_with(d, "tokens = 96", "tokens = 960");
    }),
    training("a schedule without a whole update", 1, "recipe.mrecipe", |d| {
        training_with(d, "tokens = 96", "tokens = 31");
    }),
    training("a text shorter than a window", 1, "data.txt", |d| {
        training_with(d, "sequence = 16", "sequence = 16; epochs = 100");
        write(d, "data.txt", "Once");
    }),
    training("an empty text", 1, "recipe.mrecipe", |d| {
        training_with(d, "sequence = 16", "sequence = 16; epochs = 100");
        write(d, "data.txt", "");
    }),
    training("a rate of 1e36", 4, "update 2", |d| training_with(d, "1e-3", "1e36")),
    training("weights of NaN in the student", 1, "model/model.safetensors", |d| {
        training_with(d, "", "");
        poke(d, "model/model.safetensors", &[0xff; 600_000]);
    }),
    training("weights of NaN in the teacher", 1, "teacher/model.safetensors", |d| {
        training_with(d, "", "");
        poke(d, "teacher/model.safetensors", &[0xff; 600_000]);
    }),
    training("a student without weights", 1, "model", |d| {
        training_with(d, "", "");
        remove(d, "model/model.safetensors");
    }),
    training("a teacher without weights", 1, "teacher", |d| {
        training_with(d, "", "");
        remove(d, "teacher/model.safetensors");
    }),
    training("a teacher of another vocabulary", 1, "recipe.mrecipe", |d| {
        training_with(d, "", "");
        edit(d, "teacher/config.json", |map| map["vocab_size"] = json!(560));
    }),
];

/// The recipe for the model in shards, which has 24 neurons.
fn prune_sharded(folder: &Path) {
    recipe(folder, "192", "12");
}

fn poke_weight(folder: &Path, value: f32) {
    prune_sharded(folder);
    // out_proj and a norm stand before down_proj.
    let bytes = [vec![0; 1600], value.to_le_bytes().to_vec()].concat();
    poke(folder, SHARD, &bytes);
}

const INDEXES: &[Row] = &[
    index("an index that is cut short", |d| write(d, INDEX, "{\"weight_map\":")),
    index("an empty index", |d| write(d, INDEX, "")),
    index("an index without a map", |d| write(d, INDEX, "{}")),
    index("a map that is a list", |d| write(d, INDEX, r#"{"weight_map": ["a"]}"#)),
    index("a file that is a number", |d| write(d, INDEX, r#"{"weight_map": {"a": 1}}"#)),
    index("a million brackets", |d| write(d, INDEX, format!("{{\"metadata\":{}", deep("[", 1_000_000)))),
    index("an index of 40 MB", |d| huge(d, INDEX, 40_000_000)),
    index("an index of 1.5 million tensors", |d| {
        let entries: String = (0..1_500_000).map(|i| format!("\"{i}\":\"{SHARD_FILE}\",")).collect();
        let entries = &entries[..30_000_000.min(entries.len())];
        let whole = &entries[..entries.rfind(',').expect("entries")];
        write(d, INDEX, format!("{{\"weight_map\":{{{whole}}}}}"))
    }),
    index("a file outside of the folder", |d| index_of(d, "../data.txt")),
    index("an absolute path", |d| index_of(d, "/etc/passwd")),
    index("a file in a folder below", |d| index_of(d, "a/b.safetensors")),
    index("the folder itself", |d| index_of(d, ".")),
    index("a name of Windows", |d| index_of(d, "C:\\weights.safetensors")),
    index("an empty name", |d| index_of(d, "")),
    index("a name with a NUL", |d| index_of(d, "a\0b")),
    index("a name of 5000 letters", |d| index_of(d, &"a".repeat(5000))),
    index("a file that is not there", |d| remove(d, SHARD)),
    shards("the index names config.json", "config.json", |d| index_of(d, "config.json")),
    index("a tensor twice", |d| {
        write(d, INDEX, format!(r#"{{"weight_map": {{"a": "{SHARD_FILE}", "a": "{SHARD_FILE}"}}}}"#))
    }),
    index("a tensor in another shard than the index says", |d| {
        edit(d, INDEX, |map| map["weight_map"]["lm_head.weight"] = json!(SHARD_FILE))
    }),
    index("a tensor of the index in no shard", |d| {
        edit(d, INDEX, |map| map["weight_map"]["more"] = json!(SHARD_FILE))
    }),
    index("a tensor of a shard not in the index", |d| {
        edit(d, INDEX, |map| _ = map["weight_map"].as_object_mut().expect("a map").remove("lm_head.weight"))
    }),
    index("a wrong total size", |d| edit(d, INDEX, |map| map["metadata"]["total_size"] = json!(5))),
];

const NAMES: &[Row] = &[
    shards("no such folder", "model", |d| std::fs::remove_dir_all(d.join("model")).expect("a folder")),
    shards("a file in place of the folder", "model", |d| {
        std::fs::remove_dir_all(d.join("model")).expect("a folder");
        write(d, "model", "");
    }),
    row(Base::Sharded, "a folder without weights", RUN, 1, "model", |d| {
        prune_sharded(d);
        remove(d, INDEX);
    }),
    weights("a shard that is a pipe", |d| pipe(d, SHARD)),
    weights("a shard that is a device", |d| link(d, SHARD, "/dev/zero")),
    weights("a shard that is a folder", |d| directory(d, SHARD)),
    weights("a shard that is a link to nothing", |d| link(d, SHARD, "../../blobs/0123")),
    weights("a shard that is a link to itself", |d| link(d, SHARD, SHARD_FILE)),
    weights("a shard that is a link to a folder", |d| link(d, SHARD, "..")),
    row(
        Base::Sharded,
        "shards that are links out of the folder, as in the hub's cache",
        INSPECT,
        0,
        "",
        |d| {
            std::fs::create_dir(d.join("blobs")).expect("a folder");
            std::fs::rename(d.join(SHARD), d.join("blobs/0123")).expect("a rename");
            link(d, SHARD, "../blobs/0123");
        },
    ),
    row(
        Base::Text,
        "a single file of weights that is a link to nothing",
        INSPECT,
        1,
        "model.safetensors",
        |d| link(d, "model/model.safetensors", "nowhere"),
    ),
    row(Base::Text, "a single file of weights that is a pipe", INSPECT, 1, "model.safetensors", |d| {
        pipe(d, "model/model.safetensors")
    }),
    index("an index that is a pipe", |d| pipe(d, INDEX)),
    index("an index that is a folder", |d| directory(d, INDEX)),
    config_json("a config.json that is a pipe", |d| pipe(d, "model/config.json")),
    config_json("a config.json that is a link to itself", |d| link(d, "model/config.json", "config.json")),
    row(Base::Sharded, "the same, for a recipe", RUN, 1, "config.json", |d| {
        link(d, "model/config.json", "config.json")
    }),
    text("a tokenizer.json that is a pipe", "tokenizer.json", |d| pipe(d, "model/tokenizer.json")),
    text("a data file that is a pipe", "data.txt", |d| pipe(d, "data.txt")),
    text("a data file that is a device", "data.txt", |d| link(d, "data.txt", "/dev/zero")),
    text("a data file that is a folder", "data.txt", |d| directory(d, "data.txt")),
    text("a data file that is a link to nothing", "data.txt", |d| link(d, "data.txt", "nowhere")),
    recipe_file("a recipe that is a pipe", |d| pipe(d, "recipe.mrecipe")),
    recipe_file("a recipe that is a folder", |d| directory(d, "recipe.mrecipe")),
    tokens("token ids that are a pipe", |d| pipe(d, "tokens.json")),
    exported("a provenance.json that is a pipe", 1, "provenance.json", |d| pipe(d, "half/provenance.json")),
    exported("a recorded file that is a pipe", 4, "config.json", |d| pipe(d, "half/config.json")),
];

const CONFIGS: &[Row] = &[
    config_json("an empty config.json", |d| write(d, "model/config.json", "")),
    config_json("one cut short", |d| write(d, "model/config.json", "{\"model_type\": \"nemo")),
    config_json("a list", |d| write(d, "model/config.json", "[]")),
    config_json("not UTF-8", |d| write(d, "model/config.json", b"{\"a\": \"\xff\"}")),
    config_json("a hundred thousand brackets", |d| write(d, "model/config.json", deep("[", 100_000))),
    config_json("100 MB", |d| huge(d, "model/config.json", 100_000_000)),
    config_json("no family", |d| config(d, "model_type", json!(null))),
    config_json("another family", |d| config(d, "model_type", json!("llama"))),
    config_json("a family of a million letters", |d| config(d, "model_type", json!("x".repeat(1_000_000)))),
    config_json("a mixture of experts", |d| config(d, "layers_block_type", json!(["moe"]))),
    config_json("a size of zero", |d| config(d, "hidden_size", json!(0))),
    config_json("a negative size", |d| config(d, "hidden_size", json!(-16))),
    config_json("a size of 1e18", |d| config(d, "vocab_size", json!(1_000_000_000_000_000_000_u64))),
    config_json("a size of 1e30", |d| config(d, "vocab_size", json!(1e30))),
    config_json("a broken number of heads", |d| config(d, "mamba_num_heads", json!(4.5))),
    config_json("sizes whose product overflows", |d| {
        for key in ["hidden_size", "mamba_num_heads", "mamba_head_dim", "intermediate_size"] {
            config(d, key, json!(4_000_000_000_u64));
        }
    }),
    config_json("a size that is a text", |d| config(d, "hidden_size", json!("16"))),
    config_json("a size that is a list of a million numbers", |d| {
        config(d, "hidden_size", Value::Array(vec![json!(1); 1_000_000]))
    }),
    config_json("heads that the groups do not divide", |d| config(d, "n_groups", json!(3))),
    config_json("no layer", |d| config(d, "layers_block_type", json!([]))),
    config_json("layers that are a number", |d| config(d, "layers_block_type", json!(5))),
    config_json("an unknown kind of layer", |d| config(d, "layers_block_type", json!(["mamba", "rwkv"]))),
    config_json("a pattern of a million letters", |d| {
        edit(d, "model/config.json", |map| {
            map.remove("layers_block_type");
            map.insert("hybrid_override_pattern".into(), json!("M".repeat(1_000_000)));
        })
    }),
    config_json("a mamba2 of 1e9 layers", |d| {
        write(d, "model/config.json", r#"{"model_type": "mamba2", "num_hidden_layers": 1000000000}"#)
    }),
    config_json("an epsilon that is a text", |d| config(d, "layer_norm_epsilon", json!("small"))),
    config_json("an epsilon of NaN", |d| raw_config(d, "layer_norm_epsilon", "NaN")),
    config_json("a negative epsilon", |d| config(d, "layer_norm_epsilon", json!(-1.0))),
    config_json("a lower limit of dt of infinity", |d| raw_config(d, "time_step_min", "Infinity")),
    config_json("limits of dt out of order", |d| config(d, "time_step_limit", json!([1.0, 0.5]))),
    config_json("another activation", |d| config(d, "mlp_hidden_act", json!("gelu"))),
    config_json("an unknown dtype", |d| config(d, "dtype", json!("int4"))),
    config_json("a bias that is a number", |d| config(d, "mlp_bias", json!(1))),
    config_json("a bias that the weights lack", |d| config(d, "mlp_bias", json!(true))),
    config_json("another width than the weights'", |d| config(d, "hidden_size", json!(32))),
    config_json("a layer more than the weights", |d| {
        edit(d, "model/config.json", |map| {
            map["layers_block_type"].as_array_mut().expect("a list").push(json!("mlp"))
        })
    }),
    config_json("another vocabulary than the weights'", |d| config(d, "vocab_size", json!(41))),
    row(
        Base::Sharded,
        "a config.json of a recipe's model that is cut short",
        CHECK,
        1,
        "recipe.mrecipe",
        |d| write(d, "model/config.json", "{"),
    ),
    row(Base::Sharded, "a config.json of a recipe's model of 100 MB", CHECK, 1, "recipe.mrecipe", |d| {
        huge(d, "model/config.json", 100_000_000)
    }),
];

/// A value that JSON does not have.
fn raw_config(folder: &Path, key: &str, value: &str) {
    config(folder, key, json!("@@"));
    let text = std::fs::read_to_string(folder.join("model/config.json")).expect("text");
    write(folder, "model/config.json", text.replace("\"@@\"", value));
}

const TOKENIZER: &str = "model/tokenizer.json";

const TOKENIZERS: &[Row] = &[
    text("no tokenizer.json, and text", "tokenizer", |d| remove(d, TOKENIZER)),
    text("an empty one", "tokenizer.json", |d| write(d, TOKENIZER, "")),
    text("one cut short", "tokenizer.json", |d| write(d, TOKENIZER, "{\"version\": \"1.0\", \"model\": {")),
    text("an empty object", "tokenizer.json", |d| write(d, TOKENIZER, "{}")),
    text("not UTF-8", "tokenizer.json", |d| write(d, TOKENIZER, b"\xff\xfe{}")),
    text("a hundred thousand brackets", "tokenizer.json", |d| write(d, TOKENIZER, deep("[", 100_000))),
    text("100 MB", "tokenizer.json", |d| huge(d, TOKENIZER, 100_000_000)),
    text("an unknown model", "tokenizer.json", |d| {
        edit(d, TOKENIZER, |map| map["model"]["type"] = json!("Oracle"))
    }),
    text("a merge of tokens that are not there", "tokenizer.json", |d| {
        edit(d, TOKENIZER, |map| map["model"]["merges"] = json!([["never", "there"]]))
    }),
    text("a token of the vocabulary with an id over vocab_size", "data.txt", |d| {
        edit(d, TOKENIZER, |map| map["model"]["vocab"]["O"] = json!(565))
    }),
    text("an added token with an id over vocab_size", "data.txt", |d| {
        added_token(d, 565, "river");
    }),
    text("an added token with an id of 2^32 - 1", "data.txt", |d| {
        added_token(d, u64::from(u32::MAX), "river");
    }),
    text("an added token with an id of 2^32", "tokenizer.json", |d| added_token(d, 1 << 32, "river")),
    text("a pattern that is no regular expression", "tokenizer.json", |d| split_pattern(d, "(")),
    file("a pattern that backtracks without end", EVAL, 0, "", |d| {
        split_pattern(d, "(a|b|ab)*(?=c)");
        write(d, "data.txt", "ab".repeat(10_000));
    }),
    text("a normalizer that the library panics at", "tokenizer.json", |d| {
        edit(d, TOKENIZER, |map| {
            map["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" })
        })
    }),
    text("a decoder that is a number", "tokenizer.json", |d| {
        edit(d, TOKENIZER, |map| map["decoder"] = json!(7))
    }),
    row(
        Base::Text,
        "a smaller vocabulary in config.json than the weights have",
        EVAL,
        1,
        "config.json",
        |d| config(d, "vocab_size", json!(300)),
    ),
];

fn split_pattern(folder: &Path, pattern: &str) {
    edit(folder, TOKENIZER, |map| {
        map["pre_tokenizer"] = json!({
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false
        })
    });
}

/// Evaluates another file than data.txt.
const fn file(
    tried: &'static str,
    command: &'static str,
    exit: i32,
    names: &'static str,
    prepare: Prepare,
) -> Row {
    row(Base::Text, tried, command, exit, names, prepare)
}

const JSONL: &str = "eval model --data rows.jsonl --sequence 8";
const PARQUET: &str = "eval model --data rows.parquet --sequence 8";
const NPY: &str = "eval model --data ids.npy --sequence 4";
const IDS: &str = "eval model --data ids.safetensors --sequence 4";

const DATA: &[Row] = &[
    text("no such file", "data.txt", |d| remove(d, "data.txt")),
    text("an empty file", "data.txt", |d| write(d, "data.txt", "")),
    text("one letter", "data.txt", |d| write(d, "data.txt", "a")),
    text("a sequence longer than the data", "data.txt", |d| {
        write(d, "data.txt", "Once there was a river.\n")
    }),
    text("not UTF-8", "data.txt", |d| write(d, "data.txt", b"Once \xff there was")),
    file(
        "a sequence of 2^32 - 1 tokens",
        "eval model --data data.txt --sequence 4294967295",
        1,
        "data.txt",
        |_| (),
    ),
    file("a glob that matches nothing", "eval model --data *.md --sequence 64", 1, "*.md", |_| ()),
    file("a glob that is none", "eval model --data [[.txt --sequence 64", 1, "[[.txt", |_| ()),
    file("JSONL of nothing but line ends", JSONL, 1, "rows.jsonl", |d| {
        write(d, "rows.jsonl", "\n".repeat(1000))
    }),
    file("two rows of three that are no JSON", JSONL, 1, "rows.jsonl", |d| {
        write(d, "rows.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"b\"\n{\n")
    }),
    file("a row that is a list", JSONL, 1, "rows.jsonl", |d| write(d, "rows.jsonl", "[1]\n")),
    file("a row without the field", JSONL, 1, "rows.jsonl", |d| {
        write(d, "rows.jsonl", "{\"content\": \"a\"}\n")
    }),
    file("a field that is a number", JSONL, 1, "rows.jsonl", |d| write(d, "rows.jsonl", "{\"text\": 7}\n")),
    file("a row of 100,000 brackets", JSONL, 1, "rows.jsonl", |d| {
        write(d, "rows.jsonl", format!("{{\"text\": {}", deep("[", 100_000)))
    }),
    file("a row of 100,000 fields", JSONL, 1, "rows.jsonl", |d| {
        let fields: String = (0..100_000).map(|i| format!("\"f{i}\": 0, ")).collect();
        write(d, "rows.jsonl", format!("{{{fields} \"last\": 0}}"))
    }),
    file("a line of 2 MB", JSONL, 0, "", |d| {
        write(
            d,
            "rows.jsonl",
            format!("{{\"text\": \"a\", \"more\": \"{}\"}}\n", "x".repeat(2_000_000)).repeat(1)
                + &"{\"text\": \"Once there was a river\"}\n".repeat(4),
        )
    }),
    file("a gzip file cut short", "eval model --data rows.jsonl.gz --sequence 8", 1, "rows.jsonl.gz", |d| {
        write(d, "rows.jsonl.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab])
    }),
    file(
        "text under the name of a gzip file",
        "eval model --data rows.jsonl.gz --sequence 8",
        1,
        "rows.jsonl.gz",
        |d| write(d, "rows.jsonl.gz", "{\"text\": \"a\"}"),
    ),
    file(
        "a gzip file of 1 GB of zeros",
        "eval model --data bomb.txt.gz --sequence 8",
        1,
        "bomb.txt.gz",
        bomb,
    ),
    file(
        "text under the name of a Zstandard file",
        "eval model --data a.txt.zst --sequence 8",
        1,
        "a.txt.zst",
        |d| write(d, "a.txt.zst", "Once there was a river"),
    ),
    file("text under the name of a Parquet file", PARQUET, 1, "rows.parquet", |d| {
        write(d, "rows.parquet", "Once there was a river")
    }),
    file("a Parquet file whose footer is longer than the file", PARQUET, 1, "rows.parquet", |d| {
        write(d, "rows.parquet", b"PAR1\xff\xff\xff\x7fPAR1")
    }),
    file("raw ids of an odd number of bytes", "eval model --data ids.u16 --sequence 4", 1, "ids.u16", |d| {
        write(d, "ids.u16", [1, 0, 2, 0, 3])
    }),
    file("raw ids over vocab_size", "eval model --data ids.u32 --sequence 4", 1, "ids.u32", |d| {
        write(d, "ids.u32", [0xff; 32])
    }),
    file("an .npy file that is none", NPY, 1, "ids.npy", |d| write(d, "ids.npy", "Once there was a river")),
    file("an .npy file of an unknown version", NPY, 1, "ids.npy", |d| {
        write(d, "ids.npy", b"\x93NUMPY\x09\x00\x00\x00")
    }),
    file("an .npy header of 4 GB", NPY, 1, "ids.npy", |d| {
        write(d, "ids.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")
    }),
    file("an .npy file of floats", NPY, 1, "ids.npy", |d| npy(d, "ids.npy", "'<f4'", "(4,)", &[0; 16])),
    file("an .npy file of Python objects", NPY, 1, "ids.npy", |d| {
        npy(d, "ids.npy", "'|O'", "(4,)", &[0; 32])
    }),
    file("an .npy shape that overflows", NPY, 1, "ids.npy", |d| {
        npy(d, "ids.npy", "'<u2'", "(4294967296, 4294967296)", &[0; 16])
    }),
    file("an .npy shape of more than its bytes", NPY, 1, "ids.npy", |d| {
        npy(d, "ids.npy", "'<u2'", "(90,)", &[0; 16])
    }),
    file("an .npy file of negative ids", NPY, 1, "ids.npy", |d| {
        npy(d, "ids.npy", "'<i2'", "(8,)", &[0xff; 16])
    }),
    file("ids over vocab_size", NPY, 1, "ids.npy", |d| npy(d, "ids.npy", "'<u2'", "(8,)", &[0x7f; 16])),
    file("a .safetensors file without `input_ids`", IDS, 1, "ids.safetensors", |d| {
        write(d, "ids.safetensors", b"\x02\0\0\0\0\0\0\0{}")
    }),
    file("`input_ids` of floats", IDS, 1, "ids.safetensors", |d| {
        let header = br#"{"input_ids":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}"#;
        write(
            d,
            "ids.safetensors",
            [&(header.len() as u64).to_le_bytes(), header.as_slice(), &[0; 32]].concat(),
        )
    }),
    file("`input_ids` of 2^62 rows of nothing", IDS, 1, "ids.safetensors", |d| {
        let header = br#"{"input_ids":{"dtype":"U8","shape":[4611686018427387904,0],"data_offsets":[0,0]}}"#;
        write(d, "ids.safetensors", [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat())
    }),
];

/// 1 GB of zeros in 4 MB: a member of 100 MB, ten times.
fn bomb(folder: &Path) {
    let made = std::process::Command::new("sh")
        .args(["-c", "head -c 100000000 /dev/zero | gzip -1 > one && cat one one one one one one one one one one > bomb.txt.gz"])
        .current_dir(folder)
        .status();
    assert!(made.expect("gzip").success());
}

const RECIPES: &[Row] = &[
    recipe_file("no such recipe", |d| remove(d, "recipe.mrecipe")),
    recipe_file("an empty recipe", |d| write(d, "recipe.mrecipe", "")),
    recipe_file("not UTF-8", |d| write(d, "recipe.mrecipe", b"mrecipe 1\n\xff\xfe")),
    recipe_file("UTF-16", |d| write(d, "recipe.mrecipe", b"\xff\xfem\0r\0e\0c\0i\0p\0e\0")),
    recipe_file("NUL bytes", |d| write(d, "recipe.mrecipe", "mrecipe 1\n\0\0\0")),
    row(Base::Sharded, "a byte order mark", CHECK, 0, "", |d| {
        prune_sharded(d);
        let text = std::fs::read_to_string(d.join("recipe.mrecipe")).expect("a recipe");
        write(d, "recipe.mrecipe", format!("\u{feff}{text}"))
    }),
    row(Base::Sharded, "line ends of Windows", CHECK, 0, "", |d| {
        prune_sharded(d);
        let text = std::fs::read_to_string(d.join("recipe.mrecipe")).expect("a recipe");
        write(d, "recipe.mrecipe", text.replace('\n', "\r\n"))
    }),
    recipe_file("2 MB", |d| huge(d, "recipe.mrecipe", 2_000_000)),
    recipe_file("a million brackets", |d| {
        write(d, "recipe.mrecipe", format!("mrecipe 1\nparam a = {}", deep("(", 1_000_000)))
    }),
    recipe_file("a line of a million letters", |d| {
        write(d, "recipe.mrecipe", format!("mrecipe 1\nparam {} = 1 2\n", "a".repeat(1_000_000)))
    }),
    recipe_file("200,000 lines of nonsense", |d| {
        write(d, "recipe.mrecipe", "mrecipe 1\n".to_string() + &"}{ \n".repeat(200_000))
    }),
    recipe_file("commands of a terminal", |d| write(d, "recipe.mrecipe", "mrecipe 1\nparam \u{1b}[2J = 1\n")),
    recipe_file("a string that does not end", |d| {
        write(d, "recipe.mrecipe", "mrecipe 1\nmodel a { checkpoint = \"b }\n")
    }),
    recipe_file("a number of 1e400", |d| write(d, "recipe.mrecipe", "mrecipe 1\nparam a = 1e400\n")),
    recipe_file("a NUL in a path", |d| recipe(d, "\"model\"", "\"mo\0del\"")),
    row(Base::Sharded, "an axis of 1e18", RUN, 1, "recipe.mrecipe", |d| {
        recipe(d, "192", "1000000000000000000")
    }),
    row(Base::Text, "a sequence of 1e18", RUN, 1, "recipe.mrecipe", |d| {
        let more = "data d { files = [\"data.txt\"]; sequence = 1000000000000000000; samples = 4 }\nevaluate half against parent on d { loss }\nexport";
        recipe(d, "export", more)
    }),
    row(Base::Text, "samples of 1e18", RUN, 1, "recipe.mrecipe", |d| {
        let more = "data d { files = [\"data.txt\"]; sequence = 16; samples = 1000000000000000000 }\nevaluate half against parent on d { loss }\nexport";
        recipe(d, "export", more)
    }),
    row(Base::Text, "`--set` without a value", "run recipe.mrecipe --set a", 2, "--set", |_| ()),
    row(
        Base::Text,
        "`--set` of a name that is not there",
        "plan recipe.mrecipe --set nothing=1",
        1,
        "--set nothing",
        |_| (),
    ),
    row(
        Base::Text,
        "`--set` with a brace",
        "plan recipe.mrecipe --set parent.dt_floor=}",
        1,
        "--set parent.dt_floor",
        |_| (),
    ),
    row(
        Base::Text,
        "`--set` of 1e400",
        "plan recipe.mrecipe --set parent.dt_floor=1e400",
        1,
        "--set parent.dt_floor",
        |_| (),
    ),
    row(Base::Text, "an export into its own model", RUN, 1, "model", |d| recipe(d, "\"half\"", "\"model\"")),
    row(Base::Text, "an export into a file", RUN, 1, "half", |d| write(d, "half", "mine")),
    row(Base::Text, "an unknown command", "prune", 2, "prune", |_| ()),
];

const TOKENS: &[Row] = &[
    tokens("no such file", |d| remove(d, "tokens.json")),
    tokens("an empty file", |d| write(d, "tokens.json", "")),
    tokens("no tokens", |d| write(d, "tokens.json", "[[]]")),
    tokens("rows of different lengths", |d| write(d, "tokens.json", "[[1], [2, 3]]")),
    tokens("a negative id", |d| write(d, "tokens.json", "[[-1]]")),
    tokens("an id over vocab_size", |d| write(d, "tokens.json", "[[1, 40]]")),
    tokens("a million brackets", |d| write(d, "tokens.json", deep("[", 1_000_000))),
    tokens("100 MB of zeros", |d| huge(d, "tokens.json", 100_000_000)),
    row(Base::Sharded, "more positions to decode than there are", DECODE, 1, "--decode 9", |d| {
        write(d, "tokens.json", "[[1, 2]]")
    }),
    row(Base::Sharded, "a sample of 10 million tokens, in 1 GiB of memory", LOGITS, 3, "memory", |d| {
        write(d, "tokens.json", format!("[[1{}]]", ",1".repeat(9_999_999)))
    }),
];

const EXPORTS: &[Row] = &[
    exported("no provenance.json", 1, "provenance.json", |d| remove(d, "half/provenance.json")),
    exported("one cut short", 1, "provenance.json", |d| write(d, "half/provenance.json", "{\"format\": 1,")),
    exported("a hundred thousand brackets", 1, "provenance.json", |d| {
        write(d, "half/provenance.json", format!("{{\"format\":{}", deep("[", 100_000)))
    }),
    exported("another format", 1, "provenance.json", |d| provenance(d, "/format", json!(99))),
    exported("an unknown field", 1, "provenance.json", |d| {
        edit(d, "half/provenance.json", |map| _ = map.shift_insert(0, "trust".into(), json!(true)))
    }),
    exported("a changed weight", 4, "model.safetensors", |d| poke(d, "half/model.safetensors", &[7; 8])),
    exported("a weights file cut short", 4, "model.safetensors", |d| resize(d, "half/model.safetensors", -4)),
    exported("a file that is gone", 4, "tokenizer.json", |d| remove(d, "half/tokenizer.json")),
    exported("another file of weights beside it", 4, "other.safetensors", |d| {
        write(d, "half/other.safetensors", "")
    }),
    exported("a changed config.json", 4, "config.json", |d| {
        edit(d, "half/config.json", |map| map["hidden_size"] = json!(8))
    }),
    exported("a digest changed in the record", 4, "config.json", |d| {
        provenance(d, "/files/config.json/digest", json!("0".repeat(64)))
    }),
    exported("a recorded file outside of the folder", 4, "../recipe.mrecipe", |d| {
        edit(d, "half/provenance.json", |map| {
            map["files"]["../recipe.mrecipe"] = json!({ "bytes": 1, "digest": "" });
        })
    }),
    exported("a changed lock file", 4, "minic.lock.toml", |d| {
        write(d, "half/minic.lock.toml", "minic = \"1\"\n")
    }),
    exported("a lock file that is gone", 4, "minic.lock.toml", |d| remove(d, "half/minic.lock.toml")),
    exported("a changed count of parameters", 4, "half", |d| provenance(d, "/proved_params", json!(1))),
    exported("a kept index twice", 4, "half", |d| kept(d, |list| list[1] = list[0].clone())),
    exported("a kept index out of range", 4, "half", |d| kept(d, |list| list[191] = json!(384))),
    exported("a kept index of 2^63", 4, "half", |d| kept(d, |list| list[191] = json!(1_u64 << 63))),
    exported("a kept index lost", 4, "half", |d| kept(d, |list| _ = list.pop())),
    exported("a size of 2^62 before the cut", 4, "half", |d| {
        provenance(d, "/steps/0/before/dims/hidden_size", json!(1_u64 << 62))
    }),
    exported("a million layers before the cut", 4, "half", |d| {
        provenance(d, "/steps/0/before/pattern", json!("M".repeat(1_000_000)))
    }),
    exported("a proof of a difference of 1e300", 4, "half", |d| {
        for (field, value) in [("difference", 1e300), ("magnitude", 1.0), ("tolerance", 0.001)] {
            provenance(d, &format!("/steps/0/proof/{field}"), json!(value));
        }
    }),
];

/// The kept indices of the first layer.
fn kept(folder: &Path, change: fn(&mut Vec<Value>)) {
    edit(folder, "half/provenance.json", |map| {
        let axis = &mut map["steps"][0]["axes"][0];
        let layers = axis["kept_by_layer"].as_object_mut();
        let layers = layers.expect("kept indices by layer");
        change(layers.values_mut().next().and_then(Value::as_array_mut).expect("a list"));
    });
}
