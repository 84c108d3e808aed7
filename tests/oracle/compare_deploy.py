#!/usr/bin/env python3
"""Show that `deploy MODEL for hf` tells the truth: what it accepts loads in transformers, and what is refused does not.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors tokenizers numpy
    cargo build --release
    venv/bin/python tests/oracle/compare_deploy.py [--minic target/release/minic] [--only SUBSTRING]

A small checkpoint of each family is cut by a recipe with `deploy cut for hf`, once for each line of CASES. `minic check` says one of three things:

    accepted  no finding. `minic run` exports the model, and transformers must load it with no tensor missing, left over or of another shape,
              compute finite logits, and go on token by token with its cache (compare_decode.py compares the values).
    careful   W0901. It must load as above and compute without a cache, and its own cache must fail.
    refused   an error. A model of exactly these sizes is described to transformers without minic, which must refuse the config, fail to compute,
              or leave channels out of the groups of its norm.

Exit code 1 if minic says something else than CASES, or transformers does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from transformers import AutoModelForCausalLM, Mamba2Config, Mamba2ForCausalLM, NemotronHConfig, NemotronHForCausalLM

from checkpoints import mamba2, nemotron, tokens, write

ROOT = Path(__file__).resolve().parents[2]
PARENTS = {
    "nemotron_h": nemotron(50, hybrid_override_pattern="M-*M-M", mamba_num_heads=8, mamba_head_dim=6, n_groups=4, intermediate_size=24),
    "mamba2": mamba2(51, hidden_size=16, expand=2, num_heads=8, head_dim=4, n_groups=2),
}
KEYS = {
    "nemotron_h": {"mamba_num_heads": "mamba_num_heads", "mamba_head_dim": "mamba_head_dim", "ffn_hidden_size": "intermediate_size",
                   "hidden_size": "hidden_size"},
    "mamba2": {"mamba_num_heads": "num_heads", "mamba_head_dim": "head_dim", "hidden_size": "hidden_size"},
}
# Family, sizes, attention layers that are kept, and what minic says.
CASES = [
    ("nemotron_h", {"mamba_num_heads": 4}, 1, "accepted"),
    ("nemotron_h", {"mamba_head_dim": 5}, 1, "accepted"),
    ("nemotron_h", {"ffn_hidden_size": 17}, 1, "accepted"),
    ("nemotron_h", {"hidden_size": 11}, 1, "accepted"),
    ("nemotron_h", {"num_layers": 4}, 1, "accepted"),
    ("nemotron_h", {"mamba_num_heads": 4, "mamba_head_dim": 1, "ffn_hidden_size": 1, "hidden_size": 3, "num_layers": 3}, 1, "accepted"),
    ("mamba2", {"mamba_num_heads": 4}, 0, "accepted"),
    ("mamba2", {"mamba_head_dim": 2}, 0, "accepted"),
    ("mamba2", {"hidden_size": 8}, 0, "accepted"),
    ("mamba2", {"mamba_num_heads": 6, "hidden_size": 12}, 0, "accepted"),
    ("mamba2", {"num_layers": 1}, 0, "accepted"),
    ("nemotron_h", {"num_layers": 4}, 0, "careful"),
    ("nemotron_h", {"mamba_num_heads": 6}, 1, "refused"),
    ("nemotron_h", {"mamba_num_heads": 7}, 1, "refused"),
    ("mamba2", {"mamba_num_heads": 6}, 0, "refused"),
    ("mamba2", {"mamba_head_dim": 3}, 0, "refused"),
    ("mamba2", {"hidden_size": 12}, 0, "refused"),
    ("mamba2", {"mamba_num_heads": 3, "hidden_size": 12}, 0, "refused"),
]


def recipe(family, sizes, attention):
    """A recipe that cuts `parent` to these sizes."""
    depth = "num_layers" in sizes
    lines = [f"    axis {axis} = {size} by {'kld' if axis == 'num_layers' else 'random(seed = 1)'}" for axis, size in sizes.items()]
    group = f"group layers {{ keep attention {attention} }}" if depth and family == "nemotron_h" else ""
    data = 'data text { files = ["text.npy"]; sequence = 16 }' if depth else ""
    return "\n".join([
        "mrecipe 1", 'model parent { checkpoint = "parent"; dt_floor = 0 }', data, group,
        "prune cut from parent {", *(["    calibrate on text"] if depth else []), *(["    under layers"] if group else []), *lines, "}",
        'export cut to "cut"', "deploy cut for hf", "",
    ])


def verdict(minic, path):
    """What `minic check` says, in one of three words, and its codes."""
    done = subprocess.run([minic, "check", "--json", path], capture_output=True, text=True)
    codes = [found["code"] for found in json.loads(done.stdout)]
    if any(code.startswith("E") for code in codes):
        return "refused", codes
    return ("careful" if "W0901" in codes else "accepted"), codes


def loads(folder):
    """The model, after transformers has found every tensor in its place."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    left = {name: found for name, found in info.items() if found and name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return model.eval(), left


@torch.no_grad()
def computes(model, cached):
    """The logits of a few tokens are finite: at once, and with its cache token by token."""
    ids = torch.as_tensor(tokens(model.config.vocab_size, 1, 12, seed=3))
    whole = model(ids, use_cache=False).logits
    assert bool(whole.isfinite().all()), "logits are not finite"
    if not cached:
        return "computes"
    state, name = None, "cache_params" if model.config.model_type == "mamba2" else "past_key_values"
    for at in range(ids.shape[1]):
        out = model(ids[:, at:at + 1], **{name: state}, use_cache=True)
        state = getattr(out, name)
        assert bool(out.logits.isfinite().all()), "logits are not finite with a cache"
    return "computes, with a cache and without"


def refusal(family, sizes):
    """Why transformers cannot hold a model of these sizes, or None."""
    config = {**PARENTS[family]["config"], **{KEYS[family][axis]: size for axis, size in sizes.items()}}
    kinds = (NemotronHConfig, NemotronHForCausalLM) if family == "nemotron_h" else (Mamba2Config, Mamba2ForCausalLM)
    try:
        model = kinds[1](kinds[0](**config)).eval()
        computes(model, cached=False)
    except Exception as error:  # transformers raises many kinds
        return f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    return None


def outcome(said, family, sizes, minic, path):
    """What transformers says of it, and whether that is what it should."""
    if said == "refused":
        why = refusal(family, sizes)
        return why or "transformers takes it", why is not None
    done = subprocess.run([minic, "run", path], capture_output=True, text=True, cwd=path.parent)
    if done.returncode != 0:
        return f"minic run: exit {done.returncode}: {done.stderr.strip()[-200:]}", False
    model, left = loads(path.parent / "cut")
    if left:
        return str(left), False
    if said == "accepted":
        return "all tensors in place, " + computes(model, cached=True), True
    computes(model, cached=False)
    try:
        computes(model, cached=True)
    except ValueError as error:
        return f"all tensors in place, computes; its cache: {str(error)[:60]}", True
    return "its cache works", False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minic", default=ROOT / "target/release/minic", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    failed = compared = 0
    for family, sizes, attention, expected in CASES:
        name = f"{family} " + ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        name += ", no attention" if family == "nemotron_h" and attention == 0 else ""
        if arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(PARENTS[family], folder / "parent")
            ids = tokens(PARENTS[family]["config"]["vocab_size"], 8, 16, seed=1)
            numpy.save(folder / "text.npy", numpy.asarray(ids, dtype=numpy.int32))
            path = folder / "cut.mrecipe"
            path.write_text(recipe(family, sizes, attention))
            said, codes = verdict(arguments.minic.resolve(), path)
            shown, good = outcome(said, family, sizes, arguments.minic.resolve(), path)
        good &= said == expected
        compared += 1
        failed += not good
        print(f"{'ok' if good else 'FAILED':6} {name}\n       minic: {' '.join([said, *codes])}\n       transformers: {shown}", flush=True)
    print(f"{compared - failed} of {compared} as expected")
    sys.exit(failed > 0 or compared == 0)


if __name__ == "__main__":
    main()
