//! `vllm(tensor_parallel = T)`: vLLM, every layer split over T devices.

use super::{ON_ONE, Origin, Rule, TENSOR_PARALLEL, Target, attention_heads, kv_heads, mamba_heads, neurons};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "vllm",
    also: &[],
    arguments: TENSOR_PARALLEL,
    rules: &[SSM_GROUPS, MAMBA_HEADS, ATTENTION_HEADS, KV_HEADS, NEURONS],
    doc: "vLLM, every layer split over `tensor_parallel` devices",
};

const SSM_GROUPS: Rule = Rule {
    name: "ssm_groups",
    origin: Origin { name: "vllm#13660", url: "https://github.com/vllm-project/vllm/pull/13660" },
    refuses: true,
    asks: "n_groups must be 1, or a multiple of the devices",
    dims: &[],
    holds: |s| s.of(Dim::NGroups) == 1 || s.divides(Dim::NGroups, s.devices()),
    found: |s| s.on_devices(Dim::NGroups),
    otherwise: ON_ONE,
};

const MAMBA_HEADS: Rule = mamba_heads(Origin {
    name: "vllm, mamba_mixer2.py",
    url: "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/layers/mamba/mamba_mixer2.py",
});

const ATTENTION_HEADS: Rule =
    attention_heads(Origin { name: "vllm#2652", url: "https://github.com/vllm-project/vllm/issues/2652" });

const KV_HEADS: Rule = kv_heads(Origin {
    name: "vllm, nemotron_h.py",
    url: "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/nemotron_h.py",
});

const NEURONS: Rule = neurons(Origin {
    name: "vllm, distributed/utils.py",
    url: "https://github.com/vllm-project/vllm/blob/main/vllm/distributed/utils.py",
});
