use super::*;
use crate::testing;
use std::fs;
use std::path::Path;

/// A file of this header and so many bytes of data.
fn file(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn open(bytes: &[u8]) -> Result<Reader, SafetensorsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    Reader::open(&path)
}

/// The message behind the file's name; every broken file is the user's to mend.
fn error(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Input, "{error}");
    let message = error.to_string();
    let (_, message) = message.split_once("x.safetensors: ").expect("the file is named");
    message.to_string()
}

#[test]
fn broken_files_are_refused_with_the_reason() {
    let a = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#).into_bytes();
    let two = |x: &str, y: &str| {
        let tensor = |range: &str| format!(r#"{{"dtype":"U8","shape":[4],"data_offsets":[{range}]}}"#);
        format!(r#"{{"x":{},"y":{}}}"#, tensor(x), tensor(y)).into_bytes()
    };
    let f32s = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;
    let whole = "not a valid safetensors file: ";
    let mut huge = file(b"{}", 0);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut over_limit = file(b"{}", 0);
    over_limit[..8].copy_from_slice(&(MAX_HEADER + 1).to_le_bytes());
    let cases: Vec<(Vec<u8>, String)> = vec![
        (vec![], format!("{whole}it has 0 bytes")),
        (vec![0; 7], format!("{whole}it has 7 bytes")),
        (vec![0; 8], format!("{whole}the header does not start with `{{`")),
        (huge, format!("{whole}a header of 18446744073709551615 bytes is over the limit")),
        (over_limit, format!("{whole}a header of 100000001 bytes is over the limit")),
        (
            file(&a(f32s), 8)[..30].to_vec(),
            format!("{whole}a header of 54 bytes is longer than the file of 30"),
        ),
        (file(b"\xff\xfe{}", 0), format!("{whole}the header is not UTF-8")),
        (file(b" {}", 0), format!("{whole}the header does not start with `{{`")),
        (file(b"[]", 0), format!("{whole}the header does not start with `{{`")),
        (file(b"{", 0), format!("{whole}the header is not understood: EOF")),
        (file(b"{}{}", 0), format!("{whole}the header is not understood: trailing characters")),
        (
            file(br#"{"a": 1}"#, 0),
            format!("{whole}the header is not understood: entry `a`: invalid type: integer"),
        ),
        (
            file(&a(r#""shape":[2],"data_offsets":[0,8]"#), 8),
            format!("{whole}the header is not understood: entry `a`: missing field `dtype`"),
        ),
        (
            file(&a(r#""dtype":"F32","data_offsets":[0,8]"#), 8),
            format!("{whole}the header is not understood: entry `a`: missing field `shape`"),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[2]"#), 8),
            format!("{whole}the header is not understood: entry `a`: missing field `data_offsets`"),
        ),
        (
            file(&a(&format!(r#"{f32s},"shape":[2]"#)), 8),
            format!("{whole}the header is not understood: entry `a`: duplicate field `shape`"),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[-2],"data_offsets":[0,8]"#), 8),
            format!("{whole}the header is not understood: entry `a`: invalid value: integer `-2`"),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[2.0],"data_offsets":[0,8]"#), 8),
            format!("{whole}the header is not understood: entry `a`: invalid type: floating point"),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[2],"data_offsets":[0,8,9]"#), 8),
            format!("{whole}the header is not understood: entry `a`: "),
        ),
        (
            file(&a(&format!(r#""dtype":"F32","shape":[0{}],"data_offsets":[0,0]"#, ",1".repeat(64))), 0),
            format!("{whole}the header is not understood: entry `a`: more than 64 dimensions"),
        ),
        (
            file(&a(r#""dtype":"F31","shape":[2],"data_offsets":[0,8]"#), 8),
            "tensor `a`: unknown dtype `F31`".into(),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), 8),
            "tensor `a`: F32 of shape [3] takes 12 bytes, but its range 0..8 has 8".into(),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#), 8),
            "tensor `a`: its range of bytes 8..0 ends before it begins".into(),
        ),
        (file(&a(f32s), 7), "tensor `a`: its range of bytes 0..8 leaves the file's 7 bytes".into()),
        (
            file(&a(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]"#), 8),
            "tensor `a`: its shape [4294967296, 4294967296] overflows".into(),
        ),
        (
            file(&a(r#""dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]"#), 0),
            "tensor `a`: its shape [0, 18446744073709551615] overflows".into(),
        ),
        (file(&a(f32s), 9), format!("{whole}its tensors take 8 bytes, but 9 bytes follow")),
        (file(b"{}", 1), format!("{whole}its tensors take 0 bytes, but 1 bytes follow")),
        (file(&two("0,4", "2,6"), 6), "tensor `y`: its bytes overlap those of `x`".into()),
        (file(&two("0,4", "0,4"), 4), "tensor `y`: its bytes overlap those of `x`".into()),
        (file(&two("5,9", "0,4"), 9), "tensor `x`: 1 unused bytes between `y` and it".into()),
        (file(&two("1,5", "5,9"), 9), "tensor `x`: 1 unused bytes between `the header` and it".into()),
        (
            file(format!(r#"{{"a":{{{f32s}}},"a":{{{f32s}}}}}"#).as_bytes(), 8),
            "tensor `a`: appears twice".into(),
        ),
        (
            file(br#"{"__metadata__":{"format":1}}"#, 0),
            format!("{whole}the header is not understood: entry `__metadata__`: invalid type: integer"),
        ),
        (
            file(br#"{"__metadata__":{},"__metadata__":{}}"#, 0),
            format!("{whole}the header is not understood: `__metadata__` appears twice"),
        ),
        (file("[".repeat(5000).as_bytes(), 0), format!("{whole}the header does not start")),
        (
            file(format!("{{\"a\":{}", "[".repeat(5000)).as_bytes(), 0),
            format!("{whole}the header is not understood: entry `a`"),
        ),
    ];
    for (bytes, expected) in cases {
        let message = error(&bytes);
        assert!(message.starts_with(&expected), "{message}\nbut expected: {expected}");
    }
}

#[test]
fn odd_but_valid_files_are_read() {
    let empty = open(&file(b"{}   \n", 0)).unwrap();
    assert_eq!(empty.tensors().count(), 0);
    // Any order of ranges, tensors of no bytes, a scalar, metadata, and a field that a later version may add.
    let header = br#"{"y":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},"__metadata__":{"format":"pt"},
        "none":{"dtype":"I64","shape":[3,0],"data_offsets":[8,8]},
        "x":{"dtype":"U8","shape":[4,2],"data_offsets":[0,8],"later":{"a":[1]}}}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, file(header, 10)).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.metadata()["format"], "pt");
    let names: Vec<&str> = reader.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["y", "none", "x"]);
    let mut bytes = vec![9; 100];
    reader.read("y", &mut bytes).unwrap();
    assert_eq!(bytes, [8, 9]);
    reader.read("none", &mut bytes).unwrap();
    assert!(bytes.is_empty());
    reader.read_rows("x", 1..3, &mut bytes).unwrap();
    assert_eq!(bytes, [2, 3, 4, 5]);
    reader.read_rows("x", 4..4, &mut bytes).unwrap();
    assert!(bytes.is_empty());
    for rows in [3..5, 5..5] {
        assert!(reader.read_rows("x", rows, &mut bytes).is_err());
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 3..2;
    assert!(reader.read_rows("x", backwards, &mut bytes).is_err());
    assert!(
        reader.read("z", &mut bytes).unwrap_err().to_string().ends_with("tensor `z`: is not in this file")
    );
    let scalar = reader.tensor("y").unwrap();
    assert_eq!(
        (scalar.len(), scalar.rows(), scalar.row_bytes(), scalar.element.dtype()),
        (1, 1, 2, Some(DType::BF16))
    );
    assert!(reader.tensor("none").unwrap().is_empty());
}

#[test]
fn a_missing_file_and_a_file_cut_short_later_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let missing = Reader::open(&path).unwrap_err();
    assert_eq!(missing.kind(), Kind::Input);
    fs::write(&path, file(br#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#, 8)).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert!(reader.unchanged().is_ok());
    let before = reader.stamp().len;
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(before - 4).unwrap();
    let expected = format!("changed while it was read: it had {before} bytes and has {} now", before - 4);
    for error in [reader.read("a", &mut Vec::new()).unwrap_err(), reader.unchanged().unwrap_err()] {
        assert_eq!(error.kind(), Kind::World, "{error}");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let gone = reader.unchanged().unwrap_err();
    assert!(gone.to_string().ends_with("it is not there any more"), "{gone}");
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let entry =
        |name: &str, dtype, shape: &[usize]| Entry { name: name.into(), dtype, shape: shape.to_vec() };
    let entries = [
        entry("w\u{e9}ight \"quoted\"", DType::F32, &[3, 5]),
        entry("scalar", DType::F32, &[]),
        entry("none", DType::BF16, &[0, 4]),
        entry("b", DType::BF16, &[7]),
        entry("h", DType::F16, &[2, 1, 3]),
    ];
    testing::write_file(&path, &entries);
    let reader = Reader::open(&path).unwrap();
    let header = u64::from_le_bytes(fs::read(&path).unwrap()[..8].try_into().unwrap());
    assert_eq!(header % 8, 0);
    assert_eq!(reader.metadata()["format"], "pt");
    assert_eq!(reader.tensors().count(), entries.len());
    for entry in &entries {
        let tensor = reader.tensor(&entry.name).unwrap();
        assert_eq!((tensor.element.dtype(), &tensor.shape), (Some(entry.dtype), &entry.shape));
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        reader.read(&entry.name, &mut bytes).unwrap();
        crate::convert::decode(entry.dtype, &bytes, &mut values);
        assert_eq!(values, testing::values(entry));
    }
}

#[test]
fn the_writer_refuses_what_it_did_not_announce() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |name: &str, dtype, n| Entry { name: name.into(), dtype, shape: vec![n] };
    let create = |name: &str, entries: &[Entry]| Writer::create(&folder.path().join(name), entries);
    let mut writer = create("a", &[entry("a", DType::F32, 2)]).unwrap();
    writer.write(&[0; 3]).unwrap();
    writer.write(&[0; 4]).unwrap();
    assert_eq!(writer.written(), 7);
    assert!(writer.write(&[0; 2]).unwrap_err().to_string().contains("more bytes"));
    let short = create("b", &[entry("a", DType::F32, 2)]).unwrap().finish().unwrap_err();
    assert!(short.to_string().contains("0 of 8 announced bytes"), "{short}");
    assert_eq!(short.kind(), Kind::Proof);
    let twice = create("c", &[entry("a", DType::F32, 2), entry("a", DType::F32, 2)]).err().unwrap();
    assert!(twice.to_string().contains("announced twice"), "{twice}");
    let unaligned = create("d", &[entry("a", DType::BF16, 3), entry("b", DType::F32, 2)]).err().unwrap();
    assert!(unaligned.to_string().contains("`b` would begin at byte 6, inside an element"), "{unaligned}");
    let exists = create("a", &[]).err().unwrap();
    assert_eq!(exists.kind(), Kind::World);
    assert!(!folder.path().join("c").exists() && !folder.path().join("d").exists());
}

#[test]
fn the_digest_of_the_writer_is_that_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("a");
    let entries = [Entry { name: "a".into(), dtype: DType::F32, shape: vec![600_000] }];
    let mut writer = Writer::create(path, &entries).unwrap();
    for i in 0..600_000u32 {
        writer.write(&i.to_le_bytes()).unwrap();
    }
    let digest = writer.finish().unwrap();
    assert_eq!(digest, blake3::hash(&fs::read(path).unwrap()));
}

/// Whatever bytes are changed, a file is read or refused; what is read stays inside the file.
#[test]
fn damaged_headers_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let entry = |name: &str, n| Entry { name: name.into(), dtype: DType::BF16, shape: vec![n, 3] };
    testing::write_file(&path, &[entry("a", 2), entry("b", 5)]);
    let good = fs::read(&path).unwrap();
    let mut rng = crate::random::SplitMix64::new(5);
    let mut read = 0;
    for _ in 0..600 {
        let mut bytes = good.clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(good.len() as u64) as usize;
            bytes[at] = if rng.below(2) == 0 {
                rng.below(256) as u8
            } else {
                b"0123456789[]{},:\""[rng.below(17) as usize]
            };
        }
        fs::write(&path, &bytes).unwrap();
        let Ok(reader) = Reader::open(&path) else { continue };
        let names: Vec<String> = reader.tensors().map(|(name, _)| name.to_string()).collect();
        for name in names {
            reader.read(&name, &mut Vec::new()).unwrap();
        }
        read += 1;
    }
    assert!((1..600).contains(&read), "{read}");
}
