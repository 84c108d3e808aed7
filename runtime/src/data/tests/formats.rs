//! Files as other programs write them; `tests/oracle/make_data.py` made those of `runtime/tests/data`.

use super::*;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// What the golden files hold: texts as bytes with the end token, and lists of ids; nothing for null.
struct Expected {
    texts: Vec<Option<Vec<u32>>>,
    ids: Vec<Option<Vec<u32>>>,
}

fn expected() -> Expected {
    let text = fs::read(golden("expected.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let tokens = |text: String| text.bytes().map(u32::from).chain([258]).collect();
    let texts: Vec<Option<String>> = serde_json::from_value(value["texts"].clone()).unwrap();
    let ids = serde_json::from_value(value["input_ids"].clone()).unwrap();
    Expected { texts: texts.into_iter().map(|t| t.map(tokens)).collect(), ids }
}

fn joined(rows: &[Option<Vec<u32>>]) -> Vec<u32> {
    rows.iter().flatten().flatten().copied().collect()
}

impl Folder {
    fn read_file(&self, path: &Path, field: Option<&str>) -> Result<FileTokens, DataError> {
        let model = self.0.path().join("model");
        let context = Context {
            base: self.0.path(),
            tokenizer: Some(&model),
            vocab_size: 1 << 16,
            eos: Some(258),
            cache: None,
        };
        read_file(path, field, &context)
    }

    fn tokens(&self, name: &str) -> Vec<u32> {
        self.read_file(&self.0.path().join(name), None).unwrap().tokens
    }

    fn fault(&self, name: &str) -> String {
        let error = self.read_file(&self.0.path().join(name), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        error.to_string().replace(&self.0.path().display().to_string(), "DIR")
    }
}

#[test]
fn parquet_files_of_other_programs_give_the_same_tokens() {
    let (folder, expected) = (Folder::new(), expected());
    for name in ["plain", "dictionary", "snappy", "zstd", "gzip", "delta", "pages", "large", "fastparquet"] {
        let file = golden(&format!("{name}.parquet"));
        let read = folder.read_file(&file, None).unwrap();
        assert_eq!(read.tokens, joined(&expected.texts), "{name}");
        let null = BadRow { at: Place::Row(5), reason: "is null".into() };
        assert_eq!(read.leftovers, Leftovers { rows: 8, bad: 1, first: vec![null] }, "{name}");
        if ["large", "fastparquet"].contains(&name) {
            continue;
        }
        let nested = folder.read_file(&file, Some("meta.body")).unwrap();
        assert_eq!(nested, read, "{name}");
        for field in ["input_ids", "wide", "unsigned", "small"] {
            let read = folder.read_file(&file, Some(field)).unwrap();
            assert_eq!(read.tokens, joined(&expected.ids), "{name} {field}");
            let null = BadRow { at: Place::Row(4), reason: "is null".into() };
            assert_eq!(read.leftovers, Leftovers { rows: 8, bad: 1, first: vec![null] }, "{name} {field}");
        }
    }
    let pandas = folder.read_file(&golden("pandas.parquet"), Some("input_ids")).unwrap();
    assert_eq!(pandas.tokens, joined(&expected.ids));
    assert_eq!(pandas.leftovers.bad, 0);
    for name in ["u2.npy", "i8.npy", "ids.u16", "ids.u32"] {
        assert_eq!(folder.read_file(&golden(name), None).unwrap().tokens, joined(&expected.ids), "{name}");
    }
}

#[test]
fn columns_that_are_not_read_are_named() {
    let folder = Folder::new();
    let fault = |name: &str, field| {
        let error = folder.read_file(&golden(name), Some(field)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        error.to_string().rsplit_once(&format!("{name}: ")).unwrap().1.to_string()
    };
    assert!(fault("plain.parquet", "body").starts_with("has no column `body`; its columns: `id`, `text`"));
    assert!(fault("plain.parquet", "id").starts_with("column `id` holds INT32; a string or a list"));
    assert!(fault("plain.parquet", "meta").contains("has fields of its own; name one of them"));
    assert!(
        fault("brotli.parquet", "text")
            .ends_with("is packed with BROTLI; uncompressed, snappy, gzip and zstd are read")
    );
}

/// Every prefix and every changed byte of a file is read or refused; nothing else happens.
#[test]
fn damaged_parquet_files_are_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("a.parquet");
    for name in ["large", "zstd"] {
        let whole = fs::read(golden(&format!("{name}.parquet"))).unwrap();
        for end in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(folder.read_file(&path, None).is_err(), "{name} cut at {end}");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            fs::write(&path, &damaged).unwrap();
            if let Err(error) = folder.read_file(&path, None) {
                assert_eq!(error.kind(), Kind::Input, "{name} at {at}: {error}");
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

#[test]
fn packed_files_give_the_same_tokens() {
    let folder = Folder::new();
    let rows = b"{\"text\": \"ab\"}\n{\"text\": \"c\"}\n".repeat(300);
    folder.write("a.jsonl", &rows);
    folder.write("a.jsonl.gz", &gzip(&rows));
    folder.write("a.JSONL.ZST", &zstd(&rows));
    // Members one after the other are one stream.
    folder.write("b.json.gz", &[gzip(&rows[..77]), gzip(&rows[77..])].concat());
    folder.write("b.ndjson.zst", &[zstd(&rows[..77]), zstd(&rows[77..])].concat());
    let plain = folder.tokens("a.jsonl");
    assert_eq!(plain, [97, 98, 258, 99, 258].repeat(300));
    for name in ["a.jsonl.gz", "a.JSONL.ZST", "b.json.gz", "b.ndjson.zst"] {
        assert_eq!(folder.tokens(name), plain, "{name}");
    }
    let text = "a text\n".repeat(1000);
    folder.write("a.txt.gz", &gzip(text.as_bytes()));
    folder.write("a.zst", &zstd(text.as_bytes()));
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    assert_eq!(folder.tokens("a.txt.gz"), bytes);
    assert_eq!(folder.tokens("a.zst"), bytes);
}

#[test]
fn damaged_packed_files_are_one_error_each() {
    let folder = Folder::new();
    let rows = b"{\"text\": \"ab\"}\n".repeat(300);
    folder.write("cut.jsonl.gz", &gzip(&rows)[..40]);
    folder.write("cut.jsonl.zst", &zstd(&rows)[..20]);
    folder.write("text.jsonl.gz", &rows);
    folder.write("text.jsonl.zst", &rows);
    folder.write("tail.jsonl.gz", &[gzip(&rows), b"and more than a header has".to_vec()].concat());
    let mut sum = gzip(&rows);
    let at = sum.len() - 6;
    sum[at] ^= 1;
    folder.write("sum.jsonl.gz", &sum);
    // A gigabyte of one letter.
    let mut bomb = zstd::Encoder::new(Vec::new(), 3).unwrap();
    (0..1024).for_each(|_| bomb.write_all(&[b'a'; 1 << 20]).unwrap());
    folder.write("bomb.txt.zst", &bomb.finish().unwrap());
    folder.write("bomb.txt.gz", &gzip(&vec![b'\n'; 100 << 20]));
    let cases = [
        ("cut.jsonl.gz", "DIR/cut.jsonl.gz: ends in the middle of its gzip stream, after 40 bytes"),
        ("cut.jsonl.zst", "DIR/cut.jsonl.zst: ends in the middle of its zstd stream, after 20 bytes"),
        ("text.jsonl.gz", "DIR/text.jsonl.gz: cannot be unpacked as gzip"),
        ("text.jsonl.zst", "DIR/text.jsonl.zst: cannot be unpacked as zstd"),
        ("tail.jsonl.gz", "DIR/tail.jsonl.gz: cannot be unpacked as gzip"),
        ("sum.jsonl.gz", "DIR/sum.jsonl.gz: cannot be unpacked as gzip"),
        ("bomb.txt.zst", "DIR/bomb.txt.zst: "),
        ("bomb.txt.gz", "DIR/bomb.txt.gz: "),
    ];
    for (name, expected) in cases {
        let message = folder.fault(name);
        assert!(message.starts_with(expected), "{name}: {message}");
    }
    let mut bomb = Unpacked::open(&folder.0.path().join("bomb.txt.zst"), Packing::Zstd).unwrap();
    let (mut piece, mut given) = (vec![0; 1 << 20], 0);
    let error = loop {
        match bomb.read(&mut piece) {
            Ok(n) => given += n,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("unpacks to more than 200 times its size"), "{error}");
    assert!(given <= 64 << 20, "{given}");
}

#[test]
fn bare_ids_are_read_by_their_names() {
    let folder = Folder::new();
    let ids: Vec<u32> = (0..40).map(|i| i * 7 + 1).collect();
    let two: Vec<u8> = ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect();
    let four: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let llm_c = |magic: u32, version: u32, data: &[u8]| {
        let mut header = vec![0; 1024];
        for (i, word) in [magic, version, ids.len() as u32].iter().enumerate() {
            header[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
        }
        [header, data.to_vec()].concat()
    };
    let index = |code: u8| [&b"MMIDIDX\x00\x00"[..], &1u64.to_le_bytes(), &[code]].concat();
    folder.write("a.u16", &two);
    folder.write("a.u32", &four);
    folder.write("nanogpt.bin", &two);
    folder.write("gpt2.bin", &llm_c(20240520, 1, &two));
    folder.write("llama3.bin", &llm_c(20240801, 7, &four));
    folder.write("megatron.bin", &four);
    folder.write("megatron.idx", &index(4));
    for name in ["a.u16", "a.u32", "nanogpt.bin", "gpt2.bin", "llama3.bin", "megatron.bin"] {
        assert_eq!(folder.tokens(name), ids, "{name}");
    }
    // A vocabulary that two bytes do not hold.
    let wide = Context { base: folder.0.path(), tokenizer: None, vocab_size: 70_000, eos: None, cache: None };
    folder.write("wide.bin", &four);
    let path = folder.0.path().join("wide.bin");
    assert_eq!(read_file(&path, None, &wide).unwrap().tokens, ids);
    folder.write("short.bin", &llm_c(20240520, 1, &two[2..]));
    folder.write("strange.bin", &two);
    folder.write("strange.idx", &index(99));
    folder.write("noindex.bin", &two);
    folder.write("noindex.idx", b"something else");
    folder.write("out.u32", &(1u32 << 16).to_le_bytes());
    let cases = [
        ("wide.bin", "DIR/wide.bin: looks like ids of four bytes"),
        ("short.bin", "DIR/short.bin: announces 40 ids in the header of llm.c, but holds 39"),
        ("strange.bin", "DIR/strange.idx: says that its ids are of the unknown type 99"),
        ("noindex.bin", "DIR/noindex.idx: is not the index of a Megatron data set"),
        ("out.u32", "DIR/out.u32: token 0 has id 65536, and the model's vocab_size is 65536"),
    ];
    for (name, expected) in cases {
        assert!(folder.fault(name).starts_with(expected), "{name}: {}", folder.fault(name));
    }
}

#[test]
fn rows_may_hold_ids_and_bad_ones_are_counted_by_line() {
    let folder = Folder::new();
    folder.write("ids.jsonl", b"{\"text\": [1, 2]}\n{\"a\": {\"text\": 5}, \"text\": []}\n{\"text\": [3]}\n");
    assert_eq!(folder.tokens("ids.jsonl"), [1, 2, 3]);
    let mut rows = b"\xef\xbb\xbf{\"text\": \"a\"}\n\n".to_vec();
    rows.extend(
        b"{\"text\": [1, -2]}\n{\"text\": [1.5]}\n{\"text\": null}\n{\"text\": \"\xff\"}\nnonsense\n",
    );
    rows.extend(b"{\"text\": \"b\"} and more\n{\"text\": \"\\ud800\"}\n{\"text\": \"c\"}");
    folder.write("bad.jsonl", &rows);
    let read = folder.read_file(&folder.0.path().join("bad.jsonl"), None).unwrap();
    assert_eq!(read.tokens, [97, 258, 99, 258]);
    assert_eq!((read.leftovers.rows, read.leftovers.bad), (9, 7));
    let text = read.leftovers.to_string();
    for expected in [
        "line 3: the field `text` is a list of other things than token ids",
        "line 4: the field `text` is a list of other things",
        "line 5: the field `text` is neither a string nor a list of token ids",
        "line 6: is not UTF-8 at byte 10",
        "line 7: is not a JSON object: ",
        "and 2 more",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn few_bad_rows_are_left_out_and_many_stop_the_run() {
    let folder = Folder::new();
    let rows = |good: usize, bad: usize| {
        [b"{\"text\": \"abc\"}\n".repeat(good), b"{\"body\": 1}\n".repeat(bad)].concat()
    };
    let load = |good, bad, limit| {
        folder.write("a.jsonl", &rows(good, bad));
        folder.load(&hir::Data { bad_rows: limit, ..data(&["a.jsonl"], 4, None) })
    };
    let samples = load(30, 10, None).unwrap();
    assert_eq!((samples.len(), samples.bad_rows()), (30, 10));
    let notes = samples.notes();
    assert!(
        notes[0].contains("a.jsonl: 10 rows were left out of 40:\n  line 31: has no field `text`"),
        "{notes:?}"
    );
    assert!(load(30, 0, None).unwrap().notes().is_empty());
    assert!(load(30, 11, None).is_err() && load(5, 6, None).is_err() && load(11_000, 11, None).is_ok());
    assert!(
        load(1, 9, Some(hir::BadRows::Count(9))).is_ok() && load(0, 9, Some(hir::BadRows::Count(9))).is_err()
    );
    assert!(load(99, 1, Some(hir::BadRows::Share(0.01))).is_ok());
    assert!(load(98, 2, Some(hir::BadRows::Share(0.01))).is_err());
    let error = load(9, 1, Some(hir::BadRows::Count(0))).unwrap_err().to_string();
    assert!(error.contains(
        "1 of 10 rows cannot be read, and none may be bad (`bad_rows` sets the limit):\n  line 10: "
    ));
}

#[test]
fn a_row_beyond_all_bounds_is_passed_over() {
    let folder = Folder::new();
    let mut rows = b"{\"text\": \"a\"}\n{\"text\": \"".to_vec();
    rows.resize((64 << 20) + 100, b'x');
    rows.extend(b"\"}\n{\"text\": \"b\"}\n");
    // As long as a row may be, but of one word.
    rows.extend([&b"{\"text\": \""[..], &vec![b'x'; 9 << 20], b"\"}\n{\"text\": \"c\"}\n"].concat());
    folder.write("a.jsonl", &rows);
    let read = folder.read_file(&folder.0.path().join("a.jsonl"), None).unwrap();
    assert_eq!(read.tokens, [97, 258, 98, 258, 99, 258]);
    let text = read.leftovers.to_string();
    assert!(text.contains("line 2: is longer than 64 MiB"), "{text}");
    assert!(text.contains("line 4: no line or word ends for 8 MiB"), "{text}");
    folder.write("a.txt", &vec![b'x'; 9 << 20]);
    assert!(folder.fault("a.txt").contains("after byte 0: no line or word ends for 8 MiB"));
}

/// Long texts are read in parts, which end anywhere: in a character, between lines or where there are none.
#[test]
fn a_long_text_gives_the_tokens_of_the_whole() {
    let folder = Folder::new();
    let lines = "one line, für alle\nand another one\n\n漢字 and more\n".repeat(120_000);
    let words = "words without any line ".repeat(300_000);
    for text in [lines, words] {
        folder.write("a.txt", text.as_bytes());
        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
        assert!(bytes.len() > 5 << 20);
        assert!(folder.tokens("a.txt") == bytes);
    }
    let mut wrong = "a line of text\n".repeat(500_000).into_bytes();
    wrong[7_000_001] = 0xff;
    folder.write("b.txt", &wrong);
    assert_eq!(folder.fault("b.txt"), "DIR/b.txt: is not UTF-8 text at byte 7000001");
}

#[derive(Default)]
struct Memory {
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    hits: Mutex<usize>,
}

impl TokenCache for Memory {
    fn get(&self, key: &TokenKey) -> Option<FileTokens> {
        let found =
            FileTokens::from_bytes(self.kept.lock().unwrap().get(&serde_json::to_string(key).unwrap())?);
        *self.hits.lock().unwrap() += 1;
        found
    }

    fn put(&self, key: &TokenKey, tokens: &FileTokens) {
        let key = serde_json::to_string(key).unwrap();
        assert!(self.kept.lock().unwrap().insert(key, tokens.to_bytes()).is_none());
    }
}

#[test]
fn tokens_are_kept_under_all_that_they_depend_on() {
    let folder = Folder::new();
    folder.write(
        "a.jsonl",
        b"{\"text\": \"abcdefg\", \"body\": \"0123456\"}\n{}\n{\"text\": \"h\", \"body\": \"7\"}",
    );
    folder.write("b.txt", b"some text");
    folder.write("c.npy", &npy("|u1", "(8,)", b"abcdefgh"));
    let (cache, model) = (Memory::default(), folder.0.path().join("model"));
    let load = |eos, field: Option<&str>| {
        let context = Context {
            base: folder.0.path(),
            tokenizer: Some(&model),
            vocab_size: 300,
            eos,
            cache: Some(&cache),
        };
        let field = field.map(str::to_string);
        let data = hir::Data { field, ..data(&["a.jsonl", "b.txt", "c.npy"], 2, None) };
        load(&data, &context).unwrap()
    };
    let counts = || (cache.kept.lock().unwrap().len(), *cache.hits.lock().unwrap());
    let first = load(Some(258), None);
    assert_eq!(counts(), (2, 0), "arrays are not kept");
    let again = load(Some(258), None);
    assert_eq!(first, again);
    assert_eq!((counts(), again.bad_rows()), ((2, 2), 1));
    assert_ne!(load(Some(257), None).digest, first.digest);
    assert_eq!(counts(), (3, 3), "the end of a row is no matter of text");
    assert_ne!(load(Some(258), Some("body")).digest, first.digest);
    assert_eq!(counts(), (4, 4));
    folder.write(&format!("model/{TOKENIZER_FILE}"), testing::byte_tokenizer(&[("a", "b")]).as_bytes());
    assert_ne!(load(Some(258), None).digest, first.digest);
    assert_eq!(counts(), (6, 4));
    // A file that was kept under a wider vocabulary is checked all the same.
    let narrow = Context {
        base: folder.0.path(),
        tokenizer: Some(&model),
        vocab_size: 100,
        eos: Some(258),
        cache: Some(&cache),
    };
    assert!(
        super::load(&data(&["b.txt"], 2, None), &narrow)
            .unwrap_err()
            .to_string()
            .contains("vocab_size is 100")
    );
}

#[test]
fn kept_tokens_that_are_damaged_are_as_good_as_none() {
    let tokens =
        FileTokens { tokens: vec![1, 2, 70_000], leftovers: Leftovers { rows: 3, bad: 0, first: vec![] } };
    let bytes = tokens.to_bytes();
    assert_eq!(FileTokens::from_bytes(&bytes), Some(tokens));
    for end in 0..bytes.len() {
        assert_eq!(FileTokens::from_bytes(&bytes[..end]), None);
    }
    assert_eq!(FileTokens::from_bytes(&[&bytes[..], b"x"].concat()), None);
}

#[test]
fn a_mix_takes_its_sources_from_every_kind_of_file() {
    let folder = Folder::new();
    folder.write("a.jsonl.zst", &zstd(&b"{\"text\": \"aaa\"}\n".repeat(20)));
    folder.write("b.u16", &[b'b', 0].repeat(40));
    folder.write("c.txt.gz", &gzip(&[b'c'; 80]));
    fs::copy(golden("large.parquet"), folder.0.path().join("d.parquet")).unwrap();
    let files = ["a.jsonl.zst", "b.u16", "c.txt.gz", "d.parquet"];
    let mix = files.map(|file| source(&[file], 0.25)).to_vec();
    let samples = folder.load(&hir::Data { mix, ..data(&[], 4, Some(8)) }).unwrap();
    let firsts: Vec<String> = text(&samples).iter().map(|w| w.chars().next().unwrap().to_string()).collect();
    assert_eq!((&firsts[..3], &firsts[4..7]), (&["a", "b", "c"].map(String::from)[..], &firsts[..3]));
    assert_eq!(samples.files.len(), 4);
}

#[test]
fn the_most_tokens_of_a_file_are_known_where_its_size_tells() {
    let folder = Folder::new();
    for (name, most) in
        [("a.txt", Some(12)), ("a.u16", Some(6)), ("a.u32", Some(3)), ("a.gz", None), ("a.parquet", None)]
    {
        folder.write(name, b"twelve bytes");
        assert_eq!(most_tokens(&folder.0.path().join(name)).unwrap(), most, "{name}");
    }
    folder.write("a.zip", b"");
    assert!(most_tokens(&folder.0.path().join("a.zip")).is_err());
}
