//! `minic.toml`: what belongs to the machine, where it is found, what counts for more, and that no result depends on it.

use crate::command::{Done, FIXED_4B, copy, folder, minic_with, repository};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Runs minic where the user's settings are those of `config` in the folder.
fn with_config(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    let config = folder.join("config").display().to_string();
    minic_with(folder, arguments, &[&[("XDG_CONFIG_HOME", config.as_str())], variables].concat())
}

/// A setting's value, and what said so.
fn setting(done: &Done, name: &str) -> (String, String) {
    let json = done.json();
    let settings = json["settings"].as_array().unwrap_or_else(|| panic!("no settings: {}", done.stderr));
    let one = settings.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let text = |key: &str| one[key].as_str().expect("a text").to_string();
    (text("value"), text("from"))
}

#[test]
fn the_command_line_counts_for_more_than_the_environment_the_nearest_file_and_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("config/minic")).unwrap();
    let doctor = |arguments: &[&str], variables: &[(&str, &str)]| {
        with_config(folder.path(), &[&["doctor", "--json"], arguments].concat(), variables)
    };
    let of = |done: &Done, name: &str| {
        let (value, from) = setting(done, name);
        (value, from.replace(&format!("{}/", folder.path().display()), ""))
    };
    let told = |value: &str, from: &str| (value.to_string(), from.to_string());
    assert_eq!(of(&doctor(&[], &[]), "device"), told("auto", "default"));
    fs::write(at("config/minic/minic.toml"), "threads = 3\ndevice = \"cpu\"\nstore = \"kept\"\n").unwrap();
    let users = doctor(&[], &[]);
    assert_eq!(of(&users, "threads"), told("3", "config/minic/minic.toml:1"));
    let store = at("config/minic/kept").display().to_string();
    assert_eq!(of(&users, "store"), (store, "config/minic/minic.toml:3".into()));
    fs::write(at("minic.toml"), "\nthreads = 2\noffline = true\nhub_cache = \"hub\"\n").unwrap();
    let nearest = doctor(&[], &[]);
    assert_eq!(of(&nearest, "threads"), told("2", "minic.toml:2"));
    assert_eq!(
        of(&nearest, "device"),
        told("cpu", "config/minic/minic.toml:2"),
        "the other file still counts"
    );
    assert_eq!(of(&nearest, "offline"), told("true", "minic.toml:3"));
    assert_eq!(of(&nearest, "hub_cache"), (at("hub").display().to_string(), "minic.toml:4".into()));
    let variables = [("RAYON_NUM_THREADS", "4"), ("MINIC_STORE", "elsewhere"), ("HF_HUB_OFFLINE", "0")];
    let environment = doctor(&[], &variables);
    assert_eq!(of(&environment, "threads"), told("4", "RAYON_NUM_THREADS"));
    assert_eq!(of(&environment, "store"), told("elsewhere", "MINIC_STORE"));
    assert_eq!(of(&environment, "offline"), told("false", "HF_HUB_OFFLINE"));
    let given = doctor(&["--threads", "5", "--store", "mine"], &variables);
    assert_eq!(of(&given, "threads"), told("5", "--threads"));
    assert_eq!(of(&given, "store"), told("mine", "--store"));
    let text = with_config(folder.path(), &["doctor"], &[]).stdout;
    assert!(text.contains("minic.toml:2") && text.contains("hub_cache"), "{text}");
}

#[test]
fn the_file_of_the_recipes_folder_or_above_counts_and_not_that_of_the_current_one() {
    let folder = folder(FIXED_4B);
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("elsewhere/below")).unwrap();
    fs::write(at("minic.toml"), "device = \"vulkan:77\"\n").unwrap();
    fs::write(at("elsewhere/minic.toml"), "device = \"cpu\"\n").unwrap();
    fs::copy(at("recipe.mrecipe"), at("elsewhere/below/r.mrecipe")).unwrap();
    fs::copy(at("train.txt"), at("elsewhere/below/train.txt")).unwrap();
    let plan = |recipe: &str, more: &[&str]| {
        with_config(folder.path(), &[&["plan", "--memory", "1TB", recipe], more].concat(), &[])
    };
    let done = plan("recipe.mrecipe", &[]);
    assert_eq!(done.exit, 3, "{}", done.stderr);
    assert!(done.stderr.contains("no Vulkan adapter"), "{}", done.stderr);
    assert_eq!(plan("recipe.mrecipe", &["--device", "cpu"]).exit, 0, "the command line counts for more");
    assert_eq!(plan("elsewhere/below/r.mrecipe", &[]).exit, 0);
}

#[test]
fn a_wrong_file_is_drawn_with_line_and_column_and_ends_with_1() {
    let folder = folder(FIXED_4B);
    let wrong = |text: &str, expected: &[&str]| {
        fs::write(folder.path().join("minic.toml"), text).unwrap();
        let done = with_config(folder.path(), &["check", "recipe.mrecipe"], &[]);
        assert_eq!((done.exit, done.stdout.as_str()), (1, ""), "{text}");
        for part in expected {
            assert!(done.stderr.contains(part), "{part:?} of {text:?} is not in\n{}", done.stderr);
        }
        assert!(!done.stderr.contains("minic explain"), "{}", done.stderr);
    };
    wrong("threads = 2\ndevcie = \"cpu\"\n", &["minic.toml:2:1", "`devcie`", "did you mean `device`?"]);
    wrong("threads = \"two\"\n", &["minic.toml:1:11", "a number from 1 to 1024", "`threads = 8`"]);
    wrong("device = \"tpu\"\n", &["minic.toml:1:10", "\"vulkan:N\""]);
    wrong("[store]\npath = 3\n", &["minic.toml:1:1", "a quoted path"]);
    wrong("device = cpu\n", &["minic.toml:1:", "`device = \"cpu\"`"]);
    wrong("seed = 3\nofline = true\n", &["minic.toml:1:1", "belongs to the recipe", "`offline`", "2 errors"]);
    let json = with_config(folder.path(), &["check", "--json", "recipe.mrecipe"], &[]).json();
    assert_eq!(json["error"]["diagnostics"][1]["line"], 2);
    assert_eq!(json["error"]["exit"], 1);
    let done = with_config(folder.path(), &["check", "recipe.mrecipe"], &[("MINIC_DEVICE", "tpu")]);
    assert_eq!(done.exit, 1);
    fs::remove_file(folder.path().join("minic.toml")).unwrap();
    let done = with_config(folder.path(), &["plan", "recipe.mrecipe"], &[("MINIC_DEVICE", "tpu")]);
    assert!(done.exit == 1 && done.stderr.contains("MINIC_DEVICE=tpu"), "{}", done.stderr);
    assert_eq!(with_config(folder.path(), &["check", "--threads", "0", "recipe.mrecipe"], &[]).exit, 2);
}

const PRUNE: &str = r#"mrecipe 1

model parent { checkpoint = "model"; dt_floor = 0.001 }
data heldout { files = ["heldout.txt"]; sequence = 64; samples = 8 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
prune half from parent {
    calibrate on heldout
    axis ffn_hidden_size = 224 by activation
}
evaluate half on heldout { loss }
export half to "out"
"#;

/// Files and what is in them, below a folder.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Two recipes' folders share one store beside them; the second finds everything that the first has made.
#[test]
fn threads_and_store_change_no_key_and_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, settings: &str| {
        let place = folder.path().join(name);
        copy(&repository("examples/quickstart/model"), &place.join("model"));
        fs::copy(repository("examples/quickstart/heldout.txt"), place.join("heldout.txt")).unwrap();
        fs::write(place.join("r.mrecipe"), PRUNE).unwrap();
        fs::write(place.join("minic.toml"), settings).unwrap();
        let done = with_config(&place, &["run", "--json", "r.mrecipe"], &[]);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        (done.json(), contents(&place.join("out")))
    };
    let cached = |summary: &Value, stage: &str| summary["stages"][stage]["cached"] == true;
    let (first, made) = place("one", "threads = 1\ndevice = \"cpu\"\nstore = \"../store\"\n");
    assert!(folder.path().join("store/objects").is_dir() && !folder.path().join("one/.minic/store").exists());
    assert!(!cached(&first, "half.calibrate"));
    let (second, again) = place("two", "threads = 3\nstore = \"../store\"\ndevice = \"cpu\"\n");
    assert!(cached(&second, "half.calibrate") && cached(&second, "evaluate half"), "{second:#}");
    assert!(made == again, "the exports differ");
    let (alone, apart) = place("three", "threads = 2\ndevice = \"cpu\"\n");
    assert!(!cached(&alone, "half.calibrate") && apart == made, "the exports differ");
}
