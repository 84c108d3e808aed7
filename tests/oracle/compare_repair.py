#!/usr/bin/env python3
"""Compare minic's rotated, cut and repaired models with the same made by PyTorch in f64, on small checkpoints of both families.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors tokenizers numpy
    cargo build --release
    venv/bin/python tests/oracle/compare_repair.py [--minic target/release/minic] [--only SUBSTRING] [--tolerance 1e-4]
                                                   [--checkpoint DIR --tokens FILE.npy] [--golden FOLDER]

Each checkpoint of checkpoints.py with a head of its own (or the one given) is cut by `hidden_size by pca`, by its other widths and by a layer, with
`repair norms` and `repair outputs`, sequential and not. The reference takes which heads, channels and neurons are kept from provenance.json
(how they are ranked is importance.py's to compare), and makes everything else itself: the covariance of the stream, its eigenvectors, the folded
and rotated matrices, the scaled norms, the solved matrices. The export must load in transformers with no weight missing or left over.

Printed are the losses on tokens that no repair has seen, of the reference in f64 and of the export as transformers computes it in f32, and the
largest difference of the logits by the largest logit. With --golden the reference's losses are written down, with all that it takes to make them
again: tests/golden/repair is --only nemotron-biases and --only mamba2-untied. Exit code 1 if a loss differs by more than the tolerance, or nothing was compared.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from transformers import AutoModelForCausalLM

from checkpoints import CASES, load, tokens, widened, write

ROOT = Path(__file__).resolve().parents[2]
READERS = ("in_proj", "up_proj", "q_proj", "k_proj", "v_proj")
LETTERS = {"linear_attention": "M", "mamba": "M", "mlp": "-", "full_attention": "*", "attention": "*"}
WRITERS = ("out_proj", "down_proj", "o_proj")
RECIPE = """mrecipe 1
model parent {{ checkpoint = "{parent}" }}
data calibration {{ files = ["calibration.npy"]; sequence = {sequence} }}
metric energy(x, w) = mean(square(x), over = tokens) * square(l2(w))
prune cut from parent {{
    calibrate on calibration
    {axes}
    repair norms
    repair outputs {how} by least_squares(damping = {damping}%)
}}
export cut to "cut" {{ dtype = f32 }}
"""


def axes_of(config):
    """About three quarters of every width; a mamba2 keeps heads x head_dim a multiple of hidden_size."""
    if config["model_type"] == "mamba2":
        per_group = config["num_heads"] // config["n_groups"]
        heads = max(1, per_group // 2) * config["n_groups"]
        hidden = max(n for n in range(1, config["hidden_size"]) if heads * config["head_dim"] % n == 0)
        if heads == config["num_heads"]:
            return [("hidden_size", hidden, "pca")]
        return [("hidden_size", hidden, "pca"), ("mamba_num_heads", heads, "energy at mamba.out")]
    letters = config.get("hybrid_override_pattern") or [LETTERS[kind] for kind in config["layers_block_type"]]
    axes = [("hidden_size", max(1, config["hidden_size"] * 3 // 4), "pca")]
    if "M" in letters:
        per_group = config["mamba_num_heads"] // config["n_groups"]
        if per_group > 1:
            axes.append(("mamba_num_heads", (per_group - 1) * config["n_groups"], "energy at mamba.out"))
        if config["mamba_head_dim"] > 2:
            axes.append(("mamba_head_dim", config["mamba_head_dim"] - 1, "energy at mamba.out"))
    if "-" in letters:
        axes.append(("ffn_hidden_size", config["intermediate_size"] * 3 // 4, "energy at ffn.act"))
    if len(letters) > 3:
        axes.append(("num_layers", len(letters) - 1, "cosine"))
    return axes


def minic_model(minic, folder, axes, how, damping):
    text = "\n    ".join(f"axis {name} = {size} by {score}" for name, size, score in axes)
    (folder / "recipe.mrecipe").write_text(RECIPE.format(parent="parent", axes=text, how=how, damping=damping, sequence=SEQUENCE))
    command = [str(minic), "run", "recipe.mrecipe", "--overwrite", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-800:]}")
    return json.loads((folder / "cut" / "provenance.json").read_text())["steps"][-1]


@torch.no_grad()
def seen(model, ids, layer=None):
    """What norms and last matrices are given, and what these give, layer by layer."""
    record, hooks = {}, []
    base = model.base_model

    def keep(key, which):
        def hook(module, given, result):
            value = given[0] if which == "in" else result
            record.setdefault(key, []).append((value[0] if isinstance(value, tuple) else value).double().flatten(0, -2))
        return hook

    norms = [*[(i, one.norm) for i, one in enumerate(base.layers)], ("last", base.norm_f)]
    hooks += [norm.register_forward_hook(keep(("norm", i), "in")) for i, norm in norms]
    for i, one in enumerate(base.layers):
        hooks.append(writer(one).register_forward_hook(keep(("read", i), "in")))
        hooks.append(one.register_forward_hook(keep(("stream", i), "out")))
    model(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return {key: torch.cat(values) for key, values in record.items()}


def writer(layer):
    return next(getattr(layer.mixer, name) for name in WRITERS if hasattr(layer.mixer, name))


def entries(step, axis, layer, size):
    """Kept indices of one layer."""
    for record in step["axes"]:
        if record["axis"] == axis and str(layer) in record.get("kept_by_layer", {}):
            return torch.tensor(record["kept_by_layer"][str(layer)])
    return torch.arange(size)


def reference(parent, step, calibration, how, damping, folder):
    """The student in f64."""
    c, hidden = parent.config, step["after"]["dims"]["hidden_size"]
    base, eps = parent.base_model, parent.config.layer_norm_epsilon
    of_parent = seen(parent, calibration)
    covariance = 0
    for key, x in of_parent.items():
        if key[0] == "norm":
            x = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
            covariance = covariance + x.T @ x
    basis = torch.linalg.eigh(covariance)[1].flip(1)[:, :hidden]
    scale = math.sqrt(basis.shape[0] / hidden)
    student = AutoModelForCausalLM.from_pretrained(folder / "cut", dtype=torch.float32, attn_implementation="eager").double().eval()
    old, new = base, student.base_model
    with torch.no_grad():
        new.embeddings.weight.copy_(old.embeddings.weight @ basis)
        student.lm_head.weight.copy_((parent.lm_head.weight * old.norm_f.weight) @ basis)
        new.norm_f.weight.fill_(scale)
        layers = next((record["kept"] for record in step["axes"] if record["axis"] == "num_layers"), range(len(old.layers)))
        for i, after in zip(layers, new.layers):
            before = old.layers[i]
            after.norm.weight.fill_(scale)
            was, now = dict(before.mixer.named_parameters()), dict(after.mixer.named_parameters())
            rows, columns = {}, {}
            if "in_proj.weight" in was:
                mixer = before.mixer
                heads, width, states = mixer.num_heads, mixer.head_dim, 2 * mixer.n_groups * mixer.ssm_state_size
                h = entries(step, "mamba_num_heads", i, heads)
                x = (h[:, None] * width + entries(step, "mamba_head_dim", i, width)).flatten()
                inner = heads * width
                rows["in_proj"] = torch.cat([x, inner + x, torch.arange(2 * inner, 2 * inner + states), 2 * inner + states + h])
                rows["conv1d"] = torch.cat([x, torch.arange(inner, inner + states)])
                rows |= {name: h for name in ("A_log", "D", "dt_bias")} | {"norm": x}
                columns["out_proj"] = x
            elif "up_proj.weight" in was:
                rows["up_proj"] = columns["down_proj"] = entries(step, "ffn_hidden_size", i, was["up_proj.weight"].shape[0])
            for name, value in was.items():
                part, kind = (name.split(".") + ["weight"])[:2]
                if part in READERS and kind == "weight":
                    value = (value * before.norm.weight) @ basis
                if part in WRITERS:
                    value = basis.T @ value
                if part in columns and kind == "weight":
                    value = value[:, columns[part]]
                if part in rows:
                    value = value[rows[part]]
                now[name].copy_(value)
        solve(student, list(layers), of_parent, old.embeddings.weight[calibration].flatten(0, 1), basis, calibration, how, damping)
    return student


def solve(student, layers, of_parent, embedded, basis, calibration, how, damping):
    """Every matrix that writes to the stream, in order: ridge towards the one that stands there."""
    before, lost = embedded, 0
    for i in range(max(layers) + 1):
        after = of_parent["stream", i]
        if i not in layers:
            before, lost = after, lost + (after - before) @ basis
            continue
        own_index = layers.index(i)
        layer = student.base_model.layers[own_index]
        matrix = writer(layer)
        if how == "sequential":
            of_student = seen(student, calibration)
            read, own = of_student["read", own_index], of_student["norm", own_index] + lost
        else:
            read, own = read_alone(layer, before @ basis, calibration.shape), before @ basis
        wanted = after @ basis - own - (0 if matrix.bias is None else matrix.bias)
        gram = read.T @ read
        gram_ridge = gram + damping / 100 * gram.diagonal().mean() * torch.eye(len(gram))
        plain = matrix.weight.clone()
        matrix.weight.add_(torch.linalg.solve(gram_ridge, read.T @ wanted - gram @ plain.T).T)
        before = after


def read_alone(layer, stream, shape):
    """What the last matrix of a block is given for these streams."""
    record = []
    hook = writer(layer).register_forward_hook(lambda module, given, result: record.append(given[0].flatten(0, -2)))
    mask = torch.full((shape[1], shape[1]), -math.inf).triu(1)[None, None] if hasattr(layer.mixer, "o_proj") else None
    layer(stream.view(*shape, -1), attention_mask=mask)
    hook.remove()
    return torch.cat(record)


def loss_of(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten()).item()


def compare(name, minic, folder, calibration, held, how, damping):
    config = json.loads((folder / "parent" / "config.json").read_text())
    axes = axes_of(config)
    step = minic_model(minic, folder, axes, how, damping)
    made = load(folder / "cut")
    with torch.no_grad():
        found = made(held, use_cache=False).logits
    with widened(), torch.no_grad():
        parent = load(folder / "parent").double()
        expected = reference(parent, step, calibration, how, damping, folder)(held, use_cache=False).logits.double()
    difference = ((found.double() - expected).abs().max() / expected.abs().max()).item()
    losses = loss_of(expected, held), loss_of(found, held)
    print(f"{name:28} {how or 'local':10} {losses[0]:10.6f} {losses[1]:10.6f} {losses[1] - losses[0]:+9.1e} {difference:9.1e}", flush=True)
    return losses


SEQUENCE = 64


def main():
    global SEQUENCE
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minic", default=ROOT / "target/release/minic", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--tokens", type=Path, help="windows [rows, positions]; the last quarter is held out")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--damping", type=float, default=1.0)
    parser.add_argument("--golden", type=Path)
    options = parser.parse_args()
    worst = []
    print(f"{'checkpoint':28} {'repair':10} {'f64':>10} {'minic':>10} {'loss':>9} {'logits':>9}")
    with tempfile.TemporaryDirectory() as place:
        names = [options.checkpoint.name] if options.checkpoint else [n for n in CASES if options.only in n]
        for name in names:
            folder = Path(place) / name
            folder.mkdir()
            if options.checkpoint:
                (folder / "parent").symlink_to(options.checkpoint.resolve())
                ids = torch.from_numpy(numpy.load(options.tokens).astype(numpy.int64))
                cut = len(ids) * 3 // 4
                calibration, held = ids[:cut], ids[cut:]
            else:
                write(CASES[name], folder / "parent")
                vocabulary = json.loads((folder / "parent" / "config.json").read_text())["vocab_size"]
                calibration, held = tokens(vocabulary, 24, 64, 1), tokens(vocabulary, 4, 64, 2)
            if json.loads((folder / "parent" / "config.json").read_text()).get("tie_word_embeddings"):
                print(f"{name:28} left out: its head is tied to the embedding")
                continue
            SEQUENCE = calibration.shape[1]
            numpy.save(folder / "calibration.npy", calibration.numpy().astype(numpy.uint32))
            golden = {"axes": axes_of(json.loads((folder / "parent" / "config.json").read_text())), "damping": options.damping}
            golden |= {"calibration": calibration.tolist(), "held": held.tolist(), "loss": {}}
            for how in ("sequential", ""):
                expected, found = compare(name, options.minic.resolve(), folder, calibration, held, how, options.damping)
                worst.append(abs(found - expected))
                golden["loss"][how or "local"] = expected
            if options.golden:
                options.golden.mkdir(parents=True, exist_ok=True)
                (options.golden / f"{name}.json").write_text(json.dumps(golden) + "\n")
    print(f"largest difference of a loss: {max(worst, default=math.nan):.1e}")
    sys.exit(0 if worst and max(worst) <= options.tolerance else 1)


if __name__ == "__main__":
    main()
