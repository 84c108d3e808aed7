//! What a model is, read off its config.json alone.

use crate::axes;
use crate::dim::{Dim, Extent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Element type of a stored tensor, in the safetensors spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DType {
    F32,
    BF16,
    F16,
}

impl DType {
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }

    /// As in safetensors headers.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
        }
    }

    /// As in config.json: `float32`, `bfloat16`, `float16`.
    pub fn torch_name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
        }
    }

    /// As in recipes: `f32`, `bf16`, `f16`.
    pub fn recipe_name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
        }
    }

    pub const ALL: &[DType] = &[DType::F32, DType::BF16, DType::F16];

    /// Any of the three spellings.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| {
            [d.name(), d.torch_name(), d.recipe_name()].contains(&name.trim_start_matches("torch."))
        })
    }
}

/// The kinds of blocks; one layer is a norm, one mixer and a residual addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    Mamba,
    Mlp,
    Attention,
}

impl LayerKind {
    pub const ALL: &[LayerKind] = &[LayerKind::Mamba, LayerKind::Mlp, LayerKind::Attention];

    pub fn name(self) -> &'static str {
        match self {
            LayerKind::Mamba => "mamba",
            LayerKind::Mlp => "mlp",
            LayerKind::Attention => "attention",
        }
    }

    /// `M`, `-`, `*`: the letter of the hybrid pattern.
    pub fn letter(self) -> char {
        match self {
            LayerKind::Mamba => 'M',
            LayerKind::Mlp => '-',
            LayerKind::Attention => '*',
        }
    }
}

/// Limits of the SSM's time step after softplus.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DtLimit {
    pub lo: f64,
    /// May be infinite.
    #[serde(serialize_with = "finite_or_name")]
    pub hi: f64,
}

fn finite_or_name<S: serde::Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { s.serialize_f64(*value) } else { s.serialize_str("Infinity") }
}

/// Which projections carry a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Biases {
    /// Mamba2's in_proj and out_proj.
    pub mixer: bool,
    pub mlp: bool,
    pub conv: bool,
}

/// The shape and the constants of a model. Two descriptions with the same dims, layers and constants
/// compute the same function of their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDesc {
    /// `model_type`, a name of [`crate::families::FAMILIES`].
    pub family: &'static str,
    /// Sizes; a dimension that the model lacks is absent. `NumLayers` is always `layers.len()`.
    pub dims: BTreeMap<Dim, usize>,
    pub layers: Vec<LayerKind>,
    pub eps: f64,
    pub dt: DtLimit,
    /// Set where the config's own entries name two different floors; the other one.
    pub dt_conflict: Option<f64>,
    pub biases: Biases,
    /// The head is the transposed embedding and is not stored.
    pub tied: bool,
    /// `backbone.` or `model.`, as the source's files spell it.
    pub prefix: String,
    /// The dtype that config.json names, if it names one.
    pub dtype: Option<DType>,
    /// config.json as read; unknown keys survive a cut.
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl ModelDesc {
    pub fn dim(&self, dim: Dim) -> Option<usize> {
        self.dims.get(&dim).copied()
    }

    /// The size of a dimension that the family guarantees; 0 where the model has no such dimension.
    pub fn size(&self, dim: Dim) -> usize {
        self.dim(dim).unwrap_or(0)
    }

    /// `M-M-M*-M-M-`
    pub fn pattern(&self) -> String {
        self.layers.iter().map(|k| k.letter()).collect()
    }

    pub fn family(&self) -> &'static dyn crate::families::Family {
        crate::families::by_name(self.family)
    }

    /// The model after a cut: new sizes, and the layers that survive (indices into `layers`).
    pub fn resized(&self, sizes: &BTreeMap<Dim, usize>, layers: &[usize]) -> ModelDesc {
        let mut desc = self.clone();
        for (&dim, &size) in sizes {
            desc.dims.insert(dim, size);
        }
        desc.layers = layers.iter().map(|&i| self.layers[i]).collect();
        desc.dims.insert(Dim::NumLayers, desc.layers.len());
        desc
    }

    /// The same model with another lower clamp of dt, as `model { dt_floor = .. }` asks.
    pub fn with_dt_floor(mut self, floor: f64) -> ModelDesc {
        self.dt.lo = floor;
        self.dt_conflict = None;
        self
    }

    /// The table of weights: every tensor that a checkpoint of this model stores, and no other.
    pub fn weights(&self) -> Vec<Weight> {
        self.family().weights(self)
    }

    /// The matrices that write to the residual stream, one a layer, in order.
    pub fn writers(&self) -> Vec<Weight> {
        let role = |layer: usize| self.layers.get(layer).and_then(|kind| axes::writer(*kind));
        let writes = |w: &Weight| w.layer.and_then(role).is_some_and(|(_, role)| role == w.role);
        self.weights().into_iter().filter(writes).collect()
    }

    /// Exact number of parameters, by the family's closed formula (not by way of the weight table).
    pub fn params(&self) -> u64 {
        self.family().params(self, &self.layers)
    }
}

/// What a weight does in its block; taps name the weights that they are read with by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Role {
    Embedding,
    /// The norm before a block, or the last one.
    Norm,
    InProj,
    Conv,
    /// A_log, D, dt_bias.
    PerHead,
    GatedNorm,
    OutProj,
    UpProj,
    DownProj,
    QueryProj,
    KeyProj,
    ValueProj,
    OutputProj,
    Head,
    Bias,
}

/// One line of a family's weight table.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Full name in the files, `backbone.layers.0.mixer.in_proj.weight`.
    pub name: String,
    pub role: Role,
    /// Index of its block, absent for embeddings, final norm and head.
    pub layer: Option<usize>,
    /// Linear weights are [rows = out, columns = in].
    pub shape: Vec<Extent>,
}

impl Weight {
    pub fn sizes(&self) -> Vec<usize> {
        self.shape.iter().map(Extent::size).collect()
    }

    pub fn len(&self) -> usize {
        self.sizes().iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} [", self.name)?;
        for (i, extent) in self.shape.iter().enumerate() {
            write!(f, "{}{extent}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
