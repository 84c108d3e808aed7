//! A whole search from a recipe: rungs, ties, controls; stopped in every rung and gone on; shared between runs.

use crate::command::{Done, minic};
use crate::store;
use minic_runtime::store::Store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Depth and two widths; twice the same schedule, further on.
const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 48; samples = 6; seed = 1 }
data corpus { files = ["train.txt"]; sequence = 32; seed = 2 }
data heldout { files = ["heldout.txt"]; sequence = 48; samples = 5 }
metric energy(x) = mean(square(x), over = tokens)
prune space from parent {
    calibrate on calibration
    axis num_layers      in {6, 8}                by kld
    axis mamba_num_heads in {8, 12, 16}           by energy
    axis ffn_hidden_size in {128, 192, 256, 384}  by energy at ffn.act
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
    rank by loss on heldout keep 4
    rank by loss on heldout after quick for 640 keep 2
    rank by loss on heldout after quick keep 1
    break ties within 100 by params
    control random(seed = 1), reverse, group_unaware
}
evaluate best against parent on heldout { loss, kl }
export best to "best"
"#;

fn folder(recipe: &str) -> TempDir {
    let folder = store::folder();
    fs::write(folder.path().join("recipe.mrecipe"), recipe).unwrap();
    folder
}

/// The payloads of all objects by their keys, less those that say how long a proof took, and a search's parts.
fn payloads(folder: &Path) -> BTreeMap<String, (String, String)> {
    let store = Store::open(&folder.join(".minic/store")).unwrap();
    let entries = store.list().unwrap().into_iter().filter(|e| {
        assert!(!e.unfinished, "{} is left", e.header.subject);
        !["cut", "part", "speed"].iter().any(|kind| e.header.key["kind"] == *kind)
    });
    entries.map(|e| (e.name, (e.header.subject, e.header.digest))).collect()
}

fn scores(rung: &Value) -> Vec<(String, f64)> {
    let of = |(name, record): (&String, &Value)| (name.clone(), record["score"].as_f64().unwrap());
    rung["scores"].as_object().unwrap().iter().map(of).collect()
}

fn score(rung: &Value, name: &str) -> f64 {
    rung["scores"][name]["score"].as_f64().unwrap_or_else(|| panic!("{name} has no score"))
}

#[test]
fn a_search_weighs_every_candidate_and_makes_its_winner_a_model() {
    let folder = folder(RECIPE);
    let result = store::run(folder.path());
    let search = &result["searches"]["best"];
    assert_eq!((search["points"].as_u64(), search["models"].as_u64()), (Some(24), Some(24)));
    let rungs = search["rungs"].as_array().unwrap();
    let controls = ["best.random.1", "best.reverse", "best.group_unaware"];
    let feasible = search["feasible"].as_u64().unwrap() as usize;
    assert!((5..24).contains(&feasible), "{feasible}");
    let scored: Vec<usize> = rungs.iter().map(|rung| scores(rung).len() - controls.len()).collect();
    assert_eq!(scored, [feasible, 4, 2]);
    for (before, rung) in rungs.iter().zip(&rungs[1..]) {
        let kept: Vec<&str> =
            before["kept"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
        let own = scores(rung).into_iter().filter(|(name, _)| !controls.contains(&name.as_str()));
        assert!(own.clone().all(|(name, _)| kept.contains(&name.as_str())));
        let worst = kept.iter().map(|name| score(before, name)).fold(f64::MIN, f64::max);
        let others = scores(before).into_iter().filter(|(name, _)| !kept.contains(&name.as_str()));
        let others = others.filter(|(name, _)| !controls.contains(&name.as_str()));
        assert!(others.clone().all(|(_, score)| score >= worst), "{kept:?}");
        // Training helps.
        assert!(own.clone().all(|(name, after)| after < score(before, &name)));
    }
    assert_eq!((rungs[1]["updates"].as_u64(), rungs[2]["updates"].as_u64()), (Some(5), Some(12)));
    assert_eq!((rungs[1]["tokens"].as_u64(), rungs[2]["tokens"].as_u64()), (Some(640), Some(1536)));
    // All are within a tie, so that the smaller of the last two is chosen.
    let chosen = search["chosen"].as_str().unwrap();
    let params = |name: &str| search["candidates"][name]["model"]["params"].as_u64().unwrap();
    let last: Vec<u64> =
        rungs[1]["kept"].as_array().unwrap().iter().map(|k| params(k.as_str().unwrap())).collect();
    assert_eq!(Some(&params(chosen)), last.iter().min());
    assert_eq!(search["ties"][0]["values"].as_object().unwrap().len(), 2);
    for name in search["candidates"].as_object().unwrap().keys() {
        assert!(params(name) <= 700_000, "{name}");
    }
    // Controls have the sizes of the winner, and the winner's way is better than chance and than the reverse.
    for control in controls {
        assert_eq!(params(control), params(chosen));
    }
    assert!(score(&rungs[0], chosen) < score(&rungs[0], "best.reverse"));
    // The model is the one that was scored: its loss is that of the last rung.
    let loss = result["evaluations"]["evaluate best"]["figures"]["loss"].as_f64().unwrap();
    assert_eq!(loss, score(&rungs[2], chosen));
    assert_eq!(result["exports"]["export best"]["proof"]["params"].as_u64(), Some(params(chosen)));
    let provenance = fs::read_to_string(folder.path().join("best/provenance.json")).unwrap();
    let provenance: Value = serde_json::from_str(&provenance).unwrap();
    assert_eq!(provenance["searches"][0]["chosen"], chosen);
    assert_eq!(provenance["searches"][0]["score"].as_f64(), Some(loss));
    assert_eq!(minic(folder.path(), &["verify", "best"]).exit, 0);
    let svg = fs::read_to_string(folder.path().join(".minic/runs/recipe/best.svg")).unwrap();
    assert!(svg.contains("chosen") && svg.contains("group_unaware"));
    // What served on the way is gone: states of trainings, and what was written down of the teacher.
    let store = Store::open(&folder.path().join(".minic/store")).unwrap();
    let left =
        store.list().unwrap().into_iter().filter(|e| e.unfinished || e.header.key["kind"] == "targets");
    assert_eq!(left.map(|e| e.header.subject).collect::<Vec<_>>(), Vec::<String>::new());
    drop(store);
    let again = minic(folder.path(), &["run", "recipe.mrecipe", "--json"]);
    assert_eq!(again.json()["stages"]["best"]["cached"], true);
    assert_eq!(again.json()["searches"], result["searches"]);
}

/// Kills a run once its journal says so.
fn kill_when(folder: &Path, words: &[&str], said: &str, times: usize) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minic"));
    command.args(words).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let events = folder.join(".minic/runs/recipe/events.jsonl");
    let there = || fs::read_to_string(&events).is_ok_and(|text| text.matches(said).count() >= times);
    let began = Instant::now();
    while !there() && child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_search_that_is_killed_in_any_rung_ends_in_the_same_bytes() {
    let whole = folder(RECIPE);
    let result = store::run(whole.path());
    let killed = folder(RECIPE);
    let words = ["run", "recipe.mrecipe", "--save-every", "0s"];
    // While candidates are scored as they are cut; while they are trained, at two saves; and in the last rung.
    for (said, times) in [
        (r#""stage":"best","done":20"#, 1),
        ("rung 1, loss", 1),
        (r#""event":"saved","stage":"best""#, 4),
        ("rung 2, loss", 1),
        ("rung 3, loss", 1),
    ] {
        kill_when(killed.path(), &words, said, times);
    }
    let resumed = store::run(killed.path());
    assert_eq!(resumed["searches"], result["searches"]);
    assert_eq!(payloads(killed.path()), payloads(whole.path()));
    let weights = |folder: &Path| fs::read(folder.join("best/model.safetensors")).unwrap();
    assert!(weights(killed.path()) == weights(whole.path()));
}

fn shard(folder: &Path, index: usize, of: usize) -> Done {
    let done = minic(folder, &["run", "recipe.mrecipe", "--shard", &format!("{index}/{of}")]);
    assert_eq!(done.exit, 0, "shard {index} of {of}: {}", done.stderr);
    done
}

#[test]
fn shards_share_the_candidates_of_every_rung_and_leave_what_one_process_leaves() {
    let whole = folder(RECIPE);
    let result = store::run(whole.path());
    for order in [[1, 2], [2, 1]] {
        let shards = folder(RECIPE);
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 9, "{order:?}: too many rounds");
            order.iter().for_each(|&index| drop(shard(shards.path(), index, 2)));
            if minic(shards.path(), &["merge", "recipe.mrecipe"]).exit == 0 {
                break;
            }
        }
        assert_eq!(payloads(shards.path()), payloads(whole.path()), "{order:?}");
        let last = store::run(shards.path());
        assert_eq!(last["searches"], result["searches"], "{order:?}");
        assert_eq!(last["stages"]["best"]["cached"], true, "{order:?}");
    }
}

#[test]
fn a_space_may_rotate_mend_and_keep_channels_per_head() {
    let recipe = RECIPE
        .replace("num_layers      in {6, 8}                by kld", "mamba_head_dim in {12, 16} by energy")
        .replace("    calibrate on calibration\n", "    calibrate on calibration\n    under own\n    axis hidden_size in {96, 128} by pca\n    repair norms\n    repair outputs by least_squares(damping = 5%)\n")
        .replace("prune space", "group own { mamba_head_dim per mamba_num_heads }\nprune space")
        .replace("{128, 192, 256, 384}", "{192, 384}")
        .replace("keep 4", "keep 3");
    let folder = folder(&recipe);
    let result = store::run(folder.path());
    let search = &result["searches"]["best"];
    assert_eq!(
        search["rungs"][0]["scores"].as_object().unwrap().len() as u64,
        search["feasible"].as_u64().unwrap() + 3
    );
    let provenance = fs::read_to_string(folder.path().join("best/provenance.json")).unwrap();
    let provenance: Value = serde_json::from_str(&provenance).unwrap();
    let hidden = search["candidates"][search["chosen"].as_str().unwrap()]["axes"]["hidden_size"].as_u64();
    // Of a candidate that keeps all directions nothing is rotated.
    assert_eq!(provenance["steps"][0]["rotation"].is_object(), hidden == Some(96), "{provenance:#}");
    assert!(provenance["steps"][0]["repair"].is_object());
    assert_eq!(minic(folder.path(), &["verify", "best"]).exit, 0);
}

#[test]
fn quantities_are_weighed_measured_and_asked_axis_by_axis() {
    let recipe = RECIPE
        .replace("rank by loss on heldout keep 4", "rank by loss + 0.5 * params on heldout keep 3\n    rank by throughput(input = 8, output = 4) keep 2")
        .replace("    rank by loss on heldout after quick for 640 keep 2\n    rank by loss on heldout after quick keep 1\n    break ties within 100 by params\n", "    rank by kl on heldout keep 1\n")
        .replace("control random(seed = 1), reverse, group_unaware", "control reverse")
        .replace("evaluate best", "sensitivity axes of space on heldout { loss, throughput(input = 8, output = 4), params }\nevaluate best");
    let folder = folder(&recipe);
    let result = store::run(folder.path());
    let rungs = result["searches"]["best"]["rungs"].as_array().unwrap();
    // A sum is of shares of the parent's: its own is 1 + 0.5.
    assert_eq!(rungs[0]["parent"].as_f64(), Some(1.5));
    assert!(scores(&rungs[1]).iter().all(|(_, score)| *score > 0.0) && rungs[1]["descending"] == true);
    assert_eq!(rungs[2]["kept"].as_array().unwrap().len(), 1);
    let axes = result["sensitivities"]["axes"]["axes"].as_object().unwrap();
    assert_eq!(axes.keys().collect::<Vec<_>>(), ["ffn_hidden_size", "mamba_num_heads", "num_layers"]);
    let whole = result["sensitivities"]["axes"]["parent"]["loss"].as_f64().unwrap();
    for sizes in axes.values() {
        let sizes = sizes.as_array().unwrap();
        let removed: Vec<f64> = sizes.iter().map(|s| s["removed"].as_f64().unwrap()).collect();
        assert!(removed.is_sorted() && removed[0] > 0.0);
        let last = &sizes.last().unwrap()["values"];
        assert!(last["loss"].as_f64().unwrap() > whole, "{sizes:#?}");
        assert!(last["throughput(input = 8, output = 4, batch = 1)"].as_f64().unwrap() > 0.0);
    }
    assert!(folder.path().join(".minic/runs/recipe/axes.svg").is_file());
}

#[test]
fn a_search_whose_requirements_no_surviving_layers_meet_says_so() {
    // Room for the keys and values of one attention layer of two: whether one goes is drawn.
    let until_best = |seed: u32| {
        let recipe = RECIPE
            .replace("params <= 700K", "cache(batch = 1, sequence = 100_000) <= 40MiB")
            .replace("{6, 8}                by kld", &format!("{{6, 7}} by random(seed = {seed})"));
        minic(folder(&recipe).path(), &["run", "recipe.mrecipe", "--until", "best"])
    };
    let done = until_best(1);
    assert_eq!(done.exit, 1, "{}", done.stderr);
    let said =
        "no candidate of `best` meets every requirement once the surviving layers are known: cache(batch = 1";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    let other = until_best(2);
    assert_eq!(other.exit, 0, "{}", other.stderr);
}
