//! `llama_cpp`: llama.cpp, by its converter to GGUF.

use super::{HEADS, Origin, Rule, Target};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "llama_cpp",
    also: &["gguf", "ollama", "ggml", "lm_studio"],
    arguments: &[],
    rules: &[
        INNER_STATES,
        EXPANSION,
        LAYER_NAMES,
        GPU_SCAN,
        GPU_CONVOLUTION,
        QUANTIZED_STREAM,
        QUANTIZED_NEURONS,
        QUANTIZED_HEADS,
    ],
    doc: "llama.cpp, by its converter to GGUF",
};

const CONVERTER: &str = "https://github.com/ggml-org/llama.cpp/blob/master/conversion/mamba.py";
const CUDA: Origin = Origin {
    name: "llama.cpp, ggml-cuda.cu",
    url: "https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cuda/ggml-cuda.cu",
};
const K_QUANTS: Origin =
    Origin { name: "llama.cpp#1921", url: "https://github.com/ggml-org/llama.cpp/pull/1921" };

/// Columns in a block of Q4_K and its like.
const BLOCK: usize = 256;
const PLAIN: &str = "quantize to a type with blocks of 32, such as Q8_0 or Q5_0";

const INNER_STATES: Rule = Rule {
    name: "inner_states",
    origin: Origin { name: "llama.cpp#20335", url: "https://github.com/ggml-org/llama.cpp/pull/20335" },
    refuses: true,
    asks: "heads x head_dim must be a multiple of ssm_state_size",
    dims: HEADS,
    holds: |s| s.inner().is_multiple_of(s.of(Dim::SsmStateSize).max(1)),
    found: |s| format!("{}, and {}", s.inner_shown(), s.shown(Dim::SsmStateSize)),
    otherwise: "leave out `llama_cpp`",
};

const EXPANSION: Rule = Rule {
    name: "expansion",
    origin: Origin { name: "llama.cpp, conversion/mamba.py", url: CONVERTER },
    refuses: true,
    asks: "of mamba2, heads x head_dim must be 2 x hidden_size",
    dims: &[Dim::MambaNumHeads, Dim::MambaHeadDim, Dim::HiddenSize],
    holds: |s| s.model.family != "mamba2" || s.inner() == 2 * s.of(Dim::HiddenSize),
    found: |s| format!("{}, and {}", s.inner_shown(), s.shown(Dim::HiddenSize)),
    otherwise: "cut heads and hidden_size by the same share",
};

const LAYER_NAMES: Rule = Rule {
    name: "layer_names",
    origin: Origin {
        name: "llama.cpp, conversion/nemotron.py",
        url: "https://github.com/ggml-org/llama.cpp/blob/master/conversion/nemotron.py",
    },
    refuses: false,
    asks: "the converter of nemotron_h reads which layer is which from `hybrid_override_pattern`",
    dims: &[],
    // What a space is made of has no text of a config.
    holds: |s| !s.model.config.contains_key("layers_block_type"),
    found: |_| "config.json of the parent says `layers_block_type`".into(),
    otherwise: "spell the layers of the parent's config.json as `\"hybrid_override_pattern\": \"M-M*-\"`: an export keeps its spelling",
};

const GPU_SCAN: Rule = Rule {
    name: "gpu_scan",
    origin: CUDA,
    refuses: false,
    asks: "CUDA scans states of 128 or 256 and a head_dim in multiples of 16, the CPU all others",
    dims: &[Dim::MambaHeadDim],
    holds: |s| matches!(s.of(Dim::SsmStateSize), 128 | 256) && s.divides(Dim::MambaHeadDim, 16),
    found: |s| format!("{}, {}", s.shown(Dim::SsmStateSize), s.shown(Dim::MambaHeadDim)),
    otherwise: "`ssm_state_size` is the parent's, and no cut changes it: the scan runs on the CPU",
};

const GPU_CONVOLUTION: Rule = Rule {
    name: "gpu_convolution",
    origin: CUDA,
    refuses: false,
    asks: "CUDA convolves channels in multiples of 128, the CPU all others",
    dims: HEADS,
    holds: |s| s.convolved().is_multiple_of(128),
    found: |s| format!("{} channels", s.convolved()),
    otherwise: "choose heads and head_dim together: x, B and C are heads x head_dim + 2 x n_groups x ssm_state_size",
};

const QUANTIZED_STREAM: Rule = Rule {
    name: "quantized_stream",
    origin: K_QUANTS,
    refuses: false,
    asks: "k-quants want hidden_size in multiples of 256",
    dims: &[Dim::HiddenSize],
    holds: |s| s.divides(Dim::HiddenSize, BLOCK),
    found: |s| format!("{}: its rows fall back to larger types", s.shown(Dim::HiddenSize)),
    otherwise: PLAIN,
};

const QUANTIZED_NEURONS: Rule = Rule {
    name: "quantized_neurons",
    origin: K_QUANTS,
    refuses: false,
    asks: "k-quants want ffn_hidden_size in multiples of 256",
    dims: &[Dim::FfnHiddenSize],
    holds: |s| s.divides(Dim::FfnHiddenSize, BLOCK),
    found: |s| format!("{}: its rows fall back to larger types", s.shown(Dim::FfnHiddenSize)),
    otherwise: PLAIN,
};

const QUANTIZED_HEADS: Rule = Rule {
    name: "quantized_heads",
    origin: K_QUANTS,
    refuses: false,
    asks: "k-quants want heads x head_dim in multiples of 256",
    dims: HEADS,
    holds: |s| s.inner().is_multiple_of(BLOCK),
    found: |s| format!("{}: its rows fall back to larger types", s.inner_shown()),
    otherwise: PLAIN,
};
