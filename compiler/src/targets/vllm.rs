//! `vllm(tensor_parallel = T)`: vLLM, every layer split over T devices.

use super::{Origin, Rule, TENSOR_PARALLEL, Target};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "vllm",
    also: &[],
    arguments: TENSOR_PARALLEL,
    rules: &[SSM_GROUPS, MAMBA_HEADS, ATTENTION_HEADS, KV_HEADS, NEURONS],
    doc: "vLLM, every layer split over `tensor_parallel` devices",
};

const OTHERWISE: &str = "deploy on one device: `tensor_parallel = 1`";

const SSM_GROUPS: Rule = Rule {
    name: "ssm_groups",
    origin: Origin { name: "vllm#13660", url: "https://github.com/vllm-project/vllm/pull/13660" },
    refuses: true,
    asks: "n_groups must be 1, or a multiple of the devices",
    dims: &[],
    holds: |s| s.of(Dim::NGroups) == 1 || s.divides(Dim::NGroups, s.devices()),
    found: |s| s.on_devices(Dim::NGroups),
    otherwise: OTHERWISE,
};

const MAMBA_HEADS: Rule = Rule {
    name: "mamba_heads",
    origin: Origin {
        name: "vllm, mamba_mixer2.py",
        url: "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/layers/mamba/mamba_mixer2.py",
    },
    refuses: true,
    asks: "mamba_num_heads must be a multiple of the devices",
    dims: &[Dim::MambaNumHeads],
    holds: |s| s.divides(Dim::MambaNumHeads, s.devices()),
    found: |s| s.on_devices(Dim::MambaNumHeads),
    otherwise: OTHERWISE,
};

const ATTENTION_HEADS: Rule = Rule {
    name: "attention_heads",
    origin: Origin { name: "vllm#2652", url: "https://github.com/vllm-project/vllm/issues/2652" },
    refuses: true,
    asks: "num_attention_heads must be a multiple of the devices",
    dims: &[],
    holds: |s| s.divides(Dim::NumAttentionHeads, s.devices()),
    found: |s| s.on_devices(Dim::NumAttentionHeads),
    otherwise: OTHERWISE,
};

const KV_HEADS: Rule = Rule {
    name: "kv_heads",
    origin: Origin {
        name: "vllm, nemotron_h.py",
        url: "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/nemotron_h.py",
    },
    refuses: true,
    // Fewer of them than devices are repeated, as long as they come out even.
    asks: "num_key_value_heads must be a multiple of the devices, or the devices a multiple of it",
    dims: &[],
    holds: |s| {
        let heads = s.of(Dim::NumKeyValueHeads);
        heads == 0 || heads.is_multiple_of(s.devices()) || s.devices().is_multiple_of(heads)
    },
    found: |s| s.on_devices(Dim::NumKeyValueHeads),
    otherwise: OTHERWISE,
};

const NEURONS: Rule = Rule {
    name: "neurons",
    origin: Origin {
        name: "vllm, distributed/utils.py",
        url: "https://github.com/vllm-project/vllm/blob/main/vllm/distributed/utils.py",
    },
    refuses: true,
    asks: "ffn_hidden_size must be a multiple of the devices",
    dims: &[Dim::FfnHiddenSize],
    holds: |s| s.divides(Dim::FfnHiddenSize, s.devices()),
    found: |s| s.on_devices(Dim::FfnHiddenSize),
    otherwise: OTHERWISE,
};
