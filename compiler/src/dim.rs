//! Named dimensions, and extents made of them.
//!
//! Everything that must be cut together is cut together because it names the same [`Dim`].

use serde::{Deserialize, Serialize};
use std::fmt;

/// An atomic named dimension. The names are the recipe language's and, where there is one, Hugging Face's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// V
    VocabSize,
    /// E, the residual stream.
    HiddenSize,
    /// F, neurons of a feed-forward block.
    FfnHiddenSize,
    /// H, heads of a Mamba2 mixer.
    MambaNumHeads,
    /// P, channels of a Mamba2 head.
    MambaHeadDim,
    /// G, SSM groups; heads h*G/H share B and C.
    NGroups,
    /// N, states of an SSM.
    SsmStateSize,
    /// K, taps of the depthwise convolution.
    ConvKernel,
    NumAttentionHeads,
    NumKeyValueHeads,
    AttentionHeadDim,
    /// Whole blocks.
    NumLayers,
    /// Positions of one sample, L.
    Sequence,
    /// Of size one.
    One,
}

impl Dim {
    pub const ALL: &[Dim] = &[
        Dim::VocabSize,
        Dim::HiddenSize,
        Dim::FfnHiddenSize,
        Dim::MambaNumHeads,
        Dim::MambaHeadDim,
        Dim::NGroups,
        Dim::SsmStateSize,
        Dim::ConvKernel,
        Dim::NumAttentionHeads,
        Dim::NumKeyValueHeads,
        Dim::AttentionHeadDim,
        Dim::NumLayers,
        Dim::Sequence,
        Dim::One,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Dim::VocabSize => "vocab_size",
            Dim::HiddenSize => "hidden_size",
            Dim::FfnHiddenSize => "ffn_hidden_size",
            Dim::MambaNumHeads => "mamba_num_heads",
            Dim::MambaHeadDim => "mamba_head_dim",
            Dim::NGroups => "n_groups",
            Dim::SsmStateSize => "ssm_state_size",
            Dim::ConvKernel => "conv_kernel",
            Dim::NumAttentionHeads => "num_attention_heads",
            Dim::NumKeyValueHeads => "num_key_value_heads",
            Dim::AttentionHeadDim => "attention_head_dim",
            Dim::NumLayers => "num_layers",
            Dim::Sequence => "sequence",
            Dim::One => "one",
        }
    }

    pub fn from_name(name: &str) -> Option<Dim> {
        Dim::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// The dimension whose members this one's members are bound to: a head never leaves its SSM group.
    pub fn within(self) -> Option<Dim> {
        match self {
            Dim::MambaNumHeads => Some(Dim::NGroups),
            Dim::NumAttentionHeads => Some(Dim::NumKeyValueHeads),
            _ => None,
        }
    }

    /// The dimension over which this one is one member of a product with a ranking shared by default:
    /// the same channels are kept in every head (paper eq. 18).
    pub fn shared_across(self) -> Option<Dim> {
        match self {
            Dim::MambaHeadDim => Some(Dim::MambaNumHeads),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dimension and its size in one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sized {
    pub dim: Dim,
    pub size: usize,
}

/// A row-major product of dimensions, named by its role: `x` is heads x head_dim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub factors: Vec<Sized>,
}

impl Part {
    pub fn new(name: &str, factors: &[(Dim, usize)]) -> Part {
        Part {
            name: name.to_string(),
            factors: factors.iter().map(|&(dim, size)| Sized { dim, size }).collect(),
        }
    }

    pub fn size(&self) -> usize {
        self.factors.iter().map(|s| s.size).product()
    }

    pub fn has(&self, dim: Dim) -> bool {
        self.factors.iter().any(|s| s.dim == dim)
    }
}

/// One dimension of a tensor: a concatenation of parts. Mamba2's `in_proj` rows are z | x | B | C | dt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    pub parts: Vec<Part>,
}

impl Extent {
    /// A single part with a single factor, named after it.
    pub fn of(dim: Dim, size: usize) -> Extent {
        Extent { parts: vec![Part::new(dim.name(), &[(dim, size)])] }
    }

    pub fn concat(parts: Vec<Part>) -> Extent {
        Extent { parts }
    }

    pub fn size(&self) -> usize {
        self.parts.iter().map(Part::size).sum()
    }

    /// A run of neighbouring parts, `x` or `x|B|C`, and the offset at which it begins.
    pub fn run(&self, names: &str) -> Option<(usize, Extent)> {
        let names: Vec<&str> = names.split('|').collect();
        let (offset, _) = self.part(names.first()?)?;
        let first = self.parts.iter().position(|p| p.name == names[0])?;
        let parts = self.parts.get(first..first + names.len())?;
        let same = parts.iter().zip(&names).all(|(p, n)| p.name == *n);
        same.then(|| (offset, Extent::concat(parts.to_vec())))
    }

    /// The part of that name and the offset at which it begins.
    pub fn part(&self, name: &str) -> Option<(usize, &Part)> {
        let mut offset = 0;
        for part in &self.parts {
            if part.name == name {
                return Some((offset, part));
            }
            offset += part.size();
        }
        None
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, s) in self.factors.iter().enumerate() {
            write!(f, "{}{}:{}", if i > 0 { "*" } else { "" }, s.dim, s.size)?;
        }
        Ok(())
    }
}

/// `hidden_size:160`, or `z=mamba_num_heads:16*mamba_head_dim:20|x=..|dt=..` for a concatenation.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let [part] = self.parts.as_slice() {
            return write!(f, "{part}");
        }
        for (i, part) in self.parts.iter().enumerate() {
            write!(f, "{}{}={part}", if i > 0 { "|" } else { "" }, part.name)?;
        }
        Ok(())
    }
}
