//! `report.html`: what is on it, that it follows from `result.json` alone, and how it behaves in a browser.

use crate::command::{Done, copy, minic, repository};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Every kind of section in a few seconds: a search with controls over three axes, a sensitivity, and a student.
const RECIPE: &str = r#"mrecipe 1
# <script>alert("comment")</script> & more
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 48; samples = 6; seed = 1 }
data corpus { files = ["train.txt"]; sequence = 32; seed = 2 }
data heldout { files = ["heldout.txt"]; sequence = 48; samples = 5 }
data unused { files = ["heldout.txt"]; sequence = 16; samples = 1 }
metric energy(x) = mean(square(x), over = tokens)
prune space from parent {
    calibrate on calibration
    axis num_layers      in {6, 8}          by kld
    axis mamba_num_heads in {8, 12, 16}     by energy
    axis ffn_hidden_size in {128, 192, 384} by energy at ffn.act
}
schedule quick {
    loss      = forward_kl()
    optimizer = adamw(clip = 1.0)
    rate      = cosine(peak = 2e-3, warmup = 2 steps)
    batch     = 4
    tokens    = 1_536
    data      = corpus
}
search best in space {
    require params <= 700K
    rank by loss on heldout keep 2
    rank by loss on heldout after quick keep 1
    break ties within 100 by params
    control reverse
}
group ssm { mamba_head_dim per mamba_num_heads }
prune narrow from parent {
    calibrate on calibration
    under ssm
    axis hidden_size     = 96                         by pca
    axis mamba_head_dim  = 12                         by energy at mamba.out
    axis mamba_num_heads = 12                         by energy at mamba.out
    axis num_layers      = 6                          by contiguous(kld)
}
distill student from narrow { teacher = parent; data = corpus; schedule = quick; heldout = heldout; every = 512 }
sensitivity axes of space on heldout { loss }
evaluate best against parent on heldout { loss, perplexity, top1, kl }
evaluate student against parent on heldout { loss, kl }
export best to "best"
"#;

/// What its run leaves.
const RUN: &str = ".minic/runs/<script>alert(1)";

fn folder(recipe: &str, name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&repository("examples/quickstart/model"), &folder.path().join("model"));
    for file in ["train.txt", "heldout.txt"] {
        fs::copy(repository("examples/quickstart").join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join(format!("{name}.mrecipe")), recipe).unwrap();
    folder
}

#[track_caller]
fn succeeds(folder: &Path, words: &[&str]) -> Done {
    let done = minic(folder, words);
    assert_eq!(done.exit, 0, "{words:?}: {}", done.stderr);
    done
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The sections of a page.
fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn a_run_leaves_a_page_of_all_that_it_did_and_the_result_makes_it_again() {
    let folder = folder(RECIPE, "<script>alert(1)");
    let (recipe, run) = ("<script>alert(1).mrecipe", folder.path().join(RUN));
    succeeds(folder.path(), &["run", recipe, "-q"]);
    let page = read(&run.join("report.html"));
    assert_eq!(
        sections(&page),
        [
            "summary",
            "plan",
            "lints",
            "search",
            "sensitivity",
            "layers",
            "importance",
            "training",
            "provenance",
            "recipe"
        ]
    );
    for part in [
        "hidden_size of parent by pca",
        "mamba_head_dim of parent by energy",
        "Every one of mamba_num_heads ranks its own.",
        "parent by contiguous(kld)",
        "; went</title>",
        "held-out loss:",
        "<tr class=\"chosen\"><td>*</td>",
        "State of 4,096 tokens",
        "W0202</code> &lt;script&gt;alert(1).mrecipe:7:6: the data source `unused` is never used",
        "only 12 optimizer updates would be made",
    ] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    // Nothing that the recipe or its name says is markup, and nothing is fetched.
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(page.contains("&lt;script&gt;alert(&quot;comment&quot;)"), "the recipe is shown");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "").replace("url(#tip)", "");
        assert!(!found.contains(outside), "{outside}");
    }
    let drawn = page.split("<script").next().unwrap_or_default();
    for broken in ["NaN", "inf\""] {
        assert!(!drawn.contains(broken), "{broken}");
    }

    // From the result alone, byte for byte, wherever it lies.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(run.join("result.json"), elsewhere.path().join("result.json")).unwrap();
    let done = succeeds(elsewhere.path(), &["report", "result.json", "--json"]);
    assert_eq!(done.json()["bytes"], page.len());
    assert_eq!(read(&elsewhere.path().join("report.html")), page);
    succeeds(folder.path(), &["report", recipe, "--output", "again.html"]);
    assert_eq!(read(&folder.path().join("again.html")), page);

    // What the store holds is told as what was computed, apart from times.
    let whole = result(&run);
    succeeds(folder.path(), &["run", recipe, "-q"]);
    assert_eq!(result(&run), whole);
    let page = read(&run.join("report.html"));
    assert!(page.contains(">cached</text>") && page.contains("held-out loss:"));
}

/// A result less what depends on the clock.
fn result(run: &Path) -> Value {
    let mut result: Value = serde_json::from_str(&read(&run.join("result.json"))).unwrap();
    for timing in ["seconds", "proof_seconds", "write_seconds", "update_seconds", "stages"] {
        result[timing] = Value::Null;
    }
    result["run"]["started"] = Value::Null;
    result["exports"].as_object_mut().unwrap().values_mut().for_each(|e| e["unchanged"] = Value::Null);
    result
}

/// A cut of weights alone: quick, and its page has few sections.
const SMALL: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
metric magnitude(w) = l2(w)
prune half from parent { axis ffn_hidden_size = 192 by magnitude }
export half to "half"
"#;

#[test]
fn sections_without_content_are_left_out() {
    let folder = folder(SMALL, "small");
    succeeds(folder.path(), &["run", "small.mrecipe", "-q"]);
    let page = read(&folder.path().join(".minic/runs/small/report.html"));
    assert_eq!(sections(&page), ["summary", "plan", "importance", "provenance", "recipe"]);
    assert!(page.contains("384 were cut to 192"));
    assert!(!page.contains("nats"), "nothing was measured");
}

#[test]
fn what_is_no_result_is_told_with_its_place() {
    let folder = folder(SMALL, "small");
    let fails = |words: &[&str], says: &[&str]| {
        let done = minic(folder.path(), &[&["report"], words].concat());
        assert_eq!(done.exit, 1, "{}", done.stderr);
        says.iter()
            .for_each(|part| assert!(done.stderr.contains(part), "{part:?} is not in {}", done.stderr));
    };
    fails(&["nowhere"], &["nowhere: is no run", "help: name a recipe"]);
    fails(&["small.mrecipe"], &["no run of it has ended", "minic run small.mrecipe"]);
    let write = |text: &str| fs::write(folder.path().join("result.json"), text).unwrap();
    write("{\"models\": {}}");
    fails(&["result.json"], &["result.json: has no `format`: an older version", "help: `minic run RECIPE`"]);
    write("{\"format\": 7}");
    fails(&["result.json"], &["result.json: is of format 7; this version of minic reads 1"]);
    write("{\"format\": 1,\n \"run\": 3}");
    fails(&["result.json"], &["result.json: ", "at line 2 column"]);
    write("{\"format\": 1");
    fails(&["."], &["result.json: EOF", "at line 1 column"]);
    assert!(!folder.path().join("report.html").exists());
}

#[test]
fn numbers_that_nobody_wrote_make_a_page_and_no_panic() {
    let folder = folder(SMALL, "small");
    succeeds(folder.path(), &["run", "small.mrecipe", "-q"]);
    let path = folder.path().join(".minic/runs/small/result.json");
    let whole: Value = serde_json::from_str(&read(&path)).unwrap();
    let stage = whole["rankings"].as_object().unwrap().keys().next().unwrap().clone();
    let faults: &[(&str, Value)] = &[
        ("/by/members/places/0/members", u64::MAX.into()),
        ("/by/members/places/0/span", 0.into()),
        ("/by/members/places/0/span", u64::MAX.into()),
        ("/by/members/places/0/layer", u64::MAX.into()),
        ("/by/members/places/0/scores", Value::Array(Vec::new())),
        ("/by/members/places", Value::Array(Vec::new())),
        ("/axis", "<b>".into()),
    ];
    for (place, value) in faults {
        let mut result = whole.clone();
        *result["rankings"][&stage][0].pointer_mut(place).unwrap() = value.clone();
        fs::write(&path, result.to_string()).unwrap();
        succeeds(folder.path(), &["report", "small.mrecipe"]);
    }
}

/// Other sizes, another search.
fn other() -> String {
    RECIPE
        .replace("{8, 12, 16}", "{8, 16}")
        .replace("keep 2", "keep 3")
        .replace("to \"best\"", "to \"other\"")
}

#[test]
fn two_runs_make_one_page() {
    let folder = folder(SMALL, "a");
    fs::write(folder.path().join("b.mrecipe"), SMALL.replace("192", "256").replace("\"half\"", "\"other\""))
        .unwrap();
    for recipe in ["a.mrecipe", "b.mrecipe"] {
        succeeds(folder.path(), &["run", recipe, "-q"]);
    }
    let done = succeeds(folder.path(), &["diff", "a.mrecipe", "b.mrecipe", "--html", "both.html"]);
    assert!(done.stdout.contains("+ prune half from parent { axis ffn_hidden_size = 256 by magnitude }"));
    let page = read(&folder.path().join("both.html"));
    assert_eq!(sections(&page), ["models", "recipe", "kept", "summary", "importance"]);
    assert!(page.contains("<ins>+ prune half") && page.contains("<del>- prune half"));
    let refused = minic(folder.path(), &["diff", "model", "half", "--html", "no.html"]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("these are checkpoints"), "{}", refused.stderr);
}

/// Where the browser and the modules are that drive it. Where they are missing, which is told, the test passes,
/// unless `MINIC_REQUIRE_BROWSER` is set.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn browser() -> Option<(PathBuf, PathBuf)> {
    let modules = repository("tests/browser/node_modules");
    let chromium = std::env::var_os("CHROMIUM").map_or("/usr/bin/chromium".into(), PathBuf::from);
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    let missing = [
        (!node).then_some("node"),
        (!chromium.is_file()).then_some("chromium"),
        (!modules.is_dir()).then_some("tests/browser/node_modules (`npm ci` in tests/browser)"),
    ];
    let missing: Vec<&str> = missing.into_iter().flatten().collect();
    let required = std::env::var_os("MINIC_REQUIRE_BROWSER").is_some();
    assert!(missing.is_empty() || !required, "there is no {}", missing.join(", no "));
    if !missing.is_empty() {
        println!("skipped: there is no {}", missing.join(", no "));
        return None;
    }
    Some((repository("tests/browser/reports.mjs"), chromium))
}

#[test]
fn a_browser_shows_pages_without_a_complaint() {
    let Some((script, chromium)) = browser() else { return };
    let folder = folder(RECIPE, "search");
    fs::write(folder.path().join("small.mrecipe"), SMALL).unwrap();
    fs::write(folder.path().join("other.mrecipe"), other()).unwrap();
    for recipe in ["search.mrecipe", "small.mrecipe", "other.mrecipe"] {
        succeeds(folder.path(), &["run", recipe, "-q"]);
    }
    succeeds(folder.path(), &["diff", "search.mrecipe", "other.mrecipe", "--html", "both.html"]);
    let reports = [".minic/runs/search/report.html", ".minic/runs/small/report.html", "both.html"];
    let mut command = Command::new("node");
    command.arg(script).args(reports).current_dir(folder.path()).env("CHROMIUM", chromium);
    let looked = command.output().expect("node starts");
    let told = String::from_utf8_lossy(&[looked.stdout, looked.stderr].concat()).into_owned();
    assert!(looked.status.success(), "{told}");
    assert!(told.contains("3 reports at 3 widths in 2 schemes: 0 faults"), "{told}");
}
