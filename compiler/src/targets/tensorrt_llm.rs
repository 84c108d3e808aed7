//! `tensorrt_llm(tensor_parallel = T)`: the PyTorch backend of TensorRT-LLM, every layer split over T devices.

use super::{
    HEADS, ON_ONE, Origin, Rule, TENSOR_PARALLEL, Target, attention_heads, kv_heads, mamba_heads, neurons,
};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "tensorrt_llm",
    also: &["trtllm", "trt_llm", "tensorrt", "trt"],
    arguments: TENSOR_PARALLEL,
    rules: &[
        ARCHITECTURE,
        SSM_GROUPS,
        WHOLE_GROUPS,
        MAMBA_HEADS,
        ATTENTION_HEADS,
        KV_HEADS,
        NEURONS,
        FLASHINFER,
    ],
    doc: "TensorRT-LLM, every layer split over `tensor_parallel` devices",
};

const TP: Origin = Origin {
    name: "TensorRT-LLM, mamba2_tp.py",
    url: "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/_torch/modules/mamba/mamba2_tp.py",
};
const MIXER: Origin = Origin {
    name: "TensorRT-LLM, mamba2_mixer.py",
    url: "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/_torch/modules/mamba/mamba2_mixer.py",
};

const ARCHITECTURE: Rule = Rule {
    name: "architecture",
    origin: Origin {
        name: "TensorRT-LLM, support matrix",
        url: "https://nvidia.github.io/TensorRT-LLM/reference/support-matrix.html",
    },
    refuses: false,
    asks: "the PyTorch backend has NemotronHForCausalLM, and no Mamba2ForCausalLM",
    dims: &[],
    holds: |s| s.model.family == "nemotron_h",
    found: |s| format!("this is a {}", s.model.family),
    otherwise: "use a version with `tensorrt_llm/models/mamba`, or another target, such as `vllm`",
};

const SSM_GROUPS: Rule = Rule {
    name: "ssm_groups",
    origin: TP,
    refuses: true,
    asks: "n_groups must be a multiple of the devices, or the devices a multiple of it",
    dims: &[],
    holds: |s| {
        let groups = s.of(Dim::NGroups).max(1);
        groups.is_multiple_of(s.devices()) || s.devices().is_multiple_of(groups)
    },
    found: |s| s.on_devices(Dim::NGroups),
    otherwise: ON_ONE,
};

const WHOLE_GROUPS: Rule = Rule {
    name: "whole_groups",
    origin: MIXER,
    refuses: false,
    asks: "versions without mamba2_tp.py put whole SSM groups on every device",
    dims: &[],
    // Where neither divides the other, `ssm_groups` has said so.
    holds: |s| s.divides(Dim::NGroups, s.devices()) || !(SSM_GROUPS.holds)(s),
    found: |s| s.on_devices(Dim::NGroups),
    otherwise: ON_ONE,
};

const MAMBA_HEADS: Rule = mamba_heads(TP);

const ATTENTION_HEADS: Rule = attention_heads(Origin {
    name: "TensorRT-LLM, modules/attention.py",
    url: "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/_torch/modules/attention.py",
});

const KV_HEADS: Rule = kv_heads(Origin {
    name: "TensorRT-LLM, modeling_utils.py",
    url: "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/_torch/models/modeling_utils.py",
});

const NEURONS: Rule = neurons(Origin {
    name: "TensorRT-LLM, modules/linear.py",
    url: "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/_torch/modules/linear.py",
});

const FLASHINFER: Rule = Rule {
    name: "flashinfer",
    origin: MIXER,
    refuses: false,
    asks: "FlashInfer updates states of a head_dim of 64 or 128, with 1, 8 or 16 heads a group and 64, 128 or 256 states",
    dims: HEADS,
    holds: |s| {
        let (heads, groups) = (s.of(Dim::MambaNumHeads), s.of(Dim::NGroups).max(1));
        matches!(s.of(Dim::MambaHeadDim), 64 | 128)
            && matches!(heads / groups, 1 | 8 | 16)
            && matches!(s.of(Dim::SsmStateSize), 64 | 128 | 256)
    },
    found: |s| {
        let heads = s.of(Dim::MambaNumHeads) / s.of(Dim::NGroups).max(1);
        let (dim, states) = (s.shown(Dim::MambaHeadDim), s.shown(Dim::SsmStateSize));
        format!("{dim}, {heads} heads a group, {states}")
    },
    otherwise: "nothing has to be done: slower kernels of TensorRT-LLM's own take its place",
};
