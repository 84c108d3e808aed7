//! Faults put into a written folder before it is proved.

use super::*;
use crate::checkpoint::{CONFIG_FILE, Checkpoint, WEIGHTS_FILE};
use crate::convert;
use crate::error::Kind;
use crate::gate::{GateError, prove_folder};
use crate::safetensors::{Reader, Writer};
use crate::testing;
use minic_compiler::cut::{CutPlan, Keep};
use minic_compiler::dim::Dim;
use minic_compiler::model::LayerKind;
use std::sync::Arc;

fn whole() -> WeightSource {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nemotron-plain");
    WeightSource::new(Arc::new(Checkpoint::open(&folder).unwrap()))
}

/// Heads and neurons of every layer cut: the first of each group, the even neurons.
fn cut(whole: &WeightSource) -> WeightSource {
    let desc = whole.desc();
    let mut plan = CutPlan::identity(desc);
    let per_group = desc.size(Dim::MambaNumHeads) / desc.size(Dim::NGroups);
    assert!(per_group > 1);
    for (layer, kind) in desc.layers.iter().enumerate() {
        let (dim, kept) = match kind {
            LayerKind::Mamba => {
                let heads = (0..desc.size(Dim::MambaNumHeads)).filter(|h| h % per_group + 1 < per_group);
                (Dim::MambaNumHeads, heads.collect())
            }
            LayerKind::Mlp => (Dim::FfnHiddenSize, (0..desc.size(Dim::FfnHiddenSize)).step_by(2).collect()),
            LayerKind::Attention => continue,
        };
        plan.by_layer.entry(layer).or_default().insert(dim, Keep::Flat(kept));
    }
    whole.cut(plan).unwrap()
}

type Tensors = Vec<(Entry, Vec<u8>)>;

/// Writes the cut model, lets `tamper` change the tensors of its file, and proves the folder.
fn proved(tamper: impl FnOnce(&mut Tensors, &WeightSource)) -> Result<(), GateError> {
    let (whole, home) = (whole(), tempfile::tempdir().unwrap());
    let source = cut(&whole);
    let staged = StagedFolder::new(&home.path().join("out"), false).unwrap();
    write_model(&staged, &source, None, None, &Stop::default()).unwrap();
    let path = staged.path().join(WEIGHTS_FILE);
    let reader = Reader::open(&path).unwrap();
    let mut tensors: Tensors = Vec::new();
    for (name, tensor) in reader.tensors() {
        let mut bytes = Vec::new();
        reader.read(name, &mut bytes).unwrap();
        let dtype = tensor.element.dtype().unwrap();
        tensors.push((Entry { name: name.to_string(), dtype, shape: tensor.shape.clone() }, bytes));
    }
    tamper(&mut tensors, &whole);
    let entries: Vec<Entry> = tensors.iter().map(|(entry, _)| entry.clone()).collect();
    std::fs::remove_file(&path).unwrap();
    let mut writer = Writer::create(&path, &entries).unwrap();
    tensors.iter().for_each(|(_, bytes)| writer.write(bytes).unwrap());
    writer.finish().unwrap();
    prove_folder(staged.path(), &source, None).map(drop)
}

fn named<'a>(tensors: &'a mut Tensors, end: &str) -> &'a mut (Entry, Vec<u8>) {
    tensors.iter_mut().find(|(entry, _)| entry.name.ends_with(end)).unwrap()
}

/// Exchanges two rows of a tensor.
fn swap_rows((entry, bytes): &mut (Entry, Vec<u8>), a: usize, b: usize, rows: usize) {
    let row = bytes.len() / entry.shape[0] * rows;
    let (first, second) = (bytes[a * row..(a + 1) * row].to_vec(), bytes[b * row..(b + 1) * row].to_vec());
    bytes[a * row..(a + 1) * row].copy_from_slice(&second);
    bytes[b * row..(b + 1) * row].copy_from_slice(&first);
}

fn refused(found: Result<(), GateError>, words: &[&str]) {
    let error = found.unwrap_err();
    assert_eq!(error.kind(), Kind::Proof, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn an_untouched_folder_is_proved() {
    proved(|_, _| {}).unwrap();
}

/// A rotated and cut model in `dtype`, with one bit of `tensor` flipped.
fn rotated(dtype: Option<DType>, tensor: &str) -> Result<(), GateError> {
    let (whole, home) = (whole(), tempfile::tempdir().unwrap());
    let width = whole.desc().size(Dim::HiddenSize);
    let source = whole.rotate(testing::rotation(width, 21)).unwrap();
    let mut plan = CutPlan::identity(source.desc());
    plan.model.insert(Dim::HiddenSize, (0..width / 2).collect());
    let source = source.cut(plan).unwrap();
    let staged = StagedFolder::new(&home.path().join("out"), false).unwrap();
    write_model(&staged, &source, dtype, None, &Stop::default()).unwrap();
    let path = staged.path().join(WEIGHTS_FILE);
    let reader = Reader::open(&path).unwrap();
    for weight in source.desc().weights() {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        reader.read(&weight.name, &mut found).unwrap();
        convert::encode(dtype.unwrap_or(DType::F32), &source.read_f32(&weight.name).unwrap(), &mut expected);
        assert!(found == expected, "{weight}");
    }
    if let Some((_, found)) = reader.tensors().find(|(name, _)| name.ends_with(tensor)) {
        let at = reader.offset(found) as usize + 8;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    prove_folder(staged.path(), &source, dtype).map(drop)
}

#[test]
fn a_rotated_model_is_rounded_once_and_proved() {
    for dtype in [None, Some(DType::BF16), Some(DType::F16)] {
        rotated(dtype, "none").unwrap();
        for tensor in ["down_proj.weight", "up_proj.weight", "norm_f.weight", "A_log"] {
            refused(rotated(dtype, tensor), &[tensor, "its bytes differ"]);
        }
    }
}

#[test]
fn one_tensor_cut_by_a_wrong_index_set_is_seen() {
    let found = proved(|tensors, whole| {
        let (entry, bytes) = named(tensors, "down_proj.weight");
        let all = whole.read(&entry.name).unwrap();
        let (old, new) = (all.shape[1], entry.shape[1]);
        // The odd neurons instead of the even ones.
        let element = entry.dtype.bytes();
        let column = |r: usize, c: usize| &all.bytes[(r * old + c) * element..(r * old + c + 1) * element];
        let odd = |c: usize| (2 * c + 1).min(old - 1);
        *bytes = (0..entry.shape[0])
            .flat_map(|r| (0..new).flat_map(move |c| column(r, odd(c)).to_vec()))
            .collect();
    });
    refused(found, &["down_proj.weight", "is not the planned cut"]);
}

#[test]
fn one_tensor_left_uncut_is_seen() {
    let found = proved(|tensors, whole| {
        let tensor = named(tensors, "A_log");
        let all = whole.read(&tensor.0.name).unwrap();
        *tensor = (Entry { shape: all.shape, ..tensor.0.clone() }, all.bytes);
    });
    refused(found, &["A_log"]);
}

#[test]
fn a_head_moved_across_groups_is_seen() {
    let found = proved(|tensors, whole| {
        let heads = named(tensors, "dt_bias").0.shape[0];
        let per_group = heads / whole.desc().size(Dim::NGroups);
        for end in ["dt_bias", "A_log", "mixer.D"] {
            swap_rows(named(tensors, end), 0, per_group, 1);
        }
        swap_rows(named(tensors, "mixer.norm.weight"), 0, per_group, whole.desc().size(Dim::MambaHeadDim));
    });
    refused(found, &["layers.0.mixer", "its bytes differ"]);
}

/// Writes the cut model with another config.json, and proves the folder.
fn with_config(
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Result<(), GateError> {
    let home = tempfile::tempdir().unwrap();
    let source = cut(&whole());
    let staged = StagedFolder::new(&home.path().join("out"), false).unwrap();
    write_model(&staged, &source, None, None, &Stop::default()).unwrap();
    let mut config = source.desc().family().write_config(source.desc());
    change(&mut config);
    staged.write(CONFIG_FILE, config::to_text(&config).as_bytes()).unwrap();
    prove_folder(staged.path(), &source, None).map(drop)
}

#[test]
fn a_stale_config_is_seen() {
    let heads = whole().desc().size(Dim::MambaNumHeads);
    refused(with_config(|c| drop(c.insert("mamba_num_heads".into(), heads.into()))), &["in_proj.weight"]);
    refused(with_config(|c| drop(c.insert("time_step_min".into(), 0.25.into()))), &["0.25"]);
    refused(with_config(|c| drop(c.insert("layer_norm_epsilon".into(), 0.5.into()))), &["0.5"]);
    with_config(|_| {}).unwrap();
}
