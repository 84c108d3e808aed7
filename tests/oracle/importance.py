"""Importance inputs of a nemotron_h checkpoint, from PyTorch hooks: the golden scores for metrics at every tap.

Activations are f32, as the forward pass makes them; every reduction over them is in f64.
"""

import torch

from checkpoints import load, logits

MAMBA, FFN, ATTENTION = "linear_attention", "mlp", "full_attention"


def watch(model):
    """Hook every tap. Returns the record they fill, {tap: {place: activation [batch, sequence, width]}}, and the hooks."""
    record, hooks = {}, []

    def keep(tap, place, value):
        record.setdefault(tap, {})[place] = value.detach()

    def output(module, tap, place, part=slice(None)):
        hooks.append(module.register_forward_hook(lambda m, i, out: keep(tap, place, out[..., part])))

    def inputs(module, tap, place):
        hooks.append(module.register_forward_pre_hook(lambda m, i: keep(tap, place, i[0])))

    inner = model.config.mamba_num_heads * model.config.mamba_head_dim
    for place, layer in enumerate(model.model.layers):
        place, mixer = str(place), layer.mixer
        output(layer.norm, "norm.out", place)
        if layer.block_type == MAMBA:
            output(mixer.in_proj, "mamba.z", place, slice(0, inner))
            output(mixer.in_proj, "mamba.x", place, slice(inner, 2 * inner))
            inputs(mixer.out_proj, "mamba.out", place)
        elif layer.block_type == FFN:
            output(mixer.up_proj, "ffn.up", place)
            inputs(mixer.down_proj, "ffn.act", place)
        elif layer.block_type == ATTENTION:
            inputs(mixer.o_proj, "attention.out", place)
        hooks.append(layer.register_forward_hook(lambda m, i, out, place=place: keep("block", place, torch.stack([i[0], out]))))
    output(model.model.norm_f, "norm.out", "final")
    return record, hooks


def scores(activation):
    """The three activation metrics of one tap, one number per channel."""
    x = activation.double()
    mean = x.abs().mean(dim=1)
    tokens = x.reshape(-1, x.shape[-1])
    return {
        "l2(mean(abs(x), over = sequence), over = batch)": mean.square().sum(dim=0).sqrt().tolist(),
        "variance(x, over = tokens)": tokens.var(dim=0, unbiased=False).tolist(),
        "mean(square(x), over = tokens)": tokens.square().mean(dim=0).tolist(),
        "max(abs(x), over = tokens)": tokens.abs().amax(dim=0).tolist(),
    }


def tap_weights(model):
    """The weights that stand at a tap, each as [width, other side]."""
    inner = model.config.mamba_num_heads * model.config.mamba_head_dim
    taps = {}
    for place, layer in enumerate(model.model.layers):
        mixer, at = layer.mixer, {}
        if layer.block_type == MAMBA:
            at["mamba.z"] = mixer.in_proj.weight[:inner]
            at["mamba.x"] = mixer.in_proj.weight[inner : 2 * inner]
            at["mamba.out"] = mixer.out_proj.weight.T
            at["norm.out"] = mixer.in_proj.weight.T
        elif layer.block_type == FFN:
            at["ffn.up"] = mixer.up_proj.weight
            at["ffn.act"] = mixer.down_proj.weight.T
            at["norm.out"] = mixer.up_proj.weight.T
        elif layer.block_type == ATTENTION:
            at["attention.out"] = mixer.o_proj.weight.T
            at["norm.out"] = torch.cat([mixer.q_proj.weight, mixer.k_proj.weight, mixer.v_proj.weight]).T
        for tap, weight in at.items():
            taps.setdefault(tap, {})[str(place)] = weight.detach().double()
    taps["norm.out"]["final"] = model.lm_head.weight.detach().double().T
    return taps


def weight_scores(weight):
    return {
        "l2(w)": weight.square().sum(dim=1).sqrt().tolist(),
        "l1(w)": weight.abs().sum(dim=1).tolist(),
        "sum(w)": weight.sum(dim=1).tolist(),
        "mean(w)": weight.mean(dim=1).tolist(),
        "max(w)": weight.amax(dim=1).tolist(),
    }


@torch.no_grad()
def without(model, removed, ids):
    """Logits of the model without one layer."""
    class Pass(torch.nn.Module):
        def __init__(self, block_type):
            super().__init__()
            self.block_type = block_type

        def forward(self, hidden_states, *args, **kwargs):
            return hidden_states

    layers = model.model.layers
    layer = layers[removed]
    layers[removed] = Pass(layer.block_type)
    try:
        return logits(model, ids)
    finally:
        layers[removed] = layer


def layer_scores(model, ids, blocks):
    """kld: mean over all positions of KL(full || without layer i). mse: of the logits. cosine: 1 - mean cos(block's input, output)."""
    full = logits(model, ids).double()
    full_log = torch.log_softmax(full, dim=-1)
    result = {"kld": [], "mse": [], "cosine": []}
    for place in range(len(model.model.layers)):
        cut = without(model, place, ids).double()
        cut_log = torch.log_softmax(cut, dim=-1)
        result["kld"].append((full_log.exp() * (full_log - cut_log)).sum(dim=-1).mean().item())
        result["mse"].append((full - cut).square().mean().item())
        before, after = blocks[str(place)].double()
        result["cosine"].append(1 - torch.nn.functional.cosine_similarity(before, after, dim=-1).mean().item())
    return result


def top(values, count):
    """Indices of the `count` largest values, ascending."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return sorted(order[:count])


def nested_ranking(config, flat, heads_per_group, channels):
    """Minitron-SSM, equations 19 to 24: channels joined over heads, then heads over the channels that survive, within each group."""
    heads, groups = config.mamba_num_heads, config.n_groups
    grid = torch.tensor(flat, dtype=torch.float64).view(heads, config.mamba_head_dim)
    kept_channels = top(grid.square().sum(dim=0).sqrt().tolist(), channels)
    by_head = grid[:, kept_channels].square().sum(dim=1).sqrt()
    per_group = heads // groups
    kept_heads = []
    for group in range(groups):
        inside = by_head[group * per_group : (group + 1) * per_group].tolist()
        kept_heads += [group * per_group + index for index in top(inside, heads_per_group)]
    return {"heads": kept_heads, "channels": kept_channels}


def measure(folder, ids):
    """Everything of one checkpoint on the samples `ids` [batch, sequence]."""
    model = load(folder)
    record, hooks = watch(model)
    logits(model, ids)
    for hook in hooks:
        hook.remove()
    blocks = record.pop("block")
    taps = {tap: {place: scores(x) for place, x in at.items()} for tap, at in record.items()}
    weights = {tap: {place: weight_scores(w) for place, w in at.items()} for tap, at in tap_weights(model).items()}
    return model, {"taps": taps, "weights": weights, "layers": layer_scores(model, ids, blocks)}


def decisions(model, measured, heads_per_group, channels, neurons, hidden, layers):
    """What the paper's metric keeps on every axis. Hidden channels are summed over the blocks, the final norm not among them."""
    activation = "l2(mean(abs(x), over = sequence), over = batch)"
    taps, depth = measured["taps"], len(model.model.layers)
    mamba = {place: nested_ranking(model.config, at[activation], heads_per_group, channels) for place, at in taps["mamba.x"].items()}
    summed = torch.tensor([taps["norm.out"][str(place)][activation] for place in range(depth)], dtype=torch.float64).sum(dim=0)
    return {
        "mamba": mamba,
        "ffn": {place: top(at[activation], neurons) for place, at in taps["ffn.up"].items()},
        "hidden": top(summed.tolist(), hidden),
        "layers": top(measured["layers"]["kld"], layers),
    }
