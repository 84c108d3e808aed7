use super::*;
use serde_json::json;
use std::time::Duration;
use std::time::SystemTime;

fn key(seed: u64, metric: &str) -> Key {
    let origin = json!({ "files": { "a.txt": "0".repeat(64) }, "seed": seed });
    let samples = digest_of(&origin);
    Key::new("metric", "mamba.x")
        .called(format!("{metric} at mamba.x"))
        .field("model", "m")
        .input("samples", &samples, origin)
        .field("metric", metric)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

fn object(store: &Store, key: &Key) -> PathBuf {
    store.object(key)
}

#[test]
fn values_come_back_bit_for_bit() {
    let (_folder, store) = store();
    let values = vec![0.1 + 0.2, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 3.0, f64::NAN];
    assert_eq!(store.get::<Vec<f64>>(&key(1, "l2")).unwrap(), None);
    store.put(&key(1, "l2"), &values).unwrap();
    let found: Vec<f64> = store.get(&key(1, "l2")).unwrap().unwrap();
    let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found), bits(&values));
    assert!(store.has(&key(1, "l2")) && !store.has(&key(2, "l2")));
}

#[test]
fn the_subject_and_the_origins_do_not_enter_the_digest() {
    let mut other = key(1, "l2");
    other.subject = "something else".into();
    other.origins.clear();
    assert_eq!(other.digest(), key(1, "l2").digest());
    assert_ne!(key(1, "l1").digest(), key(1, "l2").digest());
}

#[test]
fn what_is_damaged_counts_as_absent_and_is_removed() {
    let (_folder, store) = store();
    for damage in 0..4 {
        store.put(&key(1, "l2"), &vec![1.0; 50]).unwrap();
        let path = object(&store, &key(1, "l2"));
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        match damage {
            0 => bytes[len - 1] ^= 1,
            1 => bytes.truncate(len - 7),
            2 => bytes.clear(),
            _ => bytes[3] = b'\n',
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.get::<Vec<f64>>(&key(1, "l2")).unwrap(), None, "damage {damage}");
        assert!(!path.exists());
    }
}

#[test]
fn a_miss_names_the_cause() {
    let (_folder, store) = store();
    assert_eq!(store.why(&key(1, "l2")).unwrap(), None);
    store.put(&key(1, "l2"), &1).unwrap();
    store.put(&key(9, "max"), &1).unwrap();
    let told = |key: &Key| store.why(key).unwrap().unwrap().to_string();
    assert_eq!(told(&key(7, "l2")), "samples.seed: 1 -> 7");
    assert_eq!(told(&key(1, "l1")), "metric: l2 -> l1");
    let other = key(1, "l2").field("device", "cpu");
    assert_eq!(told(&other), "device: none -> cpu");
    let elsewhere = Key { place: "ffn.up".into(), ..key(7, "l2") };
    assert_eq!(store.why(&elsewhere).unwrap(), None);
}

#[test]
fn digests_are_remembered_until_the_file_changes() {
    let (folder, store) = store();
    let path = folder.path().join("weights");
    fs::write(&path, "abc").unwrap();
    let old = SystemTime::now() - Duration::from_secs(60);
    let first = store.digest_file(&path).unwrap();
    assert_eq!(store.known_digest(&path), None, "a file that was written just now may change unseen");
    // Its inode changed now, whatever the time of its content says.
    File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
    assert_eq!(store.digest_file(&path).unwrap(), first);
    assert_eq!(store.known_digest(&path), None);
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(store.digest_file(&path).unwrap(), first);
    assert_eq!(store.known_digest(&path), Some(first.clone()));
    fs::write(&path, "abd").unwrap();
    assert_eq!(store.known_digest(&path), None);
    assert_ne!(store.digest_file(&path).unwrap(), first);
}

#[test]
fn collecting_waits_for_runs_and_spares_what_was_used() {
    let (folder, store) = store();
    store.put(&key(1, "l2"), &1).unwrap();
    store.put(&key(2, "l2"), &1).unwrap();
    store.put_partial(&key(3, "l2"), &1).unwrap();
    fs::write(store.root().join(TMP).join("left"), "x").unwrap();
    assert_eq!(store.list().unwrap().len(), 3);
    let root = folder.path().join("store");
    let day = Duration::from_secs(86_400);
    assert!(matches!(Store::collect(&root, day, false), Err(StoreError::Busy { .. })));
    let old = SystemTime::now() - 2 * day;
    let path = object(&store, &key(1, "l2"));
    File::options().append(true).open(path).unwrap().set_modified(old).unwrap();
    drop(store);
    let pretended = Store::collect(&root, day, true).unwrap();
    let collected = Store::collect(&root, day, false).unwrap();
    assert_eq!(pretended, collected);
    assert_eq!((collected.objects, collected.kept), (1, 2));
    assert_eq!(root.join(TMP).read_dir().unwrap().count(), 0);
    let store = Store::open(&root).unwrap();
    assert!(!store.has(&key(1, "l2")) && store.has(&key(2, "l2")));
}

#[test]
fn a_model_lasts_as_long_as_its_object() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    for (n, bytes) in [(1, 10), (2, 20)] {
        store.put(&key(n, "trained"), &n).unwrap();
        fs::create_dir_all(store.folder(&key(n, "trained"))).unwrap();
        fs::write(store.folder(&key(n, "trained")).join("weights"), vec![0; bytes]).unwrap();
    }
    let file = |n| object(&store, &key(n, "trained")).metadata().unwrap().len();
    let (one, two) = (file(1), file(2));
    let mut listed: Vec<u64> = store.list().unwrap().iter().map(|entry| entry.bytes).collect();
    listed.sort();
    assert_eq!(listed, [one + 10, two + 20]);
    // Of runs that died: a model that has no object, one that was being written, and its lock.
    let orphan = store.folder(&key(3, "trained"));
    let staged = orphan.with_file_name(".x.minic-1-0-0");
    for folder in [&orphan, &staged] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("weights"), [0; 5]).unwrap();
    }
    fs::write(staged.with_extension("lock"), "").unwrap();
    let old = SystemTime::now() - Duration::from_secs(1000);
    File::options().append(true).open(object(&store, &key(1, "trained"))).unwrap().set_modified(old).unwrap();
    drop(store);
    let unused = Duration::from_secs(500);
    let pretended = Store::collect(&root, unused, true).unwrap();
    let collected = Store::collect(&root, unused, false).unwrap();
    assert_eq!(pretended, collected);
    assert_eq!((collected.objects, collected.bytes, collected.kept), (5, one + 10 + 5 + 5, 1));
    let store = Store::open(&root).unwrap();
    assert!(store.folder(&key(2, "trained")).join("weights").is_file());
    assert_eq!(root.join(MODELS).read_dir().unwrap().count(), 1);
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let (folder, store) = store();
    drop(store);
    fs::write(folder.path().join("store/format"), "99\n").unwrap();
    assert!(matches!(Store::open(&folder.path().join("store")), Err(StoreError::Format { .. })));
}
