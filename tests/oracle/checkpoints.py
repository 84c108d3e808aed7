"""Small random checkpoints of both families, built with transformers and described by a table.

`build(case)` gives a model whose weights make every part of it matter: projections of unit gain (transformers' own standard deviation
of 0.02 leaves logits near zero, where an absolute tolerance proves little), norm weights, D, conv biases, A_log and dt_bias all drawn
rather than constant. dt covers 0.0005 to 0.5, so that a floor on it shows. `write(case, folder)` saves it the way the case asks for.
"""

import contextlib
import json
import math
import os
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mamba2Config, Mamba2ForCausalLM, NemotronHConfig, NemotronHForCausalLM

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(int(os.environ.get("ORACLE_THREADS", "1")))

NEMOTRON = dict(
    vocab_size=40, hidden_size=16, hybrid_override_pattern="M-*M-", mamba_num_heads=4, mamba_head_dim=6, n_groups=2,
    ssm_state_size=5, conv_kernel=4, chunk_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=6,
    max_position_embeddings=2048, moe_intermediate_size=8, moe_shared_expert_intermediate_size=8, pad_token_id=0, bos_token_id=1,
    eos_token_id=2,
)
MAMBA2 = dict(
    vocab_size=40, hidden_size=16, expand=2, num_heads=8, head_dim=4, n_groups=2, state_size=6, num_hidden_layers=3, chunk_size=32,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)


def nemotron(seed, form=(), dtype="float32", **config):
    return dict(family="nemotron_h", seed=seed, form=form, dtype=dtype, config={**NEMOTRON, **config})


def mamba2(seed, form=(), dtype="float32", **config):
    return dict(family="mamba2", seed=seed, form=form, dtype=dtype, config={**MAMBA2, **config})


# Shapes first, then files: what a case varies is in its name.
CASES = {
    "nemotron-plain": nemotron(1, vocab_size=260, mamba_num_heads=8, mamba_head_dim=5, ssm_state_size=8, chunk_size=64),
    "nemotron-one-group": nemotron(2, hybrid_override_pattern="M*-M", hidden_size=10, n_groups=1, mamba_num_heads=3, mamba_head_dim=5),
    "nemotron-head-dim-one": nemotron(3, mamba_head_dim=1, mamba_num_heads=12, n_groups=4, vocab_size=33),
    "nemotron-head-dim-three": nemotron(4, mamba_head_dim=3, mamba_num_heads=6, n_groups=3, conv_kernel=3, chunk_size=7),
    "nemotron-heads-are-groups": nemotron(5, mamba_num_heads=4, n_groups=4, mamba_head_dim=7, hidden_size=20),
    "nemotron-odd-widths": nemotron(6, hidden_size=17, intermediate_size=37, num_attention_heads=5, num_key_value_heads=1, head_dim=7, vocab_size=101),
    "nemotron-no-attention": nemotron(7, hybrid_override_pattern="M-M-", use_cache=False),
    "nemotron-attention-only": nemotron(8, hybrid_override_pattern="*-*-", num_attention_heads=6, num_key_value_heads=3),
    "nemotron-state-one": nemotron(9, ssm_state_size=1, conv_kernel=2, chunk_size=128),
    "nemotron-wide-vocab": nemotron(10, vocab_size=300, hidden_size=12, hybrid_override_pattern="MM*MM-", mamba_head_dim=4, layer_norm_epsilon=1e-3),
    "nemotron-biases": nemotron(11, use_bias=True, mlp_bias=True),
    "nemotron-no-conv-bias": nemotron(12, use_conv_bias=False, num_key_value_heads=4),
    "nemotron-dt-floor": nemotron(13, time_step_min=0.05, time_step_limit=[0.05, float("inf")]),
    "nemotron-limit-ignored": nemotron(14, time_step_min=0.001, time_step_limit=[0.2, 0.3]),
    "mamba2-untied": mamba2(20, vocab_size=64),
    "mamba2-tied": mamba2(21, tie_word_embeddings=True, n_groups=1, num_heads=4, head_dim=8),
    "mamba2-odd-widths": mamba2(22, hidden_size=15, num_heads=6, head_dim=5, n_groups=3, vocab_size=33, state_size=3),
    "mamba2-state-one": mamba2(23, tie_word_embeddings=True, expand=1, num_heads=8, head_dim=2, n_groups=8, state_size=1, conv_kernel=2),
    "mamba2-biases": mamba2(24, use_bias=True, expand=3, num_heads=12, residual_in_fp32=False),
    "mamba2-no-conv-bias": mamba2(25, use_conv_bias=False, layer_norm_epsilon=1e-3),
    "mamba2-dt-limits": mamba2(26, time_step_limit=[0.02, 0.1]),
    "nemotron-bf16": nemotron(30, dtype="bfloat16"),
    "nemotron-f16": nemotron(31, dtype="float16"),
    "nemotron-sharded": nemotron(32, form=("sharded",)),
    "nemotron-old-config": nemotron(33, form=("old_config",)),
    "nemotron-model-prefix": nemotron(34, form=("model_prefix",), hybrid_override_pattern="M*-"),
    "nemotron-legacy-layer-names": nemotron(35, form=("legacy_layer_names",), hybrid_override_pattern="*M-"),
    "mamba2-bf16-sharded": mamba2(36, form=("sharded",), dtype="bfloat16"),
}


def drawn(name, parameter, generator):
    """Values for one parameter, by its name."""
    normal = torch.randn(parameter.shape, generator=generator)
    uniform = torch.rand(parameter.shape, generator=generator)
    if name.endswith("A_log"):
        return torch.log(0.5 + 15.5 * uniform)
    if name.endswith("dt_bias"):
        dt = torch.exp(math.log(0.0005) + uniform * (math.log(0.5) - math.log(0.0005)))
        return dt + torch.log(-torch.expm1(-dt))
    if name.endswith("conv1d.weight"):
        return normal / math.sqrt(parameter.shape[-1])
    if "norm" in name or name.endswith(".D"):
        return 1 + 0.2 * normal
    if name.endswith("bias"):
        return 0.2 * normal
    if "embedding" in name:
        return normal
    return normal / math.sqrt(parameter.shape[-1])


def build(case):
    """The case's model in f32."""
    config = dict(case["config"])
    torch.manual_seed(case["seed"])
    if case["family"] == "nemotron_h":
        model = NemotronHForCausalLM(NemotronHConfig(**config))
    else:
        model = Mamba2ForCausalLM(Mamba2Config(**config))
    generator = torch.Generator().manual_seed(case["seed"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(drawn(name, parameter, generator))
    return model.eval()


def write(case, folder):
    """Save the case's checkpoint in `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = build(case).to(getattr(torch, case["dtype"]))
    limit = {"max_shard_size": "12KB"} if "sharded" in case["form"] else {}
    model.save_pretrained(folder, **limit)
    for change in case["form"]:
        if change != "sharded":
            FORMS[change](folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)


def edit_config(folder, edit):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def rename_tensors(folder, rename):
    path = folder / "model.safetensors"
    tensors = {rename(name): tensor.contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def old_config(folder):
    """The spelling of transformers 4 and of published checkpoints: a pattern string, torch_dtype, the bare token Infinity."""

    def edit(config):
        letters = {"linear_attention": "M", "mlp": "-", "full_attention": "*"}
        types = config.pop("layers_block_type")
        config["hybrid_override_pattern"] = "".join(letters[kind] for kind in types)
        config["num_hidden_layers"] = len(types)
        config["torch_dtype"] = config.pop("dtype")
        config["time_step_limit"] = [0.0, math.inf]
        config["transformers_version"] = "4.48.0.dev0"
        config["auto_map"] = {"AutoConfig": "configuration_nemotron_h.NemotronHConfig"}

    edit_config(folder, edit)


def legacy_layer_names(folder):
    legacy = {"linear_attention": "mamba", "full_attention": "attention"}
    edit_config(folder, lambda c: c.update(layers_block_type=[legacy.get(kind, kind) for kind in c["layers_block_type"]]))


def model_prefix(folder):
    rename_tensors(folder, lambda name: name.replace("backbone.", "model.", 1))


FORMS = dict(old_config=old_config, legacy_layer_names=legacy_layer_names, model_prefix=model_prefix)


def tokens(vocab_size, rows, length, seed):
    """Token ids with the repetitions of text: half of them are drawn from an eighth of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randint(0, max(1, vocab_size // 8), (rows, length), generator=generator)
    all_ids = torch.randint(0, vocab_size, (rows, length), generator=generator)
    return torch.where(torch.rand((rows, length), generator=generator) < 0.5, few, all_ids)


def load(folder):
    """A strict load in f32: raises if a weight is missing, unexpected or misshapen."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if problems:
        raise RuntimeError(f"{folder}: {problems}")
    return model.eval()


@torch.no_grad()
def logits(model, ids):
    """Logits [batch, sequence, vocab] in f32 of a full forward pass (a cached decode does not clamp dt)."""
    return model(ids, use_cache=False).logits.float()


@contextlib.contextmanager
def widened():
    """Inside, what transformers computes in f32 on purpose (the scan, the norms, softmax, the logits) is computed in f64."""
    to_float, to, softmax = torch.Tensor.float, torch.Tensor.to, torch.nn.functional.softmax
    wide = lambda value: torch.float64 if value is torch.float32 else value
    widening = lambda call: lambda *args, **named: call(*map(wide, args), **{key: wide(v) for key, v in named.items()})
    torch.Tensor.float = torch.Tensor.double
    torch.Tensor.to, torch.nn.functional.softmax = widening(to), widening(softmax)
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float, torch.Tensor.to, torch.nn.functional.softmax = to_float, to, softmax
        torch.set_default_dtype(torch.float32)


@torch.no_grad()
def exact_logits(model, ids):
    """The same logits in f64 arithmetic. The model is widened for good."""
    model.double()
    with widened():
        values = model(ids, use_cache=False).logits
    assert values.dtype == torch.float64
    return values


def next_token_loss(values, ids):
    """Mean cross-entropy over all predicted positions, natural logarithm, summed in f64."""
    return torch.nn.functional.cross_entropy(values[:, :-1].reshape(-1, values.shape[-1]).double(), ids[:, 1:].reshape(-1)).item()
