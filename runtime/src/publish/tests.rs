use super::*;
use crate::checkpoint::{Checkpoint, INDEX_FILE};
use crate::safetensors::Entry;
use crate::testing;
use minic_compiler::model::DType;
use std::fs::File;
use std::ops::Range;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    /// Names beside the target, sorted.
    fn names(&self) -> Vec<String> {
        let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(self.0.path()).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn old(&self) {
        fs::create_dir(self.out()).unwrap();
        fs::write(self.out().join("old.txt"), "old").unwrap();
    }
}

fn open(entry: &Entry) -> Result<Entry, PublishError> {
    Ok(entry.clone())
}

fn give(entry: &Entry, rows: Range<usize>, piece: &mut Piece) -> Result<(), PublishError> {
    testing::rows(entry, rows).chunks(7).try_for_each(|part| piece.write_f32(part))
}

#[test]
fn a_folder_appears_when_it_is_published() {
    let folder = Folder::new();
    let target = folder.0.path().join("a/b/out");
    let staged = StagedFolder::new(&target, false).unwrap();
    staged.write("x.txt", b"x").unwrap();
    fs::create_dir(staged.path().join("sub")).unwrap();
    fs::write(staged.path().join("sub/y.txt"), "y").unwrap();
    assert!(!target.exists());
    let path = staged.publish().unwrap();
    assert_eq!(path, target.canonicalize().unwrap());
    assert_eq!(fs::read_to_string(target.join("sub/y.txt")).unwrap(), "y");
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_not_published_leaves_nothing() {
    let folder = Folder::new();
    let staged = StagedFolder::new(&folder.out(), false).unwrap();
    staged.write("x.txt", b"x").unwrap();
    assert_eq!(folder.names().len(), 2, "{:?}", folder.names());
    drop(staged);
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_folder_with_something_in_it_is_replaced_only_on_demand() {
    let folder = Folder::new();
    folder.old();
    let refused = StagedFolder::new(&folder.out(), false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Input);
    assert!(
        refused.to_string().ends_with("out: holds something already; --overwrite replaces it"),
        "{refused}"
    );
    let staged = StagedFolder::new(&folder.out(), true).unwrap();
    staged.write("new.txt", b"new").unwrap();
    assert!(folder.out().join("old.txt").exists());
    staged.publish().unwrap();
    assert!(!folder.out().join("old.txt").exists() && folder.out().join("new.txt").exists());
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn an_empty_folder_is_no_obstacle_and_a_file_always_is() {
    let folder = Folder::new();
    fs::create_dir(folder.out()).unwrap();
    let staged = StagedFolder::new(&folder.out(), false).unwrap();
    staged.write("new.txt", b"new").unwrap();
    staged.publish().unwrap();
    assert!(folder.out().join("new.txt").exists());
    fs::write(folder.0.path().join("file"), "").unwrap();
    for overwrite in [false, true] {
        let error = StagedFolder::new(&folder.0.path().join("file"), overwrite).unwrap_err();
        assert!(matches!(error, PublishError::NotAFolder { .. }), "{error}");
    }
    assert!(matches!(StagedFolder::new(Path::new("/"), true), Err(PublishError::NoName { .. })));
}

/// Someone else writes the folder while this run is at work.
#[test]
fn a_folder_that_appears_meanwhile_is_not_replaced() {
    let folder = Folder::new();
    let staged = StagedFolder::new(&folder.out(), false).unwrap();
    folder.old();
    assert!(matches!(staged.publish(), Err(PublishError::Exists { .. })));
    assert_eq!(folder.names(), ["out"]);
    assert!(folder.out().join("old.txt").exists());
}

#[test]
fn inputs_are_never_replaced() {
    let folder = Folder::new();
    folder.old();
    let staged = StagedFolder::new(&folder.out(), true).unwrap();
    fs::create_dir(folder.out().join("parent")).unwrap();
    for input in [folder.out(), folder.out().join("parent")] {
        assert!(matches!(staged.keep_clear_of(&input), Err(PublishError::HoldsInput { .. })));
    }
    staged.keep_clear_of(folder.0.path()).unwrap();
    staged.keep_clear_of(&folder.0.path().join("elsewhere")).unwrap();
    let current = std::env::current_dir().unwrap();
    let around = StagedFolder::new(current.parent().unwrap(), true).unwrap_err();
    assert!(matches!(around, PublishError::HoldsInput { .. }), "{around}");
}

#[test]
fn what_dead_runs_left_is_cleaned_and_what_live_ones_hold_is_kept() {
    let folder = Folder::new();
    let dir = |name: &str| {
        let path = folder.0.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), name).unwrap();
    };
    dir(".out.minic-1-0-aa");
    fs::write(folder.0.path().join(".out.minic-1-0-aa.lock"), "").unwrap();
    dir(".out.minic-2-0-bb");
    dir(".out.minic-3-0-cc.old");
    dir(".other.minic-1-0-aa");
    let live = StagedFolder::new(&folder.out(), true).unwrap();
    live.write("x", b"live").unwrap();
    // The folder that run 3 was about to replace has its name back.
    assert_eq!(fs::read_to_string(folder.out().join("x")).unwrap(), ".out.minic-3-0-cc.old");
    let second = StagedFolder::new(&folder.out(), true).unwrap();
    assert_eq!(fs::read_to_string(live.path().join("x")).unwrap(), "live");
    drop((live, second));
    assert_eq!(folder.names(), [".other.minic-1-0-aa", "out"]);
}

#[test]
fn weights_survive_one_file_and_shards() {
    for shard in [None, Some(1 << 30), Some(13_000), Some(1)] {
        for dtype in DType::ALL.iter().copied() {
            let folder = Folder::new();
            let staged = StagedFolder::new(&folder.out(), false).unwrap();
            let desc = testing::desc(&testing::config());
            let entries = testing::entries(&desc, dtype);
            let written = write_weights(staged.path(), &entries, shard, open, give).unwrap();
            testing::write_config(staged.path(), &testing::config());
            let files = written.files.len();
            match shard {
                Some(1) => assert_eq!(files, entries.len()),
                Some(13_000) => assert!((2..entries.len()).contains(&files)),
                _ => assert_eq!((files, written.files[0].name.as_str()), (1, "model.safetensors")),
            }
            assert_eq!(written.params, desc.params());
            assert_eq!(staged.path().join(INDEX_FILE).exists(), files > 1);
            for file in &written.files {
                let digest = crate::checkpoint::digest_file(&staged.path().join(&file.name)).unwrap();
                assert_eq!(file.digest, digest);
            }
            let out = staged.publish().unwrap();
            let checkpoint = Checkpoint::open(&out).unwrap();
            for entry in &entries {
                assert_eq!(checkpoint.read_f32(&entry.name).unwrap(), testing::values(entry));
                assert_eq!(checkpoint.dtype(&entry.name).unwrap(), dtype);
            }
        }
    }
}

/// Narrow tensors of odd length before wide ones would leave the wide ones unaligned.
#[test]
fn mixed_dtypes_are_aligned() {
    let folder = Folder::new();
    let entry = |name: &str, dtype, n| Entry { name: name.into(), dtype, shape: vec![n] };
    let entries = [
        entry("a", DType::BF16, 3),
        entry("b", DType::F32, 5),
        entry("c", DType::F16, 1),
        entry("d", DType::F32, 1),
    ];
    write_weights(folder.0.path(), &entries, None, open, give).unwrap();
    let reader = crate::safetensors::Reader::open(&folder.0.path().join("model.safetensors")).unwrap();
    assert_eq!(reader.tensors().map(|(name, _)| name).collect::<String>(), "bdac");
    let mut bytes = Vec::new();
    reader.read("a", &mut bytes).unwrap();
    let mut values = Vec::new();
    crate::convert::decode(DType::BF16, &bytes, &mut values);
    assert_eq!(values, testing::values(&entries[0]));
}

/// From every dtype to every dtype, in pieces: as if each value were rounded alone.
#[test]
fn bytes_are_converted_on_the_way() {
    let folder = Folder::new();
    let values: Vec<f32> = (0..150_000).map(|i| (i as f32 - 70_000.0) / 4096.0).collect();
    let encoded = |dtype, values: &[f32]| {
        let mut bytes = Vec::new();
        crate::convert::encode(dtype, values, &mut bytes);
        bytes
    };
    for from in DType::ALL.iter().copied() {
        for to in DType::ALL.iter().copied() {
            let source = encoded(from, &values);
            let out = folder.0.path().join(format!("{}-{}", from.name(), to.name()));
            fs::create_dir(&out).unwrap();
            let entry = [Entry { name: "a".into(), dtype: to, shape: vec![values.len()] }];
            let give = |_: &Entry, rows: Range<usize>, piece: &mut Piece| -> Result<(), PublishError> {
                assert_eq!(rows, 0..values.len());
                piece.write(from, &source[..1000])?;
                piece.write(from, &source[1000..])
            };
            write_weights(&out, &entry, None, open, give).unwrap();
            let reader = crate::safetensors::Reader::open(&out.join("model.safetensors")).unwrap();
            let mut bytes = Vec::new();
            reader.read("a", &mut bytes).unwrap();
            let mut decoded = Vec::new();
            crate::convert::decode(from, &source, &mut decoded);
            assert_eq!(bytes, encoded(to, &decoded), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn an_error_on_the_way_leaves_the_old_folder() {
    let desc = testing::desc(&testing::config());
    let entries = testing::entries(&desc, DType::F16);
    let bad = |value: f32| {
        move |entry: &Entry, rows: Range<usize>, piece: &mut Piece| {
            let mut values = testing::rows(entry, rows);
            if entry.name.contains("layers.1.mixer.up_proj") {
                values[11] = value;
            }
            piece.write_f32(&values)
        }
    };
    let short = |entry: &Entry, rows: Range<usize>, piece: &mut Piece| {
        piece.write_f32(&testing::rows(entry, rows)[1..])
    };
    let long = |entry: &Entry, rows: Range<usize>, piece: &mut Piece| {
        piece.write_f32(&testing::rows(entry, rows)).and_then(|()| piece.write_f32(&[0.0; 3]))
    };
    type Give<'a> = Box<dyn Fn(&Entry, Range<usize>, &mut Piece) -> Result<(), PublishError> + Sync + 'a>;
    let cases: Vec<(Give, &str)> = vec![
        (Box::new(bad(f32::NAN)), "tensor `backbone.layers.1.mixer.up_proj.weight`: element 11 is NaN"),
        (Box::new(bad(1e6)), "element 11 is inf, rounded from 1000000: the dtype's range is too small"),
        (Box::new(short), "rows 0..260: 6238 bytes were given, 6240 were announced"),
        (Box::new(long), "rows 0..260: 6246 bytes were given, 6240 were announced"),
    ];
    for (give, expected) in cases {
        let folder = Folder::new();
        folder.old();
        let staged = StagedFolder::new(&folder.out(), true).unwrap();
        let error = write_weights(staged.path(), &entries, None, open, give).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), Kind::Proof);
        drop(staged);
        assert_eq!(folder.names(), ["out"]);
        assert!(folder.out().join("old.txt").exists());
    }
}

/// Tensors of many pieces, whose rows are no divisor of a piece.
#[test]
fn pieces_and_threads_change_no_byte() {
    let entry =
        |name: &str, dtype, shape: &[usize]| Entry { name: name.into(), dtype, shape: shape.to_vec() };
    let entries = [
        entry("a", DType::BF16, &[1_300_001]),
        entry("b", DType::F32, &[700, 999]),
        entry("c", DType::F16, &[3, 1, 600_001]),
    ];
    let digests = [1, 2, 5].map(|threads| {
        let folder = Folder::new();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let written =
            pool.install(|| write_weights(folder.0.path(), &entries, Some(4 << 20), open, give)).unwrap();
        let reader = crate::safetensors::Reader::open(&folder.0.path().join(&written.files[0].name)).unwrap();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        reader.read("a", &mut bytes).unwrap();
        crate::convert::encode(DType::BF16, &testing::values(&entries[0]), &mut expected);
        assert!(bytes == expected && written.files.len() == 3);
        written.files
    });
    assert!(digests.iter().all(|d| *d == digests[0]));
}

/// Only what is small beside the limit is open together, in order, and all of it is opened once.
#[test]
fn few_large_tensors_are_open_at_once() {
    let sizes = [1, 40, 90, 1, 300, 2, 128, 64, 64, 1, 500];
    let entry = |(i, n): (usize, &usize)| Entry {
        name: i.to_string(),
        dtype: DType::BF16,
        shape: vec![n << 10, 1 << 9],
    };
    let entries: Vec<Entry> = sizes.iter().enumerate().map(entry).collect();
    let mib = |group: &&[Entry]| group.iter().map(|e| (e.bytes() >> 20) as usize).collect::<Vec<_>>();
    let found: Vec<Vec<usize>> = groups(&entries).iter().map(mib).collect();
    let expected: [&[usize]; 8] = [&[1, 40], &[90, 1], &[300], &[2], &[128], &[64, 64], &[1], &[500]];
    assert_eq!(found, expected);
    assert_eq!(groups(&entries).concat(), entries);
    assert!(groups(&[]).is_empty());
}

#[test]
fn companions_are_copied_byte_for_byte() {
    let folder = Folder::new();
    let source = folder.0.path().join("source");
    fs::create_dir(&source).unwrap();
    let wanted = [
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    ];
    for name in wanted.iter().chain(&["config.json", "model.safetensors", "README.md", "vocabulary", "x.txt"])
    {
        fs::write(source.join(name), [name.as_bytes(), &[0xff, b'\r', b'\n']].concat()).unwrap();
    }
    fs::create_dir(source.join("vocab.d")).unwrap();
    let staged = StagedFolder::new(&folder.out(), false).unwrap();
    assert_eq!(copy_companions(&source, &staged).unwrap(), wanted);
    let out = staged.publish().unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), wanted.len());
    for name in wanted {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(source.join(name)).unwrap());
    }
    assert!(File::open(out.join("vocab.txt")).is_ok());
}
