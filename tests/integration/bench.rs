//! `minic bench surgery`, on models that are cut in no time.

use crate::command::{minic, repository};
use std::fs;

#[test]
fn surgery_is_measured_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = repository("compiler/tests/configs/tiny.json");
    let golden = repository("tests/golden/mamba2-untied");
    let (config, golden) = (config.to_str().expect("a name"), golden.to_str().expect("a name"));
    for model in [&["--config", config][..], &[golden]] {
        let arguments = [&["bench", "surgery", "--rounds", "2", "--dir", "work", "--json"], model].concat();
        let done = minic(folder.path(), &arguments);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        let report = done.json();
        let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report:#}"));
        assert!(number("params_after") < number("params_before"));
        assert!(number("written") < number("read") && number("rounds") == 2.0);
        for what in ["score", "write", "gate", "proof", "copy"] {
            assert!(report["median"][what].as_f64().is_some_and(|s| s > 0.0), "{what} in {report:#}");
        }
        assert_eq!(fs::read_dir(folder.path().join("work")).expect("a folder").count(), 0);
    }
}

#[test]
fn a_recipe_of_the_users_is_measured_on_another_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let golden = repository("tests/golden/nemotron-plain");
    let golden = golden.to_str().expect("a name");
    let bench = |recipe: &str| {
        fs::write(folder.path().join("r.mrecipe"), recipe).expect("a recipe");
        minic(folder.path(), &["bench", "surgery", golden, "--recipe", "r.mrecipe"])
    };
    let fine = "mrecipe 1\nmodel big { checkpoint = \"absent\" }\n\
        prune small from big { axis num_layers = 2 by random(seed = 1) }\nexport small to \"small\"\n";
    let done = bench(fine);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert!(done.stdout.contains("plain copy") && !folder.path().join("small").exists(), "{}", done.stdout);
    let done = bench(&fine.replace("model big", "model other { checkpoint = \"x\" }\nmodel big"));
    assert_eq!(done.exit, 1);
    assert!(done.stderr.contains("a recipe of one checkpoint is wanted"), "{}", done.stderr);
}
