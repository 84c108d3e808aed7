//! Small checkpoints and tokenizers for the tests of this crate.

use crate::convert;
use crate::device::vulkan::{Gpu, Limits, Vulkan};
use crate::random::SplitMix64;
use crate::safetensors::{Entry, Writer};
use crate::shader::Precision;
use crate::source::Rotation;
use minic_compiler::config;
use minic_compiler::families;
use minic_compiler::model::{DType, ModelDesc};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A hybrid of three layers, every kind of block, every size different where it may be.
pub fn config() -> Value {
    json!({
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M-*",
        "vocab_size": 260,
        "hidden_size": 12,
        "intermediate_size": 20,
        "mamba_num_heads": 4,
        "mamba_head_dim": 3,
        "n_groups": 2,
        "ssm_state_size": 5,
        "conv_kernel": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 6,
        "time_step_min": 0.001,
        "time_step_limit": [0.001, { "__float__": "Infinity" }],
        "eos_token_id": 258,
        "torch_dtype": "float32"
    })
}

pub fn desc(config: &Value) -> ModelDesc {
    families::describe(config.as_object().unwrap()).unwrap()
}

pub fn entries(desc: &ModelDesc, dtype: DType) -> Vec<Entry> {
    let entry = |w: minic_compiler::model::Weight| Entry { shape: w.sizes(), name: w.name, dtype };
    desc.weights().into_iter().map(entry).collect()
}

/// Between -1 and 1, in multiples of 1/128: exact in every dtype.
pub fn values(entry: &Entry) -> Vec<f32> {
    let seed = entry.name.bytes().fold(7u64, |n, b| n.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut rng = SplitMix64::new(seed);
    (0..entry.shape.iter().product::<usize>()).map(|_| rng.below(257) as f32 / 128.0 - 1.0).collect()
}

/// Some rows of them.
pub fn rows(entry: &Entry, rows: Range<usize>) -> Vec<f32> {
    let row: usize = entry.shape.iter().skip(1).product();
    values(entry)[rows.start * row..rows.end * row].to_vec()
}

pub fn write_file(path: &Path, entries: &[Entry]) {
    let mut writer = Writer::create(path, entries).unwrap();
    for entry in entries {
        let mut bytes = Vec::new();
        convert::encode(entry.dtype, &values(entry), &mut bytes);
        writer.write(&bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// A whole folder in one file.
pub fn write_checkpoint(folder: &Path, config: &Value, dtype: DType) {
    write_config(folder, config);
    write_file(&folder.join("model.safetensors"), &entries(&desc(config), dtype));
}

pub fn write_config(folder: &Path, config: &Value) {
    std::fs::write(folder.join("config.json"), config::to_text(config.as_object().unwrap())).unwrap();
}

/// The same in shards of `per_shard` tensors, with their index.
pub fn write_sharded(folder: &Path, config: &Value, dtype: DType, per_shard: usize) {
    write_config(folder, config);
    let entries = entries(&desc(config), dtype);
    let n = entries.len().div_ceil(per_shard);
    let mut map = serde_json::Map::new();
    for (i, shard) in entries.chunks(per_shard).enumerate() {
        let file = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
        write_file(&folder.join(&file), shard);
        map.extend(shard.iter().map(|e| (e.name.clone(), json!(file))));
    }
    let total: u64 = entries.iter().map(Entry::bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A random orthogonal basis: Gram and Schmidt on seeded rows, in f64.
pub fn basis(width: usize, seed: u64) -> Vec<f64> {
    let mut rng = SplitMix64::new(seed);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < width {
        let mut row: Vec<f64> =
            (0..width).map(|_| rng.below(1 << 20) as f64 / f64::from(1 << 19) - 1.0).collect();
        // Twice: what rounding leaves of the others the first time is taken away the second.
        for other in basis.iter().chain(&basis) {
            let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
        basis.push(row);
    }
    basis.concat()
}

pub fn rotation(width: usize, seed: u64) -> Arc<Rotation> {
    let basis = basis(width, seed).into_iter().map(|v| v as f32).collect();
    Arc::new(Rotation::new(width, basis).unwrap())
}

/// A byte-level tokenizer.json: ids 0..256 are the bytes, then four special tokens, then the merges.
pub fn byte_tokenizer(merges: &[(&str, &str)]) -> String {
    // GPT-2's table of printable stand-ins: bytes that print are themselves, the others follow from U+0100.
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100..;
    let mut vocab = serde_json::Map::new();
    for b in 0..256 {
        let code = if printable(b) { b } else { others.next().unwrap() };
        vocab.insert(char::from_u32(code).unwrap().to_string(), json!(b));
    }
    for (i, (a, b)) in merges.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), json!(260 + i));
    }
    let special = |(i, content): (usize, &&str)| {
        json!({
            "id": 256 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let added: Vec<Value> = ["<pad>", "<bos>", "<eos>", "<unk>"].iter().enumerate().map(special).collect();
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
        },
        "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges
        }
    })
    .to_string()
}

/// The first Vulkan adapter, opened once for all tests; with bindings of so many bytes at most. Nothing where there is
/// none, which is told, and is a failure where `MINIC_REQUIRE_VULKAN` is set.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub fn vulkan(binding: Option<usize>) -> Option<&'static Gpu> {
    type Opened = OnceLock<Option<Gpu>>;
    static GPU: [Opened; 2] = [OnceLock::new(), OnceLock::new()];
    let open = || match Gpu::open(0, Limits { binding, ..Limits::default() }) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("MINIC_REQUIRE_VULKAN").is_some() => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    };
    GPU[usize::from(binding.is_some())].get_or_init(open).as_ref()
}

/// A device of its own on that adapter.
pub fn vulkan_device() -> Option<Vulkan> {
    vulkan(None)?;
    Some(Vulkan::new(Arc::new(Gpu::open(0, Limits::default()).unwrap()), Precision::F32))
}
