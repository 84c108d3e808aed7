use super::*;
use crate::convert;
use crate::safetensors::Writer;
use crate::testing;
use minic_compiler::config;
use minic_compiler::cut::Keep;
use minic_compiler::model::{LayerKind, Role};
use std::path::Path;
use tempfile::TempDir;

fn golden(case: &str) -> WeightSource {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(case);
    WeightSource::new(Arc::new(Checkpoint::open(&folder).unwrap()))
}

fn hidden(source: &WeightSource) -> usize {
    source.desc().size(Dim::HiddenSize)
}

fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let entry = |(name, shape, _): &(String, Vec<usize>, Vec<f32>)| Entry {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.clone(),
    };
    let mut writer = Writer::create(path, &tensors.iter().map(entry).collect::<Vec<_>>()).unwrap();
    tensors.iter().for_each(|(_, _, values)| writer.write(&convert::f32_bytes(values)).unwrap());
    writer.finish().unwrap();
}

/// A source's tensors, changed one by one in f64, as a checkpoint of their own.
fn made(source: &WeightSource, change: impl Fn(&Weight, Vec<f64>) -> Vec<f64>) -> (TempDir, WeightSource) {
    let folder = tempfile::tempdir().unwrap();
    let text = config::to_text(&source.desc().family().write_config(source.desc()));
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let tensor = |weight: Weight| {
        let values = source.read_f32(&weight.name).unwrap().into_iter().map(f64::from).collect();
        let values = change(&weight, values).into_iter().map(|v| v as f32).collect();
        (weight.name.clone(), weight.sizes(), values)
    };
    let tensors: Vec<_> = source.desc().weights().into_iter().map(tensor).collect();
    write(&folder.path().join("model.safetensors"), &tensors);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, WeightSource::new(Arc::new(checkpoint)))
}

/// a [rows, inner] b [inner, cols]
fn product(a: &[f64], b: &[f64], inner: usize, cols: usize) -> Vec<f64> {
    let element = |i: usize| {
        let (r, c) = (i / cols, i % cols);
        (0..inner).map(|k| a[r * inner + k] * b[k * cols + c]).sum()
    };
    (0..a.len() / inner * cols).map(element).collect()
}

/// The rotated model, written down tensor by tensor, by what each is called.
fn rotated_by_hand(source: &WeightSource, rotation: &Rotation) -> (TempDir, WeightSource) {
    let width = rotation.width();
    let q: Vec<f64> = rotation.basis().iter().copied().map(f64::from).collect();
    let transposed: Vec<f64> = (0..width * width).map(|i| q[i % width * width + i / width]).collect();
    let prefix = source.desc().prefix.clone();
    made(source, |weight, values| {
        let name = weight.name.strip_prefix(&prefix).unwrap_or(&weight.name);
        let through = |norm: String| {
            let norm = source.read_f32(&format!("{prefix}{norm}")).unwrap();
            let scaled: Vec<f64> =
                values.iter().enumerate().map(|(i, v)| v * f64::from(norm[i % width])).collect();
            product(&scaled, &q, width, width)
        };
        let (layer, end) = match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, end)) => (layer, end),
            None => ("", name),
        };
        match end {
            "embeddings.weight" => product(&values, &q, width, width),
            "norm_f.weight" | "norm.weight" => vec![1.0; width],
            "lm_head.weight" => through("norm_f.weight".into()),
            "mixer.in_proj.weight"
            | "mixer.up_proj.weight"
            | "mixer.q_proj.weight"
            | "mixer.k_proj.weight"
            | "mixer.v_proj.weight" => through(format!("layers.{layer}.norm.weight")),
            "mixer.out_proj.weight"
            | "mixer.down_proj.weight"
            | "mixer.o_proj.weight"
            | "mixer.out_proj.bias"
            | "mixer.down_proj.bias" => product(&transposed, &values, width, values.len() / width),
            "mixer.conv1d.weight"
            | "mixer.conv1d.bias"
            | "mixer.dt_bias"
            | "mixer.A_log"
            | "mixer.D"
            | "mixer.norm.weight"
            | "mixer.in_proj.bias"
            | "mixer.up_proj.bias" => values,
            other => panic!("{other}"),
        }
    })
}

/// Every tensor of both, by differences of at most `tolerance` of its largest element.
fn agree(found: &WeightSource, expected: &WeightSource, tolerance: f32) {
    assert_eq!(found.desc().weights(), expected.desc().weights());
    for weight in found.desc().weights() {
        let slice = found.slice(&weight.name).unwrap();
        assert_eq!(slice.shape(), weight.sizes(), "{weight}");
        let (a, b) = (found.read_f32(&weight.name).unwrap(), expected.read_f32(&weight.name).unwrap());
        let largest = b.iter().fold(0.0, |n: f32, v| n.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() <= tolerance * largest, "{weight}, element {i}: {a}, expected {b}");
        }
    }
}

/// Heads, neurons and some hidden channels; of all layers but the last.
fn plan(desc: &ModelDesc, channels: impl Fn(usize) -> bool) -> CutPlan {
    let mut plan = CutPlan::identity(desc);
    plan.layers.pop();
    let per_group = desc.size(Dim::MambaNumHeads) / desc.size(Dim::NGroups);
    for &layer in &plan.layers {
        let dims = plan.by_layer.entry(layer).or_default();
        match desc.layers[layer] {
            LayerKind::Mamba => {
                let heads =
                    (0..desc.size(Dim::MambaNumHeads)).filter(|h| h % per_group > 0 || per_group == 1);
                dims.insert(Dim::MambaNumHeads, Keep::Flat(heads.collect()));
            }
            LayerKind::Mlp => {
                let neurons = (1..desc.size(Dim::FfnHiddenSize)).step_by(2).collect();
                dims.insert(Dim::FfnHiddenSize, Keep::Flat(neurons));
            }
            LayerKind::Attention => {}
        }
    }
    let kept = (0..desc.size(Dim::HiddenSize)).filter(|&c| channels(c)).collect();
    plan.model.insert(Dim::HiddenSize, kept);
    plan
}

/// A patch of some tensors of a model, with other values.
fn patch(folder: &Path, source: &WeightSource, ends: &[&str]) -> Arc<Patch> {
    let weights = source.desc().weights().into_iter().filter(|w| ends.iter().any(|e| w.name.ends_with(e)));
    let tensor = |w: Weight| {
        let values = (0..w.len()).map(|i| (i % 11) as f32 / 7.0 - 0.5).collect();
        (w.name.clone(), w.sizes(), values)
    };
    let path = folder.join("patch.safetensors");
    write(&path, &weights.map(tensor).collect::<Vec<_>>());
    Arc::new(Patch::open(&path).unwrap())
}

const CLOSE: f32 = 1e-6;

#[test]
fn every_tensor_of_a_rotated_model_is_as_computed_by_hand() {
    for case in ["nemotron-plain", "nemotron-odd-widths", "nemotron-biases", "nemotron-model-prefix"] {
        let whole = golden(case);
        let rotation = testing::rotation(hidden(&whole), 5);
        let rotated = whole.rotate(rotation.clone()).unwrap();
        let (_folder, by_hand) = rotated_by_hand(&whole, &rotation);
        agree(&rotated, &by_hand, CLOSE);
        for keep in [|c: usize| c < 7, |c: usize| c % 3 != 1, |c: usize| c > 4] {
            let plan = plan(whole.desc(), keep);
            agree(&rotated.cut(plan.clone()).unwrap(), &by_hand.cut(plan).unwrap(), CLOSE);
        }
    }
}

#[test]
fn transforms_follow_each_other_in_any_order() {
    let home = tempfile::tempdir().unwrap();
    let whole = golden("nemotron-biases");
    let first = plan(whole.desc(), |c| c != 2);
    let cut = whole.cut(first).unwrap();
    let rotation = testing::rotation(hidden(&cut), 6);
    let rotated = cut.rotate(rotation.clone()).unwrap();
    let (_a, by_hand) = rotated_by_hand(&cut, &rotation);
    let second = CutPlan { by_layer: BTreeMap::new(), ..plan(rotated.desc(), |c| c < 9) };
    let (found, by_hand) = (rotated.cut(second.clone()).unwrap(), by_hand.cut(second).unwrap());
    agree(&found, &by_hand, CLOSE);

    let norm = found.desc().weights().into_iter().find(|w| w.role == Role::Norm).unwrap().name;
    let reader = found.desc().weights().into_iter().find(|w| w.role == Role::UpProj).unwrap().name;
    let factors = BTreeMap::from([(norm.clone(), 0.75), (reader.clone(), 1.1), ("none".to_string(), 9.0)]);
    let found = found.scale(factors.clone()).scale(BTreeMap::from([(norm.clone(), 0.5)]));
    let (_b, by_hand) = made(&by_hand, |weight, values| {
        let factor = factors.get(&weight.name).copied().unwrap_or(1.0);
        let twice = if weight.name == norm { 0.5 } else { 1.0 };
        values.into_iter().map(|v| v * factor * twice).collect()
    });
    agree(&found, &by_hand, CLOSE);
    assert_eq!(found.read_f32(&norm).unwrap(), vec![0.375; 9]);

    // A writer and a bias, and the reader that was scaled before.
    let patch = patch(home.path(), &found, &["out_proj.weight", "down_proj.bias", reader.as_str()]);
    assert_eq!(patch.names().count(), 3);
    let found = found.overwrite(patch.clone()).unwrap();
    let (_c, by_hand) =
        made(&by_hand, |weight, values| match patch.names().any(|name| name == weight.name) {
            true => (0..values.len()).map(|i| f64::from((i % 11) as f32 / 7.0 - 0.5)).collect(),
            false => values,
        });
    agree(&found, &by_hand, CLOSE);

    // Scaled once more, turned again, and cut.
    let again = BTreeMap::from([(reader, 3.0)]);
    let (found, by_hand) = (found.scale(again.clone()), by_hand.scale(again));
    agree(&found, &by_hand, CLOSE);
    let rotation = testing::rotation(hidden(&found), 7);
    let (_d, by_hand) = rotated_by_hand(&by_hand, &rotation);
    let found = found.rotate(rotation).unwrap();
    agree(&found, &by_hand, CLOSE);
    let third = CutPlan {
        layers: CutPlan::identity(found.desc()).layers,
        by_layer: BTreeMap::new(),
        ..plan(found.desc(), |c| c % 2 == 0)
    };
    agree(&found.cut(third.clone()).unwrap(), &by_hand.cut(third).unwrap(), CLOSE);
    assert_eq!(found.cuts().count(), 2);
}

/// Wider than a product's blocks in every direction, and than the rows that are held at once.
fn wide(folder: &Path, dtype: DType) -> WeightSource {
    let mut config = testing::config();
    config["hidden_size"] = 800.into();
    config["intermediate_size"] = 530.into();
    testing::write_checkpoint(folder, &config, dtype);
    WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn pieces_threads_and_cuts_change_no_bit_of_what_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = wide(folder.path(), DType::F32);
    let rotated = whole.rotate(testing::rotation(800, 8)).unwrap();
    let cut = rotated.cut(CutPlan { by_layer: BTreeMap::new(), ..plan(whole.desc(), |c| c < 300) }).unwrap();
    for weight in cut.desc().weights() {
        let (all, slice) = (rotated.read_f32(&weight.name).unwrap(), cut.slice(&weight.name).unwrap());
        let kept = cut.read_f32(&weight.name).unwrap();
        let mut row = vec![0.0; slice.row_len()];
        for r in 0..slice.rows() {
            slice.read_f32(r..r + 1, &mut row).unwrap();
            assert_eq!(bits(&row), bits(&kept[r * row.len()..(r + 1) * row.len()]), "{weight}, row {r}");
            let width = all.len() / rotated.slice(&weight.name).unwrap().rows();
            assert_eq!(bits(&row), bits(&all[r * width..r * width + row.len()]), "{weight}, row {r}");
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(bits(&pool.install(|| cut.read_f32(&weight.name)).unwrap()), bits(&kept), "{weight}");
        }
    }
}

#[test]
fn what_is_computed_is_rounded_once() {
    let folder = tempfile::tempdir().unwrap();
    let whole = wide(folder.path(), DType::F16);
    let rotated = whole.rotate(testing::rotation(800, 9)).unwrap();
    let norm = format!("{}norm_f.weight", whole.desc().prefix);
    let rotated = rotated.scale(BTreeMap::from([(norm, 1.0 / 3.0)]));
    let mut computed = 0;
    for weight in rotated.desc().weights() {
        let slice = rotated.slice(&weight.name).unwrap();
        assert_eq!((slice.dtype(), rotated.dtype(&weight.name).unwrap()), (DType::F16, DType::F16));
        computed += usize::from(slice.stored().is_none());
        for dtype in DType::ALL.iter().copied() {
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            slice.read_as(0..slice.rows(), dtype, &mut found).unwrap();
            convert::encode(dtype, &rotated.read_f32(&weight.name).unwrap(), &mut expected);
            assert!(found == expected, "{weight} {dtype:?}");
        }
    }
    // Embedding, head, three norms before blocks and the last one; in, out, up, down, q, k, v, o.
    assert_eq!(computed, 14);
}

#[test]
fn a_tied_head_cannot_be_rotated() {
    let whole = golden("mamba2-tied");
    let error = whole.rotate(testing::rotation(hidden(&whole), 1)).err().unwrap();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("tie_word_embeddings: is true"), "{error}");
}

#[test]
fn a_rotation_of_another_width_is_refused() {
    let whole = golden("nemotron-plain");
    let error = whole.rotate(testing::rotation(hidden(&whole) + 1, 1)).err().unwrap();
    assert!(matches!(error, SourceError::Width { .. }), "{error}");
    assert!(Rotation::new(3, vec![0.0; 8]).is_none() && Rotation::new(usize::MAX, Vec::new()).is_none());
}

#[test]
fn a_rotation_applies_to_rows_and_has_a_digest() {
    let rotation = Rotation::new(2, vec![0.0, -1.0, 1.0, 0.0]).unwrap();
    assert_eq!(rotation.apply(&[1.0, 0.0, 0.5, 2.0, 5.0, 10.0]), [0.0, -1.0, 2.0, -0.5, 10.0, -5.0]);
    let bytes: Vec<u8> = rotation.basis().iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(rotation.digest(), blake3::hash(&bytes).to_hex().to_string());
}

#[test]
fn a_patch_that_is_not_the_models_is_refused() {
    let (home, whole) = (tempfile::tempdir().unwrap(), golden("nemotron-plain"));
    let weight = whole.desc().weights().into_iter().find(|w| w.role == Role::OutProj).unwrap();
    let path = home.path().join("patch");
    let refused = |name: &str, shape: Vec<usize>| {
        let values = vec![0.5; shape.iter().product()];
        std::fs::remove_file(&path).ok();
        write(&path, &[(name.to_string(), shape, values)]);
        whole.overwrite(Arc::new(Patch::open(&path).unwrap())).err()
    };
    assert!(refused(&weight.name, weight.sizes()).is_none());
    let turned: Vec<usize> = weight.sizes().into_iter().rev().collect();
    let error = refused(&weight.name, turned).unwrap().to_string();
    assert!(error.contains("its shape is") && error.contains(&weight.name), "{error}");
    let error = refused("out_proj", weight.sizes()).unwrap().to_string();
    assert!(error.contains("it has none of that name"), "{error}");
    let entry = Entry { name: weight.name.clone(), dtype: DType::BF16, shape: weight.sizes() };
    std::fs::remove_file(&path).unwrap();
    testing::write_file(&path, &[entry]);
    let error = Patch::open(&path).unwrap_err().to_string();
    assert!(error.contains("is BF16, but what replaces a weight is F32"), "{error}");
}

#[test]
fn nan_below_a_rotation_names_the_stored_tensor() {
    let whole = golden("nemotron-biases");
    let rotation = testing::rotation(hidden(&whole), 3);
    for end in ["up_proj.weight", "down_proj.weight", "down_proj.bias", "layers.1.norm.weight"] {
        let (_folder, broken) = made(&whole, |weight, mut values| {
            if weight.name.ends_with(end) {
                values[5] = f64::NAN;
            }
            values
        });
        let rotated = broken.rotate(rotation.clone()).unwrap();
        let error = rotated.desc().weights().iter().find_map(|w| rotated.read_f32(&w.name).err()).unwrap();
        let SourceError::NotFinite { name, index: 5, .. } = &error else { panic!("{error}") };
        assert!(name.ends_with(end), "{error}");
    }
}
