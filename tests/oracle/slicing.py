"""Cut a nemotron_h checkpoint by given kept indices, with PyTorch indexing alone: the reference for the order of rows and columns.

Kept indices are in the parent's numbering: `layers`, `hidden`, and per kept layer `heads` and `channels` (Mamba) or `ffn`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def largest(scores, count):
    return torch.topk(scores, count).indices.sort().values


def choose(config, weights, heads_per_group, channels, neurons, hidden, drop):
    """Kept indices by weight norms: a stand-in for a metric, good enough to fix an order."""
    groups, heads, width = config["n_groups"], config["mamba_num_heads"], config["mamba_head_dim"]
    kept = {
        "layers": [i for i in range(len(config["layers_block_type"])) if i not in drop],
        "hidden": largest(weights["backbone.embeddings.weight"].norm(dim=0), hidden).tolist(),
    }
    for i in kept["layers"]:
        mixer, kind = f"backbone.layers.{i}.mixer.", config["layers_block_type"][i]
        if kind == "linear_attention":
            out = weights[mixer + "out_proj.weight"].view(-1, heads, width)
            by_head = out.norm(dim=(0, 2)).view(groups, -1)
            inside = torch.cat([g * by_head.shape[1] + largest(by_head[g], heads_per_group) for g in range(groups)])
            kept[f"layer{i}"] = {"heads": inside.tolist(), "channels": largest(out.norm(dim=(0, 1)), channels).tolist()}
        elif kind == "mlp":
            kept[f"layer{i}"] = {"ffn": largest(weights[mixer + "down_proj.weight"].norm(dim=0), neurons).tolist()}
    return kept


def mamba_rows(config, kept):
    """Rows of in_proj (z | x | B | C | dt), channels of the convolution (x | B | C), entries of the inner width, heads."""
    heads, channels = torch.tensor(kept["heads"]), torch.tensor(kept["channels"])
    inner = config["mamba_num_heads"] * config["mamba_head_dim"]
    states = 2 * config["n_groups"] * config["ssm_state_size"]
    x = (heads[:, None] * config["mamba_head_dim"] + channels).flatten()
    rows = torch.cat([x, inner + x, torch.arange(2 * inner, 2 * inner + states), 2 * inner + states + heads])
    return rows, torch.cat([x, torch.arange(inner, inner + states)]), x, heads


def cut_mixer(config, kind, take, kept, hidden):
    """The cut weights of one mixer; `take(name)` gives the parent's."""
    if kind == "linear_attention":
        rows, convolved, x, heads = mamba_rows(config, kept)
        cut = {"in_proj.weight": take("in_proj.weight")[rows][:, hidden], "out_proj.weight": take("out_proj.weight")[hidden][:, x]}
        cut |= {name: take(name)[convolved] for name in ("conv1d.weight", "conv1d.bias")}
        cut |= {name: take(name)[heads] for name in ("A_log", "D", "dt_bias")}
        return cut | {"norm.weight": take("norm.weight")[x]}
    if kind == "mlp":
        neurons = torch.tensor(kept["ffn"])
        return {"up_proj.weight": take("up_proj.weight")[neurons][:, hidden], "down_proj.weight": take("down_proj.weight")[hidden][:, neurons]}
    cut = {f"{name}_proj.weight": take(f"{name}_proj.weight")[:, hidden] for name in "qkv"}
    return cut | {"o_proj.weight": take("o_proj.weight")[hidden]}


def cut(config, weights, kept):
    """The cut config and weights."""
    hidden, kinds = torch.tensor(kept["hidden"]), config["layers_block_type"]
    out = {name: weights[name][:, hidden] for name in ("backbone.embeddings.weight", "lm_head.weight")}
    out["backbone.norm_f.weight"] = weights["backbone.norm_f.weight"][hidden]
    changed = dict(config, hidden_size=len(hidden), layers_block_type=[kinds[i] for i in kept["layers"]])
    for new, old in enumerate(kept["layers"]):
        source, target, chosen = f"backbone.layers.{old}.", f"backbone.layers.{new}.", kept.get(f"layer{old}", {})
        out[target + "norm.weight"] = weights[source + "norm.weight"][hidden]
        mixer = cut_mixer(config, kinds[old], lambda name: weights[source + "mixer." + name], chosen, hidden)
        out |= {target + "mixer." + name: tensor for name, tensor in mixer.items()}
        if "heads" in chosen:
            changed |= {"mamba_num_heads": len(chosen["heads"]), "mamba_head_dim": len(chosen["channels"])}
        if "ffn" in chosen:
            changed["intermediate_size"] = len(chosen["ffn"])
    return changed, out


def write_cut(parent, folder, **keep):
    """Cut the checkpoint `parent` and write config.json, model.safetensors and kept.json to `folder`."""
    parent, folder = Path(parent), Path(folder)
    config, weights = json.loads((parent / "config.json").read_text()), load_file(parent / "model.safetensors")
    kept = choose(config, weights, **keep)
    changed, tensors = cut(config, weights, kept)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(changed, indent=2) + "\n")
    (folder / "kept.json").write_text(json.dumps(kept) + "\n")
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
