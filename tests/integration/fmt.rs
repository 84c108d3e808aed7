//! `minic fmt`: what it writes, and what it leaves alone.

use crate::command::{minic, repository};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const LOOSE: &str = "mrecipe 1\nmodel   parent {checkpoint=\"m\"} # the parent\n";
const LAID: &str = "mrecipe 1\n\nmodel parent { checkpoint = \"m\" }  # the parent\n";
const FAULTY: &str = "mrecipe 1\nmodel parent {checkpoint=}\n";

#[test]
fn a_recipe_is_laid_out_in_its_place_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mrecipe");
    fs::write(&path, LOOSE).unwrap();
    let done = minic(folder.path(), &["fmt", "a.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (0, ""), "{}", done.stderr);
    assert!(done.stderr.contains("1 recipe: 1 changed"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), LAID);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let done = minic(folder.path(), &["fmt", "a.mrecipe", "--json"]);
    assert_eq!(done.json()["files"][0]["changed"], false);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before, "nothing is written again");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn check_lists_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("a.mrecipe", LOOSE), ("b.mrecipe", LAID)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let done = minic(folder.path(), &["fmt", "--check", "a.mrecipe", "b.mrecipe"]);
    assert_eq!((done.exit, done.stdout.as_str()), (1, "a.mrecipe\n"));
    assert_eq!(fs::read_to_string(folder.path().join("a.mrecipe")).unwrap(), LOOSE);
    assert_eq!(minic(folder.path(), &["fmt", "--check", "b.mrecipe"]).exit, 0);
}

#[test]
fn a_recipe_with_faults_is_left_alone_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("a.mrecipe", FAULTY), ("b.mrecipe", LOOSE)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let done = minic(folder.path(), &["fmt", "a.mrecipe", "b.mrecipe", "--json"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("error[E0102]"), "{}", done.stderr);
    let files = done.json()["files"].clone();
    assert_eq!(files[0]["diagnostics"][0]["code"], "E0102");
    assert_eq!((&files[0]["changed"], &files[1]["changed"]), (&false.into(), &true.into()));
    assert_eq!(fs::read_to_string(folder.path().join("a.mrecipe")).unwrap(), FAULTY);
    assert_eq!(fs::read_to_string(folder.path().join("b.mrecipe")).unwrap(), LAID);
}

#[cfg(unix)]
#[test]
fn permissions_and_links_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("a.mrecipe"), folder.path().join("link.mrecipe"));
    fs::write(&path, LOOSE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("a.mrecipe", &link).unwrap();
    assert_eq!(minic(folder.path(), &["fmt", "link.mrecipe"]).exit, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), LAID);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn standard_input_goes_to_standard_output() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_minic"))
        .args(["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(LOOSE.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stdout).unwrap().as_str()), (Some(0), LAID));
}

#[test]
fn what_is_no_text_or_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.mrecipe"), [0xff, 0xfe]).unwrap();
    let done = minic(folder.path(), &["fmt", "a.mrecipe"]);
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("a.mrecipe: is not UTF-8 text"), "{}", done.stderr);
    let done = minic(folder.path(), &["fmt", "absent.mrecipe", "--json"]);
    assert_ne!(done.exit, 0);
    assert!(done.json()["error"]["message"].as_str().unwrap().contains("absent.mrecipe"));
}

#[test]
fn shipped_recipes_are_laid_out() {
    let recipes: Vec<String> = ["recipes", "examples/quickstart"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(repository(folder)).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "mrecipe"))
        .map(|p| p.display().to_string())
        .collect();
    let mut arguments = vec!["fmt", "--check"];
    arguments.extend(recipes.iter().map(String::as_str));
    let done = minic(Path::new(env!("CARGO_MANIFEST_DIR")), &arguments);
    assert_eq!((done.exit, done.stdout.as_str()), (0, ""));
}
