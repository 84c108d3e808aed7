//! What is done with hostile bytes: one function a target, and a table of them.
//!
//! Each takes any bytes and must return. It goes the way that minic goes with the file of a user, and looks
//! at what comes of it where something is known. The fuzzer calls these functions (`fuzz_targets/`), and so
//! does `tests/fuzz.rs` of the repository, with the committed corpus and plain mutations of it.

use minic_compiler::check::{Environment, Override, check_text};
use minic_compiler::plan::{Plan, Shapes};
use minic_compiler::{config, families, hir, lower, passes, schedule};
use minic_grammar::format::{FormatError, format};
use minic_grammar::{Span, render};
use minic_runtime::checkpoint::{Checkpoint, INDEX_FILE};
use minic_runtime::data::{self, Context};
use minic_runtime::safetensors::{Entry, Reader, Writer};
use minic_runtime::tokens::{TOKENIZER_FILE, Tokenizer};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

pub struct Target {
    /// Of its file in `fuzz_targets/`, and of its folder in `corpus/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// To add a target: its function, its line here, its file in `fuzz_targets/` with the entry in Cargo.toml,
/// and its first inputs in `corpus/`.
pub const TARGETS: &[Target] = &[
    Target { name: "recipe", run: recipe },
    Target { name: "config", run: config },
    Target { name: "header", run: header },
    Target { name: "index", run: index },
    Target { name: "tokenizer", run: tokenizer },
    Target { name: "data", run: data },
];

const TINY: &str = include_str!("../../compiler/tests/configs/tiny.json");
const MAMBA2: &str = include_str!("../../compiler/tests/configs/mamba2-1.3b.json");
const NEMOTRON: &str = include_str!("../../compiler/tests/configs/Nemotron-H-8B-Base-8K.json");

/// Every checkpoint is one of three.
struct Checkpoints;

impl Environment for Checkpoints {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        let text = match checkpoint {
            name if name.contains("missing") => return Ok(None),
            name if name.contains("mamba2") => MAMBA2,
            name if name.contains('8') => shallow(),
            _ => TINY,
        };
        Ok(Some(text.to_string()))
    }
}

/// The 8B model with eight layers: the graphs of all 52 would take most of the time of fuzzing.
fn shallow() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut config = config::parse(NEMOTRON).expect("a good config");
        config.insert("hybrid_override_pattern".into(), "M-M*-M-M".into());
        config::to_text(&config)
    })
}

/// A recipe through every level of the compiler. Comments `# --set NAME=VALUE` are overrides.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let overrides: Vec<Override> =
        text.lines().filter_map(|line| Override::parse(line.strip_prefix("# --set ")?)).collect();
    let checked = check_text("fuzz.mrecipe", text, &Checkpoints, &overrides);
    for found in &checked.found {
        let Span { start, end } = found.span;
        assert!(start <= end && end <= text.len(), "{found:?} lies outside");
        assert!(found.help.is_some(), "{found:?} has no help line");
    }
    render::render(&checked.sources, &checked.found, false);
    render::to_json(&checked.sources, &checked.found);
    let _ = checked.ast.to_string();
    layout(text);
    if let Some(hir) = &checked.hir {
        let _ = hir.to_string();
        let plan = passes::run(&lower::lower(hir)).expect("a checked recipe gives a valid plan");
        levels_below(&plan, &Shapes::of(hir));
    }
}

/// What parses has a canonical layout, which is its own.
fn layout(text: &str) {
    match format(text) {
        Ok(laid_out) => match format(&laid_out) {
            Ok(again) => assert_eq!(again, laid_out),
            Err(e) => panic!("{e:?} in {laid_out}"),
        },
        Err(FormatError::Unread(_)) => {}
        Err(FormatError::Changed(what)) => panic!("the layout changes {what}"),
    }
}

fn levels_below(plan: &Plan, shapes: &Shapes) {
    let _ = (plan.to_string(), plan.to_json());
    for id in plan.order() {
        let _ = plan.estimate(shapes, id);
        if let Some(graph) = plan.tensor_graph(shapes, id) {
            let graph = graph.expect("a stage of the plan gives a valid graph");
            schedule::schedule(&graph).expect("a valid graph gives a valid schedule");
        }
    }
}

/// A config.json: the two counts of parameters agree, and what is written reads back as the same model.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(map) = config::parse(text) else { return };
    let Ok(desc) = families::describe(&map) else { return };
    let table: u64 = desc.weights().iter().map(|w| w.len() as u64).sum();
    assert_eq!(desc.params(), table, "{text}");
    let written = config::to_text(&desc.family().write_config(&desc));
    let back = config::parse(&written).map(|map| families::describe(&map));
    let back =
        back.unwrap_or_else(|e| panic!("{e} in {written}")).unwrap_or_else(|e| panic!("{e} in {written}"));
    assert_eq!((&back.dims, &back.layers, back.tied), (&desc.dims, &desc.layers, desc.tied), "{written}");
}

/// A whole safetensors file. What its header promises can be read.
pub fn header(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    write(&path, bytes);
    let Ok(reader) = Reader::open(&path) else { return };
    let mut buffer = Vec::new();
    for (name, tensor) in reader.tensors() {
        reader.read(name, &mut buffer).expect("a checked tensor is read");
        assert_eq!(buffer.len() as u64, tensor.bytes());
        assert_eq!(buffer.len(), tensor.len() * tensor.element.bytes());
    }
}

/// model.safetensors.index.json beside two good shards. Whatever it says, only those are read.
pub fn index(bytes: &[u8]) {
    let folder = folder();
    for (name, content) in sharded() {
        write(&folder.path().join(name), content);
    }
    write(&folder.path().join(INDEX_FILE), bytes);
    let Ok(checkpoint) = Checkpoint::open(folder.path()) else {
        assert_ne!(bytes, GOOD_INDEX, "the index of the shards is refused");
        return;
    };
    for weight in checkpoint.desc().weights() {
        let values = checkpoint.read_f32(&weight.name).expect("a weight of an open checkpoint is read");
        assert_eq!(values.len(), weight.len());
    }
}

/// A tokenizer.json, and a text of many kinds of characters through it.
pub fn tokenizer(bytes: &[u8]) {
    let folder = folder();
    write(&folder.path().join(TOKENIZER_FILE), bytes);
    let Ok(tokenizer) = Tokenizer::open(folder.path()) else { return };
    for text in [
        "",
        "a",
        "Once there was a river.\n\tÉ\u{301}漢字🙂\u{0}\r\n  <eos> 1234",
        "\n \u{200d}\u{feff}aaaaaaaaaaaaaaaa",
    ] {
        let _ = tokenizer.encode(text);
    }
}

/// Extensions of the data files, by the first byte of an input.
pub const FORMATS: &[(u8, &str)] = &[
    (b't', "txt"),
    (b'j', "jsonl"),
    (b'n', "npy"),
    (b's', "safetensors"),
    (b'p', "parquet"),
    (b'g', "jsonl.gz"),
    (b'z', "txt.zst"),
    (b'u', "u16"),
    (b'v', "u32"),
    (b'b', "bin"),
];

/// A data file; its first byte says of which format. Ids lie in the vocabulary, windows are whole.
pub fn data(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else { return };
    let format = FORMATS.iter().find(|(letter, _)| letter == first);
    let (_, extension) = format.unwrap_or(&FORMATS[usize::from(*first) % FORMATS.len()]);
    let folder = folder();
    let name = format!("a.{extension}");
    write(&folder.path().join(&name), content);
    let tokenizer = folder.path().join(TOKENIZER_FILE);
    write(&tokenizer, BYTES_TOKENIZER);
    let context = Context {
        base: folder.path(),
        tokenizer: Some(&tokenizer),
        vocab_size: 260,
        eos: Some(258),
        cache: None,
    };
    let data = hir::Data {
        mix: vec![hir::Source { files: vec![name], weight: 1.0 }],
        sequence: 4,
        samples: None,
        seed: 0,
        epochs: 1.0,
        field: None,
        answer: None,
        tokenizer: None,
        bad_rows: None,
        span: Span::default(),
    };
    let Ok(samples) = data::load(&data, &context) else { return };
    assert!(!samples.is_empty());
    for window in samples.windows() {
        assert!(window.len() == 4 && window.iter().all(|id| *id < 260), "{window:?}");
    }
}

/// The index of [`sharded`].
const GOOD_INDEX: &[u8] = include_bytes!("../corpus/index/good.json");

/// A byte-level tokenizer with a merge and four special tokens, 260 ids.
const BYTES_TOKENIZER: &[u8] = include_bytes!("../corpus/tokenizer/bytes.json");

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a temporary file");
}

/// config.json and the two shards of a small model.
fn sharded() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let desc = config::parse(TINY).and_then(|map| families::describe(&map)).expect("a good config");
        let dtype = desc.dtype.expect("the config names a dtype");
        let entry = |w: minic_compiler::model::Weight| Entry { shape: w.sizes(), name: w.name, dtype };
        let entries: Vec<Entry> = desc.weights().into_iter().map(entry).collect();
        let folder = folder();
        let mut files = vec![("config.json".to_string(), TINY.as_bytes().to_vec())];
        for (i, shard) in entries.chunks(entries.len().div_ceil(2)).enumerate() {
            let name = format!("model-{}.safetensors", i + 1);
            let path = folder.path().join(&name);
            let mut writer = Writer::create(&path, shard).expect("a shard");
            let bytes: u64 = shard.iter().map(Entry::bytes).sum();
            writer.write(&vec![0; bytes as usize]).expect("zeros");
            writer.finish().expect("a whole shard");
            files.push((name, fs::read(&path).expect("a shard")));
        }
        files
    })
}
