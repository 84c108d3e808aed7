//! Loaders that a result must be accepted by: `deploy MODEL for hf, vllm(tensor_parallel = 4)`.
//!
//! A loader is a list of rules, and a rule is data: what it asks, where that is published, how to tell whether it
//! holds, and which sizes may be changed to make it hold. Messages, documentation and tests read the same rules.

use crate::check::{Accepts, Argument, Default, LayerCounts, Outline};
use crate::dim::Dim;
use crate::model::ModelDesc;

/// A loader, and what it asks.
pub struct Target {
    /// As recipes write it.
    pub name: &'static str,
    /// As it is called elsewhere, and programs that load by it.
    pub also: &'static [&'static str],
    pub arguments: &'static [Argument],
    pub rules: &'static [Rule],
    pub doc: &'static str,
}

/// One thing that a loader asks of a model.
pub struct Rule {
    /// Unique within its target.
    pub name: &'static str,
    pub origin: Origin,
    /// The loader fails where the rule is broken; otherwise it is slow, or needs care.
    pub refuses: bool,
    /// "`n_groups` must be a multiple of the devices"
    pub asks: &'static str,
    /// Sizes that a recipe may choose otherwise.
    pub dims: &'static [Dim],
    pub holds: fn(&Sizes) -> bool,
    /// What a model that breaks it has instead.
    pub found: fn(&Sizes) -> String,
    /// What to do where no size near it would help.
    pub otherwise: &'static str,
}

/// Where a loader says so itself, or its users found out.
pub struct Origin {
    /// Short, for a message: "llama.cpp#20335".
    pub name: &'static str,
    pub url: &'static str,
}

/// The values of a target's arguments, by name.
pub type Given = Vec<(&'static str, usize)>;

/// What a rule looks at.
#[derive(Clone, Copy)]
pub struct Sizes<'a> {
    pub model: &'a ModelDesc,
    /// How many layers of each kind there may be.
    pub layers: &'a LayerCounts,
    pub given: &'a Given,
}

/// A rule that a model breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub refused: bool,
    pub rule: &'static str,
    /// "heads x head_dim must be a multiple of ssm_state_size (llama.cpp#20335)"
    pub asks: String,
    pub found: String,
    pub help: String,
    /// The sizes at fault that a recipe may choose.
    pub dims: &'static [Dim],
}

pub mod hf;
pub mod llama_cpp;
pub mod mamba_ssm;
pub mod tensorrt_llm;
pub mod vllm;

/// To add a target: its file, its `mod` line, and its line here.
pub const TARGETS: &[Target] =
    &[hf::TARGET, vllm::TARGET, llama_cpp::TARGET, tensorrt_llm::TARGET, mamba_ssm::TARGET];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

/// Of loaders that split every layer over several devices.
const TENSOR_PARALLEL: &[Argument] = &[Argument {
    name: "tensor_parallel",
    accepts: Accepts::Count,
    default: Default::Is(1.0),
    doc: "devices that share every layer",
}];

/// No more devices are proposed: a recipe may name any number.
const MOST_DEVICES: usize = 4096;

impl Target {
    /// The rules that a model breaks. No size is proposed that is greater than `most` allows.
    pub fn check(&self, model: &Outline, given: &Given, most: &dyn Fn(Dim) -> usize) -> Vec<Finding> {
        let sizes = Sizes { model: &model.desc, layers: &model.layers, given };
        let broken = self.rules.iter().filter(|rule| !(rule.holds)(&sizes));
        broken.map(|rule| rule.finding(&sizes, most)).collect()
    }

    /// How many rules a model breaks by which the loader refuses it. Its layers may be any.
    pub fn refusals(&self, model: &ModelDesc, given: &Given) -> usize {
        let layers = LayerCounts::of(&model.layers);
        let sizes = Sizes { model, layers: &layers, given };
        self.rules.iter().filter(|rule| rule.refuses && !(rule.holds)(&sizes)).count()
    }
}

impl Rule {
    fn finding(&self, sizes: &Sizes, most: &dyn Fn(Dim) -> usize) -> Finding {
        let near = self.nearest(sizes, most);
        let way =
            if near.is_empty() { self.otherwise.to_string() } else { format!("nearest that fit: {near}") };
        Finding {
            refused: self.refuses,
            rule: self.name,
            asks: format!("{} ({})", self.asks, self.origin.name),
            found: (self.found)(sizes),
            help: format!("{way}\nrule `{}`: {}", self.name, self.origin.url),
            dims: self.dims,
        }
    }

    /// "`mamba_num_heads` 112 or 128, or `tensor_parallel` 2": one size or argument otherwise, and the rule holds.
    fn nearest(&self, sizes: &Sizes, most: &dyn Fn(Dim) -> usize) -> String {
        let mut ways = Vec::new();
        let mut model = sizes.model.clone();
        model.config.clear();
        for dim in self.dims {
            let Some(own) = sizes.model.dim(*dim) else { continue };
            let fits = |value: usize| {
                model.dims.insert(*dim, value);
                let other = Sizes { model: &model, ..*sizes };
                model.family().constraint(&model).is_ok() && (self.holds)(&other)
            };
            ways.extend(
                around(own, own.saturating_mul(2).min(most(*dim)), fits).map(|v| format!("`{dim}` {v}")),
            );
            model.dims.insert(*dim, own);
        }
        for (at, (name, own)) in sizes.given.iter().enumerate() {
            let mut given = sizes.given.clone();
            let fits = |value: usize| {
                given[at].1 = value;
                (self.holds)(&Sizes { given: &given, ..*sizes })
            };
            let (near, most) = ((*own).min(MOST_DEVICES), own.saturating_mul(2).min(MOST_DEVICES));
            ways.extend(around(near, most, fits).map(|v| format!("`{name}` {v}")));
        }
        ways.join(", or ")
    }
}

/// "112 or 128": the values on either side of one that fit, up to the greatest.
fn around(own: usize, most: usize, mut fits: impl FnMut(usize) -> bool) -> Option<String> {
    let below = (1..own).rev().find(|v| fits(*v));
    let above = (own + 1..=most).find(|v| fits(*v));
    let near: Vec<String> = [below, above].into_iter().flatten().map(|v| v.to_string()).collect();
    (!near.is_empty()).then(|| near.join(" or "))
}

impl Sizes<'_> {
    /// 0 where the model has no such dimension.
    fn of(&self, dim: Dim) -> usize {
        self.model.dim(dim).unwrap_or(0)
    }

    /// The dimension is a multiple of this, or the model lacks it.
    fn divides(&self, dim: Dim, by: usize) -> bool {
        self.of(dim).is_multiple_of(by)
    }

    /// "ffn_hidden_size = 480"
    fn shown(&self, dim: Dim) -> String {
        format!("{dim} = {}", self.of(dim))
    }

    /// Heads x channels of the Mamba mixers.
    fn inner(&self) -> usize {
        self.of(Dim::MambaNumHeads) * self.of(Dim::MambaHeadDim)
    }

    /// "12 heads x 18 channels = 216"
    fn inner_shown(&self) -> String {
        let (heads, channels) = (self.of(Dim::MambaNumHeads), self.of(Dim::MambaHeadDim));
        format!("{heads} heads x {channels} channels = {}", self.inner())
    }

    /// Channels of the convolution: x, B and C.
    fn convolved(&self) -> usize {
        self.inner() + 2 * self.of(Dim::NGroups) * self.of(Dim::SsmStateSize)
    }

    /// What in_proj writes: z, x, B, C and dt.
    fn projected(&self) -> usize {
        self.inner() + self.convolved() + self.of(Dim::MambaNumHeads)
    }

    fn devices(&self) -> usize {
        let given = self.given.iter().find(|(name, _)| *name == TENSOR_PARALLEL[0].name);
        given.map_or(1, |(_, devices)| *devices).max(1)
    }

    fn on_devices(&self, dim: Dim) -> String {
        format!("{} on {} devices", self.shown(dim), self.devices())
    }
}

const HEADS: &[Dim] = &[Dim::MambaNumHeads, Dim::MambaHeadDim];

/// Of a rule about several devices.
const ON_ONE: &str = "deploy on one device: `tensor_parallel = 1`";

// What loaders that split every layer ask alike, each where it says so itself.

const fn mamba_heads(origin: Origin) -> Rule {
    Rule {
        name: "mamba_heads",
        origin,
        refuses: true,
        asks: "mamba_num_heads must be a multiple of the devices",
        dims: &[Dim::MambaNumHeads],
        holds: |s| s.divides(Dim::MambaNumHeads, s.devices()),
        found: |s| s.on_devices(Dim::MambaNumHeads),
        otherwise: ON_ONE,
    }
}

const fn attention_heads(origin: Origin) -> Rule {
    Rule {
        name: "attention_heads",
        origin,
        refuses: true,
        asks: "num_attention_heads must be a multiple of the devices",
        dims: &[],
        holds: |s| s.divides(Dim::NumAttentionHeads, s.devices()),
        found: |s| s.on_devices(Dim::NumAttentionHeads),
        otherwise: ON_ONE,
    }
}

const fn kv_heads(origin: Origin) -> Rule {
    Rule {
        name: "kv_heads",
        origin,
        refuses: true,
        // Fewer of them than devices are repeated, as long as they come out even.
        asks: "num_key_value_heads must be a multiple of the devices, or the devices a multiple of it",
        dims: &[],
        holds: |s| {
            let heads = s.of(Dim::NumKeyValueHeads);
            heads == 0 || heads.is_multiple_of(s.devices()) || s.devices().is_multiple_of(heads)
        },
        found: |s| s.on_devices(Dim::NumKeyValueHeads),
        otherwise: ON_ONE,
    }
}

const fn neurons(origin: Origin) -> Rule {
    Rule {
        name: "neurons",
        origin,
        refuses: true,
        asks: "ffn_hidden_size must be a multiple of the devices",
        dims: &[Dim::FfnHiddenSize],
        holds: |s| s.divides(Dim::FfnHiddenSize, s.devices()),
        found: |s| s.on_devices(Dim::FfnHiddenSize),
        otherwise: ON_ONE,
    }
}
