//! What the families of the `backbone.layers.N.mixer` layout have in common: embedding, norms, head, and
//! the reading and writing of single keys.

use super::ConfigError;
use crate::config::Reader;
use crate::dim::{Dim, Extent};
use crate::graph::{Builder, ValueId};
use crate::model::{DType, LayerKind, ModelDesc, Role, Weight};
use crate::nn::Scope;
use serde_json::{Map, Value, json};

/// A key that may only have the value that the blocks compute.
pub fn expect(read: &Reader, key: &'static str, only: &str) -> Result<(), ConfigError> {
    match read.string(key, only)? {
        found if found == only => Ok(()),
        found => read.fail(key, format!("is `{found}`; only `{only}` is supported")),
    }
}

/// The constant that a norm adds under its root.
pub fn epsilon(read: &Reader, keys: &[&'static str]) -> Result<f64, ConfigError> {
    match read.float(keys, 1e-5)? {
        eps if eps.is_finite() && eps >= 0.0 => Ok(eps),
        eps => read.fail(named(read, keys), format!("is {eps}, not a small positive number")),
    }
}

/// The least time step.
pub fn floor(read: &Reader, keys: &[&'static str], default: f64) -> Result<f64, ConfigError> {
    match read.float(keys, default)? {
        lo if lo.is_finite() => Ok(lo),
        lo => read.fail(named(read, keys), format!("is {lo}, not a finite number")),
    }
}

/// The spelling that the config has.
fn named(read: &Reader, keys: &[&'static str]) -> &'static str {
    read.get(keys).map_or(keys[0], |(key, _)| key)
}

/// Ten times as many layers as any model has; tables of weights grow with them.
const MOST_LAYERS: usize = 10_000;

pub fn check_layers(read: &Reader, key: &str, layers: usize) -> Result<(), ConfigError> {
    if layers <= MOST_LAYERS {
        return Ok(());
    }
    read.fail(key, format!("gives {layers} layers; at most {MOST_LAYERS} are read"))
}

pub fn conv_bias(read: &Reader, keys: &[&'static str]) -> Result<bool, ConfigError> {
    read.bool(named(read, keys), true)
}

/// `dtype` (transformers 5) or `torch_dtype` (4).
pub fn dtype(read: &Reader) -> Result<Option<DType>, ConfigError> {
    let Some((key, value)) = read.get(&["dtype", "torch_dtype"]) else { return Ok(None) };
    match value.as_str().and_then(DType::from_name) {
        Some(dtype) => Ok(Some(dtype)),
        None => read.fail(key, format!("is {value}; supported are float32, bfloat16 and float16")),
    }
}

pub fn write_dtype(out: &mut Map<String, Value>, desc: &ModelDesc) {
    if let Some(dtype) = desc.dtype {
        set(out, &["dtype", "torch_dtype"], json!(dtype.torch_name()));
    }
}

/// Sets the first of `keys` that is there, or adds the first.
pub fn set(out: &mut Map<String, Value>, keys: &[&str], value: Value) {
    let key = keys.iter().find(|k| out.contains_key(**k)).unwrap_or(&keys[0]);
    out.insert(key.to_string(), value);
}

pub fn divides(desc: &ModelDesc, dim: Dim, by: Dim, key: &str) -> Result<(), ConfigError> {
    let (n, groups) = (desc.size(dim), desc.size(by));
    if groups > 0 && n % groups == 0 && n > 0 {
        return Ok(());
    }
    let near = (n / groups.max(1)).max(1) * groups;
    Err(ConfigError {
        key: key.into(),
        message: format!("is {n}, which {groups} groups ({by}) do not divide"),
        help: Some(format!("nearest: {near} or {}", near + groups)),
    })
}

fn stream(desc: &ModelDesc) -> Extent {
    Extent::of(Dim::HiddenSize, desc.size(Dim::HiddenSize))
}

fn table(desc: &ModelDesc) -> Vec<Extent> {
    vec![Extent::of(Dim::VocabSize, desc.size(Dim::VocabSize)), stream(desc)]
}

fn embedding_name(desc: &ModelDesc) -> String {
    format!("{}embeddings.weight", desc.prefix)
}

const HEAD: &str = "lm_head.weight";

/// Embedding, last norm, and the head unless it is tied.
pub fn outer_weights(desc: &ModelDesc) -> Vec<Weight> {
    let weight = |name, role, shape| Weight { name, role, layer: None, shape };
    let mut out = vec![
        weight(embedding_name(desc), Role::Embedding, table(desc)),
        weight(format!("{}norm_f.weight", desc.prefix), Role::Norm, vec![stream(desc)]),
    ];
    if !desc.tied {
        out.push(weight(HEAD.into(), Role::Head, table(desc)));
    }
    out
}

fn norm_name(desc: &ModelDesc, layer: usize) -> String {
    format!("{}layers.{layer}.norm.weight", desc.prefix)
}

pub fn norm_weight(desc: &ModelDesc, layer: usize) -> Weight {
    Weight { name: norm_name(desc, layer), role: Role::Norm, layer: Some(layer), shape: vec![stream(desc)] }
}

pub fn mixer(desc: &ModelDesc, layer: usize) -> Scope {
    Scope { layer, prefix: format!("{}layers.{layer}.mixer.", desc.prefix) }
}

pub fn embed(b: &mut Builder, desc: &ModelDesc, tokens: ValueId) -> ValueId {
    b.layer = None;
    let weight = b.weight(&embedding_name(desc), table(desc));
    b.embed(tokens, weight)
}

/// u = norm(stream), the norm before block `layer`.
pub fn norm(b: &mut Builder, desc: &ModelDesc, layer: usize, x: ValueId) -> ValueId {
    let weight = b.weight(&norm_name(desc, layer), vec![stream(desc)]);
    b.rms_norm(x, weight, desc.eps)
}

pub fn last_norm(b: &mut Builder, desc: &ModelDesc, x: ValueId) -> ValueId {
    b.layer = None;
    let weight = b.weight(&format!("{}norm_f.weight", desc.prefix), vec![stream(desc)]);
    let h = b.rms_norm(x, weight, desc.eps);
    b.tap("norm.out", h);
    h
}

pub fn head(b: &mut Builder, desc: &ModelDesc) -> ValueId {
    let name = if desc.tied { embedding_name(desc) } else { HEAD.into() };
    b.weight(&name, table(desc))
}

/// The closed formula of paper section 1.1, with the biases that it leaves out. Written without the weight
/// table, so that the two prove each other.
pub fn params(desc: &ModelDesc, layers: &[LayerKind]) -> u64 {
    let s = |dim| desc.size(dim) as u64;
    let on = u64::from;
    let e = s(Dim::HiddenSize);
    let (h, gn) = (s(Dim::MambaNumHeads), s(Dim::NGroups) * s(Dim::SsmStateSize));
    let d_in = h * s(Dim::MambaHeadDim);
    let zxbcdt = 2 * d_in + 2 * gn + h;
    let mamba = e * zxbcdt
        + d_in * e
        + (d_in + 2 * gn) * (s(Dim::ConvKernel) + on(desc.biases.conv))
        + 3 * h
        + d_in
        + e
        + on(desc.biases.mixer) * (zxbcdt + e);
    let (q, kv) = (s(Dim::NumAttentionHeads), s(Dim::NumKeyValueHeads));
    let d = s(Dim::AttentionHeadDim);
    let attention = e * (q + 2 * kv) * d + q * d * e + e;
    let f = s(Dim::FfnHiddenSize);
    let mlp = 2 * e * f + e + on(desc.biases.mlp) * (f + e);
    let of = |kind: &LayerKind| match kind {
        LayerKind::Mamba => mamba,
        LayerKind::Mlp => mlp,
        LayerKind::Attention => attention,
    };
    let layers: u64 = layers.iter().map(of).sum();
    layers + (2 - on(desc.tied)) * s(Dim::VocabSize) * e + e
}
