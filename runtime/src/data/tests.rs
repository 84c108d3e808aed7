use super::*;
use crate::error::Kind;
use crate::safetensors::Reader;
use crate::testing;
use crate::tokens::TOKENIZER_FILE;
use std::fs;

mod formats;
mod questions;

struct Folder(tempfile::TempDir);

impl Folder {
    /// With a byte tokenizer in `model/`.
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write(&format!("model/{TOKENIZER_FILE}"), testing::byte_tokenizer(&[]).as_bytes());
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn load(&self, data: &hir::Data) -> Result<Samples, DataError> {
        let model = self.0.path().join("model");
        let context = Context {
            base: self.0.path(),
            tokenizer: Some(&model),
            vocab_size: 260,
            eos: Some(258),
            cache: None,
        };
        load(data, &context)
    }

    /// The message, with the folder's name taken out.
    fn error(&self, data: &hir::Data) -> String {
        let error = self.load(data).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        error.to_string().replace(&self.0.path().display().to_string(), "DIR")
    }
}

fn source(files: &[&str], weight: f64) -> hir::Source {
    hir::Source { files: files.iter().map(|f| f.to_string()).collect(), weight }
}

fn data(files: &[&str], sequence: usize, samples: Option<usize>) -> hir::Data {
    hir::Data {
        mix: vec![source(files, 1.0)],
        sequence,
        samples,
        seed: 3,
        epochs: 1.0,
        field: None,
        answer: None,
        tokenizer: None,
        bad_rows: None,
        span: Default::default(),
    }
}

fn text(samples: &Samples) -> Vec<String> {
    let char = |&id: &u32| u8::try_from(id).map_or('|', char::from);
    samples.windows().map(|w| w.iter().map(char).collect()).collect()
}

/// The pieces of a .npy file of version 1.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A .safetensors file of one tensor, by hand.
fn safetensors(name: &str, dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header =
        format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#, data.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn files_are_cut_into_windows_and_the_short_one_is_dropped() {
    let folder = Folder::new();
    folder.write("a/2.txt", b"fghij");
    folder.write("a/1.txt", b"abcde");
    folder.write("a/sub/3.txt", b"no");
    folder.write("b.txt", b"klm");
    let samples = folder.load(&data(&["a/*.txt", "b.txt", "a/1.txt"], 4, None)).unwrap();
    assert_eq!(text(&samples), ["abcd", "efgh", "ijkl"]);
    assert_eq!(samples.window(2), [105, 106, 107, 108]);
    assert_eq!((samples.len(), samples.sequence(), samples.is_empty()), (3, 4, false));
    let names: Vec<_> = samples.files.iter().map(|f| f.path.strip_prefix(folder.0.path()).unwrap()).collect();
    assert_eq!(names, [Path::new("a/1.txt"), Path::new("a/2.txt"), Path::new("b.txt")]);
    assert_eq!(samples.files[0].digest, blake3::hash(b"abcde").to_hex().as_str());
    assert_eq!(samples.files[2].tokens, 3);
}

/// The digest is of what is seen: the same tokens from another kind of file have the same one.
#[test]
fn the_same_tokens_have_the_same_digest() {
    let folder = Folder::new();
    folder.write("a.txt", b"abcdefgh");
    folder.write("a.npy", &npy("|u1", "(8,)", b"abcdefgh"));
    let from_text = folder.load(&data(&["a.txt"], 4, None)).unwrap();
    let from_array = folder.load(&data(&["a.npy"], 4, None)).unwrap();
    assert_eq!(from_text.digest, from_array.digest);
    let shorter = folder.load(&data(&["a.txt"], 2, None)).unwrap();
    assert_ne!(from_text.digest, shorter.digest);
}

/// Golden: these picks may never change, on any platform.
#[test]
fn samples_are_picked_the_same_everywhere() {
    let folder = Folder::new();
    folder.write("a.txt", &(0..100u8).collect::<Vec<_>>());
    let picks = |seed, n| {
        let samples = folder.load(&hir::Data { seed, ..data(&["a.txt"], 2, Some(n)) }).unwrap();
        samples.windows().map(|w| w[0] / 2).collect::<Vec<_>>()
    };
    assert_eq!(picks(3, 8), GOLDEN_PICKS);
    assert_eq!(picks(3, 4), GOLDEN_PICKS[..4]);
    assert_ne!(picks(4, 8), GOLDEN_PICKS);
    let mut all = picks(3, 50);
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

const GOLDEN_PICKS: [u32; 8] = [41, 43, 17, 6, 4, 8, 20, 30];

#[test]
fn a_mix_takes_turns_by_weight() {
    let folder = Folder::new();
    folder.write("a.txt", &[b'a'; 40]);
    folder.write("b.txt", &[b'b'; 40]);
    let mix = |samples| hir::Data {
        mix: vec![source(&["a.txt"], 0.7), source(&["b.txt"], 0.3)],
        ..data(&[], 2, samples)
    };
    let order =
        |samples| text(&folder.load(&mix(samples)).unwrap()).concat().replace("aa", "a").replace("bb", "b");
    assert_eq!(order(Some(10)), "abaaabaaba");
    assert_eq!(order(Some(20)), "abaaabaaba".repeat(2));
    // 20 windows of `a` are 70 % of 28.6.
    assert_eq!(order(None).len(), 29);
    assert!(folder.error(&mix(Some(40))).contains("DIR/a.txt give 20 windows"));
}

#[test]
fn rows_of_jsonl_end_with_the_end_token() {
    let folder = Folder::new();
    folder
        .write("a.jsonl", b"{\"text\": \"ab\", \"id\": 1}\n\n  \n{\"text\": \"\\u0063\"}\r\n{\"text\":\"\"}");
    let samples = folder.load(&data(&["a.jsonl"], 6, None)).unwrap();
    assert_eq!(samples.window(0), [97, 98, 258, 99, 258, 258]);
    let field = hir::Data { field: Some("body".into()), ..data(&["b.jsonl"], 3, None) };
    folder.write("b.jsonl", b"{\"body\": \"ab\"}\n");
    assert_eq!(text(&folder.load(&field).unwrap()), ["ab|"]);
}

#[test]
fn arrays_of_every_kind_are_read() {
    let folder = Folder::new();
    let ids = [5u8, 0, 250, 7, 9, 11];
    let wide = |n: usize| {
        ids.iter().flat_map(|&id| (u64::from(id)).to_le_bytes()[..n].to_vec()).collect::<Vec<u8>>()
    };
    for (descr, n) in [("<u2", 2), ("<i2", 2), ("<u4", 4), ("<i4", 4), ("<i8", 8), ("<u8", 8)] {
        for shape in ["(6,)", "(2, 3)", "(6, 1)"] {
            folder.write("a.npy", &npy(descr, shape, &wide(n)));
            let samples = folder.load(&data(&["a.npy"], 6, None)).unwrap();
            assert_eq!(samples.window(0), ids.map(u32::from), "{descr} {shape}");
        }
    }
    for (dtype, n) in [("U8", 1), ("U16", 2), ("I32", 4), ("U32", 4), ("I64", 8)] {
        folder.write("a.safetensors", &safetensors("input_ids", dtype, "[3,2]", &wide(n)));
        let samples = folder.load(&data(&["a.safetensors"], 6, None)).unwrap();
        assert_eq!(samples.window(0), ids.map(u32::from), "{dtype}");
        assert!(Reader::open(&folder.0.path().join("a.safetensors")).is_ok());
    }
}

#[test]
fn a_tokenizer_of_its_own_is_used() {
    let folder = Folder::new();
    folder.write("a.txt", b"xabx");
    folder.write("other/tokenizer.json", testing::byte_tokenizer(&[("a", "b")]).as_bytes());
    let other = |at: &str| hir::Data { tokenizer: Some(at.into()), ..data(&["a.txt"], 2, None) };
    assert!(folder.error(&other("other")).contains("token 1 has id 260, and the model's vocab_size is 260"));
    assert!(folder.error(&other("other/tokenizer.json")).contains("token 1 has id 260"));
    assert!(folder.error(&other("none")).starts_with("DIR/none: no tokenizer is there"));
}

#[test]
fn wrong_data_are_named() {
    let folder = Folder::new();
    folder.write("folder/a.txt", b"abc");
    folder.write("empty.txt", b"");
    folder.write("latin1.txt", b"caf\xe9 au lait");
    folder.write("broken.jsonl", b"{\"text\": \"a\"}\n{\"text\": \n{\"body\": 1}\n");
    folder.write("field.jsonl", b"{\"body\": \"a\", \"id\": 1}\n");
    folder.write("number.jsonl", b"{\"text\": 5}\n");
    folder.write("list.jsonl", b"[1, 2]\n");
    folder.write("a.parquet", b"PAR1");
    folder.write("a.zip", b"PK");
    folder.write("a.npy.gz", b"");
    folder.write("odd.u16", b"abc");
    folder.write("vocab.npy", &npy("<u2", "(3,)", &[1, 0, 4, 1, 1, 0]));
    folder.write("negative.npy", &npy("<i4", "(2,)", &[1, 0, 0, 0, 255, 255, 255, 255]));
    folder.write("huge.npy", &npy("<u8", "(1,)", &[255; 8]));
    folder.write("float.npy", &npy("<f4", "(1,)", &[0; 4]));
    folder.write("big-endian.npy", &npy(">u2", "(1,)", &[0; 2]));
    folder.write("three.npy", &npy("<u2", "(1, 1, 1)", &[0; 2]));
    folder.write("scalar.npy", &npy("<u2", "()", &[0; 2]));
    folder.write("short.npy", &npy("<u2", "(5,)", &[0; 8]));
    folder.write("long.npy", &npy("<u2", "(3,)", &[0; 8]));
    folder.write("overflow.npy", &npy("<u2", "(9223372036854775807, 4)", &[0; 8]));
    folder.write("negative-size.npy", &npy("<u2", "(-1,)", &[0; 8]));
    folder.write("cut.npy", b"\x93NUMPY\x01\x00\xff\xff{'descr'");
    folder.write("none.npy", b"\x93NUM");
    folder.write("text.npy", b"a text, not an array");
    folder.write("version.npy", b"\x93NUMPY\x09\x00\x10\x00{}");
    folder.write("name.safetensors", &safetensors("ids", "I32", "[1]", &[0; 4]));
    folder.write("float.safetensors", &safetensors("input_ids", "F32", "[1]", &[0; 4]));
    folder.write("rank.safetensors", &safetensors("input_ids", "I32", "[1,1,1]", &[0; 4]));
    let cases = [
        ("nothing-*.txt", "DIR: no file matches `nothing-*.txt`"),
        ("missing.txt", "DIR: no file matches `missing.txt`"),
        ("folder", "DIR/folder: is a folder; a glob such as `folder/*.txt` names its files"),
        ("a[.txt", "`a[.txt` is not a glob: "),
        ("empty.txt", "no token is in empty.txt"),
        ("folder/a.txt", "a sequence of 4 tokens is longer than the data, 3 tokens in DIR/folder/a.txt"),
        ("latin1.txt", "DIR/latin1.txt: is not UTF-8 text at byte 3"),
        (
            "broken.jsonl",
            "DIR/broken.jsonl: 2 of 3 rows cannot be read, and 1 may be bad (`bad_rows` sets the limit):\n  line 2: is not a JSON object: EOF",
        ),
        (
            "field.jsonl",
            "DIR/field.jsonl: 1 of 1 rows cannot be read, and none may be bad (`bad_rows` sets the limit):\n  line 1: has no field `text`; its fields: `body`, `id`",
        ),
        (
            "number.jsonl",
            "DIR/number.jsonl: 1 of 1 rows cannot be read, and none may be bad (`bad_rows` sets the limit):\n  line 1: the field `text` is neither a string nor a list of token ids",
        ),
        (
            "list.jsonl",
            "DIR/list.jsonl: 1 of 1 rows cannot be read, and none may be bad (`bad_rows` sets the limit):\n  line 1: is not a JSON object but a list",
        ),
        ("a.parquet", "DIR/a.parquet: is not a Parquet file that is read: "),
        ("a.zip", "DIR/a.zip: files of type .zip are not read"),
        ("a.npy.gz", "DIR/a.npy.gz: files of type .npy are read unpacked only"),
        ("odd.u16", "DIR/odd.u16: has 3 bytes of data, no multiple of the 2 of an id"),
        ("vocab.npy", "DIR/vocab.npy: token 1 has id 260, and the model's vocab_size is 260"),
        ("negative.npy", "DIR/negative.npy: token 1 has id -1, which is no token id"),
        ("huge.npy", "DIR/huge.npy: token 0 has id -1, which is no token id"),
        ("float.npy", "DIR/float.npy: holds elements of type `<f4`"),
        ("big-endian.npy", "DIR/big-endian.npy: holds elements of type `>u2`"),
        ("three.npy", "DIR/three.npy: has shape (1, 1, 1), not one or two dimensions"),
        ("scalar.npy", "DIR/scalar.npy: has shape (), not one or two dimensions"),
        ("short.npy", "DIR/short.npy: announces 5 elements of U16, but holds 8 bytes"),
        ("long.npy", "DIR/long.npy: announces 3 elements of U16, but holds 8 bytes"),
        ("overflow.npy", "DIR/overflow.npy: has an absurd shape"),
        ("negative-size.npy", "DIR/negative-size.npy: has the bad shape (-1,)"),
        ("cut.npy", "DIR/cut.npy: has an absurd header of 65535 bytes"),
        ("none.npy", "DIR/none.npy: ends before its data do"),
        ("text.npy", "DIR/text.npy: is not a .npy file"),
        ("version.npy", "DIR/version.npy: is of the unknown version 9 of .npy"),
        ("name.safetensors", "DIR/name.safetensors: has no tensor `input_ids`"),
        ("float.safetensors", "DIR/float.safetensors: holds F32, not whole numbers"),
        (
            "rank.safetensors",
            "DIR/rank.safetensors: `input_ids` has shape [1, 1, 1], not one or two dimensions",
        ),
    ];
    for (file, expected) in cases {
        let message = folder.error(&data(&[file], 4, None));
        assert!(message.starts_with(expected), "{file}: {message}");
    }
    folder.write("a.txt", b"abcdefgh");
    assert_eq!(
        folder.error(&data(&["a.txt"], 4, Some(3))),
        "3 samples are asked for, but DIR/a.txt give 2 windows of 4 tokens"
    );
}

#[test]
fn text_without_a_tokenizer_is_refused_and_arrays_need_none() {
    let folder = Folder::new();
    folder.write("a.txt", b"abcd");
    folder.write("a.npy", &npy("|u1", "(4,)", b"abcd"));
    let context = Context { base: folder.0.path(), tokenizer: None, vocab_size: 260, eos: None, cache: None };
    let error = load(&data(&["a.txt"], 4, None), &context).unwrap_err();
    assert!(matches!(error, DataError::NoTokenizer { .. }), "{error}");
    assert_eq!(load(&data(&["a.npy"], 4, None), &context).unwrap().len(), 1);
}

/// Brackets in the folder's own name are no pattern.
#[test]
fn the_base_folder_is_not_part_of_a_glob() {
    let folder = Folder::new();
    folder.write("base [v1]/x.txt", b"abcd");
    folder.write("base [v1]/[y].txt", b"efgh");
    let base = folder.0.path().join("base [v1]");
    let model = folder.0.path().join("model");
    let context = Context { base: &base, tokenizer: Some(&model), vocab_size: 260, eos: None, cache: None };
    let load = |file| text(&load(&data(&[file], 4, None), &context).unwrap());
    assert_eq!(load("*.txt"), ["efgh", "abcd"]);
    assert_eq!(load("[y].txt"), ["efgh"]);
}
