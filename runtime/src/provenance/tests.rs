use super::*;
use crate::gate::CutProof;
use crate::publish::{self, Piece};
use crate::repair::Powers;
use crate::safetensors::Entry;
use crate::testing;
use minic_compiler::config;
use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::model::DType;
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;

/// Layers 0 and 2 of `M-*`; two of four heads, one of each group; two channels of three; ten of twelve
/// hidden channels.
fn plan() -> CutPlan {
    let mamba = BTreeMap::from([
        (Dim::MambaNumHeads, Keep::Flat(vec![1, 2])),
        (Dim::MambaHeadDim, Keep::PerHead(vec![vec![0, 2], vec![1, 2]])),
    ]);
    CutPlan {
        layers: vec![0, 2],
        model: BTreeMap::from([(Dim::HiddenSize, vec![0, 1, 2, 3, 4, 6, 7, 8, 10, 11])]),
        by_layer: BTreeMap::from([(0, mamba)]),
        regrouped: false,
    }
}

/// Two steps: the feed-forward block is narrowed, then the plan above.
fn steps(parent: &ModelDesc) -> (Vec<Step>, ModelDesc) {
    let ffn = BTreeMap::from([(Dim::FfnHiddenSize, Keep::Flat((0..16).collect()))]);
    let first = CutPlan { by_layer: BTreeMap::from([(1, ffn)]), ..CutPlan::identity(parent) };
    let cut = |desc: &ModelDesc, plan: &CutPlan| {
        plan.verify(desc).unwrap();
        desc.resized(&plan.sizes(desc), &plan.layers)
    };
    let proof = |before: &ModelDesc, after: &ModelDesc| CutProof {
        compared: "logits".into(),
        difference: 2.5e-7,
        magnitude: 8.0,
        tolerance: 1e-5,
        positions: 96,
        params_before: before.params(),
        params_after: after.params(),
    };
    let narrow = cut(parent, &first);
    let small = cut(&narrow, &plan());
    let mut steps = vec![
        Step::new("narrow", "parent", parent, &narrow, &first, proof(parent, &narrow)),
        Step::new("small", "narrow", &narrow, &small, &plan(), proof(&narrow, &small)),
    ];
    steps[0].axes[0].metric = Some("magnitude".into());
    steps[0].axes[0].tap = Some("ffn.act".into());
    steps[0].axes[0].scores = Some(blake3::hash(b"scores").to_hex().to_string());
    steps[1].repair = Some(repair(&narrow, &small));
    (steps, small)
}

/// Norms by (old / new)^0.5.
fn repair(before: &ModelDesc, after: &ModelDesc) -> RepairRecord {
    let powers = Powers { stream: 0.5, gated: 0.25 };
    RepairRecord {
        lines: vec!["norms by (old / new)^0.5".into()],
        powers: Some(powers),
        norms: crate::repair::factors(before, after, powers),
        ..RepairRecord::default()
    }
}

fn provenance() -> (Provenance, ModelDesc) {
    let parent = testing::desc(&testing::config());
    let (steps, small) = steps(&parent);
    let digest = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let provenance = Provenance {
        format: FORMAT,
        minic: "0.1.0".into(),
        recipe: RecipeRecord {
            file: "small.mrecipe".into(),
            digest: digest("recipe"),
            overrides: BTreeMap::from([("keep".into(), "16".into())]),
        },
        model: "small".into(),
        parents: vec![Parent {
            name: "parent".into(),
            checkpoint: "hf://org/hybrid@main".into(),
            revision: Some("0123abc".into()),
            digest: digest("parent"),
            files: BTreeMap::from([("config.json".into(), digest("config"))]),
            model: ModelRecord::of(&parent),
        }],
        data: vec![DataRecord {
            name: "calibration".into(),
            digest: digest("tokens"),
            sequence: 64,
            samples: 8,
            bad_rows: 0,
            seed: u64::MAX,
            files: BTreeMap::from([("train.txt".into(), digest("text"))]),
        }],
        searches: vec![SearchRecord {
            name: "best".into(),
            space: "smaller".into(),
            points: 1200,
            feasible: 225,
            require: vec!["1 <= params <= 2".into()],
            rungs: vec!["loss on calibration: 225 scored, 16 kept".into()],
            chosen: "best.417".into(),
            score: Some(1.0625),
        }],
        trainings: vec![TrainingRecord {
            name: "small".into(),
            from: "smaller".into(),
            teacher: Some("parent".into()),
            after: steps.len(),
            weights: digest("weights"),
            updates: 60,
            tokens: 15_360,
            loss: 1.25,
            heldout: Some(1.5),
            device: "cpu x86-64-v4".into(),
        }],
        steps,
        result: ModelRecord::of(&small),
        planned_params: small.params(),
        proved_params: 0,
        evaluations: vec![EvaluationRecord {
            model: "small".into(),
            on: "heldout".into(),
            figures: Figures {
                loss: 1.5,
                perplexity: 4.4817,
                top1: 0.625,
                kl: Some(0.25),
                tokens: 12_345,
                accuracy: None,
                questions: None,
            },
        }],
        files: BTreeMap::new(),
        tensors: BTreeMap::new(),
    };
    (provenance, small)
}

/// A published folder that verifies.
fn export(dir: &Path) -> PathBuf {
    let (mut provenance, desc) = provenance();
    let staged = StagedFolder::new(&dir.join("small"), false).unwrap();
    let give = |entry: &Entry, rows: Range<usize>, piece: &mut Piece| -> Result<(), PublishError> {
        piece.write_f32(&testing::rows(entry, rows))
    };
    let entries = testing::entries(&desc, DType::BF16);
    let written =
        publish::write_weights(staged.path(), &entries, Some(4000), |entry| Ok(entry.clone()), give).unwrap();
    let config = config::to_text(&desc.family().write_config(&desc));
    staged.write("config.json", config.as_bytes()).unwrap();
    staged.write("recipe.mrecipe", b"mrecipe 1\n").unwrap();
    let known = written.files.into_iter().map(|f| (f.name, f.digest)).collect();
    provenance.record_folder(staged.path(), &known).unwrap();
    provenance.write(&staged).unwrap();
    staged.publish().unwrap()
}

#[test]
fn an_exported_folder_is_proved_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = export(dir.path());
    let verified = verify(&folder).unwrap();
    let (provenance, desc) = provenance();
    assert_eq!((verified.params, verified.steps), (desc.params(), 2));
    assert_eq!(verified.tensors, desc.weights().len());
    let read = Provenance::read(&folder).unwrap();
    assert_eq!(read.steps, provenance.steps);
    assert_eq!(read.steps[1].plan().unwrap(), plan());
    assert_eq!(read.proved_params, desc.params());
    assert!(read.files.contains_key("recipe.mrecipe") && !read.files.contains_key(CARD_FILE));
    for (name, record) in &read.files {
        let bytes = fs::read(folder.join(name)).unwrap();
        assert_eq!(record.digest, blake3::hash(&bytes).to_hex().as_str(), "{name}");
    }
    // The card is for people, who may go on writing it.
    fs::write(folder.join(CARD_FILE), "mine").unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    verify(&folder).unwrap();
}

#[test]
fn the_documents_read_well() {
    let (provenance, _) = provenance();
    insta::assert_snapshot!("provenance", provenance.to_text());
    insta::assert_snapshot!("card", model_card(&provenance));
    insta::assert_snapshot!("lock", lock_text(&provenance));
    let lock: toml::Table = lock_text(&provenance).parse().unwrap();
    assert_eq!(lock["model"][0]["revision"].as_str(), Some("0123abc"));
    let value: Value = serde_json::from_str(&provenance.to_text()).unwrap();
    assert_eq!(value, serde_json::to_value(&provenance).unwrap());
    assert_eq!(json::to_text(&json!({ "a": {}, "b": [], "c": [{}, { "d": [[1], [2, 3]] }] })), LISTS);
}

const LISTS: &str = "{
  \"a\": {},
  \"b\": [],
  \"c\": [{}, {
    \"d\": [[1], [2, 3]]
  }]
}
";

#[test]
fn what_is_no_provenance_is_an_input_error() {
    let dir = tempfile::tempdir().unwrap();
    let absent = verify(dir.path()).unwrap_err();
    assert!(absent.to_string().ends_with("has no provenance.json: it was not exported by minic"), "{absent}");
    for (text, expected) in [
        ("{", "EOF while parsing"),
        ("[]", "has no `format`"),
        ("{\"format\": 2}", "is of format 2; this version of minic reads 1"),
        ("{\"format\": 1}", "missing field `minic`"),
    ] {
        fs::write(dir.path().join(PROVENANCE_FILE), text).unwrap();
        let error = verify(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// One thing changed in a good folder, and what is told.
#[test]
fn every_tampering_is_told() {
    type Tamper = fn(&Path);
    let cases: &[(Tamper, &str)] = &[
        (|d| fs::remove_file(d.join("recipe.mrecipe")).unwrap(), "recipe.mrecipe is missing"),
        (
            |d| fs::write(d.join("recipe.mrecipe"), "mrecipe 2\n").unwrap(),
            "recipe.mrecipe has other contents",
        ),
        (|d| fs::write(d.join("config.json"), "{}").unwrap(), "config.json has 2 bytes, recorded are"),
        (
            |d| _ = fs::copy(shard(d), d.join("model.safetensors")).unwrap(),
            "model.safetensors is not recorded",
        ),
        (|d| flip(&shard(d)), ".safetensors has other contents than recorded"),
        (|d| fs::write(d.join(LOCK_FILE), "").unwrap(), "minic.lock.toml is not the one that follows"),
        (|d| edit(d, |p| p["recipe"]["digest"] = json!("0")), "minic.lock.toml is not the one that follows"),
        (|d| edit(d, |p| p["files"] = json!({})), "records no file of weights"),
        (
            |d| edit(d, |p| p["files"]["../x"] = json!({ "bytes": 0, "digest": "" })),
            "`../x` is not the name of a file",
        ),
        (
            |d| edit(d, |p| p["planned_params"] = json!(5)),
            "5 parameters are recorded as planned, the tensors hold",
        ),
        (
            |d| edit(d, |p| p["proved_params"] = json!(5)),
            "5 parameters are recorded as proved, the tensors hold",
        ),
        (|d| edit(d, |p| remove(&mut p["tensors"], HEAD)), "tensor `lm_head.weight` is not recorded"),
        (
            |d| edit(d, |p| p["tensors"]["more"] = p["tensors"][HEAD].clone()),
            "tensor `more` is recorded but not there",
        ),
        (
            |d| edit(d, |p| p["tensors"][HEAD]["shape"] = json!([10, 260])),
            "tensor `lm_head.weight` is BF16 [260, 10], recorded is BF16 [10, 260]",
        ),
        (|d| edit(d, |p| p["result"]["pattern"] = json!("M-")), "config.json describes nemotron_h `M*` of"),
        (
            |d| edit(d, |p| p["result"]["dims"]["hidden_size"] = json!(11)),
            "step `small`: it makes nemotron_h `M*`",
        ),
        (|d| edit(d, |p| p["parents"][0]["model"]["params"] = json!(1)), "the first model, nemotron_h `M-*`"),
        (|d| edit(d, |p| remove(&mut p["parents"][0], "model")), ""),
        (
            |d| edit(d, |p| axis(p, "mamba_num_heads")["kept_by_layer"]["0"] = json!([0, 1])),
            "group 1 of n_groups keeps 0",
        ),
        (|d| edit(d, |p| axis(p, "mamba_num_heads")["kept_by_layer"]["0"] = json!([2, 1])), "do not ascend"),
        (|d| edit(d, |p| axis(p, "hidden_size")["kept"][9] = json!(12)), "hidden_size: 12 is out of range"),
        (|d| edit(d, |p| axis(p, "hidden_size")["kept"] = json!([0, 1])), "the kept indices make"),
        (|d| edit(d, |p| remove(axis(p, "hidden_size"), "kept")), "axis `hidden_size` has not the lists"),
        (
            |d| edit(d, |p| axis(p, "num_layers")["kept"] = json!([0, 1])),
            "the kept indices make nemotron_h `M-`",
        ),
        (|d| edit(d, |p| axis(p, "num_layers")["axis"] = json!("depth")), "axis `depth` is unknown"),
        (
            |d| edit(d, |p| p["steps"][0]["before"]["pattern"] = json!("M-X")),
            "its pattern `M-X` is no pattern",
        ),
        (
            |d| edit(d, |p| p["steps"][1]["proof"]["difference"] = json!(0.1)),
            "its proof has a difference of 1e-1",
        ),
        (
            |d| edit(d, |p| p["steps"][1]["proof"]["params_after"] = json!(1)),
            "parameters were proved before and after",
        ),
    ];
    for (i, (tamper, expected)) in cases.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let folder = export(dir.path());
        tamper(&folder);
        let error = verify(&folder).expect_err(expected);
        assert!(error.to_string().contains(expected), "case {i}, {expected}:\n{error}");
        let kind = if expected.is_empty() { Kind::Input } else { Kind::Proof };
        assert_eq!(error.kind(), kind, "case {i}: {error}");
    }
}

const HEAD: &str = "lm_head.weight";

fn shard(folder: &Path) -> PathBuf {
    let names = file_names(folder).unwrap();
    folder.join(names.iter().find(|name| name.starts_with("model-00001")).unwrap())
}

fn edit(folder: &Path, change: fn(&mut Value)) {
    let path = folder.join(PROVENANCE_FILE);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn remove(value: &mut Value, key: &str) {
    value.as_object_mut().unwrap().remove(key).unwrap();
}

/// An axis of the second step.
fn axis<'a>(provenance: &'a mut Value, name: &str) -> &'a mut Value {
    let axes = provenance["steps"][1]["axes"].as_array_mut().unwrap();
    axes.iter_mut().find(|axis| axis["axis"] == name).unwrap()
}

/// One bit of the last byte.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}
