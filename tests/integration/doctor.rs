//! `minic doctor` and `minic completions`.

use crate::command::minic;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn every_finding_has_a_state_and_what_is_wrong_a_fix() {
    let folder = tempfile::tempdir().unwrap();
    let done = minic(folder.path(), &["doctor", "--json"]);
    let json = done.json();
    let findings = json["findings"].as_array().unwrap();
    let names: Vec<&str> = findings.iter().map(|f| f["name"].as_str().unwrap()).collect();
    let fixed = ["minic", "processor", "memory", "folder", "store", "temporary", "hub", "device"];
    assert!(
        names.starts_with(&fixed) && names[fixed.len()..].iter().all(|name| *name == "adapter"),
        "{names:?}"
    );
    for finding in findings {
        assert!(["ok", "warn", "fail"].contains(&finding["state"].as_str().unwrap()), "{finding}");
        assert_eq!(finding["fix"].is_null(), finding["state"] == "ok", "{finding}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    let text = minic(folder.path(), &["doctor"]);
    assert!(names.iter().all(|name| text.stdout.contains(name)), "{}", text.stdout);
}

#[test]
fn a_place_that_cannot_be_written_to_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let done = minic(folder.path(), &["doctor", "--store", "file/store"]);
    assert_eq!(done.exit, 3);
    assert!(done.stdout.contains("fail") && done.stdout.contains("--store"), "{}", done.stdout);
}

#[test]
fn a_token_is_told_and_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let run = |token: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_minic"))
            .args(["doctor", "--json"])
            .env("HF_HOME", home.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN_PATH")
            .env("HF_TOKEN", token)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let hub =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["findings"][6]["facts"].clone();
    let with = run("hf_aVerySecretWord");
    assert!(!with.contains("Secret"), "{with}");
    assert_eq!(hub(&with)["token"], true);
    assert_eq!(hub(&run(""))["token"], false);
    fs::write(home.path().join("token"), "hf_aVerySecretWord").unwrap();
    let with = run("");
    assert!(hub(&with)["token"] == true && !with.contains("Secret"), "{with}");
    assert_eq!(hub(&with)["cache"], home.path().join("hub").to_str().unwrap());
}

#[test]
fn completions_name_every_command_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = minic(Path::new("."), &["completions", shell]);
        assert_eq!(done.exit, 0, "{}", done.stderr);
        for command in ["run", "explain", "diff", "doctor", "completions"] {
            assert!(done.stdout.contains(command), "{shell} does not complete {command}");
        }
        let json = minic(Path::new("."), &["completions", shell, "--json"]).json();
        assert_eq!((json["shell"].as_str(), json["script"].as_str()), (Some(shell), Some(&done.stdout[..])));
    }
}
