use super::*;
use crate::checkpoint::Checkpoint;
use crate::testing;
use minic_compiler::families;

fn synth(config: &str, seed: u64, threads: usize, dtype: Option<DType>) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let desc = families::describe(&config::parse(config).unwrap()).unwrap();
    let synth = Synth { desc: &desc, config, dtype, seed, shard: 20_000 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let watch = Watch::new("synth", &());
    let target = folder.path().join("out");
    let made = pool.install(|| synth.write(&target, false, &watch)).unwrap();
    assert_eq!((made.params, made.folder), (desc.params(), target.canonicalize().unwrap()));
    (folder, Checkpoint::open(&target).unwrap())
}

const MAMBA2: &str = r#"{"model_type": "mamba2", "vocab_size": 64, "hidden_size": 48, "num_heads": 12, "head_dim": 8,
    "n_groups": 2, "state_size": 8, "num_hidden_layers": 3, "expand": 2, "use_bias": true,
    "tie_word_embeddings": true, "time_step_limit": [0.0, Infinity], "torch_dtype": "bfloat16"}"#;

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let hybrid = testing::config().to_string();
    for config in [hybrid.as_str(), MAMBA2] {
        let digests = |seed, threads| synth(config, seed, threads, None).1.digests().unwrap().files;
        let first = digests(1, 1);
        assert!(first.len() > 2, "several files");
        assert_eq!(first, digests(1, 2));
        let other = digests(2, 2);
        let differ: Vec<&String> = first.keys().filter(|name| first[*name] != other[*name]).collect();
        assert_eq!(differ.len(), first.len() - 1, "all files but config.json");
    }
}

#[test]
fn weights_are_drawn_as_transformers_draws_them() {
    let (_folder, made) = synth(MAMBA2, 3, 2, Some(DType::F32));
    let read = |name: &str| made.read_f32(&format!("backbone.layers.1.{name}")).unwrap();
    let deviation = |values: Vec<f32>| {
        (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    assert!((deviation(read("mixer.in_proj.weight")) / 0.1 - 1.0).abs() < 0.1);
    // Even within 1/sqrt(n) has the deviation 1/sqrt(3 n).
    assert!((deviation(read("mixer.out_proj.weight")) * (3.0 * 96.0f64).sqrt() - 1.0).abs() < 0.1);
    assert!((deviation(read("mixer.conv1d.weight")) * (3.0 * 4.0f64).sqrt() - 1.0).abs() < 0.1);
    for (name, value) in
        [("norm.weight", 1.0), ("mixer.norm.weight", 1.0), ("mixer.D", 1.0), ("mixer.conv1d.bias", 0.0)]
    {
        assert!(read(name).iter().all(|v| *v == value), "{name}");
    }
    assert_eq!(read("mixer.A_log")[11], 12f32.ln());
    assert!(read("mixer.in_proj.bias").iter().all(|v| *v == 0.0));
    // Two layers have nothing in common.
    assert_ne!(
        read("mixer.in_proj.weight"),
        made.read_f32("backbone.layers.2.mixer.in_proj.weight").unwrap()
    );
}

#[test]
fn the_config_keeps_its_spelling() {
    let text = |dtype| {
        let (folder, _) = synth(MAMBA2, 0, 1, dtype);
        std::fs::read_to_string(folder.path().join("out/config.json")).unwrap()
    };
    assert_eq!(text(None), MAMBA2);
    assert_eq!(text(Some(DType::BF16)), MAMBA2);
    let changed = text(Some(DType::F16));
    assert!(changed.contains("\"torch_dtype\": \"float16\"") && changed.contains("Infinity"), "{changed}");
}

#[test]
fn what_cannot_be_drawn_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = MAMBA2.replace("\"expand\": 2", "\"expand\": 2, \"initializer_range\": -1.0");
    let desc = families::describe(&config::parse(&config).unwrap()).unwrap();
    let synth = Synth { desc: &desc, config: &config, dtype: None, seed: 0, shard: 1 };
    let watch = Watch::new("synth", &());
    let error = synth.write(&folder.path().join("out"), false, &watch).unwrap_err();
    assert!(error.to_string().starts_with("initializer_range: is -1"), "{error}");
    assert_eq!((error.kind(), std::fs::read_dir(folder.path()).unwrap().count()), (Kind::Input, 0));
}

#[test]
fn weights_that_are_drawn_in_memory_are_those_of_the_files() {
    let (_folder, made) = synth(MAMBA2, 3, 2, Some(DType::F32));
    for weight in made.desc().weights() {
        let values = drawn(made.desc(), &weight, 3).unwrap();
        assert_eq!(values, made.read_f32(&weight.name).unwrap(), "{}", weight.name);
    }
}
