//! Rotation and repair by a recipe: what they gain, what a folder tells of them, and that nothing but their inputs
//! decides their bits.

use crate::command::{Done, minic, minic_with, quickstart, repository};
use crate::store::{computed, edit, run};
use crate::support;
use minic_runtime::checkpoint::Checkpoint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A cut by activations, and one by directions and energies with more and more of its repairs.
fn recipe() -> String {
    let by_energy = |name: &str, repairs: &str| {
        format!(
            r#"
prune {name} from parent {{
    calibrate on calibration
    axis mamba_num_heads = 12 by energy at mamba.out
    axis ffn_hidden_size = 192 by energy at ffn.act
    axis hidden_size = 96 by pca
    axis num_layers = 7 by kld
    {repairs}
}}
evaluate {name} against parent on heldout {{ loss, kl }}"#
        )
    };
    let outputs = "repair norms\n    repair outputs sequential by least_squares(damping = 1%)";
    let cuts = [by_energy("turned", ""), by_energy("scaled", "repair norms"), by_energy("mended", outputs)];
    PLAIN.to_string() + &cuts.concat()
}

const PLAIN: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 128; samples = 128; seed = 1 }
data heldout { files = ["heldout.txt"]; sequence = 128; samples = 6 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
metric energy(x, w) = mean(square(x), over = tokens) * square(l2(w))
prune plain from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by activation
    axis ffn_hidden_size = 192 by activation
    axis hidden_size = 96 by activation
    axis num_layers = 7 by kld
}
evaluate plain against parent on heldout { loss, kl }
export plain to "plain" { dtype = bf16 }
export mended to "mended" { dtype = bf16 }
"#;

/// Every part of it, quickly: another model, cut a second time out of a repaired one.
const STAGED: &str = r#"mrecipe 1
model parent { checkpoint = "model" }
data calibration { files = ["tokens.u16"]; sequence = 24; samples = 10; seed = 1 }
metric energy(x, w) = mean(square(x), over = tokens) * square(l2(w))
prune half from parent {
    calibrate on calibration
    axis hidden_size = 12 by pca
    axis mamba_head_dim = 4 by energy at mamba.out
    repair norms fitted
    repair outputs by least_squares(damping = 2%)
}
prune quarter from half {
    calibrate on calibration
    axis hidden_size = 8 by pca
    axis ffn_hidden_size = 16 by energy at ffn.act
    repair norms
    repair outputs sequential by least_squares()
}
export half to "half"
export quarter to "quarter"
"#;

/// Heads, channels and neurons by what stands in them, and by what the repair cannot make up for.
const RANKED: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data calibration { files = ["train.txt"]; sequence = 128; samples = 128; seed = 1 }
data heldout { files = ["heldout.txt"]; sequence = 128; samples = 12 }
metric energy(x, w) = mean(square(x), over = tokens) * square(l2(w))
prune energetic from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by energy at mamba.out
    axis mamba_head_dim = 12 by energy at mamba.out
    axis ffn_hidden_size = 128 by energy at ffn.act
    repair outputs by least_squares(damping = 1%)
}
prune residual from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by residual(damping = 5%)
    axis mamba_head_dim = 12 by residual(damping = 5%)
    axis ffn_hidden_size = 128 by residual(damping = 5%)
    repair outputs by least_squares(damping = 1%)
}
prune reversed from parent {
    calibrate on calibration
    axis mamba_num_heads = 12 by reverse(residual(damping = 5%))
    axis mamba_head_dim = 12 by reverse(residual(damping = 5%))
    axis ffn_hidden_size = 128 by reverse(residual(damping = 5%))
    repair outputs by least_squares(damping = 1%)
}
evaluate energetic on heldout { loss }
evaluate residual on heldout { loss }
evaluate reversed on heldout { loss }
export residual to "residual"
"#;

fn folder() -> TempDir {
    folder_of(&recipe())
}

fn folder_of(recipe: &str) -> TempDir {
    let folder = quickstart(recipe);
    for (file, bytes) in [("train.txt", 300_000), ("heldout.txt", 20_000)] {
        let text = fs::read_to_string(repository("examples/quickstart").join(file)).unwrap();
        fs::write(folder.path().join(file), &text[..text.floor_char_boundary(bytes)]).unwrap();
    }
    folder
}

/// A folder with `recipe.mrecipe`, a tiny model with biases, and token ids.
pub fn staged() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(support::golden("nemotron-biases").join(file), model.join(file)).unwrap();
    }
    let vocabulary = support::source(&model).desc().size(minic_compiler::dim::Dim::VocabSize) as u32;
    let token = |i: u32| (i.wrapping_mul(2_654_435_761) >> 7) % vocabulary;
    let ids: Vec<u8> = (0..600).flat_map(|i| (token(i) as u16).to_le_bytes()).collect();
    fs::write(folder.path().join("tokens.u16"), ids).unwrap();
    fs::write(folder.path().join("recipe.mrecipe"), STAGED).unwrap();
    folder
}

fn exported(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let models = ["half", "quarter"].map(|model| folder.join(model).join("model.safetensors"));
    models.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

fn weights(folder: &Path) -> Vec<Vec<u8>> {
    exported(folder).into_values().collect()
}

fn go(folder: &Path, more: &[&str], threads: &str) -> Done {
    let done = minic_with(
        folder,
        &[&["run", "recipe.mrecipe", "-q"], more].concat(),
        &[("RAYON_NUM_THREADS", threads)],
    );
    assert_eq!(done.exit, 0, "{}", done.stderr);
    done
}

#[test]
fn each_part_of_it_brings_the_cut_nearer_to_its_parent() {
    let folder = folder();
    let result = run(folder.path());
    let loss =
        |model: &str| result["evaluations"][format!("evaluate {model}")]["figures"]["loss"].as_f64().unwrap();
    let kl =
        |model: &str| result["evaluations"][format!("evaluate {model}")]["figures"]["kl"].as_f64().unwrap();
    for (before, after) in [("plain", "turned"), ("turned", "scaled"), ("scaled", "mended")] {
        assert!(loss(after) < loss(before), "{before} {}, {after} {}", loss(before), loss(after));
        assert!(kl(after) < kl(before), "{before} {}, {after} {}", kl(before), kl(after));
    }
    let step = &support::json(&folder.path().join("mended/provenance.json"))["steps"][0];
    let variance = step["rotation"]["variance"].as_f64().unwrap();
    assert!(variance > 0.9 && variance < 1.0, "{variance}");
    let repair = &result["repairs"]["mended.repair"];
    let outputs = repair["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 7, "one matrix a layer");
    let error = |one: &Value, when: &str| one[when].as_f64().unwrap();
    assert!(outputs.iter().all(|one| error(one, "after") < error(one, "before")), "{repair}");
    let verified = minic(folder.path(), &["verify", "mended"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    let card = fs::read_to_string(folder.path().join("mended/README.md")).unwrap();
    assert!(card.contains("principal directions") && card.contains("Repaired: norms"), "{card}");
    let beside = minic(folder.path(), &["diff", "plain", "mended"]);
    assert!(beside.stdout.contains("two bases of the stream"), "{}", beside.stdout);
    // A second run finds everything.
    run(folder.path());
    let again: Vec<String> =
        computed(folder.path()).into_iter().filter(|stage| !stage.starts_with("export")).collect();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn a_ranking_that_knows_of_the_repair_loses_less_after_it() {
    let folder = folder_of(RANKED);
    let result = run(folder.path());
    let [energetic, residual, reversed] = ["energetic", "residual", "reversed"]
        .map(|model| result["evaluations"][format!("evaluate {model}")]["figures"]["loss"].as_f64().unwrap());
    assert!(residual < energetic && energetic < reversed, "{residual}, {energetic}, {reversed}");
    let verified = minic(folder.path(), &["verify", "residual"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    // A second run finds every ranking, and threads change none.
    run(folder.path());
    assert_eq!(computed(folder.path()), ["export residual"], "it proves what is there again");
    let model = || fs::read(folder.path().join("residual/model.safetensors")).unwrap();
    let first = model();
    let axes = ["mamba_num_heads", "mamba_head_dim", "ffn_hidden_size"];
    let stages = axes.map(|axis| format!("residual.score.{axis}"));
    let redone: Vec<&str> = stages.iter().flat_map(|stage| ["--redo", stage]).collect();
    go(folder.path(), &[&redone[..], &["--redo", "residual.repair", "--overwrite"]].concat(), "1");
    assert!(stages.iter().all(|stage| computed(folder.path()).contains(stage)));
    assert!(model() == first, "ranked again by one thread");
    // Another damping is another ranking, of that axis alone.
    let axis = "ffn_hidden_size = 128 by residual(damping = ";
    edit(folder.path(), "recipe.mrecipe", &format!("{axis}5%"), &format!("{axis}6%"));
    go(folder.path(), &["--overwrite"], "2");
    let done = computed(folder.path());
    let scored: Vec<&String> = done.iter().filter(|stage| stage.contains(".score.")).collect();
    assert_eq!(scored, ["residual.score.ffn_hidden_size"], "{done:?}");
}

#[test]
fn a_cut_of_a_repaired_model_loads_and_computes_what_its_provenance_says() {
    let folder = staged();
    go(folder.path(), &[], "2");
    for model in ["half", "quarter"] {
        let verified = minic(folder.path(), &["verify", model]);
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
    }
    let made = support::json(&folder.path().join("quarter/provenance.json"));
    let steps = made["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    assert!(
        steps
            .iter()
            .all(|step| step["rotation"]["basis"].is_string() && step["repair"]["weights"].is_string())
    );
    assert_eq!((&steps[0]["name"], &steps[1]["from"]), (&"half".into(), &"half".into()));
    assert!(steps[0]["repair"]["powers"]["gated"].is_number(), "fitted: {}", steps[0]["repair"]);
    assert_eq!(
        support::source(&folder.path().join("quarter")).desc().size(minic_compiler::dim::Dim::HiddenSize),
        8
    );
}

#[test]
fn threads_and_what_is_in_the_store_change_no_bit() {
    let folder = staged();
    go(folder.path(), &[], "1");
    let one = weights(folder.path());
    go(
        folder.path(),
        &["--redo", "half.rotate", "--redo", "half.repair", "--redo", "quarter.repair", "--overwrite"],
        "3",
    );
    assert!(weights(folder.path()) == one, "redone by three threads");
    // A damaged patch is solved again, and the same.
    let models = folder.path().join(".minic/store/models");
    for patch in models.read_dir().unwrap() {
        let file = patch.unwrap().path().join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    go(folder.path(), &["--overwrite"], "2");
    assert!(computed(folder.path()).iter().any(|stage| stage == "half.repair"));
    assert!(weights(folder.path()) == one, "solved again");
}

#[test]
fn only_what_depends_on_a_repair_is_done_again_when_it_changes() {
    let folder = staged();
    go(folder.path(), &[], "2");
    edit(folder.path(), "recipe.mrecipe", "damping = 2%", "damping = 3%");
    go(folder.path(), &["--overwrite"], "2");
    let done = computed(folder.path());
    assert!(done.contains(&"half.repair".to_string()) && !done.contains(&"half.cut".to_string()), "{done:?}");
    assert!(done.contains(&"quarter.rotate".to_string()), "another model has another basis: {done:?}");
}

#[test]
fn a_folder_that_is_not_what_its_rotation_says_is_refused() {
    let folder = staged();
    go(folder.path(), &[], "2");
    let path = folder.path().join("quarter/provenance.json");
    let whole = fs::read_to_string(&path).unwrap();
    let refuted = |change: &dyn Fn(&mut Value), says: &str| {
        let mut document: Value = serde_json::from_str(&whole).unwrap();
        change(&mut document);
        fs::write(&path, document.to_string()).unwrap();
        let verified = minic(folder.path(), &["verify", "quarter"]);
        assert_eq!(verified.exit, 4, "{says}: {}", verified.stderr);
        assert!(verified.stderr.contains(says), "{says}: {}", verified.stderr);
    };
    refuted(&|d| d["steps"][1]["rotation"]["folded"] = 3.into(), "folded");
    refuted(&|d| d["steps"][1]["rotation"]["basis"] = "none".into(), "no digest");
    refuted(&|d| d["steps"][1]["rotation"]["proof"]["difference"] = 1.0.into(), "rotation");
    refuted(&|d| d["steps"][1]["repair"]["powers"]["stream"] = 0.25.into(), "recorded powers");
    refuted(&|d| d["steps"][1]["repair"]["outputs"][0]["after"] = 9.0.into(), "worse repaired");
    // Without its repair, the norms that stand in the file would have to be one.
    refuted(&|d| drop(d["steps"][1].as_object_mut().unwrap().remove("repair")), "was folded");
}

#[test]
fn a_repair_that_data_cannot_decide_says_so() {
    let folder = staged();
    edit(folder.path(), "recipe.mrecipe", "damping = 2%", "damping = 0");
    edit(folder.path(), "recipe.mrecipe", "sequence = 24; samples = 10", "sequence = 8; samples = 1");
    let done = minic(folder.path(), &["run", "recipe.mrecipe"]);
    assert_eq!(done.exit, 1, "{}", done.stderr);
    assert!(done.stderr.contains("raise `damping`"), "{}", done.stderr);
    assert!(!folder.path().join("half").exists());
}

#[test]
fn a_tied_head_is_refused_before_anything_runs() {
    let folder = staged();
    fs::remove_dir_all(folder.path().join("model")).unwrap();
    fs::create_dir(folder.path().join("model")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(support::golden("mamba2-tied").join(file), folder.path().join("model").join(file)).unwrap();
    }
    let desc = Checkpoint::open(&folder.path().join("model")).unwrap().desc().clone();
    assert!(desc.tied);
    let checked = minic(folder.path(), &["check", "recipe.mrecipe"]);
    assert!(checked.exit != 0 && checked.stderr.contains("E0418"), "{}", checked.stderr);
}

/// `tests/oracle/compare_repair.py --golden` makes the figures: rotation, cut and repair by PyTorch in f64.
#[test]
fn repaired_models_have_the_losses_of_pytorchs() {
    let goldens: Vec<_> = support::golden("repair").read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(goldens.len(), 2);
    for golden in goldens {
        let name = golden.file_stem().unwrap().to_str().unwrap().to_string();
        let golden = support::json(&golden);
        let windows = |key: &str| serde_json::from_value::<Vec<Vec<u32>>>(golden[key].clone()).unwrap();
        let calibration = windows("calibration");
        let axes: Vec<(String, usize, String)> = serde_json::from_value(golden["axes"].clone()).unwrap();
        let axes: String =
            axes.iter().map(|(axis, size, by)| format!("axis {axis} = {size} by {by}\n")).collect();
        for (how, wanted) in golden["loss"].as_object().unwrap() {
            let folder = tempfile::tempdir().unwrap();
            let ids = calibration.iter().flatten().flat_map(|id| (*id as u16).to_le_bytes());
            fs::write(folder.path().join("calibration.u16"), ids.collect::<Vec<u8>>()).unwrap();
            let recipe = format!(
                "mrecipe 1\nmodel parent {{ checkpoint = {:?} }}\n\
                 data calibration {{ files = [\"calibration.u16\"]; sequence = {} }}\n\
                 metric energy(x, w) = mean(square(x), over = tokens) * square(l2(w))\n\
                 prune cut from parent {{\ncalibrate on calibration\n{axes}repair norms\n\
                 repair outputs {} by least_squares(damping = {}%)\n}}\nexport cut to \"cut\" {{ dtype = f32 }}\n",
                support::golden(&name),
                calibration[0].len(),
                if how == "local" { "" } else { how },
                golden["damping"]
            );
            fs::write(folder.path().join("recipe.mrecipe"), recipe).unwrap();
            go(folder.path(), &[], "2");
            let model = support::source(&folder.path().join("cut"));
            let losses: Vec<f64> =
                windows("held").iter().map(|ids| loss(&support::logits(&model, ids), ids)).collect();
            let found = losses.iter().sum::<f64>() / losses.len() as f64;
            let wanted = wanted.as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-5, "{name} {how}: {found}, PyTorch has {wanted}");
        }
    }
}

/// The mean cross-entropy of the next token, in nats.
fn loss(logits: &[f32], ids: &[u32]) -> f64 {
    let rows = logits.chunks(logits.len() / ids.len()).zip(&ids[1..]);
    let one = |(row, next): (&[f32], &u32)| {
        let total: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
        total.ln() - f64::from(row[*next as usize])
    };
    rows.map(one).sum::<f64>() / (ids.len() - 1) as f64
}
